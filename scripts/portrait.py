"""Print how large the house is: lines, records, circles, longest file and function, folders, options.

`python scripts/portrait.py` prints the measures by room; `--check` ends with exit code 1 where one is above
its limit in `LIMITS`. A limit stands at what is reached, its goal beside it: it is lowered as the code
shrinks, and never raised.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "segbench"

KERNELS = {
    "metrics/engine/_kernels.py",
    "metrics/engine/_native.py",
    "networks/scan/numba_kernel.py",
    "networks/scan/numba_vectors.py",
    "networks/scan/triton_kernel.py",
    "volumes/linear_kernels.py",
}
"""Files of compiled loops: long functions are how such code is written, so they have limits of their own."""


@dataclass(frozen=True)
class Limit:
    """What a measure may be today, and what it is to become; `least` turns both around."""

    now: float
    goal: float
    least: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value is within today's limit."""
        return value >= self.now if self.least else value <= self.now


LIMITS = {
    "source lines": Limit(60_691, 42_000),
    "records": Limit(224, 150),
    "import circles between files": Limit(0, 0),
    "longest file": Limit(397, 500),
    "longest function": Limit(86, 90),
    "longest kernel file": Limit(513, 600),
    "longest kernel function": Limit(75, 90),
    "files in one folder": Limit(20, 20),
    "options over all commands": Limit(184, 150),
    "tests to source": Limit(0.64, 0.55, least=True),
}


@dataclass
class Room:
    """What one package holds."""

    files: int = 0
    lines: int = 0
    records: int = 0
    longest_file: tuple[int, str] = (0, "")
    longest_function: tuple[int, str] = (0, "")


@cache
def parsed(package: Path) -> dict[str, tuple[str, ast.Module]]:
    """Text and syntax tree of every file, by its path below the package."""
    found: dict[str, tuple[str, ast.Module]] = {}
    for path in sorted(package.rglob("*.py")):
        if "_cards" not in path.parts:
            text = path.read_text(encoding="utf-8")
            found[path.relative_to(package).as_posix()] = (text, ast.parse(text))
    return found


def code_lines(text: str) -> int:
    """Lines that hold a token other than a comment or a string standing by itself (a docstring)."""
    silent = {
        tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
    }  # fmt: skip
    lines: set[int] = set()
    statement: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent:
            statement.append(token)
        elif token.type == tokenize.NEWLINE:
            if any(part.type != tokenize.STRING for part in statement):
                for part in statement:
                    lines.update(range(part.start[0], part.end[0] + 1))
            statement = []
    return len(lines)


def records(files: dict[str, tuple[str, ast.Module]]) -> list[tuple[str, str]]:
    """(file, class) of every dataclass and pydantic model; a child of a model is one too."""
    classes: list[tuple[str, ast.ClassDef, set[str]]] = []
    for name, (_, tree) in files.items():
        typing = {alias for module, alias in _imported(tree) if module == "typing"}  # its Protocol is no card
        classes += [
            (name, node, {_last(base) for base in node.bases} - typing)
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
        ]
    models = {"BaseModel"}
    while children := {node.name for _, node, bases in classes if bases & models} - models:
        models |= children
    return [
        (name, node.name)
        for name, node, bases in classes
        if bases & models or any(_last(each) == "dataclass" for each in node.decorator_list)
    ]


def _imported(tree: ast.Module) -> list[tuple[str, str]]:
    """(module, name) of every `from module import name`, and (module, "") of every other import.

    `import_module("...")` with a plain string counts: it hides an arrow from the eye, not from the program.
    """
    found: list[tuple[str, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Call) and _last(node.func) == "import_module" and node.args:
            target = node.args[0]
            if isinstance(target, ast.Constant) and isinstance(target.value, str):
                found.append((target.value, ""))
    return found


def _last(node: ast.expr) -> str:
    """The last name of an expression such as `a.b(...)`."""
    if isinstance(node, ast.Call | ast.Subscript):
        return _last(node.func if isinstance(node, ast.Call) else node.value)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def import_graph(files: dict[str, tuple[str, ast.Module]], package: str = "segbench") -> dict[str, set[str]]:
    """Which file imports which, lazy imports and those for typing included.

    Importing a name from a package counts as importing that name's file where there is one, else the
    package's `__init__.py`. That a module's own packages are imported before it is left out.
    """
    places = {_dotted(name, package): name for name in files}
    graph: dict[str, set[str]] = {}
    for name, (_, tree) in files.items():
        targets = {
            f"{module}.{alias}" if f"{module}.{alias}" in places else module
            for module, alias in _imported(tree)
        }
        graph[name] = {places[target] for target in targets if target in places} - {name}
    return graph


def _dotted(name: str, package: str) -> str:
    parts = [package, *name.removesuffix(".py").split("/")]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circles(graph: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Groups of files that import each other in a circle, each sorted (Tarjan's components)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[tuple[str, ...]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            at = stack.index(name)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                found.append(tuple(sorted(group)))

    for name in sorted(graph):
        if name not in order:
            visit(name)
    return sorted(found)


def functions(tree: ast.Module) -> list[tuple[int, str]]:
    """(lines, name) of every function, from `def` to its last line."""
    return [
        ((node.end_lineno or node.lineno) - node.lineno + 1, node.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def option_count(files: dict[str, tuple[str, ast.Module]]) -> int:
    """Options and arguments summed over all commands; a type that several share counts for each of them.

    A command is a function of `cli/` that `cli/main.py` names together with its file.
    """
    named = {
        node.value.rpartition(".")[2]
        for node in ast.walk(files["cli/main.py"][1])
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    } | {"main", "_everywhere"}
    return sum(
        len(node.args.args) + len(node.args.kwonlyargs)
        for name, (_, tree) in files.items()
        if name.startswith("cli/") and Path(name).stem in named
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name in named
    )


def rooms_of(files: dict[str, tuple[str, ast.Module]]) -> dict[str, Room]:
    """The measures of each package, kernels left out of the longest."""
    rooms: dict[str, Room] = {}
    for name, (text, tree) in files.items():
        room = rooms.setdefault(name.split("/")[0] if "/" in name else "(top)", Room())
        length = text.count("\n")
        room.files += 1
        room.lines += length
        if name not in KERNELS:
            room.longest_file = max(room.longest_file, (length, name))
            here = [(lines, f"{name}:{function}") for lines, function in functions(tree)]
            room.longest_function = max([room.longest_function, *here])
    for name, _ in records(files):
        rooms[name.split("/")[0] if "/" in name else "(top)"].records += 1
    return rooms


def measures(root: Path = ROOT) -> dict[str, tuple[float, str]]:
    """Every measure of `LIMITS`: its value, and where it stands."""
    files = parsed(root / "segbench")
    rooms = rooms_of(files).values()
    source = sum(room.lines for room in rooms)
    tests = sum(path.read_text(encoding="utf-8").count("\n") for path in (root / "tests").rglob("*.py"))
    folders: dict[str, int] = {}
    for name in files:
        folder = str(Path(name).parent)
        folders[folder] = folders.get(folder, 0) + 1
    fullest = max((count, folder) for folder, count in folders.items())
    kernels = {name: each for name, each in files.items() if name in KERNELS}
    kernel_file = max((text.count("\n"), name) for name, (text, _) in kernels.items())
    kernel = max((lines, f"{n}:{f}") for n, (_, tree) in kernels.items() for lines, f in functions(tree))
    found = circles(import_graph(files))
    return {
        "source lines": (source, f"{len(files)} files"),
        "records": (len(records(files)), "dataclasses and pydantic models"),
        "import circles between files": (len(found), "; ".join(", ".join(group) for group in found)),
        "longest file": max(room.longest_file for room in rooms),
        "longest function": max(room.longest_function for room in rooms),
        "longest kernel file": kernel_file,
        "longest kernel function": kernel,
        "files in one folder": fullest,
        "options over all commands": (option_count(files), "arguments included"),
        "tests to source": (round(tests / source, 3), f"{tests:,} lines of tests"),
    }


def over_the_limit(found: dict[str, tuple[float, str]]) -> list[str]:
    """One line for each measure that is beyond its limit."""
    return [
        f"{name}: {value:g}, the limit is {LIMITS[name].now:g} ({place})"
        for name, (value, place) in found.items()
        if not LIMITS[name].holds(value)
    ]


def main(arguments: list[str]) -> int:
    """Print the portrait; the exit code is 1 with `--check` and a measure beyond its limit."""
    files = parsed(PACKAGE)
    print(f"{'room':<12}{'files':>6}{'lines':>8}{'code':>8}{'records':>9}  longest file, longest function")
    for name, room in sorted(rooms_of(files).items()):
        code = sum(code_lines(text) for file, (text, _) in files.items() if file.startswith(f"{name}/"))
        counts = f"{room.files:>6}{room.lines:>8}{code:>8}{room.records:>9}"
        longest = [f"{where} {lines}" for lines, where in (room.longest_file, room.longest_function)]
        print(f"{name:<12}{counts}  {', '.join(longest)}")
    found = measures()
    print(f"\n{'measure':<30}{'found':>8}{'limit':>8}{'goal':>8}")
    for name, (value, place) in found.items():
        limit = LIMITS[name]
        print(f"{name:<30}{value:>8g}{limit.now:>8g}{limit.goal:>8g}  {place}")
    wrong = over_the_limit(found)
    if "--check" in arguments and wrong:
        print("\n" + "\n".join(wrong), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
