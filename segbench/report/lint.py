r"""A check of LaTeX tables against their own rules: what passes compiles with booktabs alone."""

from __future__ import annotations

import re

from segbench.report.latex import STANDALONE_HEAD, STANDALONE_TAIL

_ENVIRONMENTS = frozenset({"table", "table*", "tabular"})
_WORDS = frozenset(
    re.findall(
        r"\w+",
        "begin end centering caption label toprule midrule bottomrule cmidrule addlinespace multicolumn "
        "textbf underline textit textsuperscript textbackslash textasciitilde textasciicircum textless "
        "textgreater textbar dag pm uparrow downarrow par smallskip setlength tabcolsep tiny "
        "scriptsize footnotesize small normalsize",
    )
)
_ESCAPED = frozenset("\\{}&%$#_")
_MATH = frozenset({r"\pm", r"\uparrow", r"\downarrow", r"\dag", "-"})
_BARE = {
    "#": "parameter character",
    "_": "subscript",
    "^": "superscript",
    "~": "tie",
    "%": "comment",
    '"': "quote",
}
_PRINTS_WRONG = {"<": "less-than", ">": "greater-than", "|": "bar"}
_COMMAND = re.compile(r"\\(?:[A-Za-z]+|.|$)", re.DOTALL)
_TABULAR = re.compile(r"\\begin\{tabular\}\{([^{}]*)\}(.*?)\\end\{tabular\}", re.DOTALL)
_RULE = re.compile(r"\\(?:toprule|midrule|bottomrule|addlinespace)|\\cmidrule(?:\([lr]*\))?\{\d+-\d+\}")


def lint_latex(source: str) -> list[str]:
    """What is wrong with a table's LaTeX, one line per finding; empty when it is clean.

    Checked: ASCII only, only the allowed commands and environments, balanced braces and environments, no bare
    special character, no dollar but around the allowed symbols, as many cells in each row as the tabular has
    columns (multicolumn spans counted), no row that begins with `[` or `*`.
    """
    findings: list[str] = []
    if source.startswith(STANDALONE_HEAD) and source.endswith(STANDALONE_TAIL):
        source = source[len(STANDALONE_HEAD) : -len(STANDALONE_TAIL)]
    for number, line in enumerate(source.split("\n"), start=1):
        findings += [f"line {number}: {finding}" for finding in _line_findings(line)]
    findings += _balance(source)
    findings += _environment_findings(source)
    for match in _TABULAR.finditer(source):
        findings += _row_findings(match.group(1), match.group(2))
    return findings


def _line_findings(line: str) -> list[str]:
    """Findings that one line shows by itself: characters, commands, specials, dollars."""
    findings = [
        f"character U+{ord(character):04X} is not ASCII" for character in line if not character.isascii()
    ]
    findings += [f"control character U+{ord(c):04X}" for c in line if c.isascii() and not c.isprintable()]
    for command in _COMMAND.findall(line):
        name = command[1:]
        if not (name in _WORDS or name in _ESCAPED):
            findings.append(f"command {command!r} is not allowed")
    bare = _COMMAND.sub(" ", line)
    findings += [f"bare {character!r} ({name})" for character, name in _BARE.items() if character in bare]
    findings += [
        f"bare {character!r} ({name}) prints as another"
        for character, name in _PRINTS_WRONG.items()
        if character in bare
    ]
    unescaped = re.sub(r"\\.", lambda found: found.group() if found.group()[1].isalpha() else "  ", line)
    pieces = unescaped.split("$")
    if len(pieces) % 2 == 0:
        findings.append("odd number of dollars")
    findings += [f"mathematics ${piece}$ is not allowed" for piece in pieces[1::2] if piece not in _MATH]
    return findings


def _balance(source: str) -> list[str]:
    """Braces, without the escaped ones."""
    plain = re.sub(r"\\[^A-Za-z]", "  ", source)
    depth = 0
    for character in plain:
        depth += (character == "{") - (character == "}")
        if depth < 0:
            return ["a closing brace without an opening one"]
    return [f"{depth} braces are not closed"] if depth else []


def _environment_findings(source: str) -> list[str]:
    findings: list[str] = []
    stack: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{([^{}]*)\}", source):
        if name not in _ENVIRONMENTS:
            findings.append(f"environment {name!r} is not allowed")
        elif kind == "begin":
            stack.append(name)
        elif not stack or stack.pop() != name:
            findings.append(f"\\end{{{name}}} does not match")
    return findings + [f"environment {name!r} is not closed" for name in stack]


def _row_findings(specification: str, body: str) -> list[str]:
    """Cells per row against the column specification, and rows that begin like an argument."""
    findings: list[str] = []
    if re.fullmatch(r"[lcr]+", specification) is None:
        findings.append(f"column specification {specification!r} has more than l, c, r")
    width = len(specification)
    protected = body.replace(r"\&", "  ")
    rows = re.split(r"\\\\", protected)
    for number, row in enumerate(rows, start=1):
        content = _RULE.sub("", row).strip()
        if number == len(rows):
            if content:
                findings.append(f"row {number} does not end with \\\\")
            continue
        spans = [int(span) for span in re.findall(r"\\multicolumn\{(\d+)\}", content)]
        cells = content.count("&") + 1 + sum(spans) - len(spans)
        if cells != width:
            findings.append(f"row {number} has {cells} cells for {width} columns")
        if content[:1] in {"[", "*"}:
            findings.append(f"row {number} begins with {content[0]!r}: read as an argument")
    return findings
