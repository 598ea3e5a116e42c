"""What a leaderboard says beyond its records, and how its files are compared with what is there."""

from __future__ import annotations

import hashlib
import io
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Files = dict[Path, str | bytes]
DRAWING = 1  # raised when a figure of the same numbers is drawn in another way
DPI = 130


@dataclass(frozen=True, slots=True)
class Question:
    """A pair of models that the page speaks about.

    Attributes:
        text: The question.
        first: Slug.
        second: Slug of what it is compared with.
    """

    text: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Board:
    """A leaderboard: a folder with `leaderboard.toml` and `runs/`.

    Attributes:
        folder: Where it is.
        kind: `comparison` of models, or `null`: retrainings of one model.
        title: Heading of the page.
        introduction: Paragraphs.
        questions: In order.
        limits: What the numbers do not say, a line each.
        related: What others have found, a line each.
        reproduce: How its records are made; see `reproduce.py`.
        metrics: Columns that the page shows, the first one deciding; empty for those of the profile.
        elsewhere: Runs of other boards with the same run ids, made on another machine; a pattern.
    """

    folder: Path
    kind: str
    title: str
    introduction: tuple[str, ...]
    questions: tuple[Question, ...]
    limits: tuple[str, ...]
    related: tuple[str, ...]
    reproduce: Mapping[str, Any]
    metrics: tuple[str, ...]
    elsewhere: str

    @classmethod
    def read(cls, folder: Path) -> Board:
        """The board of a folder."""
        content = tomllib.loads((folder / "leaderboard.toml").read_text(encoding="utf-8"))
        kind = content.get("kind", "comparison")
        if kind not in ("comparison", "null"):
            raise SystemExit(f"{folder}/leaderboard.toml: kind is comparison or null, found {kind!r}")
        return cls(
            folder=folder,
            kind=kind,
            title=content["title"],
            introduction=tuple(content["introduction"]),
            questions=tuple(Question(**question) for question in content.get("questions", ())),
            limits=tuple(content["limits"]),
            related=tuple(content.get("related", ())),
            reproduce=content["reproduce"],
            metrics=tuple(content.get("metrics", ())),
            elsewhere=content.get("elsewhere", ""),
        )

    @property
    def name(self) -> str:
        """Folder name."""
        return self.folder.name

    @property
    def records(self) -> list[dict[str, Any]]:
        """The content of every run.json, in the order of the folders' names."""
        return [json.loads((run / "run.json").read_text(encoding="utf-8")) for run in self.runs]

    @property
    def runs(self) -> list[Path]:
        """The folder of every run, by name."""
        return sorted(path.parent for path in self.folder.glob("runs/*/run.json"))

    @property
    def runs_elsewhere(self) -> list[Path]:
        """The folders of runs of another board that have the name of a run of this one."""
        own = {run.name for run in self.runs}
        found = self.folder.parent.glob(f"{self.elsewhere}/run.json") if self.elsewhere else ()
        return sorted(path.parent for path in found if path.parent.name in own)


def recipe_words(protocol: Mapping[str, Any]) -> str:
    """The protocol of a record in one sentence."""
    optimiser, section = protocol["optimiser"], protocol["augment"]
    changed = ", ".join(f"{name} {value}" for name, value in sorted(section["overrides"].items()))
    augmentation = f"{section['name']} with {changed}" if changed else section["name"]
    return (
        f"Protocol {protocol['name']} with changes: patch {'x'.join(map(str, protocol['patch']['size']))}, "
        f"{protocol['budget']['samples']} samples in batches of {protocol['sampling']['batch_size']}, "
        f"{optimiser['name']} with learning rate {optimiser['lr']:g}, augmentation {augmentation}, "
        f"mirroring in prediction over {', '.join(protocol['inference']['mirror_axes']) or 'no axis'}."
    )


def split_words(record: Mapping[str, Any]) -> str:
    """The split of a record in one sentence."""
    split = record["split"]
    fold = f", fold {record['fold']}" if split["name"].startswith("folds-") else ""
    return (
        f"Split {split['name']}{fold}: {len(split['train'])} cases for training, "
        f"{len(split['validation'])} for validation, {len(split['test'])} for the test; "
        f"digest `{split['digest'][:12]}`."
    )


def profile_words(record: Mapping[str, Any]) -> str:
    """How a record was scored, in one sentence."""
    return f"Scored by the metric profile `{record['metric_profile']['name']}`."


def machine_words(records: Sequence[Mapping[str, Any]]) -> str:
    """Where the runs of a board were made."""
    machines = dict.fromkeys(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}"
        for machine in (record["machine"] for record in records)
    )
    commits = sorted({str(record["segbench"]["git"]["commit"])[:12] for record in records})
    return (
        f"Machine: {' and '.join(machines)}, no GPU, other work "
        f"beside it: the hours are no measurement of speed. segbench at {', '.join(commits)}."
    )


def pipe_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, words: Sequence[int] = (0,)) -> str:
    """A Markdown table; the columns of `words` are set to the left."""
    lines = [heads, [":---" if place in words else "---:" for place in range(len(heads))], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def figure_digest(numbers: Any) -> str:
    """Digest of what a figure shows, to six digits: the last bits of a sum differ between machines."""

    def short(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): short(item) for key, item in value.items()}
        if isinstance(value, str) or value is None:
            return value
        return [short(item) for item in value] if hasattr(value, "__iter__") else f"{float(value):.6g}"

    return hashlib.sha256(json.dumps([DRAWING, short(numbers)]).encode()).hexdigest()


def drawn(draw: Callable[[], Figure], digest: str, there: Path) -> bytes:
    """A figure as PNG that names the digest of its numbers; the file that is there, where it names the same.

    The bytes of a picture depend on the versions of matplotlib and its libraries, its numbers do not.
    """
    from PIL import Image

    from segbench.report.write.figures import style

    if there.is_file():
        with Image.open(there) as picture:
            if picture.info.get("Description") == digest:
                return there.read_bytes()
    stream = io.BytesIO()
    with style():
        draw().savefig(stream, format="png", dpi=DPI, metadata={"Description": digest, "Software": None})
    return stream.getvalue()
