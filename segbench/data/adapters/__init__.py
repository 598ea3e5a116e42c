"""Two ways in which datasets lie on disk, behind one function: `discover(card, root)`.

`msd_nnunet` reads folders that a `dataset.json` describes (adapters msd and nnunet of a card), `templates`
those that the card's own templates of names describe (adapters case-folder and paired-folders).
"""

from __future__ import annotations

from pathlib import Path

from segbench.cards.dataset_card import DatasetCard
from segbench.cards.layout import CaseFolderLayout, PairedFoldersLayout
from segbench.data.adapters import msd_nnunet, templates
from segbench.data.adapters.base import CaseFiles, Discovery

__all__ = ["CaseFiles", "Discovery", "discover"]


def discover(card: DatasetCard, root: Path) -> Discovery:
    """The cases of a dataset's root as its card lays them out; no volume is opened, nothing is written.

    Raises:
        SegbenchError: SB302 or SB331 when the root cannot be read in this layout at all.
    """
    layout = card.layout
    if isinstance(layout, CaseFolderLayout | PairedFoldersLayout):
        found = templates.discover(card, layout, root)
    else:
        found = msd_nnunet.discover(card, layout, root)
    found.cases = dict(sorted(found.cases.items()))
    forms = sorted({files.form for files in found.cases.values()})
    if len(forms) > 1:
        listed = ", ".join(forms)
        found.tell("SB340", f"the tree mixes the forms {listed}", None, severity="info", found=listed)
    return found
