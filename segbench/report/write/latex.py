"""Text as LaTeX that prints it, and the templates that hold the rest."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from segbench.core.text import one_line
from segbench.report.write.templating import Raw, environment

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
    "\N{MINUS SIGN}": "-",
    "\N{MULTIPLICATION SIGN}": "x",
    "\N{MIDDLE DOT}": ".",
    "\N{BULLET}": "*",
    "\N{LESS-THAN OR EQUAL TO}": "<=",
    "\N{GREATER-THAN OR EQUAL TO}": ">=",
    "\N{UPWARDS ARROW}": "(up)",
    "\N{DOWNWARDS ARROW}": "(down)",
    "\N{RIGHTWARDS ARROW}": "->",
    "\N{LATIN SMALL LETTER SHARP S}": "ss",
    "\N{MICRO SIGN}": "u",
    "\N{INFINITY}": "inf",
    "\N{DAGGER}": "+",
}


def to_ascii(text: str) -> str:
    """The text in ASCII: a small table and Greek letters by name, then NFKD without its accents, then `?`.

    Control characters and line breaks become a space; direction marks and other invisible format characters
    vanish.
    """
    return "".join(character if " " <= character <= "~" else _ascii(character) for character in text)


def _ascii(character: str) -> str:
    """What stands for a character that is not printable ASCII."""
    category, name = unicodedata.category(character), unicodedata.name(character, "")
    if character in _TRANSLITERATION:
        return _TRANSLITERATION[character]
    if category in {"Cc", "Zl", "Zp", "Zs"}:
        return " "
    if category in {"Cf", "Mn"}:
        return ""
    if category in {"Pd", "Pi", "Pf"}:  # dashes and quotation marks of any kind
        return "-" if category == "Pd" else '"' if "DOUBLE" in name else "'"
    greek = re.match(r"GREEK (SMALL|CAPITAL) LETTER (\w+)", name)
    if greek is not None:
        return greek[2].capitalize() if greek[1] == "CAPITAL" else greek[2].lower()
    latin = re.match(r"LATIN (SMALL|CAPITAL) LETTER (\w{1,2})\b", name)
    if latin is not None:
        return latin[2] if latin[1] == "CAPITAL" else latin[2].lower()
    parts = unicodedata.normalize("NFKD", character)
    return "".join(part for part in parts if " " <= part <= "~") or "?"


def escape_latex(text: str) -> str:
    r"""Plain text as ASCII LaTeX that prints it: specials escaped, `--` kept apart, no line breaks.

    The result contains only commands without an argument and balanced braces, so that it may stand in a cell,
    a caption or a heading. A `[` or `*` at its start stands in braces: after `\\\\` it would be an argument.
    """
    plain = re.sub(r'(^|[\s(\[])"(?=\S)', "\\1\x01", to_ascii(text))
    escaped = "".join(_SPECIAL.get(character, character) for character in plain).replace("\x01", "``")
    return re.sub(r"^(\s*)([\[*])", r"\1{\2}", re.sub(r"-(?=-)", "-{}", escaped))


_PROSE = re.compile(
    r"(?P<math>\b[np] [<=>] [0-9.]+|\bp(?= adjusted|-values| counts)|(?<=Adjusted )p\b|\bt(?=-test))|"
    r"(?P<percent>[0-9]+ %)|"
    r"(?P<minus>(?<![\w.-])-(?=[0-9]))|"
    "(?P<symbol>[\N{PLUS-MINUS SIGN}\N{EN DASH}\N{DAGGER}\N{UPWARDS ARROW}\N{DOWNWARDS ARROW}])"
)
_SYMBOLS = {
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{EN DASH}": "--",
    "\N{DAGGER}": r"$\dagger$",
    "\N{UPWARDS ARROW}": r"$\uparrow$",
    "\N{DOWNWARDS ARROW}": r"$\downarrow$",
}


def prose(text: str) -> Raw:
    """A caption, note or head: `n = 40`, `95 %`, minus signs and symbols as authors set them, the rest
    escaped, words that no line could hold cut in the middle.
    """
    if isinstance(text, Raw):
        return text
    half = LONGEST_WORD // 2 - 2
    text = re.sub(
        rf"\S{{{LONGEST_WORD + 1},}}", lambda word: f"{word[0][:half]}...{word[0][-half:]}", one_line(text)
    )
    out, place = "", 0
    for found in _PROSE.finditer(text):
        out += escape_latex(text[place : found.start()])
        match found.lastgroup:
            case "math":
                out += f"${found[0]}$"
            case "percent":
                out += found[0].replace(" %", r"\,\%")
            case "minus":
                out += "$-$"
            case _:
                out += _SYMBOLS[found[0]]
        place = found.end()
    return Raw(out + escape_latex(text[place:]))


def number(text: str) -> Raw:
    """A printed number, p-value or dash: a minus sign for the hyphen, no bare relation."""
    if text.startswith("<"):
        return Raw(f"$<$\\,{escape_latex(text[1:])}")
    if text in {"inf", "-inf"}:
        return Raw(text.replace("inf", r"\infty").join("$$"))
    return prose(text)


def render(template: str, **values: Any) -> str:
    """A template with the marks of LaTeX, filled; ASCII."""
    marks = {
        f"{what}_{end}_string": mark
        for what, pair in {"block": ("<%", "%>"), "variable": ("<<", ">>"), "comment": ("<#", "#>")}.items()
        for end, mark in zip(("start", "end"), pair, strict=True)
    }
    found = environment(escape_latex, **marks)
    found.filters |= {"prose": prose, "number": number}
    return found.get_template(template).render(**values)
