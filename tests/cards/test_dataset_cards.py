"""Dataset cards: every shipped one is whole; a broken one is refused with all its faults."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from segbench.cards import cards_root, find_card_folder, list_dataset_cards, load_dataset_card
from segbench.cards.dataset_card import INHERITED, DatasetCard, parse_dataset_card, read_dataset_card
from segbench.core.errors import SegbenchError

MISSION = ("crc-2000", "brats2023-gli", "aiib2023", "abdomenatlas-1.0-mini")
MSD = (
    "brain-tumour", "heart", "liver", "hippocampus", "prostate",
    "lung", "pancreas", "hepatic-vessel", "spleen", "colon",
)  # fmt: skip
FURTHER = ("kits23", "amos22", "acdc", "totalsegmentator", "lits", "btcv", "aeropath")
PHANTOMS = ("crc", "brats", "aiib", "abdomenatlas", "msd")


def document(slug: str) -> dict:
    path = cards_root() / "datasets" / slug / "card.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def faults(broken: dict) -> list[str]:
    with pytest.raises(SegbenchError) as caught:
        parse_dataset_card(broken, path="datasets/x/card.toml")
    assert caught.value.code == "SB110"
    assert caught.value.exit_code == 2
    return list(caught.value.details)


def test_the_promised_datasets_are_there() -> None:
    promised = {*MISSION, *(f"msd-{name}" for name in MSD), *FURTHER, *(f"phantom-{k}" for k in PHANTOMS)}
    assert promised <= set(list_dataset_cards())


@pytest.mark.parametrize(
    "slug", sorted({p.parent.name for p in (cards_root() / "datasets").glob("*/card.toml")})
)
def test_a_shipped_card_is_whole(slug: str) -> None:
    card = load_dataset_card(slug)
    folder = find_card_folder("datasets", slug)
    assert card.slug == slug
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("# ")
    for name in card.splits.files:
        assert (folder / "splits" / f"{name}.json").is_file()
    by_rule = re.fullmatch(r"random-\d+-\d+-\d+|folds-\d+", card.splits.default)
    assert by_rule or card.splits.default in card.splits.files
    assert card.availability.citation or card.is_phantom
    assert card.availability.licence
    assert card.expected.cases or card.is_phantom
    assert not any(Path(name).is_absolute() for name in card.location.folders)
    if card.modality == "CT":
        assert set(card.channel_normalisation) == {"ct"}


def test_the_mission_cards_say_what_the_papers_and_releases_say() -> None:
    brats = load_dataset_card("brats2023-gli")
    assert brats.channels.order == ("t2w", "t2f", "t1n", "t1c")
    assert dict(brats.regions) == {"TC": (1, 3), "WT": (1, 2, 3), "ET": (3,)}
    assert list(brats.regions) == ["TC", "WT", "ET"]
    assert brats.channel_normalisation == ("zscore-nonzero",) * 4
    assert brats.expected.cases == 1251
    assert 4 in brats.labels_note.legacy
    assert load_dataset_card("crc-2000").location.folders == ("CRC-2000", "random2500", "crc-2000")
    assert load_dataset_card("crc-2000").geometry.spacing_mm == (3.75, 0.79296899, 0.79296899)
    assert load_dataset_card("aiib2023").evaluation.tree
    atlas = load_dataset_card("abdomenatlas-1.0-mini")
    assert [atlas.labels[v] for v in atlas.foreground] == list(atlas.regions)
    assert atlas.geometry.mirror_axes == ("z", "y")


@pytest.mark.parametrize("kind", ["crc", "brats", "aiib", "abdomenatlas"])
def test_a_phantom_card_is_the_real_one_but_for_where_it_comes_from(kind: str) -> None:
    phantom = load_dataset_card(f"phantom-{kind}")
    assert phantom.like is not None
    real = load_dataset_card(phantom.like)
    for field in INHERITED:
        assert getattr(phantom, field) == getattr(real, field), field
    assert phantom.is_phantom
    assert not real.is_phantom
    assert phantom.phantom is not None
    assert phantom.phantom.kind == kind


def test_only_public_cards_download_and_only_with_a_digest() -> None:
    for slug in list_dataset_cards():
        availability = load_dataset_card(slug).availability
        for download in availability.download:
            assert availability.kind == "public"
            assert download.md5 or download.sha256
    assert load_dataset_card("msd-hippocampus").availability.download[0].md5 == (
        "9d24dba78a72977dbd1d2e110310f31b"
    )


def test_all_faults_are_told_at_once_inside_tables_and_between_them() -> None:
    broken = document("brats2023-gli")
    broken["modality"] = "PET"
    broken["unheard"] = 1
    broken["labels"]["300"] = "too high"
    broken["regions"]["XX"] = [9]
    broken["regions"]["9bad"] = [1]
    broken["layout"]["form"][0]["images"] = {"t2w": "{nobody}.nii.gz"}
    broken["channels"]["normalisation"] = ["zscore", "ct"]
    broken["evaluation"]["nsd_tolerance_mm"] = {"XY": 1.0}
    broken["patient"]["group"] = "nobody"
    broken["availability"]["download"] = [{"url": "https://x.org/a", "md5": "0" * 32}]
    lines = faults(broken)
    for key in (
        "modality", "unheard", "labels.300", "regions.XX", "regions", "layout.form[0].images.t2w",
        "layout.form[0].images", "channels.normalisation", "evaluation.nsd_tolerance_mm.XY", "patient.group",
        "availability.download",
    ):  # fmt: skip
        assert any(line.startswith(f"{key}: found ") for line in lines), (key, lines)
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("slug",), "Bad Slug", "slug"),
        (("labels",), {"1": "no background"}, "labels: found [1]; label 0 must be declared"),
        (("regions", "TC"), [], "regions.TC"),
        (("regions", "TC"), [0, 1], "regions.TC"),
        (("geometry", "spacing_mm"), [1.0, 0.0, 1.0], "geometry.spacing_mm[1]"),
        (("geometry", "mirror_axes"), ["w"], "geometry.mirror_axes[0]"),
        (("location", "folders"), ["../up"], "location.folders[0]"),
        (("layout", "case_pattern"), r"(?P<patient>\d+)", "layout.case_pattern"),
        (("layout", "case_pattern"), "(", "layout.case_pattern"),
        (("layout", "adapter"), "guess", "layout"),
        (("expected", "cases"), 0, "expected.cases"),
        (("evaluation", "size_bins_ml"), {"WT": [50, 10]}, "evaluation.size_bins_ml.WT"),
        (("evaluation", "ignore_label"), 9, "evaluation.ignore_label"),
        (("evaluation", "ignore_label"), [2], "evaluation.ignore_label"),
        (("evaluation", "ignore_label"), {"a": 2}, "evaluation.ignore_label"),
        (("splits", "default"), "a/b", "splits.default"),
        (("schema_version",), 2, "schema_version"),
    ],
)
def test_each_rule_of_the_card_is_kept(path: tuple[str, ...], value: object, said: str) -> None:
    broken = document("brats2023-gli")
    table = broken
    for key in path[:-1]:
        table = table.setdefault(key, {})
    table[path[-1]] = value
    assert any(line.startswith(said) for line in faults(broken))


def test_a_missing_table_is_a_fault_and_not_a_crash() -> None:
    lines = faults({"schema_version": 1, "slug": "x", "layout": "nonsense", "labels": 3, "regions": [1]})
    assert {"title: found", "modality: found"} <= {re.sub(r"(: found).*", r"\1", line) for line in lines}


def test_like_may_not_be_repeated_and_needs_the_other_card() -> None:
    broken = document("phantom-brats") | {"channels": {"order": ["a"], "normalisation": "ct"}}
    with pytest.raises(SegbenchError) as caught:
        parse_dataset_card(broken, load_like=load_dataset_card)
    assert any(line.startswith("channels: found a value of its own") for line in caught.value.details)
    assert any(line.startswith("like: found") for line in faults(document("phantom-brats")))
    with pytest.raises(SegbenchError) as caught:
        parse_dataset_card(document("phantom-brats") | {"like": "brats2023"}, load_like=load_dataset_card)
    assert caught.value.code == "SB101"
    assert "brats2023-gli" in caught.value.mend


def test_phantom_table_and_availability_go_together() -> None:
    broken = document("phantom-brats")
    broken["availability"]["kind"] = "public"
    with pytest.raises(SegbenchError) as caught:
        parse_dataset_card(broken, load_like=load_dataset_card)
    assert any(line.startswith("phantom: found 'public'") for line in caught.value.details)


def test_a_card_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    path.write_text("slug = ", encoding="utf-8")
    with pytest.raises(SegbenchError) as caught:
        read_dataset_card(path)
    assert caught.value.code == "SB110"


def test_a_card_is_frozen_and_answers_per_region_and_channel() -> None:
    kits = load_dataset_card("kits23")
    assert kits.nsd_tolerance("masses") == 1.1329
    assert kits.nsd_tolerance("unknown") == 1.0
    assert load_dataset_card("msd-brain-tumour").channel_normalisation == ("zscore-nonzero",) * 4
    assert kits.foreground == (1, 2, 3)
    with pytest.raises(ValidationError):
        kits.slug = "other"  # type: ignore[misc]
    again = DatasetCard.model_validate(kits.model_dump(exclude_unset=True))
    assert again == kits


def test_an_ignore_label_is_no_foreground() -> None:
    content = document("msd-heart")
    content["labels"]["2"] = "ignore"
    content["evaluation"]["ignore_label"] = 2
    assert parse_dataset_card(content).foreground == (1,)
    content["regions"]["both"] = [1, 2]
    assert any(line.startswith("regions.both") for line in faults(content))


@pytest.mark.parametrize(
    ("slug", "adapter", "form"),
    [
        (
            "brats2023-gli",
            "case-folder",
            {
                "images": {c: f"{{case}}-{c}.nii.gz" for c in ("t2w", "t2f", "t1n", "t1c")},
                "labels": "{case}-seg.nii.gz",
            },
        ),
        (
            "abdomenatlas-1.0-mini",
            "case-folder",
            {
                "images": {"CT": "ct.nii.gz"},
                "combined": "combined_labels.nii.gz",
                "structures": {
                    value: f"segmentations/{name}.nii.gz"
                    for value, name in load_dataset_card("abdomenatlas-1.0-mini").labels.items()
                    if value
                },
            },
        ),
        (
            "btcv",
            "paired-folders",
            {"images": "img", "labels": "label", "label_name": "label{number}.nii.gz"},
        ),
        ("lits", "paired-folders", {"images": ".", "labels": ".", "label_name": "segmentation-{number}"}),
    ],
)
def test_the_older_adapters_are_short_forms_of_a_tree(slug: str, adapter: str, form: dict) -> None:
    written = document(slug)
    names = {"btcv": "as-downloaded", "lits": "one-folder"}
    wanted = next(
        each
        for each in load_dataset_card(slug).layout.form
        if each.name == names.get(slug, load_dataset_card(slug).layout.form[0].name)
    )
    written["layout"] |= {"adapter": adapter, "form": [{"name": wanted.name, **form}]}
    found = parse_dataset_card(written).layout
    assert found.adapter == "tree"

    def stems(each: object) -> object:  # the older forms of folders name no endings
        text = repr(each)
        return text.replace(".nii.gz", "") if adapter == "paired-folders" else text

    assert stems(found.form[0]) == stems(wanted)


def test_a_folder_that_several_cases_share_is_any_subject() -> None:
    written = document("acdc")
    pattern = r"(?P<case>(?P<patient>patient\d{3})_frame\d{2})"
    written["layout"] = {
        "adapter": "case-folder",
        "folder_pattern": r"patient\d{3}",
        "case_pattern": pattern,
        "form": [{"name": "old", "images": {"MR": "{case}.nii.gz"}, "labels": "{case}_gt.nii.gz"}],
    }
    (form,) = parse_dataset_card(written).layout.form
    assert (form.images, form.labels) == ({"MR": "{subject}/{case}.nii.gz"}, "{subject}/{case}_gt.nii.gz")


def test_a_pattern_that_matches_more_than_the_id_is_told() -> None:
    written = document("flare22")
    written["layout"]["case_pattern"] = r"(?P<case>FLARE22_Tr_\d{4})_0000"
    assert any(line.startswith("layout.case_pattern") and "templates" in line for line in faults(written))
