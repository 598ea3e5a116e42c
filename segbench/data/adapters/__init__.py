"""Two ways in which datasets lie on disk, behind one function: `discover(card, root)`.

`tree` reads what templates of names describe, `described` what a `dataset.json` lists.
"""

from __future__ import annotations

from pathlib import Path

from segbench.cards.dataset_card import DatasetCard
from segbench.data.adapters import described, tree
from segbench.data.adapters.base import CaseFiles, Discovery

__all__ = ["CaseFiles", "Discovery", "discover"]


def discover(card: DatasetCard, root: Path) -> Discovery:
    """The cases of a dataset's root as its card lays them out; no volume is opened, nothing is written.

    Raises:
        SegbenchError: SB302 or SB331 when the root cannot be read in this layout at all.
    """
    adapter = tree if card.layout.adapter == "tree" else described
    found = adapter.discover(card, card.layout, root)
    found.cases = dict(sorted(found.cases.items()))
    forms = sorted({files.form for files in found.cases.values()})
    if len(forms) > 1:
        listed = ", ".join(forms)
        found.tell("SB340", f"the tree mixes the forms {listed}", None, severity="info", found=listed)
    return found
