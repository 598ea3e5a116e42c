"""Volumes: safe reading, exact geometry, fresh headers. numpy only; never torch.

`read_volume`, `read_label_map` and `write_label_map` are the only way a scan or label map enters or leaves.
"""

from segbench.volumes.digest import digest_canonical
from segbench.volumes.endings import VOLUME_ENDINGS, stem_and_ending
from segbench.volumes.geometry import (
    GeometryComparison,
    Orientation,
    compare_geometry,
    corner_displacement,
    from_canonical,
    reorient_like,
    to_canonical,
)
from segbench.volumes.header import VolumeHeader
from segbench.volumes.labels import as_label_array, count_labels
from segbench.volumes.read import read_header, read_label_map, read_volume
from segbench.volumes.volume import DEFAULT_MAX_BYTES, Volume, spacing_of
from segbench.volumes.write import write_label_map

__all__ = [
    "DEFAULT_MAX_BYTES",
    "VOLUME_ENDINGS",
    "GeometryComparison",
    "Orientation",
    "Volume",
    "VolumeHeader",
    "as_label_array",
    "compare_geometry",
    "corner_displacement",
    "count_labels",
    "digest_canonical",
    "from_canonical",
    "read_header",
    "read_label_map",
    "read_volume",
    "reorient_like",
    "spacing_of",
    "stem_and_ending",
    "to_canonical",
    "write_label_map",
]
