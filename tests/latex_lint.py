r"""A check of `paper.tex` and other tables by their own rules: what passes compiles with booktabs, graphicx.

The macros that `paper.tex` defines stand in its head and are left out; rows that they set are expanded as TeX
expands them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

ENVIRONMENTS = frozenset({"table", "table*", "tabular", "figure"})
WORDS = frozenset(
    re.findall(
        r"\w+",
        "begin end centering caption label toprule midrule bottomrule cmidrule addlinespace multicolumn cite "
        "textbf underline textit textsuperscript textbackslash textasciitilde textasciicircum textless "
        "textgreater textbar dagger pm uparrow downarrow infty par smallskip medskip noindent raggedright "
        "rlap footnotesize scriptsize emergencystretch def let segci segsd segrow segrows segwide segnarrow "
        "segspan segfit IfFileExists typeout includegraphics linewidth",
    )
)
ESCAPED = frozenset("\\{}&%$#_,")
MATH = re.compile(r"-|<|[npt]|[np] [<=>] [0-9.]+|-?\\infty|\\(?:pm|uparrow|downarrow|dagger)")
BARE = {
    "#": "parameter character",
    "_": "subscript",
    "^": "superscript",
    "~": "tie",
    "%": "comment",
    '"': "quote",
}
PRINTS_WRONG = {"<": "less-than", ">": "greater-than", "|": "bar"}
COMMAND = re.compile(r"\\(?:[A-Za-z]+|.|$)", re.DOTALL)
RULE = re.compile(r"\\(?:toprule|midrule|bottomrule|addlinespace)|\\cmidrule\(lr\)\{\d+-\d+\}")
TABULAR = re.compile(r"\\begin\{tabular\}\{([^\n]*?)\}\n(.*?)\\end\{tabular\}", re.DOTALL)


def floats(source: str) -> Iterator[str]:
    """The tables of a file."""
    for found in re.finditer(r"\\begin\{(table\*?)\}.*?\\end\{\1\}", source, re.DOTALL):
        yield found[0]


def arguments(text: str, place: int, count: int) -> tuple[list[str], int]:
    """So many braced arguments from `place` on, and where they end."""
    found: list[str] = []
    for _ in range(count):
        while text[place] in "%\n ":
            place += 1
        assert text[place] == "{", text[place : place + 40]
        depth, start = 0, place
        while True:
            if text[place] == "\\":
                place += 1
            else:
                depth += (text[place] == "{") - (text[place] == "}")
            place += 1
            if depth == 0:
                break
        found.append(text[start + 1 : place - 1])
    return found, place


def layouts(table: str) -> list[str]:
    """The tabulars of a table as TeX sees them: side by side first, then those of the narrow layout."""
    if "\\def\\segrows{" not in table:
        return [found[0] for found in TABULAR.finditer(table)]
    start = table.index("\\def\\segrows{")
    (body,), end = arguments(table, table.index("{", start), 1)
    made: list[str] = []
    for found in re.finditer(
        r"\\def\\segspan\{(\d+)\}\\def\\segrow((?:##\d)+)\{(.*?) \\\\\}%\n(\\begin\{tabular\}.*?)\\segrows",
        table[end:],
        re.DOTALL,
    ):
        span, parameters, line, head = found.groups()
        made.append(head + _expanded(body, parameters.count("##"), line).replace("\\segspan", span))
    return made


def _expanded(body: str, count: int, line: str) -> str:
    out, place = "", 0
    parts = re.split(r"(##\d)", line)
    while (start := body.find("\\segrow", place)) >= 0:
        out += body[place:start]
        given, place = arguments(body, start + len("\\segrow"), count)
        out += "".join(given[int(part[2]) - 1] if part[:2] == "##" else part for part in parts) + " \\\\"
    return out + body[place:]


def rows(tabular: str) -> list[list[str]]:
    """The cells of each row below the first rule; heads of groups have one cell."""
    found = TABULAR.match(tabular)
    assert found is not None, tabular
    body = found[2].split("\\midrule", 1)[1]
    lines = [re.sub(r"\s+", " ", RULE.sub("", line)).strip() for line in re.split(r"\\\\", body)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line)] for line in lines if line]


def lint_latex(source: str) -> list[str]:
    """What is wrong, one line per finding; empty when it is clean.

    Checked: ASCII only, only the allowed commands and environments, balanced braces and environments, no bare
    special character, no mathematics but what is allowed, as many cells in each row as the tabular has
    columns in every layout, no row that begins with `[` or `*`.
    """
    if "\\providecommand" in source:
        head, _, source = source.partition("\\box0\\fi}\n")
        assert source, head
    findings: list[str] = []
    for number, line in enumerate(source.split("\n"), start=1):
        if not line.startswith("%"):
            findings += [f"line {number}: {finding}" for finding in _line_findings(line.removesuffix("%"))]
    findings += _balance(source)
    findings += _environments(source)
    for table in floats(source) if "\\begin{table" in source else [source]:
        for tabular in layouts(table):
            findings += _row_findings(tabular)
    return findings


def _line_findings(line: str) -> list[str]:
    findings = [f"character U+{ord(c):04X} is not ASCII" for c in line if not c.isascii()]
    findings += [f"control character U+{ord(c):04X}" for c in line if c.isascii() and not c.isprintable()]
    line = re.sub(r"~?\\cite\{[\w:.+-]+\}|\\label\{[\w:.-]+\}|##\d", " ", line)
    for command in COMMAND.findall(line):
        if not (command[1:] in WORDS or command[1:] in ESCAPED):
            findings.append(f"command {command!r} is not allowed")
    plain = re.sub(r"\\[^A-Za-z]", "  ", line)
    pieces = plain.split("$")
    if len(pieces) % 2 == 0:
        findings.append("odd number of dollars")
    findings += [
        f"mathematics ${piece}$ is not allowed" for piece in pieces[1::2] if not MATH.fullmatch(piece)
    ]
    bare = COMMAND.sub(" ", " ".join(pieces[::2]))
    findings += [f"bare {character!r} ({name})" for character, name in BARE.items() if character in bare]
    findings += [f"bare {c!r} ({name}) prints as another" for c, name in PRINTS_WRONG.items() if c in bare]
    return findings


def _balance(source: str) -> list[str]:
    depth = 0
    for character in re.sub(r"\\[^A-Za-z]", "  ", source):
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return ["a closing brace without an opening one"]
    return [f"{depth} braces are not closed"] if depth else []


def _environments(source: str) -> list[str]:
    names = re.findall(r"\\(begin|end)\{([^{}]*)\}", source)
    findings = [f"environment {name!r} is not allowed" for _, name in names if name not in ENVIRONMENTS]
    for name in ENVIRONMENTS - {"tabular"}:  # one \end{tabular} in \segrows closes several
        if names.count(("begin", name)) != names.count(("end", name)):
            findings.append(f"environment {name!r} is not closed")
    return findings


def _row_findings(tabular: str) -> list[str]:
    found = TABULAR.match(tabular)
    if found is None:
        return [f"no tabular: {tabular[:60]!r}"]
    specification = re.sub(r"@\{\}", "", found[1])
    findings = [] if re.fullmatch("[lcr]+", specification) else [f"specification {specification!r}"]
    lines = re.split(r"\\\\", re.sub(r"\\[&]", "  ", RULE.sub("", found[2])))
    if lines[-1].strip():
        findings.append("the last row does not end with \\\\")
    for number, line in enumerate(lines[:-1], start=1):
        spans = [int(span) for span in re.findall(r"\\multicolumn\{(\d+)\}", line)]
        cells = line.count("&") + 1 + sum(spans) - len(spans)
        if cells != len(specification):
            findings.append(f"row {number} has {cells} cells for {len(specification)} columns")
        if line.strip()[:1] in {"[", "*"}:
            findings.append(f"row {number} begins with {line.strip()[0]!r}: read as an argument")
    return findings
