"""From a network and images to label maps: the one path of the predict stage and of `segbench predict`."""

from segbench.predict.case import predict_case
from segbench.predict.settings import Settings, metadata_of, settings_of

__all__ = ["Settings", "metadata_of", "predict_case", "settings_of"]
