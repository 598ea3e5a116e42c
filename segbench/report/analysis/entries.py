"""What a row of a table is, an `Entry`: all runs that differ in nothing but fold and seed; and which rows may
be compared.

Runs of different identity are never averaged; two runs that share identity, fold and seed are refused, unless
their rows are equal. What contradicts in data, split or scoring rules is set apart with the differing field
named, and nothing is ranked or tested across such groups; recipes may differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from segbench.cards.bibtex import parse_bibtex
from segbench.core.errors import SegbenchError, unknown_name
from segbench.core.hashing import digest_json
from segbench.core.text import one_line
from segbench.records import facts
from segbench.records.conditions import UNKNOWN, VERSIONED, Identity, identity_of, rules
from segbench.report.read.runs import Run, data_facts

LABEL_FIELDS = 3  # differences named in a label before the digest of the run id stands in their place
LONGEST = 40  # characters of a difference in a label, and of a short name; what is longer is cut
FAMILIES: Mapping[str, str] = {
    "convolution": "Convolution",
    "transformer": "Transformer",
    "mamba": "Mamba",
    "floor": "Baseline",
}
"""Families of model cards as table heads, in table order; predictions of other tools stand under `Other`."""
OTHER_FAMILY = "Other"


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A row: the runs of one identity, each (fold, seed) covered once.

    Attributes:
        label: name of the row, different for each entry of one dataset; the same model with the same
            settings has the same label on every dataset.
        identity: what its runs share.
        runs: by fold and seed.
        copies: runs left out because their rows equal those of another run of the entry.
        short: name in tables and figures, different for each label.
        title: name in full, at its first mention.
        family: head of its group in Table 1.
        bibtex: the entry of its paper, empty where none is known.
    """

    label: str
    identity: Identity
    runs: tuple[Run, ...]
    copies: tuple[Run, ...] = ()
    short: str = ""
    title: str = ""
    family: str = ""
    bibtex: str = ""

    @property
    def model(self) -> str:
        """Slug or label of the model."""
        return self.identity.model

    @property
    def dataset(self) -> str:
        """Slug of the dataset."""
        return self.identity.dataset

    @property
    def baseline(self) -> bool:
        """Whether this is a predictor without learning: shown in a line of its own, never ranked."""
        return self.identity.kind == "floor"

    @property
    def reader(self) -> bool:
        """Whether this is another person's segmentation: a ceiling above the models, never ranked."""
        return facts.table(self.runs[0].record.external).get("reader") is True


def build_entries(runs: Iterable[Run], *, select: Sequence[str] = ()) -> tuple[Entry, ...]:
    """Runs as entries, by dataset and label.

    Args:
        runs: runs that may be reported.
        select: which run to take where several cover the same entry, fold and seed: run ids, or `newest`.

    Raises:
        SegbenchError: SB702 when two runs with different rows cover the same entry, fold and seed, SB101 for
            a selected run that is not there.
    """
    runs = list(runs)
    for name in set(select) - {"newest"}:
        if name not in {run.run_id for run in runs}:
            raise unknown_name("run", name, [run.run_id for run in runs], listing="segbench list runs")
    groups: dict[str, list[tuple[dict[tuple[str, ...], object], list[Run]]]] = {}
    identities: dict[str, Identity] = {}
    for run in sorted(runs, key=lambda run: run.key):
        identity, data = identity_of(run.record), data_facts(run)
        identities.setdefault(identity.digest, identity)
        parts = groups.setdefault(identity.digest, [])
        home = next((p for p in parts if all(p[0][key] == data[key] for key in p[0].keys() & data)), None)
        if home is None:
            home = ({}, [])
            parts.append(home)
        home[0].update(data)
        home[1].append(run)
    bare = [
        _covered_once(identities[digest], part, select)
        for digest, parts in groups.items()
        for _, part in parts
    ]
    made = [replace(entry, label=name) for name, entry in zip(entry_labels(bare), bare, strict=True)]
    return named(sorted(made, key=lambda entry: (entry.dataset, entry.label)))


def _covered_once(identity: Identity, runs: Sequence[Run], select: Sequence[str]) -> Entry:
    """The entry of some runs of one identity: one run for each fold and seed, equal rows counted once."""
    kept: dict[tuple[int, int], Run] = {}
    copies: list[Run] = []
    for run in runs:
        other = kept.get((run.fold, run.seed))
        if other is None:
            kept[run.fold, run.seed] = run
        elif run.rows is not None and other.rows is not None and run.rows.digest == other.rows.digest:
            copies.append(run)
        else:
            kept[run.fold, run.seed] = _selected([other, run], select)
    seen: dict[tuple[int, str], Run] = {}
    for key, run in sorted(kept.items()):
        if run.rows is None:
            continue
        first = seen.setdefault((run.fold, run.rows.digest), run)
        if first is not run:
            copies.append(kept.pop(key))
    ordered = tuple(run for _, run in sorted(kept.items()))
    return Entry(identity.model, identity, ordered, tuple(copies))


def _selected(runs: Sequence[Run], select: Sequence[str]) -> Run:
    """The run that `--select` names among several of one entry, fold and seed."""
    named = [run for run in runs if run.run_id in select]
    if len(named) == 1:
        return named[0]
    dated = [run for run in runs if run.record.created]
    if "newest" in select and len(dated) == len(runs):
        return max(runs, key=lambda run: (run.record.created or "", run.run_id))
    first = runs[0]
    raise SegbenchError(
        "SB702",
        f"{len(runs)} runs of {first.model} on {first.dataset} cover fold {first.fold}, seed {first.seed}; "
        "their scores are never averaged",
        details=[f"{run.run_id}{_where(run)}" for run in runs],
        mend="--select newest, --select RUN, or score predictions again under another --name",
    )


def _where(run: Run) -> str:
    source = (run.record.external or {}).get("prediction")
    made = f", made {run.record.created}" if run.record.created else ""
    return f" (predictions {source}{made})" if source else f" ({made[2:]})" if made else ""


def entry_labels(entries: Sequence[Entry]) -> list[str]:
    """A name for each entry: the model, and where a dataset has several of it, what tells them apart.

    The fields named are the fewest that separate the entries of each dataset; every entry of the model is
    then named by them, so that the same settings have the same name on every dataset.
    """
    described = [_differences(entry) for entry in entries]
    labels = [one_line(entry.model) for entry in entries]
    for model in sorted({entry.model for entry in entries}):
        members = [place for place, entry in enumerate(entries) if entry.model == model]
        chosen = _separating([(entries[place].dataset, described[place]) for place in members])
        for place in members:
            words = [described[place][name] for name in chosen if described[place].get(name)]
            if words:
                labels[place] = f"{labels[place]} ({', '.join(words)})"
    return _unique(entries, labels)


def _unique(entries: Sequence[Entry], labels: list[str]) -> list[str]:
    """Labels in which entries of one dataset that still share one get the digits of their run ids, and a
    number where these are equal too.
    """
    shared = Counter((entry.dataset, label) for entry, label in zip(entries, labels, strict=True))
    named: list[str] = []
    for entry, label in zip(entries, labels, strict=True):
        text = f"{label} [{entry.runs[0].run_id[-8:]}]" if shared[entry.dataset, label] > 1 else label
        number = sum(1 for other, name in zip(entries, named, strict=False) if other.dataset == entry.dataset
                     and name.partition(" #")[0] == text)  # fmt: skip
        named.append(f"{text} #{number + 1}" if number else text)
    return named


def _separating(members: Sequence[tuple[str, Mapping[str, str]]]) -> tuple[str, ...]:
    """The fewest fields that tell the entries of each dataset apart; empty when there is nothing to tell."""
    datasets: dict[str, list[Mapping[str, str]]] = {}
    for dataset, words in members:
        datasets.setdefault(dataset, []).append(words)
    crowded = [group for group in datasets.values() if len(group) > 1]
    if not crowded:
        return ()
    names = list(dict.fromkeys(name for group in crowded for words in group for name in words))
    differing = [
        name for name in names if any(len({words.get(name) for words in group}) > 1 for group in crowded)
    ]
    chosen: list[str] = []
    everyone = sum(map(len, crowded))
    while differing and len(chosen) < LABEL_FIELDS and _told_apart(crowded, chosen) < everyone:
        best = max(differing, key=lambda name: _told_apart(crowded, [*chosen, name]))
        chosen.append(best)
        differing.remove(best)
    return tuple(chosen)


def _told_apart(groups: Sequence[Sequence[Mapping[str, str]]], names: Sequence[str]) -> int:
    return sum(len({tuple(words.get(name) for name in names) for words in group}) for group in groups)


def _differences(entry: Entry) -> dict[str, str]:
    """What a label may name of an entry, short words by field, most telling first."""
    identity = entry.identity
    words: dict[str, str] = {}
    parts = (("argument", identity.arguments), ("recipe", identity.recipe), ("setting", identity.settings))
    for section, value in parts:
        for name, item in value.items() if isinstance(value, dict) else ():
            words[f"{section} {name}"] = _short(f"{name.rpartition('.')[2]} {value_words(item)}")
    unknown = identity.code.startswith(UNKNOWN)
    packaged = identity.code.startswith(VERSIONED)
    known = f"code {identity.code[:6]}" if identity.code and not packaged else identity.code
    known = known or "code not recorded"
    words["code"] = f"code unknown, {identity.code[-12:]}" if unknown else known
    words["kind"] = identity.kind
    words["implementation"] = _short(identity.implementation.rpartition(":")[2])
    words["split"] = _short(f"split {identity.split}")
    for name, item in identity.rules.items() if isinstance(identity.rules, dict) else ():
        words[f"rules {name}"] = _short(f"{name} {value_words(item)}")
    words["content"] = f"data {identity.content[:7]}" if identity.content else ""
    words["references"] = _short(_reference_words(entry.runs[0]))
    return words


def _reference_words(run: Run) -> str:
    """Which references a run was scored against: their folder, else the digest of the first label map."""
    folder = (run.record.external or {}).get("reference")
    if isinstance(folder, str) and folder:
        return f"references {'/'.join(folder.replace(chr(92), '/').rstrip('/').split('/')[-2:])}"
    digests = sorted((run.record.references or {}).items())
    return f"references {digests[0][1][:6]}" if digests else ""


def value_words(value: object) -> str:
    """A value of a recipe or rule in a few characters: `0.01`, `128x128x64`, `none` for an empty list."""
    if isinstance(value, list | tuple):
        return "x".join(map(value_words, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _short(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 7]}~{digest_json(line)[:6]}"


def named(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The entries with their printed names; entries of one label share theirs."""
    names = {entry.label: _named(entry) for entry in reversed(entries)}
    counts = Counter(entry.short for entry in names.values())
    taken: set[str] = set()
    for label, entry in sorted(names.items()):
        short = entry.short if counts[entry.short] == 1 else label
        text = short if len(short) <= LONGEST else short[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
        number = 2
        while text in taken:
            text = f"{short[: LONGEST - 5]}\N{HORIZONTAL ELLIPSIS} ({number})"
            number += 1
        taken.add(text)
        names[label] = replace(entry, short=text)
    fields = ("short", "title", "family", "bibtex")
    known = {label: {name: getattr(entry, name) for name in fields} for label, entry in names.items()}
    return tuple(replace(entry, **known[entry.label]) for entry in entries)


def _named(entry: Entry) -> Entry:
    """The entry with names from the card of the suite, else the record's copy of it, else the slug."""
    from segbench.cards import load_model_card

    record = entry.runs[0].record
    card = facts.table(record.model, "card")
    family = facts.text(card, "family") or facts.text(record.model, "family")
    title = facts.text(record.model, "title").strip() or facts.text(card, "title").strip()
    short = facts.text(card, "short_name")
    bibtex = _checked_bibtex(facts.text(card, "bibtex"))
    if entry.identity.kind != "external" or not family:
        try:
            own = load_model_card(entry.model)
        except SegbenchError:
            pass
        else:
            title, short, family, bibtex = own.title, own.short_name, own.family, own.bibtex
    difference = entry.label.removeprefix(one_line(entry.model))
    title = one_line(title or entry.model).strip() or "?"
    short = one_line(short or entry.model).strip() or "?"
    return replace(
        entry,
        short=short + difference,
        title=title + difference,
        family=FAMILIES.get(family, OTHER_FAMILY),
        bibtex=bibtex,
    )


def _checked_bibtex(text: str) -> str:
    """The entry of a record, which no card has checked; empty where it is not one."""
    try:
        return parse_bibtex(text).text()
    except ValueError:
        return ""


def pseudonyms(runs: Sequence[Run]) -> dict[tuple[str, str], str]:
    """`case-001` and so on for each (dataset, case); with several datasets after the dataset's name.

    Numbers follow the sorted ids of a dataset, so that order, draws and results stay the same.
    """
    ids: dict[str, set[str]] = {}
    for run in runs:
        cases = set(run.rows.case) if run.rows is not None else set()
        ids.setdefault(run.dataset, set()).update(cases | set(facts.split(run.record).test or ()))
    names: dict[tuple[str, str], str] = {}
    for dataset, cases in ids.items():
        width = max(3, len(str(len(cases))))
        prefix = f"{dataset}-case-" if len(ids) > 1 else "case-"
        for number, case in enumerate(sorted(cases), start=1):
            names[dataset, case] = f"{prefix}{number:0{width}d}"
    return names


def comparable(
    entries: Sequence[Entry], case_names: Mapping[str, str]
) -> list[tuple[list[Entry], tuple[str, ...]]]:
    """Entries of one dataset in groups that may be compared, with what keeps each from those before it.

    Data and split are compared on what both records know, rules on the fields that both name. Recipes may
    differ, and so may the regions that were asked for; one region with other labels is a difference.
    """
    groups: list[tuple[dict[tuple[str, ...], object], list[Entry]]] = []
    differs: list[tuple[str, ...]] = []
    for entry in entries:
        known = _known(entry)
        reasons: dict[str, None] = {}
        for facts_of_group, members in groups:
            found = _contradictions(facts_of_group, known, (members[0].label, entry.label), case_names)
            if not found:
                facts_of_group.update(known)
                members.append(entry)
                break
            reasons.update(dict.fromkeys(found))
        else:
            groups.append((known, [entry]))
            differs.append(tuple(reasons))
    return [(members, lines) for (_, members), lines in zip(groups, differs, strict=True)]


def _known(entry: Entry) -> dict[tuple[str, ...], object]:
    """Data, split and rules of an entry under one set of keys; unknown ones are absent."""
    found: dict[tuple[str, ...], object] = {}
    for run in entry.runs:
        found |= data_facts(run)
    found |= {("rule", name): str(value) for name, value in rules(entry.runs[0].record).items()}
    if entry.identity.kind == "trained":  # with pretraining and without: two questions, two tables
        found["rule", "start"] = "from scratch" if entry.runs[0].record.init is None else "pretrained"
    content = entry.identity.content
    if content not in ("", UNKNOWN) and not any(run.record.references for run in entry.runs):
        found["dataset files", entry.dataset] = content
    return found


def _contradictions(
    a: Mapping[tuple[str, ...], object],
    b: Mapping[tuple[str, ...], object],
    who: tuple[str, str],
    case_names: Mapping[str, str],
) -> list[str]:
    """In what two sets of facts are known to differ, a line for each kind of data and for each rule."""
    found: dict[str, None] = {}
    for key in sorted(a.keys() & b.keys()):
        if a[key] == b[key]:
            continue
        if key[0] == "rule":
            found[f"{key[1]} is {a[key]} for {who[0]}, {b[key]} for {who[1]}"] = None
        elif not any(line.startswith(f"{key[0]} ") for line in found):
            found[f"{key[0]} differs ({case_names.get(key[1], key[1])}; {who[0]} / {who[1]})"] = None
    return list(found)
