"""What readers make of damaged files: how many of a corpus each returns as if they were whole.

Claim: segbench refuses every one, each in under a second and under 300 MB; nibabel and SimpleITK return some
with wrong or invented voxels. "Wrong" means that an array came back although the file is not the one written.

    python benchmarks/corrupt_files.py
"""

from __future__ import annotations

import gzip
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np

from segbench.core.errors import SegbenchError
from segbench.volumes import read_label_map

SHAPE = (40, 48, 56)  # z, y, x


def base() -> bytes:
    """An uncompressed label map with labels 0, 1, 2."""
    z, y, x = np.indices(SHAPE)
    ball = (z - 20) ** 2 + (y - 24) ** 2 + (x - 28) ** 2
    rng = np.random.default_rng(0)
    array = np.where(ball < 120, 2, np.where(ball < 300, 1, 0)).astype(np.int16)
    array[rng.random(SHAPE) < 0.02] = 1
    return nib.Nifti1Image(array.T, np.diag([1.0, 1.0, 2.0, 1.0])).to_bytes()


def patched(data: bytes, at: int, layout: str, *values: float) -> bytes:
    changed = bytearray(data)
    struct.pack_into(layout, changed, at, *values)
    return bytes(changed)


def corpus() -> Iterator[tuple[str, str, bytes]]:
    """(what, ending, bytes) of each damaged file."""
    plain = base()
    packed = gzip.compress(plain, mtime=0)
    rng = np.random.default_rng(1)
    for share in (10, 25, 50, 75, 90, 99):
        yield f"gzip cut at {share} %", ".nii.gz", packed[: len(packed) * share // 100]
    for lost in (1, 4, 8, 12):
        yield f"gzip without its last {lost} bytes", ".nii.gz", packed[:-lost]
    for index in range(20):
        data = bytearray(packed)
        data[int(rng.integers(200, len(data)))] ^= 1 << int(rng.integers(0, 8))
        yield f"one bit flipped ({index + 1})", ".nii.gz", bytes(data)
    yield "second member with payload", ".nii.gz", packed + gzip.compress(b"x" * 400)
    yield "garbage after the stream", ".nii.gz", packed + b"\0" * 512
    yield "payload too long", ".nii.gz", gzip.compress(plain + b"\1\0" * 90)
    yield "payload too short", ".nii.gz", gzip.compress(plain[:-600])
    yield "plain, too long", ".nii", plain + b"\1\0" * 90
    yield "plain, too short", ".nii", plain[:-600]
    yield "plain, half", ".nii", plain[: len(plain) // 2]
    yield "empty", ".nii.gz", b""
    yield "HTML page", ".nii.gz", b"<html><body>please log in</body></html>"
    yield "git-lfs pointer", ".nii.gz", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    yield "gzip under the name .nii", ".nii", packed
    yield "plain under the name .nii.gz", ".nii.gz", plain
    fields = {
        "negative dim": (42, "<h", -56),
        "zero dim": (42, "<h", 0),
        "rank 0": (40, "<h", 0),
        "rank 9": (40, "<h", 9),
        "complex": (70, "<2h", 32, 64),
        "RGB": (70, "<2h", 128, 24),
        "unknown type": (70, "<2h", 999, 16),
        "wrong bitpix": (72, "<h", 8),
        "terabytes": (42, "<3h", 32767, 32767, 32767),
        "offset 0": (108, "<f", 0.0),
        "offset beyond": (108, "<f", 3e7),
        "offset NaN": (108, "<f", float("nan")),
        "slope NaN": (112, "<f", float("nan")),
        "slope infinite": (112, "<f", float("inf")),
        "spacing NaN": (80, "<f", float("nan")),
        "spacing 0": (80, "<f", 0.0),
        "affine NaN": (280, "<f", float("nan")),
        "affine singular": (280, "<4f", 0.0, 0.0, 0.0, 0.0),
        "affine sheared": (284, "<f", 0.5),
    }
    for name, (at, layout, *values) in fields.items():
        yield name, ".nii.gz", gzip.compress(patched(plain, at, layout, *values))
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = [deflate.compress(plain), *(deflate.compress(bytes(1 << 20)) for _ in range(500)), deflate.flush()]
    yield "bomb behind the voxels", ".nii.gz", b"".join(bomb)
    half = np.frombuffer(plain[352:], "<i2").astype("<f4")
    floats = patched(plain[:352], 70, "<2h", 16, 32)
    yield "half a label", ".nii.gz", gzip.compress(floats + (half * 0.5).tobytes())
    half[1000] = np.nan
    yield "NaN label", ".nii.gz", gzip.compress(floats + half.tobytes())
    yield "undeclared label", ".nii.gz", gzip.compress(plain[:-2] + b"\7\0")


def readers() -> dict[str, Callable[[Path], object]]:
    found: dict[str, Callable[[Path], object]] = {
        "segbench": lambda path: read_label_map(path, labels=[0, 1, 2]),
        "nibabel": lambda path: np.array(nib.load(path).dataobj),
    }
    try:
        import SimpleITK as sitk

        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        found["SimpleITK"] = lambda path: sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except ImportError:
        print("left out: SimpleITK is not installed")
    return found


def main() -> None:
    peers = readers()
    accepted: dict[str, list[str]] = {name: [] for name in peers}
    codes: dict[str, int] = {}
    slowest = (0.0, "")
    files = list(corpus())
    with tempfile.TemporaryDirectory() as folder:
        for what, ending, data in files:
            path = Path(folder) / f"file{ending}"
            path.write_bytes(data)
            for name, call in peers.items():
                start = time.process_time()
                try:
                    call(path)
                    accepted[name].append(what)
                except SegbenchError as error:
                    codes[error.code] = codes.get(error.code, 0) + 1
                except Exception:
                    continue
                finally:
                    if name == "segbench":
                        slowest = max(slowest, (time.process_time() - start, what))
            path.unlink()
    print(f"{len(files)} damaged files")
    for name, names in accepted.items():
        refused = len(files) - len(names)
        print(f"  {name:10s} refused {refused:2d}, returned {len(names):2d}", "; ".join(names))
    print("  codes of segbench:", ", ".join(f"{code} x{number}" for code, number in sorted(codes.items())))
    print(f"  slowest refusal of segbench: {slowest[0]:.3f} s CPU ({slowest[1]})")


if __name__ == "__main__":
    main()
