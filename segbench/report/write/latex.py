r"""Tables as LaTeX: booktabs and nothing else, ASCII only, compiles with any name in it.

Hand-written rather than templated: the traps are in the details. A row that begins with `[` or `*` after `\\`
would be read as an argument, `%` at a line end eats the newline, `--` becomes a dash, a caption is a moving
argument. `segbench.report.lint` checks the result against the same rules.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from segbench.report.cells import cell_parts, superscript
from segbench.report.panels import SIZES, column_gap, label_lines, lines_beside
from segbench.report.table import Cell, Column, Row, Table

MAX_ROWS = 45  # more rows than this do not fit a page: the table goes on in a further float
WIDE_COLUMNS = 8  # more columns than this span both columns of a two-column class
FONT_SIZES = tuple(SIZES)
LONGEST_WORD = 40  # characters of a word in a caption or note: TeX breaks lines between words only

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": "{}`",  # alone: ?` and !` are ligatures for Spanish marks
}
_TRANSLITERATION = {
    "\N{PLUS-MINUS SIGN}": "+-",
    "\N{EN DASH}": "-",
    "\N{EM DASH}": "-",
    "\N{MINUS SIGN}": "-",
    "\N{NON-BREAKING HYPHEN}": "-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{MIDDLE DOT}": ".",
    "\N{BULLET}": "*",
    "\N{LEFT SINGLE QUOTATION MARK}": "'",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": '"',
    "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
    "\N{LESS-THAN OR EQUAL TO}": "<=",
    "\N{GREATER-THAN OR EQUAL TO}": ">=",
    "\N{UPWARDS ARROW}": "(up)",
    "\N{DOWNWARDS ARROW}": "(down)",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{LATIN SMALL LETTER SHARP S}": "ss",
    "\N{LATIN SMALL LETTER AE}": "ae",
    "\N{LATIN CAPITAL LETTER AE}": "AE",
    "\N{LATIN SMALL LETTER O WITH STROKE}": "o",
    "\N{LATIN CAPITAL LETTER O WITH STROKE}": "O",
    "\N{LATIN SMALL LETTER L WITH STROKE}": "l",
    "\N{LATIN CAPITAL LETTER L WITH STROKE}": "L",
    "\N{INFINITY}": "inf",
}


def to_ascii(text: str) -> str:
    """The text in ASCII: a small table and Greek letters by name, then NFKD without its accents, then `?`.

    Control characters and line breaks become a space; direction marks and other invisible format characters
    vanish.
    """
    out: list[str] = []
    for character in text:
        if character.isascii():
            out.append(character if character.isprintable() else " ")
            continue
        if character in _TRANSLITERATION:
            out.append(_TRANSLITERATION[character])
            continue
        category = unicodedata.category(character)
        if category == "Cf":
            continue
        if category in {"Cc", "Zl", "Zp", "Zs"}:
            out.append(" ")
            continue
        if category == "Mn":
            continue
        out.append(_decompose(character))
    return "".join(out)


def _decompose(character: str) -> str:
    """One character outside ASCII by its Greek name, by NFKD, or as `?`."""
    words = unicodedata.name(character, "").split()
    if character == "\N{MICRO SIGN}":
        return "u"
    if words[:1] == ["GREEK"] and "LETTER" in words:
        place = words.index("LETTER")
        if len(words) > place + 1:
            name = words[place + 1].lower()
            return name.capitalize() if "CAPITAL" in words else name
    plain = "".join(
        part for part in unicodedata.normalize("NFKD", character) if part.isascii() and part.isprintable()
    )
    return plain or "?"


def escape_latex(text: str) -> str:
    r"""Plain text as ASCII LaTeX that prints it: specials escaped, `--` kept apart, no line breaks.

    The result contains only commands without an argument and balanced braces, so that it may stand in a cell,
    a caption or a heading.
    """
    plain = to_ascii(text)
    escaped = "".join(_SPECIAL.get(character, character) for character in plain)
    return re.sub(r"-(?=-)", "-{}", escaped)


_SYMBOLS = {
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{UPWARDS ARROW}": r"$\uparrow$",
    "\N{DOWNWARDS ARROW}": r"$\downarrow$",
    "\N{DAGGER}": r"\textsuperscript{\dag}",
}


def escape_prose(text: str) -> str:
    """A caption or note: as `escape_latex`, with the symbols of tables printed as symbols (robust commands
    only).
    """
    parts = re.split("([" + "".join(_SYMBOLS) + "])", text)
    return "".join(_SYMBOLS.get(part) or escape_latex(part) for part in parts)


def latex_label(text: str) -> str:
    """A label of the characters a-z, 0-9, colon and hyphen."""
    label = re.sub(r"[^a-z0-9:]+", "-", to_ascii(text).lower()).strip("-")
    return label if label.startswith("tab:") else f"tab:{label}"


def render_latex(table: Table, *, standalone: bool, column: str, font: str) -> str:
    r"""The table as a fragment for `\input`, or the same bytes inside a small article.

    Args:
        table: what to print.
        standalone: wrap the fragment into a document of class article that inputs nothing.
        column: ``single`` or ``double`` (a `table*`, as tables with more than 8 columns are in any case).
        font: a LaTeX size command without its backslash.

    Raises:
        ValueError: an unknown column width or font size.
    """
    rows = tuple(replace(row, label=row.label.replace("\n", " ")) for row in table.rows)
    fragment = "\n".join(latex_floats(table, [replace(table, rows=rows)], column=column, font=font))
    return wrap_standalone(fragment) if standalone else fragment


def latex_floats(table: Table, parts: Sequence[Table], *, column: str, font: str) -> list[str]:
    """The floats of a table, each as LaTeX that ends with a line break.

    Args:
        table: what to print.
        parts: the table itself or its panels, which are printed one below the other.
        column: as in `render_latex`.
        font: as in `render_latex`.

    Raises:
        ValueError: an unknown column width or font size.
    """
    if column not in {"single", "double"}:
        raise ValueError(f"column must be 'single' or 'double', not {column!r}")
    if font not in FONT_SIZES:
        raise ValueError(f"font must be one of {', '.join(FONT_SIZES)}, not {font!r}")
    floats = _floats(parts, lines_beside(table, font))
    wide = column == "double" or len(table.columns) > WIDE_COLUMNS
    return [
        _float(table, part, part=number, last=number == len(floats) - 1, wide=wide, font=font)
        for number, part in enumerate(floats)
    ]


def _floats(parts: Sequence[Table], room: int) -> list[list[Table]]:
    """Panels by float, each cut where its rows would not fit a page.

    Args:
        parts: the panels.
        room: lines of a page for rows and heads.
    """
    floats: list[list[Table]] = [[]]
    lines = 0
    for panel in parts:
        head = len(panel.columns[0].header) if panel.columns else 1
        for rows in _chunks(panel.rows, min(MAX_ROWS, room - head)):
            more = head + sum(len(label_lines(row.label)) for row in rows)
            if floats[-1] and lines + more > min(MAX_ROWS + head, room):
                floats.append([])
                lines = 0
            floats[-1].append(replace(panel, rows=rows))
            lines += more + 1
    return floats


def _chunks(rows: Sequence[Row], most: int) -> list[tuple[Row, ...]]:
    """Rows by float: as many as give at most so many printed lines."""
    chunks: list[list[Row]] = [[]]
    lines = 0
    for row in rows:
        more = len(label_lines(row.label))
        if chunks[-1] and lines + more > most:
            chunks.append([])
            lines = 0
        chunks[-1].append(row)
        lines += more
    return [tuple(chunk) for chunk in chunks]


def wrap_standalone(fragment: str) -> str:
    """A document of class article around the unchanged bytes of a fragment."""
    return STANDALONE_HEAD + fragment + STANDALONE_TAIL


STANDALONE_HEAD = (
    "\\documentclass{article}\n"
    "\\usepackage{booktabs}\n"
    "\\setlength{\\oddsidemargin}{-1.2cm}\n"
    "\\setlength{\\textwidth}{18.6cm}\n"
    "\\setlength{\\hoffset}{0pt}\n"
    "\\begin{document}\n"
)
STANDALONE_TAIL = "\\end{document}\n"


def _float(table: Table, parts: Sequence[Table], *, part: int, last: bool, wide: bool, font: str) -> str:
    """One float: caption above, the panels, the notes under the last part."""
    environment = "table*" if wide else "table"
    caption = escape_prose(_short_words(table.caption)) + (" (continued)" if part else "")
    label = latex_label(table.label or table.name) + (f"-{part + 1}" if part else "")
    lines = [
        f"\\begin{{{environment}}}[t]",
        "\\centering",
        f"\\caption{{{caption}}}",
        f"\\label{{{label}}}",
        f"\\{font}",
    ]
    for number, panel in enumerate(parts):
        lines += ["\\par\\smallskip"] if number else []
        lines += _tabular(panel)
    if last and table.notes:
        lines.append("\\par\\smallskip")
        lines.extend(f"{_guard_start(escape_prose(_short_words(note)))}\\par" for note in table.notes)
    lines.append(f"\\end{{{environment}}}")
    return "\n".join(lines) + "\n"


def _tabular(panel: Table) -> list[str]:
    return [
        f"\\setlength{{\\tabcolsep}}{{{column_gap(len(panel.columns)):g}pt}}",
        f"\\begin{{tabular}}{{l{'c' * len(panel.columns)}}}",
        "\\toprule",
        *_head(panel),
        "\\midrule",
        *(_row(row, panel.columns) for row in panel.rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]


def _short_words(text: str) -> str:
    """The text with words cut in the middle that are longer than a line can give way to."""
    half = LONGEST_WORD // 2 - 2
    return re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: f"{word[0][:half]}...{word[0][-half:]}", text)


def _head(table: Table) -> list[str]:
    """Head lines: outer levels merged over equal neighbours with a rule below, arrows in the last."""
    if not table.columns:
        return [f"{_guard_start(escape_latex(table.corner))} \\\\"]
    lines: list[str] = []
    depth = len(table.columns[0].header)
    for level in range(depth - 1):
        cells: list[str] = [""]
        rules: list[str] = []
        place = 2
        for _, group in groupby(table.columns, key=lambda item: item.header[: level + 1]):
            members = list(group)
            text = escape_latex(members[0].header[level])
            cells.append(f"\\multicolumn{{{len(members)}}}{{c}}{{{text}}}")
            if text:
                rules.append(f"\\cmidrule(lr){{{place}-{place + len(members) - 1}}}")
            place += len(members)
        lines.append(" & ".join(cells) + " \\\\")
        if rules:
            lines.append("".join(rules))
    leaves = [escape_latex(table.corner), *(_leaf(column) for column in table.columns)]
    leaves[0] = _guard_start(leaves[0])
    lines.append(" & ".join(leaves) + " \\\\")
    return lines


def _leaf(column: Column) -> str:
    text = escape_latex(column.header[-1]) if column.header else ""
    if column.higher_is_better is None:
        return text
    return f"{text} $\\{'up' if column.higher_is_better else 'down'}arrow$".strip()


def _row(row: Row, columns: Sequence[Column]) -> str:
    label, *more = label_lines(row.label)
    cells = [
        _guard_start(escape_latex(label)),
        *(_cell(cell, column) for cell, column in zip(row.cells, columns, strict=True)),
    ]
    lines = [" & ".join(cells) + " \\\\"]
    lines += [_guard_start(escape_latex(text)) + " &" * len(columns) + " \\\\" for text in more]
    return "\n".join(lines)


def _guard_start(text: str) -> str:
    r"""The text with a leading `[` or `*` put in braces: after `\\` or a rule it would be an argument."""
    stripped = text.lstrip()
    if stripped[:1] in {"[", "*"}:
        return f"{{{stripped[0]}}}{stripped[1:]}"
    return text


def _cell(cell: Cell, column: Column) -> str:
    parts = cell_parts(cell, column)
    if not parts.is_number:
        dashed = cell.text is None
        text = "--" if dashed else escape_latex(parts.main)
        return text if dashed else _dress(text, cell)
    spread = f" $\\pm$ {_minus(parts.spread)}" if parts.spread else ""
    return _dress(f"{_minus(parts.main)}{spread}{_minus(parts.tail)}", cell)


def _minus(number: str) -> str:
    return escape_latex(number).replace("-", "$-$")


def _dress(text: str, cell: Cell) -> str:
    """Marks around a cell; the superscripts stand outside of bold and underline."""
    if not text:
        return text
    if cell.single:
        text = f"\\textit{{{text}}}"
    if cell.mark == "best":
        text = f"\\textbf{{{text}}}"
    elif cell.mark == "second":
        text = f"\\underline{{{text}}}"
    raised = superscript(cell)
    if raised:
        text += f"\\textsuperscript{{{escape_latex(raised)}}}"
    if cell.dagger:
        text += "\\textsuperscript{\\dag}"
    return text
