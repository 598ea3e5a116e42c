"""Verification as a whole: memory, workers, digests, the report, real data."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from segbench.cli.common import Settings
from segbench.core.console import Output
from segbench.core.errors import SegbenchError
from segbench.data import open_dataset
from segbench.data.digest import check_unchanged, content_digest, dataset_digest
from segbench.data.finding import finding
from segbench.data.phantoms import generate
from segbench.data.verify import reading as scan_module
from segbench.data.verify.api import verify
from segbench.data.verify.report import as_text, grouped
from segbench.data.verify.text import is_harmless


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("verify")
    return {
        "msd": generate("msd", base / "msd", cases=5, traps=False),
        "abdomenatlas": generate("abdomenatlas", base / "abdomenatlas", cases=2, traps=False),
    }


@pytest.fixture
def msd(originals, tmp_path) -> Path:
    return Path(shutil.copytree(originals["msd"], tmp_path / "msd"))


@pytest.fixture
def atlas(originals, tmp_path) -> Path:
    return Path(shutil.copytree(originals["abdomenatlas"], tmp_path / "atlas"))


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Names of the files that are read whole from now on."""
    names: list[str] = []
    real = scan_module.load_stored

    def spy(path, **options):
        names.append(Path(path).name)
        return real(path, **options)

    monkeypatch.setattr(scan_module, "load_stored", spy)
    return names


@pytest.fixture(autouse=True)
def fresh_settings(monkeypatch):
    """The everywhere-flags belong to a process; here each test is one."""
    monkeypatch.setattr("segbench.cli.common._settings", Settings())
    monkeypatch.setattr("segbench.core.console.output", Output())


def run(*arguments: str):
    from segbench.cli.main import build_app

    return CliRunner().invoke(build_app(), ["data", "verify", *arguments], env={"SEGBENCH_THREADS": "1"})


# ---- memory


def test_second_run_opens_nothing(msd, tmp_path, opened):
    first = verify(msd, cache=tmp_path / "cache")
    assert len(opened) == 11 and not first.cached
    opened.clear()
    second = verify(msd, cache=tmp_path / "cache")
    assert opened == [] and second.cached
    assert second.as_json() == first.as_json() | {"cached": True}


def test_only_what_changed_is_read_again(msd, tmp_path, opened):
    verify(msd, cache=tmp_path / "cache")
    opened.clear()
    path = msd / "labelsTr" / "phantom_002.nii.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1))
    report = verify(msd, cache=tmp_path / "cache")
    assert opened == ["phantom_002.nii.gz"] and not report.cached


def test_a_change_of_content_changes_the_report(msd, tmp_path):
    before = verify(msd, cache=tmp_path / "cache")
    path = msd / "labelsTr" / "phantom_002.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine), path)
    after = verify(msd, cache=tmp_path / "cache")
    assert after.digest != before.digest
    assert [f.code for f in after.findings if f.severity == "warning"] == ["SB318"]


def test_same_size_and_new_time_is_read_again(msd, tmp_path, opened):
    verify(msd, cache=tmp_path / "cache")
    opened.clear()
    path = msd / "imagesTr" / "phantom_001.nii.gz"
    os.utime(path, ns=(1, 1))
    verify(msd, cache=tmp_path / "cache")
    assert opened == [path.name]


def test_no_cache_neither_reads_nor_writes_it(msd, tmp_path, opened, monkeypatch):
    monkeypatch.setenv("SEGBENCH_CACHE", str(tmp_path / "cache"))
    for _ in range(2):
        opened.clear()
        verify(msd, cache=False)
        assert len(opened) == 11
    assert not (tmp_path / "cache").exists()


def test_all_findings_are_listed_when_asked_for(msd):
    notes = tuple(finding("SB317", "info", "stored as float", case=f"c{i}") for i in range(7))
    errors = tuple(finding("SB201", "error", "empty", case=f"e{i}") for i in range(7))
    report = replace(verify(msd, headers_only=True, cache=False), findings=notes + errors)
    short, whole = as_text(report), as_text(report, verbose=True)
    assert [f"c{i}:" in short for i in range(7)] == [True] + [False] * 6
    assert [f"e{i}:" in short for i in range(7)] == [True] * 3 + [False] * 4
    assert all(f"{name}{i}:" in whole for name in "ce" for i in range(7))
    assert "more (-v" in short and "more (-v" not in whole


def test_a_line_break_in_a_name_is_no_line_of_the_report(msd):
    image = next((msd / "imagesTr").iterdir())
    shutil.copy(image, image.with_name("x\nerror[SB201] made up.nii.gz"))
    report = verify(msd, cache=False)
    assert not any(line.startswith("error[SB201]") for line in as_text(report).splitlines())
    assert any("\n" in (found.file or "") for found in report.findings)


def test_a_cache_that_cannot_be_kept_costs_time_and_nothing_else(msd, tmp_path, opened, capsys):
    (tmp_path / "file").write_text("no folder can be here")
    first = verify(msd, cache=tmp_path / "file" / "cache")
    assert "cannot be remembered" in capsys.readouterr().err
    count = len(opened)
    again = verify(msd, cache=tmp_path / "file" / "cache")
    assert len(opened) == 2 * count
    assert again == first == verify(msd, cache=False)
    assert not first.cached


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 0}', '{"version": 2, "files": {"a": 3}}'])
def test_damaged_cache_is_made_anew(msd, tmp_path, content):
    first = verify(msd, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_text(content)
    again = verify(msd, cache=tmp_path / "cache")
    assert again.as_json() == first.as_json()
    assert verify(msd, cache=tmp_path / "cache").cached


def test_entries_of_an_odd_form_are_read_again(msd, tmp_path, opened):
    verify(msd, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    content = json.loads(file.read_text())
    content["files"]["imagesTr/phantom_000.nii.gz"] = {"size": "much"}
    content["files"]["labelsTr/phantom_000.nii.gz"].pop("role")
    file.write_text(json.dumps(content))
    opened.clear()
    verify(msd, cache=tmp_path / "cache")
    assert opened == ["phantom_000.nii.gz"] * 2


def test_refusals_by_the_limit_of_the_moment_are_not_remembered(msd, tmp_path):
    small = verify(msd, cache=tmp_path / "cache", max_bytes=1000)
    assert {f.code for f in small.findings if f.severity == "error"} == {"SB208"}
    assert verify(msd, cache=tmp_path / "cache").counts["error"] == 0


def test_other_refusals_are(msd, tmp_path, opened):
    path = msd / "imagesTr" / "phantom_001.nii.gz"
    path.write_bytes(path.read_bytes()[:-4])
    first = verify(msd, cache=tmp_path / "cache")
    opened.clear()
    second = verify(msd, cache=tmp_path / "cache")
    assert opened == [] and second.cached
    assert [f.code for f in first.findings] == [f.code for f in second.findings] == ["SB204"]


def test_headers_then_voxels(msd, tmp_path, opened):
    headers = verify(msd, cache=tmp_path / "cache", headers_only=True)
    assert opened == [] and headers.digest is None and not headers.labels
    assert verify(msd, cache=tmp_path / "cache").digest is not None


def test_headers_see_geometry(msd, tmp_path):
    path = msd / "labelsTr" / "phantom_001.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:-1], image.affine), path)
    report = verify(msd, cache=False, headers_only=True)
    assert [f.code for f in report.findings if f.severity == "error"] == ["SB307"]


def test_painted_references_are_remembered(atlas, tmp_path, opened):
    slug = "abdomenatlas-1.0-mini"
    first = verify(slug, path=atlas, cache=tmp_path / "cache")
    opened.clear()
    assert verify(slug, path=atlas, cache=tmp_path / "cache").as_json() == first.as_json() | {"cached": True}
    assert opened == []
    mask = atlas / "BDMAP_90000001" / "segmentations" / "liver.nii.gz"
    os.utime(mask, ns=(1, 1))
    verify(slug, path=atlas, cache=tmp_path / "cache")
    assert len(opened) == 10  # nine masks and the combined labels: painting needs all
    assert "liver.nii.gz" in opened and "ct.nii.gz" not in opened


# ---- workers, order, the raw folder


def test_workers_do_not_change_the_report(msd, tmp_path):
    path = msd / "imagesTr" / "phantom_003.nii.gz"
    path.write_bytes(b"junk")
    one = verify(msd, cache=False, workers=1)
    two = verify(msd, cache=False, workers=2)
    assert one.as_json() == two.as_json()
    assert one.counts["error"] == 1


def test_nothing_is_written_into_the_dataset(msd, tmp_path):
    def state():
        return {p: (p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(msd.rglob("*"))}

    before = state()
    verify(msd, cache=tmp_path / "cache")
    assert state() == before


def test_findings_are_in_order(msd):
    for index, name in enumerate(("phantom_003", "phantom_001")):
        path = msd / ("imagesTr" if index else "labelsTr") / f"{name}.nii.gz"
        path.write_bytes(b"")
    image = nib.load(msd / "labelsTr" / "phantom_000.nii.gz")
    floats = nib.Nifti1Image(np.asarray(image.dataobj).astype(np.float32), image.affine)
    nib.save(floats, msd / "labelsTr" / "phantom_000.nii.gz")
    found = [(f.severity, f.case) for f in verify(msd, cache=False).findings]
    assert found[:2] == [("error", "phantom_001"), ("error", "phantom_003")]
    assert {severity for severity, _ in found[2:]} == {"info"}


# ---- digests


def test_digest_is_that_of_the_dataset(msd, tmp_path):
    report = verify(msd, cache=tmp_path / "cache")
    assert re.fullmatch(r"[0-9a-f]{64}", report.digest or "")
    assert content_digest(open_dataset(msd)) == report.digest


def test_digest_of_known_lines(msd):
    """The definition, computed once more by other means."""
    import hashlib

    from segbench.volumes import digest_canonical, to_canonical

    dataset = open_dataset(msd)
    lines = []
    for case in dataset.case_ids:
        image, label = dataset.read_image(case), dataset.read_reference(case)
        for index, channel in enumerate(dataset.card.channels.order):
            lines.append(
                f"{case}\t{channel}\t{digest_canonical(to_canonical(image.with_array(image.array[index])).array)}\n"
            )
        lines.append(f"{case}\tlabel\t{digest_canonical(to_canonical(label).array)}\n")
    assert dataset_digest(dataset, keep=False) == hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def test_digest_of_painted_references(atlas):
    import hashlib

    from segbench.volumes import digest_canonical, to_canonical

    dataset = open_dataset("abdomenatlas-1.0-mini", path=atlas)
    lines = []
    for case in dataset.case_ids:
        image = dataset.read_image(case)
        lines.append(
            f"{case}\tCT\t{digest_canonical(to_canonical(image.with_array(image.array[0])).array)}\n"
        )
        lines.append(f"{case}\tlabel\t{digest_canonical(to_canonical(dataset.read_reference(case)).array)}\n")
    channel = dataset.card.channels.order[0]
    text = "".join(sorted(lines)).replace("\tCT\t", f"\t{channel}\t")
    assert dataset_digest(dataset, keep=False) == hashlib.sha256(text.encode()).hexdigest()


def test_digest_is_blind_to_storage(msd, tmp_path):
    """Other folder, compression, type and order of axes: the same digest. One voxel: another."""
    before = dataset_digest(open_dataset(msd), keep=False)
    other = Path(shutil.copytree(msd, tmp_path / "elsewhere"))
    for path in sorted(other.rglob("*.nii.gz")):
        image = nib.load(path)
        flip = np.diag([-1.0, 1, 1, 1])
        flip[0, 3] = image.shape[0] - 1
        array = np.asarray(image.dataobj)[::-1].astype(np.float32)
        nib.save(nib.Nifti1Image(array, image.affine @ flip), path)
    assert dataset_digest(open_dataset(other), keep=False) == before
    path = sorted(other.glob("imagesTr/*.nii.gz"))[0]
    image = nib.load(path)
    array = np.asarray(image.dataobj).copy()
    array[1, 1, 1] += 1
    nib.save(nib.Nifti1Image(array, image.affine), path)
    assert dataset_digest(open_dataset(other), keep=False) != before


def test_digest_of_some_cases(msd):
    dataset = open_dataset(msd)
    some = dataset.case_ids[:2]
    assert dataset_digest(dataset, cases=some) == dataset_digest(dataset, cases=reversed(some))
    assert dataset_digest(dataset, cases=some) != dataset_digest(dataset)


def test_one_bad_case_does_not_keep_a_dataset_from_its_digest(msd):
    whole = dataset_digest(open_dataset(msd), keep=False)
    path = msd / "imagesTr" / "phantom_001.nii.gz"
    good = path.read_bytes()
    path.write_bytes(good[:-5])
    cut = dataset_digest(open_dataset(msd), keep=False)
    assert verify(msd, cache=False).digest == cut
    path.write_bytes(good[:-6])
    assert len({whole, cut, dataset_digest(open_dataset(msd), keep=False)}) == 3
    path.write_bytes(good)
    assert dataset_digest(open_dataset(msd), keep=False) == whole


def test_file_that_changed_since(msd):
    dataset = open_dataset(msd)
    check_unchanged(dataset, dataset.case_ids)  # never verified: nothing to compare with
    verify(msd)
    check_unchanged(dataset, dataset.case_ids)
    path = msd / "imagesTr" / "phantom_001.nii.gz"
    os.utime(path, ns=(1, 1))
    check_unchanged(dataset, dataset.case_ids)  # the same bytes
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1))
    with pytest.raises(SegbenchError) as caught:
        check_unchanged(dataset, dataset.case_ids)
    assert (caught.value.code, caught.value.case, caught.value.path) == ("SB338", "phantom_001", path)
    check_unchanged(dataset, [c for c in dataset.case_ids if c != "phantom_001"])
    path.unlink()
    with pytest.raises(SegbenchError):
        check_unchanged(dataset, ["phantom_001"])


# ---- the same scan in two datasets


def as_real(source: Path, target: Path, name: str, rename=lambda case: case) -> Path:
    """A copy under another name and other ids, no longer recognisable as generated."""
    shutil.copytree(source, target)
    (target / "phantom.json").unlink()
    content = json.loads((target / "dataset.json").read_text()) | {"name": name}
    for folder in ("imagesTr", "labelsTr"):
        for path in (target / folder).iterdir():
            path.rename(path.with_name(rename(path.name)))
    for entry in content["training"]:
        for key, value in entry.items():
            entry[key] = f"{Path(value).parent}/{rename(Path(value).name)}"
    (target / "dataset.json").write_text(json.dumps(content))
    return target


def test_scans_that_two_datasets_share_are_told(msd, tmp_path):
    one = as_real(msd, tmp_path / "one", "One")
    two = as_real(msd, tmp_path / "two", "Two", lambda name: name.replace("phantom_00", "other_7"))
    assert not verify(one, cache=tmp_path / "cache").counts["warning"]
    report = verify(two, cache=tmp_path / "cache")
    told = [f for f in report.findings if f.code == "SB321"]
    assert {f.case for f in told} == {f"other_7{index}" for index in range(5)}
    assert "case phantom_000 of dataset one" in told[0].message
    assert report.counts["error"] == 0
    assert verify(two, cache=False).counts["warning"] == 0


def test_a_copy_of_the_same_dataset_is_no_finding(msd, tmp_path):
    for name in ("One", "Two"):
        report = verify(as_real(msd, tmp_path / name, name), cache=tmp_path / "cache")
        assert report.counts["warning"] == 0
    verify(msd, cache=tmp_path / "cache")
    copy = Path(shutil.copytree(msd, tmp_path / "copy"))
    assert verify(copy, cache=tmp_path / "cache").counts["warning"] == 0


# ---- a worker that dies


def test_a_case_that_kills_its_worker_is_told_and_the_rest_goes_on(msd, monkeypatch):
    from segbench.data.verify import gather as verify_gather

    def pool(function, tasks, workers, *, case_of):
        for task in tasks:
            if case_of(task) == "phantom_002":
                yield task, None, SegbenchError("SB503", "a worker was killed", case="phantom_002")
            else:
                yield task, function(task), None

    monkeypatch.setattr(verify_gather, "ordered_map", pool)
    report = verify(msd, cache=False)
    assert {(f.code, f.case) for f in report.findings} == {("SB503", "phantom_002")}
    assert report.counts["error"] == 2  # its image and its label
    assert report.labels[0].cases == 4


# ---- the report


def test_json_has_the_pinned_fields(msd):
    result = run(str(msd), "--json", "--no-progress")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert set(report) == {
        "schema_version", "dataset", "root", "adapter", "form", "cases_found", "cases_expected",
        "cases_without_reference", "labels", "findings", "counts", "digest", "cached",
    }  # fmt: skip
    assert report["adapter"] == "msd"
    assert report["cases_found"] == report["cases_expected"] == 5
    assert report["counts"] == {"error": 0, "warning": 0, "info": 0}
    label = nib.load(msd / "labelsTr" / "phantom_000.nii.gz")
    assert report["labels"]["0"]["cases"] == 5
    total = sum(count["voxels"] for count in report["labels"].values())
    assert total > np.prod(label.shape)


def test_finding_has_the_pinned_fields(msd):
    (msd / "imagesTr" / "phantom_001.nii.gz").write_bytes(b"")
    result = run(str(msd), "--json", "--no-progress")
    assert result.exit_code == 4
    (entry,) = json.loads(result.stdout)["findings"]
    assert set(entry) == {"code", "check", "severity", "case", "file", "message", "expected", "found", "mend"}
    assert entry["file"] == "imagesTr/phantom_001.nii.gz"
    assert entry["case"] == "phantom_001"


def test_text_for_people(msd):
    (msd / "imagesTr" / "phantom_001.nii.gz").write_bytes(b"")
    result = run(str(msd))
    assert result.exit_code == 4
    assert "error[SB201]" in result.stdout and "phantom_001" in result.stdout and "1 error" in result.stdout
    assert "fix:" in result.stdout
    assert "voxels of" in result.stderr  # progress goes to stderr, the result to stdout
    assert "voxels of" not in result.stdout
    many = as_text(verify(msd, cache=False), verbose=True)
    assert "anterior" in many


@pytest.mark.parametrize("argument", ["no-such-dataset", "nowhere/at/all"])
def test_unknown_names(argument):
    result = run(argument)
    assert result.exit_code in {2, 4} and "SB" in result.stderr
    assert result.stdout == ""


def test_absent_dataset(tmp_path):
    result = run("brats2023-gli", "--data-dir", str(tmp_path))
    assert result.exit_code == 4 and "SB301" in result.stderr


def test_folder_that_nobody_recognises(tmp_path):
    (tmp_path / "x").mkdir()
    result = run(str(tmp_path / "x"), "--json")
    assert result.exit_code == 4
    assert [f["code"] for f in json.loads(result.stdout)["findings"]] == ["SB302"]


# ---- real data


@pytest.mark.ci
@pytest.mark.real_data
def test_hippocampus_is_clean(real_data, tmp_path):
    report = verify("msd-hippocampus", path=real_data / "Task04_Hippocampus", cache=tmp_path)
    assert report.counts["error"] == report.counts["warning"] == 0, report.findings
    assert {f.code for f in report.findings} == {"SB317"}
    assert report.cases_found == 200
    assert set(report.labels) == {0, 1, 2}
    assert all(count.cases == 200 for count in report.labels.values())


@pytest.mark.real_data
def test_atlas_is_clean_but_alone(real_data, tmp_path):
    report = verify("abdomenatlas-1.0-mini", path=real_data / "AbdomenAtlas1.0Mini_layout", cache=tmp_path)
    assert {(f.code, f.severity) for f in report.findings} == {("SB305", "warning"), ("SB336", "info")}


@pytest.mark.real_data
def test_unlabelled_brats(real_data, tmp_path):
    root = real_data / "brats2023_layout_unlabelled"
    report = verify("brats2023-gli", path=root, cache=tmp_path)
    assert report.counts["error"] == 0
    assert report.cases_without_reference == 1


@pytest.mark.real_data
def test_strangers_among_hippocampi(real_data, tmp_path):
    """The strays of a circulating copy: labels without image, one of another organ and size."""
    source = real_data / "Task04_Hippocampus"
    root = tmp_path / "Task04_Hippocampus"
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (root / folder).mkdir(parents=True)
    content = json.loads((source / "dataset.json").read_text())
    content["training"], content["test"] = content["training"][:4], []
    content["numTraining"], content["numTest"] = 4, 0
    for entry in content["training"]:
        for name in entry.values():
            shutil.copy(source / name, root / name)
    (root / "dataset.json").write_text(json.dumps(content))
    for stray in sorted((real_data / "integrity" / "orphan_labels").glob("*.nii.gz")):
        shutil.copy(stray, root / "labelsTr")
    report = verify("msd-hippocampus", path=root, cache=False)
    errors = [(f.code, f.case) for f in report.findings if f.severity == "error"]
    assert errors == [("SB304", "hippocampus_010"), ("SB304", "hippocampus_281")]


@pytest.mark.ci
@pytest.mark.real_data
def test_foreign_label_of_another_size(real_data, tmp_path):
    source = real_data / "Task04_Hippocampus"
    root = Path(shutil.copytree(source, tmp_path / "t", ignore=lambda *_: []))
    stray = next((real_data / "integrity" / "orphan_labels").glob("*281*.nii.gz"))
    target = sorted(root.glob("labelsTr/*.nii.gz"))[7]
    shutil.copy(stray, target)
    report = verify("msd-hippocampus", path=root, cache=False)
    codes = {f.code for f in report.findings if f.severity == "error"}
    assert "SB307" in codes
    assert {f.case for f in report.findings if f.severity == "error"} == {target.name.split(".")[0]}


# ---- text in headers


@pytest.mark.parametrize(
    "text",
    [
        "nnU-Net 2.4",
        "ITK-SNAP 4.0",
        "MRIcroGL",
        "3D Slicer 4.10.2 r28257",
        "Philips Healthcare",
        "Time=101112.345;phase=1",
        "5.0.10",
        "FSL5.0",
        "6.0.5:9e026117",
        "FreeSurfer Oct  4 2016",
        "spm - realigned",
        "SPM12",
        "TE=5.8;Time=161353.260;phase=1",
        "ITK 5.3.0",
        "Insight Toolkit",
        "nibabel 5.4.2",
        "dcm2niix v1.0.20230411",
        "none",
        "Red-Yellow",
        "NIFTI-1",
        "TotalSegmentator v2.0.5",
        "3D Slicer",
    ],
)
def test_what_tools_write_names_nobody(text):
    assert is_harmless(text)


@pytest.mark.parametrize(
    "text",
    [
        "DOE^JANE",
        "Jane Doe",
        "JD",
        "Time=19700101",
        "19700101",
        "12345678",
        "1970-01-01",
        "FSL5.0 DOE^JANE",
        "spm - Jane",
        "MRN 123456",
        "St Mary Hospital",
        "Dr. X",
        "12.jane.doe",
        "pat0006_1",
    ],
)
def test_what_may_name_somebody(text):
    assert not is_harmless(text)


def test_the_text_itself_is_kept_nowhere(msd, tmp_path):
    path = msd / "imagesTr" / "phantom_001.nii.gz"
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[148:156] = b"DOE^JANE"
    path.write_bytes(gzip.compress(bytes(data)))
    report = verify(msd, cache=tmp_path / "cache")
    assert [f.code for f in report.findings] == ["SB328"]
    written = [p.read_text() for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    for text in (json.dumps(report.as_json()), as_text(report, verbose=True), *written):
        assert "DOE" not in text and "JANE" not in text


# ---- what is said of many cases


@pytest.mark.parametrize("count", [1, 3, 4, 1251])
def test_findings_are_grouped_and_bounded_whatever_their_number(count):
    many = [finding("SB314", "warning", f"odd {n}", case=f"case_{n:04d}") for n in range(count)]
    other = finding("SB305", "warning", "found 2 of 3 expected cases")
    lines = grouped([*many, other])
    assert len(lines) == 2 and max(map(len, lines)) < 120
    assert lines[0].startswith("SB314: ") and "case_0000" in lines[0] and "odd 0" in lines[0]
    assert (f"{count} times" in lines[0]) == (count > 1)
    assert (f"and {count - 3} more" in lines[0]) == (count > 3)
    assert lines[1] == "SB305: dataset: found 2 of 3 expected cases"


def test_more_cases_than_expected_are_not_a_share(msd):
    content = json.loads((msd / "dataset.json").read_text())
    (msd / "dataset.json").write_text(json.dumps(content | {"numTraining": 3}))
    report = verify(msd, cache=False)
    assert as_text(report).startswith("phantom: 5 cases here, 3 expected, 1 without a reference")
