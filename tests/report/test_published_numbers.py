"""Published numbers: what may be loaded, every fault at once, and how far each is comparable."""

import tomllib
from types import SimpleNamespace

import pytest

from segbench.cards.locate import cards_root
from segbench.core.errors import SegbenchError
from segbench.published.tables import COST_METRICS, Number, PublishedTable, load_published
from segbench.records.schema import RunRecord
from segbench.report.analysis.analysis import analyse
from segbench.report.analysis.options import make_options
from segbench.report.analysis.published_beside import family, grade_of, published_beside

DIGEST = "a" * 64
MINIMAL = """
schema_version = 1
[source]
id = "x"
title = "X"
year = 2024
kind = "paper"
[protocol]
split = "unknown"
[[number]]
model = "Net"
dataset = "btcv"
region = "mean"
metric = "dice"
value = 83.1
unit = "%"
read_from = "Table 2"
verified = true
"""


def test_the_start_set_loads_and_every_number_says_where_it_was_read():
    tables = {table.source.id: table for table in load_published()}
    assert set(tables) >= {
        "nnunet-revisited",
        "primus",
        "segmamba-v1",
        "segmamba-v2",
        "sparkseg",
        "touchstone",
    }
    assert tables["segmamba-v2"].number == ()  # only its abstract is open
    for table in tables.values():
        for number in table.number:
            assert number.read_from.strip()
            assert isinstance(number.verified, bool)
    assert {n.verified for n in tables["segmamba-v1"].number if n.metric in ("dice", "iou")} == {False}


@pytest.mark.parametrize(
    ("source", "model", "dataset", "region", "metric", "value"),
    [
        ("sparkseg", "SegMamba-V2", "brats2021", "ET", "dice", 88.30),
        ("sparkseg", "SegMamba-V2", "brats2021", "mean", "hd95", 3.01),
        ("sparkseg", "SegMamba", "brats2021", "WT", "dice", 94.04),
        ("sparkseg", "SegMamba-V2", "synapse", "mean", "hd95", 17.50),
        ("nnunet-revisited", "MedNeXt L k5", "acdc", "mean", "dice", 92.62),
        ("nnunet-revisited", "U-Mamba Enc", "amos22", "mean", "dice", 88.38),
        ("primus", "PrimusV2-M", "primus-nine-datasets", "mean", "dice", 81.43),
        ("touchstone", "SAM-Adapter", "touchstone-jhh", "mean", "dice", 73.4),
        ("segmamba-v1", "SegMamba", "aiib2023", "airway", "iou", 88.59),
    ],
)
def test_spot_checks_against_the_sources(source, model, dataset, region, metric, value):
    table = next(table for table in load_published() if table.source.id == source)
    found = [
        n.value
        for n in table.number
        if (n.model, n.dataset, n.region, n.metric) == (model, dataset, region, metric)
    ]
    assert found == [value]


def test_means_of_sparkseg_are_the_means_of_its_regions():
    """A slip of the pen in one of 42 region values would show here."""
    table = next(table for table in load_published() if table.source.id == "sparkseg")
    scores = {
        (n.model, n.region): n.value for n in table.number if n.dataset == "brats2021" and n.metric == "dice"
    }
    for model in {model for model, _ in scores}:
        mean = sum(scores[model, region] for region in ("WT", "TC", "ET")) / 3
        assert scores[model, "mean"] == pytest.approx(mean, abs=0.011)


def test_no_number_is_entered_twice():
    seen = set()
    for table in load_published():
        for n in table.number:
            key = (table.source.id, n.model, n.dataset, n.region, n.metric, n.comment if n.input else "")
            assert key not in seen
            seen.add(key)


def write(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")


def test_all_faults_of_all_files_are_named_at_once(tmp_path):
    bad = MINIMAL.replace('read_from = "Table 2"\n', "").replace('metric = "dice"', 'metric = "dise"')
    write(tmp_path, "a.toml", bad + 'colour = "red"\n')
    write(tmp_path, "b.toml", MINIMAL.replace("verified = true", ""))
    write(tmp_path, "c.toml", "schema_version = 1\n[source\n")
    write(tmp_path, "d.toml", MINIMAL.replace('model = "Net"', 'model = "Net"\nour_model = "no-such-card"'))
    write(tmp_path, "e.toml", MINIMAL.replace('id = "x"', 'id = "e"').replace("83.1", "nan"))
    with pytest.raises(SegbenchError) as caught:
        load_published(tmp_path)
    error = caught.value
    assert (error.code, error.exit_code) == ("SB703", 4)
    text = "\n".join(error.details)
    for part in (
        "a.toml: number 1 (Net): read_from",
        "a.toml: number 1 (Net): colour",
        "b.toml: number 1 (Net): verified",
        "c.toml: cannot be read",
        "d.toml: number 1 (Net): our_model 'no-such-card' has no card",
        "e.toml: number 1 (Net): value",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (('metric = "dice"', 'metric = "dise"'), "metric 'dise' is not known"),
        (('unit = "%"', 'unit = "mm"'), "unit of dice"),
        (('read_from = "Table 2"', 'read_from = "  "'), "read_from: must say something"),
        (('region = "mean"\n', ""), "needs dataset and region"),
        (("verified = true", "verified = true\nci_low = 84.0"), "outside its own interval"),
        (('metric = "dice"', 'metric = "latency_s"'), "needs `input`"),
        (("schema_version = 1", "schema_version = 2"), "schema_version"),
        (('kind = "paper"', 'kind = "rumour"'), "source.kind"),
        (('split = "unknown"', 'split_sha256 = "12"'), "protocol.split_sha256"),
        (("verified = true", 'verified = true\ninput = "1x1"'), "belongs to costs"),
    ],
)
def test_each_fault_is_told_in_words(tmp_path, change, part):
    write(tmp_path, "a.toml", MINIMAL.replace(*change))
    with pytest.raises(SegbenchError) as caught:
        load_published(tmp_path)
    assert any(part in line for line in caught.value.details), caught.value.details


def test_one_source_id_twice_is_refused(tmp_path):
    write(tmp_path, "a.toml", MINIMAL)
    write(tmp_path, "b.toml", MINIMAL)
    with pytest.raises(SegbenchError) as caught:
        load_published(tmp_path)
    assert "taken by a.toml" in caught.value.details[0]


def test_empty_texts_mean_unknown():
    table = PublishedTable.model_validate(
        tomllib.loads(MINIMAL.replace("verified = true", 'verified = true\nsd = ""\nn = ""\nci_low = ""'))
    )
    number = table.number[0]
    assert (number.sd, number.n, number.ci_low) == (None, None, None)
    assert number.stored == pytest.approx(0.831)


def published(**protocol):
    content = tomllib.loads(MINIMAL)
    content["protocol"] |= {
        "split_sha256": DIGEST,
        "metric_profile": "honest",
        "empty_policy": "worst",
        "regions": ["mean", "liver"],
    } | protocol
    return PublishedTable.model_validate(content)


def graded(table, number=None, **changes):
    """The grade beside runs of ours that say everything."""
    known = {
        "dataset": "btcv",
        "regions": ("liver",),
        "split": DIGEST,
        "profile": "honest",
        "policy": "worst",
    }
    known |= changes
    record = RunRecord(
        schema_version=1, run_id="x", kind="external", status="complete", split={"digest": known["split"]},
        metric_profile={"name": known["profile"], "empty_policy": known["policy"]},
    )  # fmt: skip
    scores = SimpleNamespace(entry=SimpleNamespace(runs=[SimpleNamespace(record=record)]))
    block = SimpleNamespace(dataset=known["dataset"], regions=known["regions"])
    return grade_of(table, number or table.number[0], scores, block)


@pytest.mark.parametrize(
    ("protocol", "cell", "grade", "reason"),
    [
        ({}, {}, "A", None),
        ({"split_sha256": "b" * 64}, {}, "B", "split differs"),
        ({"split_sha256": ""}, {}, "B", "split unknown"),
        ({}, {"split": None}, "B", "split unknown"),
        ({"regions": []}, {}, "B", "regions unknown"),
        ({}, {"regions": ("liver", "spleen")}, "B", "regions differ"),
        ({"metric_profile": "nnunet"}, {}, "C", "metric profile nnunet"),
        ({"metric_profile": ""}, {}, "C", "metric profile unknown"),
        ({"empty_policy": "nan"}, {}, "C", "empty policy nan"),
        ({}, {"profile": ""}, "C", "metric profile unknown"),
        ({}, {"dataset": "synapse"}, "C", "dataset btcv"),
    ],
)
def test_grades(protocol, cell, grade, reason):
    table = published(**protocol)
    found, reasons = graded(table, **cell)
    assert found == grade
    assert (reason in reasons) if reason else reasons == ()


def test_second_hand_is_capped_at_c():
    table = published()
    number = table.number[0].model_copy(update={"verified": False})
    grade, reasons = graded(table, number)
    assert (grade, "second-hand" in reasons) == ("C", True)


def test_a_distance_needs_known_spacing():
    table = published()
    number = Number.model_validate(
        table.number[0].model_dump() | {"metric": "hd95", "unit": "mm", "value": 3.0}
    )
    assert graded(table, number)[0] == "C"
    assert graded(published(spacing_known=True), number)[0] == "A"


def test_other_collections_are_not_compared():
    assert graded(published(), dataset="acdc") is None


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("brats2021", "brats2023-gli", True),
        ("msd-brain-tumour", "brats2021", True),
        ("brats2023-men", "brats2023-gli", False),
        ("phantom-brats", "brats2021", False),
        ("kits19", "kits23", True),
        ("lits", "msd-liver", True),
        ("msd-liver", "msd-lung", False),
        ("synapse", "btcv", True),
        ("acdc", "aiib2023", False),
        ("touchstone-jhh", "abdomenatlas-1.0-mini", True),
    ],
)
def test_families(a, b, same):
    assert (family(a) == family(b)) is same


def beside(runs, tmp_path, *, dataset="btcv", **options):
    """What stands beside runs of nnunet, with numbers of nnunet and of a model without a run."""
    split = {"split": {"name": "official", "digest": DIGEST}}
    profile = {"metric_profile": {"name": "honest", "empty_policy": "worst"}}
    for seed in range(2):
        runs.run("nnunet", dataset=dataset, seed=seed, record=split | profile)
    text = MINIMAL.replace("verified = true", 'verified = true\nour_model = "nnunet"\nsd = 2.0')
    write(tmp_path / "published", "a.toml", text + MINIMAL[MINIMAL.index("[[number]]") :])
    options = {"published_root": str(tmp_path / "published"), "resamples": 100, **options}
    analysis = analyse([runs.root], make_options(**options))
    return analysis, published_beside(analysis)


def test_a_number_stands_beside_the_same_model_region_and_metric(runs, tmp_path):
    analysis, (row,) = beside(runs, tmp_path)
    ours = analysis.column(analysis.blocks[0], analysis.metrics[0]).means["nnunet"].value
    assert (row.column.region, row.column.metric.name, row.our_value) == ("mean", "dice", ours)
    assert row.difference == pytest.approx(ours - 0.831)
    assert row.as_json()["sd"] == pytest.approx(0.02)
    assert row.as_json()["reasons"] == list(row.reasons) != []


@pytest.mark.parametrize("options", [{"dataset": "acdc"}, {"published": False}])
def test_of_another_collection_or_unasked_nothing_stands_beside(runs, tmp_path, options):
    assert beside(runs, tmp_path, **options)[1] == []


def test_costs_are_kept_apart(runs):
    tables = load_published()
    assert any(number.metric in COST_METRICS for table in tables for number in table.number)
    runs.run("segmamba-v2", dataset="brats2023-gli")
    rows = published_beside(analyse([runs.root], make_options(resamples=100)))
    assert {row.number.metric for row in rows} <= {"dice", "hd95", "nsd"} != set()


def test_files_of_the_checkout_hold_nothing_that_is_not_read():
    """The loader reads each file; none is forgotten by a wrong ending."""
    folder = cards_root() / "results" / "published"
    assert {path.suffix for path in folder.iterdir() if path.name != ".gitkeep"} <= {".toml", ".md"}
