"""The two kinds of `dataset.json`, MSD's and nnU-Net v2's: read and checked, all faults at once (SB331)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from segbench.core.errors import SegbenchError
from segbench.core.foreign import parse_json
from segbench.core.names import other_format
from segbench.core.text import count
from segbench.data.adapters.base import ENDINGS

MAX_BYTES = 64 * 2**20
Kind = Literal["msd", "nnunet"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A case that the file lists: paths inside the dataset's folder (nnU-Net's may be absolute)."""

    images: tuple[str, ...]
    label: str | None
    case: str | None = None


@dataclass(frozen=True, slots=True)
class DatasetJson:
    """A checked `dataset.json`.

    Attributes:
        kind: Whose format it is.
        name: The dataset's name, or "".
        channels: Names in file order.
        labels: Name of each label value, 0 first.
        regions: nnU-Net's labels that are lists of values (or all of them when one is), in file order.
        ignore: nnU-Net's ignore label.
        announced: numTraining.
        ending: nnU-Net's file_ending.
        training: Labelled cases the file lists; None when it lists none (nnU-Net's usual form).
        unlabelled: Cases the file lists for testing.
        faults: What is wrong but does not hinder reading, such as numTraining.
        raw: The document.
    """

    kind: Kind
    name: str
    channels: tuple[str, ...]
    labels: Mapping[int, str]
    announced: int | None
    training: tuple[Entry, ...] | None
    faults: tuple[str, ...]
    raw: Mapping[str, Any] = field(repr=False)
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    ignore: int | None = None
    ending: str = ""
    unlabelled: tuple[Entry, ...] = ()


def read_dataset_json(path: Path) -> DatasetJson:
    """The checked `dataset.json`.

    Raises:
        SegbenchError: SB331 with one line per fault; SB302 when both formats fit or none does.
    """
    document = load_object(path)
    kind = kind_of(document, path)
    parse = _msd if kind == "msd" else _nnunet
    faults: list[str] = []
    parsed = parse(document, faults)
    if faults:
        message = f"{path.name} has {count(len(faults), 'fault')}"
        raise SegbenchError("SB331", message, path=path, details=faults)
    return parsed


def read_labels(path: Path) -> DatasetJson:
    """What a `dataset.json` says of labels and regions; scoring needs nothing else of it.

    Raises:
        SegbenchError: SB331 with one line per fault of the labels; faults of other keys do not matter here.
    """
    document = load_object(path)
    faults: list[str] = []
    parsed = _nnunet(document, faults)
    faults = [fault for fault in faults if fault.startswith("labels")]
    if faults:
        raise SegbenchError("SB331", f"the labels of {path.name} cannot be used", path=path, details=faults)
    return parsed


def kind_of(document: Mapping[str, Any], path: Path) -> Kind:
    """Whose format a document is, told by its keys (SB302 when that is not clear)."""
    nnunet = "channel_names" in document or "file_ending" in document
    msd = "modality" in document
    if nnunet and msd:
        raise SegbenchError(
            "SB302",
            "dataset.json fits two formats",
            path=path,
            found="nnU-Net v2 (channel_names, file_ending) and MSD (modality)",
            mend="remove the keys of the format that it is not",
        )
    if not nnunet and not msd:
        raise SegbenchError(
            "SB302",
            "dataset.json is neither MSD's nor nnU-Net's",
            path=path,
            expected="MSD: modality, labels, training; nnU-Net v2: channel_names, labels, file_ending",
            found=", ".join(sorted(map(str, document))) or "no keys",
        )
    return "nnunet" if nnunet else "msd"


def load_object(path: Path) -> Mapping[str, Any]:
    """The JSON object of a folder's description; SB331 for anything else."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SegbenchError("SB331", f"{path.name} is larger than {MAX_BYTES} bytes", path=path)
        document = parse_json(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        message = f"{path.name} cannot be read: {error.strerror}"
        raise SegbenchError("SB331", message, path=path) from error
    except (ValueError, RecursionError) as error:
        mend = "write it again as JSON in UTF-8"
        raise SegbenchError("SB331", f"{path.name} is not JSON: {error}", path=path, mend=mend) from error
    if not isinstance(document, dict):
        raise SegbenchError("SB331", f"{path.name} is not a JSON object", path=path)
    return document


def _msd(document: Mapping[str, Any], faults: list[str]) -> DatasetJson:
    channels = _indexed(document.get("modality"), "modality", faults)
    labels = {int(k): str(v) for k, v in _table(document, "labels", faults).items() if str(k).isdecimal()}
    faults += [
        f"labels: found {key!r}; allowed: label values as text"
        for key in _table(document, "labels", [])
        if not str(key).isdecimal()
    ]
    if 0 not in labels:
        faults.append("labels: 0 is absent; it is the background")
    if labels and max(labels) > 255:
        faults.append(f"labels: found {max(labels)}; allowed: 0 to 255")
    training = tuple(_msd_entries(document, "training", faults, labelled=True))
    validation = tuple(_msd_entries(document, "validation", faults, labelled=False))
    test = tuple(_msd_entries(document, "test", faults, labelled=False))
    training += tuple(entry for entry in validation if entry.label is not None)
    unlabelled = test + tuple(entry for entry in validation if entry.label is None)
    announced = _count(document, "numTraining", faults, required=False)
    mild: list[str] = []
    listed = len(document["training"]) if isinstance(document.get("training"), list) else 0
    if announced is not None and announced != listed:
        mild.append(f"numTraining is {announced}, but training lists {listed}")
    return DatasetJson(
        kind="msd",
        name=_text(document, "name"),
        channels=channels,
        labels=dict(sorted(labels.items())),
        announced=announced,
        training=training,
        unlabelled=unlabelled,
        faults=tuple(mild),
        raw=document,
    )


def _msd_entries(
    document: Mapping[str, Any], key: str, faults: list[str], *, labelled: bool
) -> Iterator[Entry]:
    listed = document.get(key, [])
    if not isinstance(listed, list):
        faults.append(f"{key}: found {type(listed).__name__}; allowed: a list")
        return
    if labelled and key not in document:
        faults.append(f"{key}: this key is required")
    for index, item in enumerate(listed):
        where = f"{key}[{index}]"
        if isinstance(item, str) and not labelled:
            if _inside(item, where, faults):
                yield Entry((item,), None)
        elif isinstance(item, dict) and isinstance(item.get("image"), str):
            label = item.get("label")
            if labelled and not isinstance(label, str):
                faults.append(f"{where}.label: found {label!r}; allowed: a path")
                continue
            label = label if isinstance(label, str) else None
            if _inside(item["image"], where, faults) and (label is None or _inside(label, where, faults)):
                yield Entry((item["image"],), label)
        else:
            faults.append(f"{where}: found {str(item)[:60]!r}; allowed: {{image, label}}")


def _nnunet(document: Mapping[str, Any], faults: list[str]) -> DatasetJson:
    channels = _indexed(document.get("channel_names"), "channel_names", faults)
    given = document.get("file_ending")
    ending = given.lower() if isinstance(given, str) else ""
    if ending not in ENDINGS:
        other = other_format(f"case{ending}")
        how = "" if other is None else f" ({other[1]}; convert: {other[2]})"
        faults.append(f"file_ending: {_seen(given)}; allowed: {', '.join(ENDINGS)}{how}")
    names, regions, ignore = _nnunet_labels(document, faults)
    class_order = document.get("regions_class_order")
    if any(len(values) > 1 for values in regions.values()):
        if not isinstance(class_order, list) or not all(_is_int(v) for v in class_order):
            faults.append("regions_class_order: required as a list of labels, because a label is a list")
        elif len(class_order) != len(regions):
            faults.append(f"regions_class_order: found {len(class_order)} values; allowed: {len(regions)}")
    announced = _count(document, "numTraining", faults, required=True)
    training = _nnunet_entries(document, faults)
    mild: list[str] = []
    if announced is not None and training is not None and announced != len(training):
        mild.append(f"numTraining is {announced}, but dataset lists {len(training)}")
    return DatasetJson(
        kind="nnunet",
        name=_text(document, "name"),
        channels=channels,
        labels=names,
        regions=regions,
        ignore=ignore,
        announced=announced,
        ending=ending,
        training=training,
        faults=tuple(mild),
        raw=document,
    )


def _nnunet_labels(
    document: Mapping[str, Any], faults: list[str]
) -> tuple[dict[int, str], dict[str, tuple[int, ...]], int | None]:
    """Names of the values, the foreground labels as unions of values, the ignore label."""
    unions: dict[str, tuple[int, ...]] = {}
    ignore: int | None = None
    table = _table(document, "labels", faults)
    if all(
        str(key).isdecimal() and isinstance(name, str) for key, name in table.items()
    ):  # as MSD and v1 have it
        names_of = sorted((int(key), "background" if int(key) == 0 else name) for key, name in table.items())
        table = {name: value for value, name in names_of}
        faults += [
            f"labels.{value}: found {name!r} twice" for value, name in names_of if table[name] != value
        ]
    for name, value in table.items():
        values = value if isinstance(value, list) else [value]
        if not values or not all(_is_int(v) and 0 <= v <= 255 for v in values):
            faults.append(f"labels.{name}: found {value!r}; allowed: 0 to 255 or a list of them")
        elif name == "background":
            if value not in (0, [0]):
                faults.append(f"labels.background: found {value!r}; allowed: 0")
        elif name == "ignore":
            ignore = values[0] if len(values) == 1 else None
            if ignore is None:
                faults.append(f"labels.ignore: found {value!r}; allowed: one label")
        elif 0 in values:
            faults.append(f"labels.{name}: found {value!r}; 0 is the background alone")
        else:
            unions[str(name)] = tuple(values)
    if "background" not in table:
        faults.append("labels.background: this key is required")
    used = {v for values in unions.values() for v in values}
    if ignore is not None and ignore <= max(used, default=0):
        faults.append(f"labels.ignore: found {ignore}; allowed: the highest label")
    single = {values[0]: name for name, values in unions.items() if len(values) == 1}
    names = {0: "background", **{v: single.get(v, f"label {v}") for v in sorted(used)}}
    if ignore is not None:
        names[ignore] = "ignore"
    return names, unions, ignore


def _nnunet_entries(document: Mapping[str, Any], faults: list[str]) -> tuple[Entry, ...] | None:
    listed = document.get("dataset")
    if listed is None:
        return None
    if not isinstance(listed, dict):
        faults.append(f"dataset: found {type(listed).__name__}; allowed: {{case: {{images, label}}}}")
        return None
    found: list[Entry] = []
    for case, item in listed.items():
        images = item.get("images") if isinstance(item, dict) else None
        label = item.get("label") if isinstance(item, dict) else None
        if isinstance(images, list) and all(isinstance(i, str) for i in images) and isinstance(label, str):
            named = [(f"dataset.{case}.images[{index}]", image) for index, image in enumerate(images)]
            named.append((f"dataset.{case}.label", label))
            if all([_inside(text, where, faults) for where, text in named]):
                found.append(Entry(tuple(images), label, case=str(case)))
        else:
            faults.append(f"dataset.{case}: found {str(item)[:60]!r}; allowed: {{images: [...], label}}")
    return tuple(found)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""


def _table(document: Mapping[str, Any], key: str, faults: list[str]) -> Mapping[str, Any]:
    value = document.get(key)
    if isinstance(value, dict) and value:
        return value
    faults.append(f"{key}: found {value!r}; allowed: an object with at least one entry")
    return {}


def _indexed(value: object, key: str, faults: list[str]) -> tuple[str, ...]:
    """Names of an object {"0": name, ...} in the order of its indices, which must be 0, 1, 2, ..."""
    if not isinstance(value, dict) or not value:
        faults.append(f'{key}: {_seen(value)}; allowed: {{"0": name, ...}}')
        return ()
    if not all(str(k).isdecimal() for k in value):
        faults.append(f"{key}: found {sorted(map(str, value))}; allowed: indices from 0 as text")
        return ()
    by_index = {int(k): str(v) for k, v in value.items()}
    if sorted(by_index) != list(range(len(by_index))):
        faults.append(f"{key}: found indices {sorted(by_index)}; allowed: 0, 1, 2, ... without a gap")
    return tuple(by_index[index] for index in sorted(by_index))


def _count(document: Mapping[str, Any], key: str, faults: list[str], *, required: bool) -> int | None:
    value = document.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if value is not None or required:
        faults.append(f"{key}: {_seen(value)}; allowed: a whole number")
    return None


def _seen(value: object) -> str:
    return "this key is required" if value is None else f"found {value!r}"


def _inside(text: str, where: str, faults: list[str]) -> bool:
    """Whether a path that the file names stays in its folder, by its text; a link may lead elsewhere."""
    path = PurePosixPath(text.replace("\\", "/"))
    leaves = path.is_absolute() or ".." in path.parts or PureWindowsPath(text).drive != ""
    if leaves or "\0" in text or not path.parts:
        faults.append(
            f"{where}: found {text!r}; allowed: a path inside the dataset's folder, or a link there"
        )
        return False
    return True
