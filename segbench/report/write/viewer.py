"""The 3D view of worst cases: volumes as base64, posters as PNG, the viewer's own code checked by its
hash.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from segbench.core.text import one_line
from segbench.report.analysis.analysis import Analysis
from segbench.report.analysis.numbers import format_number
from segbench.report.write.scans import AGREE, EXTRA, MISSED, CaseScan, LabelArray, ScanSource
from segbench.report.write.worst import ShownCase, worst_cases

CLASS_COLOURS = {AGREE: "#56B4E9", MISSED: "#E69F00", EXTRA: "#F0E442"}
CLASS_WORDS = {AGREE: "agree", MISSED: "missed", EXTRA: "extra"}


@dataclass(frozen=True, eq=False)
class Picture:
    """A worst case ready for the page.

    Attributes:
        item: which case.
        title: model, dataset, case and score in words.
        alt: what the poster shows.
        poster: PNG data URI of three planes through the slice of largest error.
        scan: base64 of the gzipped NIfTI image, empty when the image is not here.
        mask: base64 of the gzipped NIfTI comparison mask.
        step: every n-th voxel is shown.
    """

    item: ShownCase
    title: str
    alt: str
    poster: str
    scan: str
    mask: str
    step: int

    @property
    def size(self) -> int:
        """Bytes the case adds to the page."""
        return len(self.poster) + len(self.scan) + len(self.mask) + len(self.title) + 400


def load_pictures(analysis: Analysis) -> list[Picture]:
    """Worst cases whose volumes are on this machine, as many as `--viewer` asks for."""
    count = analysis.options.viewer_cases
    if count == 0:
        return []
    source = ScanSource(analysis.options.data_dir, analysis.case_names)
    pictures: list[Picture] = []
    for item in worst_cases(analysis, source, count):
        scan = source.load(item.run, item.case)
        if scan is not None:
            pictures.append(_picture(analysis, item, scan))
    return pictures


def _picture(analysis: Analysis, item: ShownCase, scan: CaseScan) -> Picture:
    score = format_number(item.value, scale=item.metric.scale, digits=1)
    name = analysis.names[item.label].short
    title = one_line(
        f"{name}, seed {item.run.seed}, {item.block.name}, {item.case}: {item.metric.label} {score}"
    )
    mask = scan.comparison
    counts = ", ".join(f"{CLASS_WORDS[c]} {int((mask == c).sum())}" for c in (AGREE, MISSED, EXTRA))
    z, y, x = scan.spacing_mm
    return Picture(
        item=item,
        title=title,
        alt=f"Three planes through the slice of largest error of {title}; voxels: {counts}.",
        poster="data:image/png;base64," + base64.b64encode(poster(scan)).decode(),
        scan="" if scan.image is None else packed(scan.image, (z, y, x)),
        mask=packed(mask, (z, y, x)),
        step=scan.step,
    )


def poster(scan: CaseScan) -> bytes:
    """PNG of axial, coronal and sagittal planes with the comparison mask over the scan."""
    from matplotlib.colors import to_rgb

    from segbench.report.write.figures.style import new_figure, style

    with style():
        figure, axes = new_figure(6.0, 2.1, 1, 3, squeeze=False)
        figure.patch.set_facecolor("black")
        mask, slices = scan.comparison, scan.worst_slices()
        background = scan.image if scan.image is not None else np.zeros(mask.shape, dtype=np.uint8)
        for place, axis in enumerate(axes[0]):
            rest = [scan.spacing_mm[other] for other in range(3) if other != place]
            grey = plane_of(background, place, slices[place]).astype(float) / 255
            rgb = np.repeat(grey[:, :, None], 3, axis=2)
            flat = plane_of(mask, place, slices[place])
            for code, colour in CLASS_COLOURS.items():
                where = flat == code
                rgb[where] = 0.45 * rgb[where] + 0.55 * np.array(to_rgb(colour))
            axis.imshow(rgb, aspect=rest[0] / rest[1], interpolation="nearest")
            axis.axis("off")
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=110, facecolor="black", metadata={"Software": None})
    return stream.getvalue()


def plane_of(array: LabelArray, axis: int, place: int) -> LabelArray:
    """One slice, upright: the head or the front is up, the first in-plane axis vertical."""
    return np.take(array, place, axis=axis)[::-1]


def packed(array: LabelArray, spacing_mm: tuple[float, float, float]) -> str:
    """Base64 of the gzipped NIfTI of an 8-bit volume (z, y, x), the same bytes every time."""
    return base64.b64encode(gzip.compress(nifti_bytes(array, spacing_mm), compresslevel=9, mtime=0)).decode()


def nifti_bytes(array: LabelArray, spacing_mm: tuple[float, float, float]) -> bytes:
    """A single-file NIfTI-1 of an 8-bit volume (z, y, x) with its origin in the first voxel; nothing else in
    it.

    **Source:** nifti1.h of the NIfTI Data Format Working Group (field offsets).
    """
    z, y, x = array.shape
    dz, dy, dx = spacing_mm
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, x, y, z, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 2, 8)  # unsigned 8 bit
    struct.pack_into("<8f", header, 76, 1.0, dx, dy, dz, 0.0, 0.0, 0.0, 0.0)
    struct.pack_into("<3f", header, 108, 352.0, 1.0, 0.0)  # data offset, slope, intercept
    header[123] = 2  # millimetres
    struct.pack_into("<2h", header, 252, 0, 1)  # no qform, sform: scanner
    struct.pack_into("<4f", header, 280, dx, 0.0, 0.0, 0.0)
    struct.pack_into("<4f", header, 296, 0.0, dy, 0.0, 0.0)
    struct.pack_into("<4f", header, 312, 0.0, 0.0, dz, 0.0)
    header[344:348] = b"n+1\0"
    return bytes(header) + np.ascontiguousarray(array).tobytes()


def viewer_code() -> tuple[str, str]:
    """Base64 of the viewer's gzipped code, and the reason when it cannot be used (SB706)."""
    folder = files("segbench.report.write").joinpath("assets")
    try:
        expected, name = folder.joinpath("SHA256").read_text(encoding="ascii").split()
        data = folder.joinpath(name).read_bytes()
    except (OSError, ValueError):
        return "", "SB706: the viewer asset is absent; pictures take its place"
    if hashlib.sha256(data).hexdigest() != expected:
        return "", "SB706: the viewer asset was changed; pictures take its place"
    return base64.b64encode(data).decode(), ""


def notices() -> str:
    """Licences of the embedded viewer."""
    try:
        return files("segbench.report.write").joinpath("assets", "THIRD_PARTY.md").read_text(encoding="utf-8")
    except OSError:
        return ""


def colour_table() -> dict[str, Any]:
    """Label colours of the comparison mask, as the viewer takes them."""
    rgb = [(0, 0, 0)] + [
        tuple(int(CLASS_COLOURS[code][place : place + 2], 16) for place in (1, 3, 5))
        for code in (AGREE, MISSED, EXTRA)
    ]
    return {
        "R": [colour[0] for colour in rgb],
        "G": [colour[1] for colour in rgb],
        "B": [colour[2] for colour in rgb],
        "A": [0, 130, 220, 220],
        "I": [0, AGREE, MISSED, EXTRA],
        "labels": ["", *(CLASS_WORDS[code] for code in (AGREE, MISSED, EXTRA))],
    }


def fitting(pictures: Sequence[Picture], room: int) -> list[Picture]:
    """The first pictures that fit into the room left on the page."""
    kept: list[Picture] = []
    for picture in pictures:
        if picture.size > room:
            break
        room -= picture.size
        kept.append(picture)
    return kept
