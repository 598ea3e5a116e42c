"""The code of a network that is not segbench's own: part of the run id, found without importing anything.

An edited network is another experiment. Its digest covers every Python file of the top-level package that the
card names (or the one module), and the modules beside it that these import. segbench's own networks are held
by their fingerprints; MONAI is a pinned dependency, held by its version and the cards' fingerprints.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.machinery
import importlib.util
import site
import sys
import sysconfig
from contextlib import suppress
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.cards import ModelCard
from segbench.core.errors import SegbenchError
from segbench.records.schema import CodeRecord

if TYPE_CHECKING:
    from torch import nn

OWN = "segbench"
PINNED = frozenset(("monai",))
"""Base dependencies whose networks have cards here: the version is recorded, the files are not hashed."""


def code_of(card: ModelCard) -> CodeRecord | None:
    """Package, version and digest of a model's code as it lies on disk now; None for segbench's own.

    The digest is None for pinned packages, and where the package is not found: the cell then says so.
    """
    package = card.implementation.partition(":")[0].partition(".")[0]
    if package == OWN:
        return None
    digest = None if package in PINNED else _digest(package)
    return CodeRecord(package=package, version=_version(package), digest=digest)


def structure_of(network: nn.Module) -> dict[str, Any]:
    """What the code built, as the last fields of a `CodeRecord`."""
    from segbench.networks.fingerprint import keys_digest

    parameters = dict(network.named_parameters())
    count = sum(parameter.numel() for parameter in parameters.values())
    return {"fingerprint": keys_digest(parameters), "parameters": count}


def check_code(card: ModelCard, planned: CodeRecord | None, folder: Path) -> None:
    """Import the network and see that it is the code the run was planned with: later edits do not reach it.

    Raises:
        SegbenchError: SB338 when it was edited since; what resolving the implementation raises.
    """
    from segbench.networks.registry import resolve_implementation

    if planned is None or planned.digest is None:
        return
    resolve_implementation(card)
    now = code_of(card)
    if now is None or now.digest != planned.digest:
        raise changed_code(planned, now, folder)


def changed_code(planned: CodeRecord, now: CodeRecord | None, folder: Path) -> SegbenchError:
    """The error of a run whose network was edited after it was planned."""
    return SegbenchError(
        "SB338",
        f"the code of {planned.package} has changed since this run was planned",
        path=folder,
        expected=f"sha256 {(planned.digest or 'unknown')[:12]}",
        found=f"sha256 {(now.digest if now and now.digest else 'not found')[:12]}",
        mend="take the edit back, or give the segbench run command again: edited code gets its own run",
    )


@lru_cache  # looking through every installed distribution takes most of a second
def _version(package: str) -> str | None:
    """Version of the distribution that a top-level package comes from, None when it is not installed."""
    try:
        return metadata.version(package)
    except (metadata.PackageNotFoundError, ValueError):
        names = metadata.packages_distributions().get(package, ())
        return metadata.version(names[0]) if names else None


def _digest(package: str) -> str | None:
    """Sha256 over names and contents of a package's sources and of the modules beside it that they import."""
    importlib.invalidate_caches()
    places = _places(package)
    if not places:
        return None
    files = {name: data for place in places for name, data in _sources(place, package).items()}
    beside = places[0].parent
    seen = {package, OWN}
    fresh = {} if _is_library(beside) else files
    while fresh:
        wanted = {name for data in fresh.values() for name in _imports(data)} - seen
        seen |= wanted
        found = [(place, name) for name in wanted if (place := _beside(name, beside)) is not None]
        fresh = {name: data for place, package in found for name, data in _sources(place, package).items()}
        files |= fresh
    sha = hashlib.sha256()
    for name in sorted(files):
        sha.update(f"{name}\0{len(files[name])}\0".encode(errors="surrogateescape"))
        sha.update(files[name])
    return sha.hexdigest()


def _places(package: str) -> list[Path]:
    """Folders of a top-level package, or the file of a module, as a cell would find it; nothing is imported.

    Cells are started by `python -m segbench`, which looks into the current folder first.
    """
    here = [] if sys.flags.safe_path else [str(Path.cwd())]
    spec = importlib.machinery.PathFinder.find_spec(package, [*here, *sys.path])
    if spec is None or spec.origin is None:
        with suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(package) or spec  # finders of editable installations
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        return [Path(folder) for folder in spec.submodule_search_locations]
    return [Path(spec.origin)] if spec.origin is not None and Path(spec.origin).is_file() else []


def _beside(name: str, folder: Path) -> Path | None:
    """A package or module of that name in the same folder, None for any other."""
    inner, module = folder / name, folder / f"{name}.py"
    if any(inner.glob("*.py")):
        return inner
    return module if module.is_file() else None


def _is_library(folder: Path) -> bool:
    """Whether a folder is where packages are installed: what lies beside one there is not its author's."""
    places = [*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()]
    return folder.resolve() in {Path(place).resolve() for place in places}


def _sources(place: Path, name: str) -> dict[str, bytes]:
    """Python files of a package, or the file of a module, by name relative to where it lies."""
    if place.is_file():
        return {place.name: place.read_bytes()}
    return {
        f"{name}/{path.relative_to(place).as_posix()}": path.read_bytes()
        for path in place.rglob("*.py")
        if path.is_file()
    }


def _imports(source: bytes) -> set[str]:
    """Top-level names that a module imports; none where it is not Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return set()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found
