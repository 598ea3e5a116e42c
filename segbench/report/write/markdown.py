"""`report.md`: what a reader of a pull request sees in two screens, tables as GitHub draws them."""

from __future__ import annotations

import re
from itertools import groupby

from jinja2 import Template

from segbench.core.text import one_line
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.findings import gathered
from segbench.report.analysis.published_beside import beside_sentence, published_beside
from segbench.report.analysis.sentences import headline
from segbench.report.write.tables import STARS, Table, pair_tables, score_tables
from segbench.report.write.templating import environment

MOST_PAIRS = 20  # of Table 2; of more pairs only those with a verdict are shown
MOST_FINDINGS = 3  # of one kind; the others are counted

_SPECIAL = re.compile(r"([\\`*_{}|\[\]<>&~#$@])")


def escape_markdown(text: str) -> str:
    """Plain text in one line that GitHub prints as itself, in a cell, a list or a sentence."""
    escaped = _SPECIAL.sub(r"\\\1", one_line(text)).replace("\\@", "&#64;").replace("://", ":\\//")
    return re.sub(r"^(\s*)([-+=]|\d+[.)])(?=\s|$)", r"\1\\\2", escaped)


def files(analysis: Analysis) -> dict[str, bytes | str]:
    """`report.md`."""
    main = {block.main_region for block in analysis.blocks}
    text = _template("report.md.j2").render(
        headline=headline(analysis),
        tables=[*score_tables(analysis), *pair_tables(analysis, most=MOST_PAIRS)[:1]],
        findings=[
            (severity, [(code, list(same)) for code, same in groupby(members, key=lambda item: item.code)])
            for severity, members in groupby(gathered(analysis.findings), key=lambda item: item.severity)
        ],
        most=MOST_FINDINGS,
        published=[beside_sentence(row) for row in published_beside(analysis) if row.column.region in main],
    )
    return {"report.md": text}


def pipes(table: Table) -> str:
    """A table as pipes: groups as rows of their own, intervals below their numbers."""
    return _template("table.md.j2").module.pipes(table).strip()  # pyright: ignore[reportAttributeAccessIssue]


def _template(name: str) -> Template:
    found = environment(escape_markdown)
    found.globals["stars"] = STARS
    return found.get_template(name)
