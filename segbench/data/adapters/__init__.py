"""Four ways in which datasets lie on disk, behind one function: `discover(card, root)`."""

from __future__ import annotations

from pathlib import Path

from segbench.cards.dataset_card import DatasetCard
from segbench.cards.layout import CaseFolderLayout, MsdLayout, PairedFoldersLayout
from segbench.data.adapters import case_folder, msd, nnunet, paired_folders
from segbench.data.adapters.base import CaseFiles, Discovery, LayoutFinding

__all__ = ["CaseFiles", "Discovery", "LayoutFinding", "discover"]


def discover(card: DatasetCard, root: Path) -> Discovery:
    """The cases of a dataset's root as its card lays them out; no volume is opened, nothing is written.

    Raises:
        SegbenchError: SB302 or SB331 when the root cannot be read in this layout at all.
    """
    layout = card.layout
    if isinstance(layout, CaseFolderLayout):
        found = case_folder.discover(card, layout, root)
    elif isinstance(layout, PairedFoldersLayout):
        found = paired_folders.discover(card, layout, root)
    elif isinstance(layout, MsdLayout):
        found = msd.discover(card, layout, root)
    else:
        found = nnunet.discover(card, layout, root)
    found.cases = dict(sorted(found.cases.items()))
    forms = sorted({files.form for files in found.cases.values()})
    if len(forms) > 1:
        message = f"the tree mixes the forms {', '.join(forms)}"
        found.findings.append(LayoutFinding("SB340", "info", message, found=", ".join(forms)))
    return found
