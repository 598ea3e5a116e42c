"""`segbench predict`: label maps for any images, with the weights of any run.

Channel names, normalisation and spacing come from the run or from the weights file's own metadata, else from
a dataset's card; nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segbench.core import console
from segbench.core.errors import SegbenchError
from segbench.core.interrupt import StopRequest
from segbench.data import open_dataset
from segbench.pipeline.predicting import save_scores
from segbench.volumes import VOLUME_ENDINGS, Volume, read_volume, write_label_map

if TYPE_CHECKING:
    from segbench.networks.weights import WeightsMetadata

_NNUNET_NAME = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


@dataclass(frozen=True, slots=True)
class ImageCase:
    """The images of one case in the network's channel order: paths, or how to read them."""

    case: str
    images: Sequence[Path] | Callable[[], Volume]

    def read(self, max_bytes: int) -> list[Volume]:
        """The channels; a single volume may hold several, channels first."""
        if callable(self.images):
            return [self.images()]
        return [read_volume(path, max_bytes=max_bytes) for path in self.images]


@dataclass(frozen=True, slots=True)
class PredictionReport:
    """What was written, and which cases failed with which error."""

    written: tuple[Path, ...]
    failures: Mapping[str, SegbenchError] = field(default_factory=dict[str, SegbenchError])


def predict_images(
    weights: Path,
    images: Sequence[Path],
    output: Path,
    *,
    model: str | None = None,
    dataset: str | None = None,
    device: str = "auto",
    save_probabilities: bool = False,
    max_bytes: int = 8 * 2**30,
) -> PredictionReport:
    """Write `output/<case>.nii.gz` for every case among the images.

    Args:
        weights: A `.safetensors` file of segbench.
        images: Files (one channel), folders with nnU-Net names, or a dataset's root together with `dataset`.
        output: Folder of the label maps; existing ones are replaced.
        model: Checked against the file's own word; needed where the file does not say.
        dataset: Whose card says what the file does not, and how a dataset's root is read.
        device: "auto", "cpu" or "cuda".
        save_probabilities: Also write float16 class scores as `<case>.b2nd`.
        max_bytes: Largest volume read.

    Raises:
        SegbenchError: SB103 channels unknown or not matching, SB311 no image, SB406 weights unusable.
    """
    from segbench.networks.weights import read_metadata

    metadata = read_metadata(weights)
    if metadata is None:
        raise SegbenchError(
            "SB103",
            "the weights file does not say which channels it was trained on",
            path=weights,
            mend="import it with segbench weights import, or name the run with --run",
        )
    if model is not None and model != metadata.model:
        raise SegbenchError(
            "SB103", "the weights belong to another model", path=weights, expected=model, found=metadata.model
        )
    predict = _predictor(metadata, weights, device, dataset, save_probabilities, output)
    cases = list(find_images(images, metadata.channels, dataset, max_bytes))
    if not cases:
        raise SegbenchError("SB311", "no image was found", details=[str(path) for path in images])
    written: list[Path] = []
    failures: dict[str, SegbenchError] = {}
    with StopRequest() as stop, console.progress("predict", len(cases)) as bar:
        for case in cases:
            try:
                labels, like = predict(case.case, case.read(max_bytes))
                target = output / f"{case.case}.nii.gz"
                write_label_map(target, labels, like)
                written.append(target)
            except SegbenchError as error:
                if error.code in {"SB504", "SB505"}:
                    raise
                failures[case.case] = error
                console.fail(error)
            bar.advance(note=case.case)
            stop.check()
    return PredictionReport(tuple(written), failures)


def find_images(
    images: Sequence[Path], channels: Sequence[str], dataset: str | None, max_bytes: int
) -> Iterable[ImageCase]:
    """The cases among files and folders, sorted by id.

    Raises:
        SegbenchError: SB103 when a case has another number of channels, SB201 for a path that does not exist.
    """
    for path in images:
        if path.is_dir() and dataset is not None:
            opened = open_dataset(dataset, path=path)
            order = tuple(opened.card.channels.order)
            if channels and order != tuple(channels):
                raise SegbenchError(
                    "SB103", "the channels of the weights and of the dataset differ", path=path,
                    expected=", ".join(channels), found=", ".join(order),
                )  # fmt: skip
            everything = sorted({*opened.case_ids, *opened.cases_without_reference})
            yield from (ImageCase(case, partial(opened.read_image, case)) for case in everything)
        elif path.is_dir():
            yield from _folder(path, len(channels))
        elif path.exists():
            if len(channels) != 1:
                raise SegbenchError(
                    "SB103", f"a single file is one channel; the network takes {len(channels)}", path=path,
                    expected=", ".join(channels), mend="give a folder with names such as case_0000.nii.gz",
                )  # fmt: skip
            yield ImageCase(_stem(path), [path])
        else:
            raise SegbenchError("SB201", "no such file or folder", path=path)


def _folder(folder: Path, count: int) -> list[ImageCase]:
    """Cases of a folder with nnU-Net names; plain names when the network takes one channel."""
    groups: dict[str, dict[int, Path]] = {}
    plain: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.name.endswith(VOLUME_ENDINGS):
            continue
        match = _NNUNET_NAME.fullmatch(_stem(path))
        if match is not None:
            groups.setdefault(match["case"], {})[int(match["channel"])] = path
        else:
            plain[_stem(path)] = path
    if not groups and count == 1:
        return [ImageCase(case, [path]) for case, path in plain.items()]
    cases: list[ImageCase] = []
    for case, found in groups.items():
        if sorted(found) != list(range(count)):
            raise SegbenchError(
                "SB103", f"case {case} has channels {sorted(found)}", path=folder, case=case,
                expected=f"0 to {count - 1}", found=sorted(found),
            )  # fmt: skip
        cases.append(ImageCase(case, [found[i] for i in range(count)]))
    return cases


def _stem(path: Path) -> str:
    return next((path.name.removesuffix(end) for end in VOLUME_ENDINGS if path.name.endswith(end)), path.stem)


def _predictor(
    metadata: WeightsMetadata,
    weights: Path,
    device: str,
    dataset: str | None,
    save_probabilities: bool,
    output: Path,
) -> Callable[[str, Sequence[Volume]], tuple[Any, Volume]]:
    """The function from channels to a label map on the first channel's stored grid."""
    import numpy as np
    import torch
    from safetensors.torch import load_file

    from segbench.cards import load_dataset_card
    from segbench.data.case import prepare_case
    from segbench.engine.export import export_grid, to_stored_grid
    from segbench.engine.predictor import predict_case
    from segbench.networks import build_network
    from segbench.pipeline.training import choose_device

    facts = dict(metadata.extra or {})
    if "normalisation" not in facts:
        if dataset is None:
            raise SegbenchError(
                "SB103",
                "the weights file does not say how images are normalised",
                path=weights,
                mend="name the dataset it was trained on with --dataset, or the run with --run",
            )
        card = load_dataset_card(dataset)
        facts["normalisation"] = list(card.channel_normalisation)
        facts["spacing_mm"] = card.geometry.spacing_mm or "native"
        facts["label_values"] = sorted(card.labels)
    where = choose_device(device)
    with torch.random.fork_rng(devices=[]):
        network = build_network(
            metadata.model,
            in_channels=metadata.in_channels,
            out_channels=metadata.out_channels,
            **metadata.arguments,
        )
    network.load_state_dict(load_file(weights))
    network = network.to(where).eval()
    inference = dict(facts.get("inference") or {})
    regions = facts.get("region_labels")

    def predict(case: str, channels: Sequence[Volume]) -> tuple[Any, Volume]:
        prepared = prepare_case(
            channels,
            spacing_mm=facts.get("spacing_mm", "native"),
            normalisation=facts["normalisation"],
            normalisation_statistics=facts.get("normalisation_statistics"),
            orientation=facts.get("orientation", "canonical"),
        )
        shape, nearest = export_grid(prepared.properties)
        settings: dict[str, Any] = {
            "patch": facts.get("patch") or _patch_of(metadata.model),
            "num_outputs": metadata.out_channels,
            "overlap": inference.get("overlap", 0.5),
            "mirror_axes": tuple(inference.get("mirror_axes", ())),
            "importance": inference.get("importance", "gaussian"),
            "sigma_scale": inference.get("sigma_scale", 0.125),
            "device": where,
        }
        labels = predict_case(
            network, prepared.image, shape=shape, nearest_axis=nearest,
            regions=None if regions is None else tuple(regions), **settings,
        )  # fmt: skip
        if save_probabilities:
            save_scores(
                output / f"{case}.b2nd", network, prepared.image, settings, by_sign=regions is not None
            )
        if regions is None:
            labels = np.asarray(facts.get("label_values", range(metadata.out_channels)), dtype=np.uint16)[
                labels
            ]
            labels = labels.astype(np.uint8) if labels.max(initial=0) < 256 else labels
        return to_stored_grid(labels, prepared.properties), channels[0]

    return predict


def _patch_of(model: str) -> list[int]:
    from segbench.cards import load_model_card

    card = load_model_card(model)
    smallest = card.input.minimum if card.input is not None else 32
    return [max(smallest, 64)] * 3
