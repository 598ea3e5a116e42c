"""Probabilities of a predicted case on disk, written plane by plane as they leave the ring.

One b2nd file (K, Z, Y, X) float16 on the prepared grid, beside a JSON with what is needed to read it: the
names of the outputs and the case's geometry. Nothing is held but the planes at hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import blosc2
import numpy as np
from torch import Tensor

from segbench.core.atomic import atomic_write_json, fsync_folder, temporary_name

__all__ = ["ProbabilityWriter"]

_PLANES, _SIDE = 8, 128


class ProbabilityWriter:
    """Context in which planes are pushed; the file appears under its name when the block ends well.

    Args:
        path: The target, `<case>.b2nd`; `<case>.json` is written beside it.
        classes: K.
        shape: (3,) prepared grid.
        by_sign: Outputs are independent regions: sigmoid in place of softmax.
        averaged: The planes are an ensemble's: already probabilities (with `by_sign` less a half).
        names: Name of each output.
        properties: The case's, kept beside the numbers.
    """

    def __init__(
        self,
        path: Path | str,
        classes: int,
        shape: Sequence[int],
        *,
        by_sign: bool,
        averaged: bool = False,
        names: Sequence[str] = (),
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.by_sign, self.averaged = by_sign, averaged
        self.notes = {
            "schema_version": 1,
            "outputs": list(names),
            "independent": by_sign,
            "properties": dict(properties or {}),
        }
        self._shape = (classes, *(int(n) for n in shape))
        self._temporary = temporary_name(self.path)
        self._array: Any = None
        self._next = 0

    def __enter__(self) -> ProbabilityWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        chunks = (
            1,
            *(min(n, limit) for n, limit in zip(self._shape[1:], (_PLANES, _SIDE, _SIDE), strict=True)),
        )
        self._array = blosc2.empty(
            self._shape,
            dtype=np.dtype(np.float16),
            urlpath=str(self._temporary),
            mode="w",
            chunks=chunks,
            cparams={"codec": blosc2.Codec.ZSTD, "clevel": 1, "nthreads": 1},
        )
        return self

    def push(self, planes: Tensor) -> None:
        """Store the next planes (K, n, Y, X)."""
        values = planes.detach()
        if not self.averaged:
            values = values.sigmoid() if self.by_sign else values.softmax(dim=0)
        elif self.by_sign:
            values = values + 0.5
        stop = self._next + values.shape[1]
        self._array[:, self._next : stop] = values.cpu().numpy().astype(np.float16)
        self._next = stop

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._array = None
        if kind is None and self._next == self._shape[1]:
            self._temporary.replace(self.path)
            fsync_folder(self.path.parent)
            atomic_write_json(self.path.with_suffix(".json"), self.notes)
        else:
            self._temporary.unlink(missing_ok=True)
            if kind is None:
                raise ValueError(f"{self._next} planes pushed, {self._shape[1]} expected")
