"""Exchange with other tools: export to nnU-Net and MSD, import in place, predictions mapped back."""

from segbench.data.exchange.exporting import ExportReport, export_dataset
from segbench.data.exchange.importing import import_dataset
from segbench.data.exchange.label_map import LabelMap, import_predictions

__all__ = ["ExportReport", "LabelMap", "export_dataset", "import_dataset", "import_predictions"]
