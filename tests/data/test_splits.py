"""Splits: whole patients, no random generator, leaks counted, files and nnU-Net folds in and out."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from segbench.cards import find_card_folder, load_dataset_card
from segbench.cli.main import build_app
from segbench.core.errors import SegbenchError
from segbench.core.hashing import digest_json
from segbench.data import Dataset, open_dataset
from segbench.data.adapters import CaseFiles, Discovery
from segbench.data.splits import (
    Split,
    count_leaks,
    find_leaks,
    from_nnunet,
    limit_split,
    load_split,
    make_folds,
    patient_safe,
    random_split,
    read_split,
    save_split,
    to_nnunet,
)

CASES = [f"p{patient:02d}-{visit}" for patient in range(20) for visit in range(1 + patient % 3)]


def patient_of(case: str) -> str:
    return case.partition("-")[0]


def key(patient: str, dataset: str, seed: int) -> tuple[str, str]:
    text = f"segbench-split/1|{dataset}|{seed}|{patient}"
    return hashlib.sha256(text.encode("utf-8")).hexdigest(), patient


def naive_random(cases: list[str], dataset: str, seed: int, shares: tuple[float, float, float]) -> dict:
    """The walk of the specification, written a second time from its words."""
    parts: dict[str, list[str]] = {"test": [], "validation": [], "train": []}
    t, v = (math.floor(len(cases) * share + 0.5) for share in (shares[2], shares[1]))
    for patient in sorted({patient_of(c) for c in cases}, key=lambda p: key(p, dataset, seed)):
        own = [c for c in cases if patient_of(c) == patient]
        name = "test" if len(parts["test"]) < t else "validation" if len(parts["validation"]) < v else "train"
        parts[name] += own
    return {name: tuple(sorted(ids)) for name, ids in parts.items()}


def dataset_of(slug: str, cases: list[str], root: Path = Path("nowhere")) -> Dataset:
    """A dataset of these ids without files: splits need no voxel."""
    discovery = Discovery()
    for case in sorted(cases):
        patient = case.split("-")[2] if case.startswith("BraTS") else patient_of(case)
        discovery.cases[case] = CaseFiles(case, patient, None, {"x": root / case}, root / case, "any")
    return Dataset(load_dataset_card(slug), root, discovery, find_card_folder("datasets", slug) / "splits")


def brats(more: list[str] | None = None) -> Dataset:
    official = json.loads(
        (find_card_folder("datasets", "brats2023-gli") / "splits/official.json").read_text()
    )
    ids = official["folds"][0]["test"] + [pair[1] for pair in official["known_leaks"]] + (more or [])
    return dataset_of("brats2023-gli", ids)


def code_of(call: Callable[[], object]) -> SegbenchError:
    with pytest.raises(SegbenchError) as caught:
        call()
    return caught.value


def test_random_split_is_the_walk_of_the_specification() -> None:
    for dataset in ("", "brats2023-gli"):
        for seed in range(5):
            for shares in ((0.7, 0.1, 0.2), (0.5, 0.0, 0.5), (1.0, 0.0, 0.0)):
                split = random_split(
                    CASES, patient_of=patient_of, dataset=dataset, seed=seed, fractions=shares
                )
                expected = naive_random(CASES, dataset, seed, shares)
                assert {k: getattr(split, k) for k in expected} == expected


def test_a_known_split_never_changes() -> None:
    split = random_split(CASES, patient_of=patient_of, dataset="x")
    assert split.name == "random-70-10-20"
    # Golden: a change of this value changes every run id and every published table.
    assert split.digest == digest_json(
        {
            "dataset": "x",
            "folds": [{"train": split.train, "validation": split.validation, "test": split.test}],
        }
    )
    assert split.digest == GOLDEN_RANDOM
    folds = make_folds(CASES, patient_of=patient_of, dataset="x")
    assert [fold.digest[:12] for fold in folds] == GOLDEN_FOLDS


GOLDEN_RANDOM = "bb67eb28c88535d782859550051b0969d0a5e3c73f6105abf456b8b3cde7ce2a"
GOLDEN_FOLDS = ["33613de64b88", "772b6a120f88", "dcaebdde553a", "30e59b88729a", "b55bfe81a03d"]


@pytest.mark.ci
@given(st.permutations(CASES), st.integers(0, 2**40))
@settings(max_examples=25, deadline=None)
def test_order_and_repetition_of_ids_do_not_matter(cases: list[str], seed: int) -> None:
    first = random_split(sorted(CASES), patient_of=patient_of, seed=seed)
    assert random_split([*cases, *cases[:5]], patient_of=patient_of, seed=seed) == first
    assert make_folds(cases, patient_of=patient_of, seed=seed) == make_folds(
        CASES, patient_of=patient_of, seed=seed
    )


@given(
    st.lists(st.integers(1, 4), min_size=6, max_size=40),
    st.integers(0, 1000),
    st.sampled_from([(0.7, 0.1, 0.2), (0.6, 0.2, 0.2), (0.34, 0.33, 0.33)]),
)
@settings(max_examples=60, deadline=None)
def test_patients_stay_whole_and_sizes_are_within_one_patient(
    visits: list[int], seed: int, shares: tuple[float, float, float]
) -> None:
    cases = [f"p{p:03d}-{v}" for p, count in enumerate(visits) for v in range(count)]
    split = random_split(cases, patient_of=patient_of, seed=seed, fractions=shares)
    assert find_leaks(split, patient_of=patient_of) == {}
    assert sorted(split.train + split.validation + split.test) == sorted(cases)
    for part, share in (("test", shares[2]), ("validation", shares[1])):
        wanted = math.floor(len(cases) * share + 0.5)
        size = len(getattr(split, part))
        assert wanted <= size < wanted + max(visits) or len(cases) - len(split.test) < wanted
    folds = make_folds(cases, patient_of=patient_of, folds=4, seed=seed)
    sizes = [len(fold.validation) for fold in folds]
    assert max(sizes) - min(sizes) <= max(visits)
    assert sorted(case for fold in folds for case in fold.validation) == sorted(cases)
    for fold in folds:
        assert find_leaks(fold, patient_of=patient_of) == {}
        assert not set(fold.train) & set(fold.validation)


def test_the_hash_seed_of_python_and_another_process_do_not_matter() -> None:
    code = (
        "from segbench.data.splits import random_split;"
        "print(random_split({f'c{i}' for i in range(50)}, patient_of=lambda c: c, dataset='d').digest)"
    )
    found = set()
    for hash_seed in ("0", "7"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        found.add(done.stdout.strip())
    assert len(found) == 1
    assert len(found.pop()) == 64


def test_patients_may_be_a_mapping() -> None:
    patients = {case: patient_of(case) for case in CASES}
    first = random_split(CASES, patient_of=patients)
    assert first == random_split(CASES, patient_of=patient_of)
    assert find_leaks(first, patient_of=patients) == {}


def test_folds_keep_the_test_set_out() -> None:
    test = [case for case in CASES if case.startswith("p1")]
    folds = make_folds(CASES, patient_of=patient_of, folds=3, test=test)
    for fold in folds:
        assert fold.test == tuple(sorted(test))
        assert not set(test) & {*fold.train, *fold.validation}


@pytest.mark.parametrize(
    "shares", [(0.7, 0.1, 0.1), (-0.1, 0.6, 0.5), (2.0, 0.0, -1.0), (math.nan, 0.5, 0.5)]
)
def test_fractions_that_are_not_valid_are_refused(shares: tuple[float, float, float]) -> None:
    assert code_of(lambda: random_split(CASES, patient_of=patient_of, fractions=shares)).code == "SB104"


@pytest.mark.parametrize("patients", range(5))
@pytest.mark.parametrize("folds", range(-1, 7))
def test_folds_are_made_or_refused_in_words_that_hold(patients: int, folds: int) -> None:
    """Whatever is refused names a range that exists, and what lies in it is taken."""
    cases = [f"{name}-{scan}" for name in range(patients) for scan in (0, 1)]

    def made() -> list[Split]:
        return make_folds(cases, patient_of=patient_of, folds=folds)

    if 2 <= folds <= patients:
        assert len(made()) == folds
        return
    refused = code_of(made)
    assert refused.code == "SB104"
    if patients < 2:
        assert refused.expected is None and f"has {patients}" in refused.message
    else:
        assert refused.expected == ("2 folds" if patients == 2 else f"2 to {patients} folds")


def test_patient_safe_drops_every_other_case_of_a_test_patient() -> None:
    split = Split("d", "given", train=("a-0", "b-0", "c-0", "c-1", "d-0"), validation=(), test=("a-1", "b-1"))
    assert find_leaks(split, patient_of=patient_of) == {
        "a": {"a-0": "train", "a-1": "test"},
        "b": {"b-0": "train", "b-1": "test"},
    }
    assert count_leaks(split, patient_of=patient_of).pairs == (("a-1", "a-0"), ("b-1", "b-0"))
    safe = patient_safe(split, patient_of=patient_of, validation_fraction=0.34)
    assert safe.test == split.test
    assert safe.excluded == ("a-0", "b-0")
    assert find_leaks(safe, patient_of=patient_of) == {}
    expected = naive_random(["c-0", "c-1", "d-0"], "d", 0, (0.66, 0.34, 0.0))
    assert (safe.train, safe.validation) == (expected["train"], expected["validation"])


def test_patient_safe_keeps_a_validation_set_that_is_there() -> None:
    split = Split("d", "given", train=("a-0", "b-0", "c-0"), validation=("a-2", "c-1"), test=("a-1",))
    safe = patient_safe(split, patient_of=patient_of)
    assert (safe.train, safe.validation) == (("b-0",), ("c-1",))
    assert safe.excluded == ("a-0", "a-2", "c-0")
    assert find_leaks(safe, patient_of=patient_of) == {}


class TestOfficialBrats:
    def test_the_list_is_what_the_release_holds(self) -> None:
        content = json.loads(
            (find_card_folder("datasets", "brats2023-gli") / "splits" / "official.json").read_text()
        )
        test = content["folds"][0]["test"]
        patients = Counter(case.split("-")[2] for case in test)
        assert (len(test), len(patients), sum(case.endswith("001") for case in test)) == (250, 247, 25)
        assert sorted(p for p, count in patients.items() if count > 1) == ["00061", "00649", "00689"]
        assert len(content["known_leaks"]) == 47

    def test_leaks_are_counted_in_the_tree_at_hand(self) -> None:
        dataset = brats()
        official = load_split("official", dataset)[0]
        leaks = count_leaks(official, patient_of=dataset.patient_of)
        assert (leaks.test_cases, official.acknowledged_leaks, official.validation) == (47, True, ())
        more = brats(["BraTS-GLI-00018-001"])  # 00018-000 is tested
        assert count_leaks(load_split("official", more)[0], patient_of=more.patient_of).test_cases == 48

    def test_patient_safe_is_the_default_and_leaks_nothing(self) -> None:
        others = [f"BraTS-GLI-{n:05d}-000" for n in range(3000, 3100)]
        dataset = brats(others)
        safe, official = load_split(None, dataset)[0], load_split("official", dataset)[0]
        assert safe.name == "patient-safe"
        assert safe.test == official.test
        assert find_leaks(safe, patient_of=dataset.patient_of) == {}
        assert len(safe.excluded) == 47
        assert sorted(safe.train + safe.validation) == others
        assert len(safe.validation) == 10
        assert not safe.acknowledged_leaks

    def test_an_incomplete_tree_is_told_what_is_absent(self) -> None:
        dataset = brats()
        gone = dataset.case_ids[3]
        del dataset.discovery.cases[gone]
        smaller = Dataset(dataset.card, dataset.root, dataset.discovery, dataset.splits_folder)
        assert read_split("official", smaller).unknown == (gone,)
        for name in ("official", None):
            error = code_of(lambda name=name: load_split(name, smaller))
            assert error.code == "SB324"
            assert any(gone in line for line in error.details)


TABLE = {"kind": "rule", "rule": "table", "table": "meta.csv", "case": "id", "column": "part", "test": ["t"]}


class TestFiles:
    def test_written_and_read_again(self, tmp_path: Path) -> None:
        dataset = dataset_of("acdc", CASES)
        folds = make_folds(CASES, patient_of=patient_of, dataset="acdc", folds=3)
        path = save_split(folds, tmp_path / "mine.json")
        again = load_split(path, dataset)
        assert [fold.digest for fold in again] == [fold.digest for fold in folds]
        assert path.read_bytes() == save_split(folds, tmp_path / "twice.json").read_bytes()
        assert json.loads(path.read_text())["digest"].startswith("sha256:")

    def test_a_changed_file_is_refused_and_a_handwritten_one_needs_no_digest(self, tmp_path: Path) -> None:
        dataset = dataset_of("acdc", CASES)
        path = save_split(random_split(CASES, patient_of=patient_of, dataset="acdc"), tmp_path / "s.json")
        content = json.loads(path.read_text())
        content["folds"][0]["train"].append(content["folds"][0]["test"].pop())
        path.write_text(json.dumps(content))
        assert code_of(lambda: load_split(path, dataset)).code == "SB335"
        del content["digest"]
        path.write_text(json.dumps(content))
        assert load_split(path, dataset)[0].train

    def test_star_means_every_case_not_named_elsewhere(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, folds=[{"train": "*", "test": ["p00-0", "p01-0"]}])
        split = load_split(path, dataset_of("acdc", CASES))[0]
        assert set(split.train) == set(CASES) - {"p00-0", "p01-0"}
        assert split.validation == ()

    def write(self, folder: Path, **changes: object) -> Path:
        content = {"schema_version": 1, "dataset": "acdc", "name": "mine", "kind": "list"} | changes
        path = folder / "split.json"
        path.write_text(json.dumps(content))
        return path

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"folds": [{"train": ["nobody"], "test": ["p00-0"]}]}, "SB324"),
            ({"folds": [{"train": ["p00-0"], "test": ["p00-0"]}]}, "SB324"),
            ({"dataset": "kits23", "folds": [{"train": ["p00-0"]}]}, "SB324"),
            ({"folds": []}, "SB110"),
            ({"folds": [{"train": "all"}]}, "SB110"),
            ({"folds": [{"training": []}]}, "SB110"),
            ({"folds": [{"train": "*", "test": "*"}]}, "SB110"),
            ({"kind": "guess"}, "SB110"),
            ({"kind": "rule", "rule": "shuffle"}, "SB110"),
            ({"kind": "rule", "rule": "patient-safe"}, "SB110"),
            ({"kind": "rule", "rule": "random", "fractions": [1, 2, 3]}, "SB110"),
            ({"kind": "rule", "rule": "random", "seed": True}, "SB110"),
            ({"kind": "rule", "rule": "folds", "folds": [{"train": []}]}, "SB110"),
            ({"kind": "rule", "rule": "forms", "test": 7}, "SB110"),
            ({"kind": "rule", "rule": "forms", "test": ["a"], "validation": [{}]}, "SB110"),
            ({"kind": "rule", "rule": "patient-safe", "of": {}}, "SB110"),
            ({**TABLE, "table": 5}, "SB110"),
            ({**TABLE, "column": None}, "SB110"),
            ({**TABLE, "table": "absent.csv"}, "SB303"),
            ({**TABLE, "table": "no\0name"}, "SB303"),
            ({"folds": [{"train": ["p00-0"]}], "colour": "blue"}, "SB110"),
            ({"folds": [{"train": ["p00-0"]}], "schema_version": 9}, "SB110"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, tmp_path: Path, changes: dict, code: str) -> None:
        path = self.write(tmp_path, **changes)
        assert code_of(lambda: load_split(path, dataset_of("acdc", CASES))).code == code

    @pytest.mark.parametrize("text", ["", "[]", "{"])
    def test_what_is_no_json_object_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "s.json").write_text(text)
        assert code_of(lambda: load_split(tmp_path / "s.json", dataset_of("acdc", CASES))).code == "SB110"
        assert code_of(lambda: load_split(tmp_path / "no.json", dataset_of("acdc", CASES))).code == "SB110"

    def test_rules_by_name_and_unknown_names(self) -> None:
        dataset = dataset_of("acdc", CASES)
        assert load_split("random-50-25-25", dataset)[0].name == "random-50-25-25"
        assert len(load_split("folds-4", dataset)) == 4
        for name in ("random-50-25", "folds", "patient-safe", "official"):
            assert code_of(lambda name=name: load_split(name, dataset)).code == "SB101"
        assert code_of(lambda: load_split("random-50-25-50", dataset)).code == "SB104"

    def test_rule_files_take_forms_and_tables_of_the_tree(self, tmp_path: Path) -> None:
        dataset = dataset_of("amos22", CASES)
        for case in CASES[:6]:
            files = dataset.discovery.cases[case]
            dataset.discovery.cases[case] = CaseFiles(
                case, files.patient, None, files.images, files.references, "validation"
            )
        split = load_split("published", dataset)[0]
        assert split.test == tuple(sorted(CASES[:6]))
        assert split.validation
        assert find_leaks(split, patient_of=dataset.patient_of) == {}
        rows = "".join(
            f"{c};{'test' if i < 3 else 'val' if i < 8 else 'train'}\n" for i, c in enumerate(CASES)
        )
        (tmp_path / "meta.csv").write_text("\ufeffimage_id;split\n" + rows, encoding="utf-8")
        single = [case.replace("-", "_") for case in CASES]
        (tmp_path / "meta.csv").write_text(
            "\ufeffimage_id;split\n" + rows.replace("-", "_"), encoding="utf-8"
        )
        split = load_split("published", dataset_of("totalsegmentator", single, tmp_path))[0]
        assert (split.test, split.validation) == (tuple(single[:3]), tuple(single[3:8]))

    def test_limit_takes_the_first_of_each_part_in_hash_order(self) -> None:
        split = random_split(CASES, patient_of=patient_of, dataset="d")
        cut = limit_split(split, 3, patient_of=patient_of)
        assert cut.counts == {"train": 3, "validation": 3, "test": 3, "excluded": 0}
        expected = sorted(split.train, key=lambda c: (key(patient_of(c), "d", 0), c))[:3]
        assert set(cut.train) == set(expected)
        assert cut.digest != split.digest
        assert code_of(lambda: limit_split(split, 0, patient_of=patient_of)).code == "SB104"


class TestNnunet:
    def test_both_ways(self, tmp_path: Path) -> None:
        folds = make_folds(CASES, patient_of=patient_of, dataset="acdc", folds=5)
        path = to_nnunet(folds, tmp_path / "splits_final.json")
        content = json.loads(path.read_text())
        assert [set(fold) for fold in content] == [{"train", "val"}] * 5
        again = from_nnunet(path, CASES, dataset="acdc")
        assert [(f.train, f.validation) for f in again] == [(f.train, f.validation) for f in folds]

    def test_leaks_of_folds_over_cases_are_found(self, tmp_path: Path) -> None:
        (tmp_path / "s.json").write_text(json.dumps([{"train": ["p02-0", "p02-1"], "val": ["p02-2"]}]))
        split = from_nnunet(tmp_path / "s.json", CASES)[0]
        assert set(find_leaks(split, patient_of=patient_of)) == {"p02"}

    @pytest.mark.parametrize(
        ("content", "code"),
        [
            ([{"train": ["nobody"], "val": []}], "SB324"),
            ([{"train": ["p00-0"], "val": ["p00-0"]}], "SB324"),
            ([{"train": ["p00-0", "p00-0"], "val": ["p01-0"]}], "SB324"),
            ([{"train": ["p00-0"]}], "SB110"),
            ({}, "SB110"),
            ([], "SB110"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, tmp_path: Path, content: object, code: str) -> None:
        (tmp_path / "s.json").write_text(json.dumps(content))
        assert code_of(lambda: from_nnunet(tmp_path / "s.json", CASES)).code == code


class TestCommand:
    def run(self, *arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(build_app(), ["data", "split", *arguments])
        return done.exit_code, done.stdout, done.stderr

    def test_made_written_checked(self, clean_trees: dict[str, Path], tmp_path: Path) -> None:
        tree, file = str(clean_trees["brats"]), str(tmp_path / "f.json")
        code, _, _ = self.run("brats2023-gli", "--path", tree, "--folds", "2", "--write", file)
        assert code == 0
        code, out, _ = self.run("brats2023-gli", "--path", tree, "--check", file, "--json")
        report = json.loads(out)
        assert code == 0
        assert report["leaks"] == {"patients": 0, "test_cases": 0, "pairs": []}
        assert report["digest"] == json.loads(Path(file).read_text())["digest"]
        final = tmp_path / "splits_final.json"
        assert self.run("brats2023-gli", "--path", tree, "--check", file, "--to-nnunet", str(final))[0] == 0
        code, out, _ = self.run("brats2023-gli", "--path", tree, "--check", str(final), "--json")
        assert (code, json.loads(out)["digest"]) == (0, report["digest"])

    def test_leaks_are_an_error_unless_acknowledged(
        self, clean_trees: dict[str, Path], tmp_path: Path
    ) -> None:
        root = tmp_path / "tree"
        import shutil

        shutil.copytree(clean_trees["brats"], root)
        (root / "phantom.json").unlink()
        first = root / "BraTS-GLI-90000-000"
        second = root / "BraTS-GLI-90000-001"
        shutil.copytree(first, second)
        for path in second.iterdir():
            path.rename(second / path.name.replace("90000-000", "90000-001"))
        fold = {"train": "*", "test": ["BraTS-GLI-90000-000"]}
        for acknowledged, expected in ((False, 4), (True, 0)):
            content = {
                "schema_version": 1, "dataset": "brats2023-gli", "name": "x", "kind": "list",
                "acknowledged_leaks": acknowledged, "folds": [fold],
            }  # fmt: skip
            (tmp_path / "s.json").write_text(json.dumps(content))
            code, out, err = self.run(
                "brats2023-gli", "--path", str(root), "--check", str(tmp_path / "s.json"), "--json"
            )
            report = json.loads(out)
            assert code == expected
            assert report["leaks"]["pairs"] == [["BraTS-GLI-90000-000", "BraTS-GLI-90000-001"]]
            assert report["counts"]["test"] == 1
            assert "1 of 1 test cases share a patient" in err
            assert ("SB323" in err) == (not acknowledged)
        code, out, err = self.run("brats2023-gli", "--path", str(root), "--check", "official", "--json")
        assert code == 4
        assert len(json.loads(out)["unknown"]) == 250
        assert "SB324" in err

    def test_flags_that_exclude_each_other(self, clean_trees: dict[str, Path]) -> None:
        tree = str(clean_trees["crc"])
        code, _, err = self.run("crc-2000", "--path", tree, "--folds", "2", "--fractions", "1,0,0")
        assert (code, "SB104" in err) == (2, True)
        assert self.run("crc-2000", "--path", tree, "--fractions", "a")[0] == 2
        assert self.run("crc-2000", "--path", tree, "--check", "nobody")[0] == 2


def test_a_tree_of_phantoms_takes_the_rule_in_place_of_the_default(clean_trees: dict[str, Path]) -> None:
    dataset = open_dataset("brats2023-gli", path=clean_trees["brats"])
    for name in (None, "patient-safe"):
        assert load_split(name, dataset)[0].name == "random-70-10-20"
    assert code_of(lambda: load_split("official", dataset)).code == "SB324"
