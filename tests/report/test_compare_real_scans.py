"""Real label maps, two ways to be wrong about them, scored and compared end to end."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from segbench.report.compare import compare
from typer.testing import CliRunner

from segbench.stats import equivalence_test

CASES = 12


def dice(a, b):
    return 2 * np.logical_and(a, b).sum() / (a.sum() + b.sum())


@pytest.fixture(scope="module")
def scored(real_data, tmp_path_factory):
    """Hippocampi shifted by a voxel and eroded by one, evaluated by the command; and their Dice by hand."""
    from segbench.cli.main import build_app

    root = tmp_path_factory.mktemp("hippocampus")
    files = sorted((real_data / "Task04_Hippocampus" / "labelsTr").glob("hippocampus_*.nii.gz"))[:CASES]
    by_hand = {"shifted": [], "eroded": []}
    for name in ("reference", *by_hand):
        (root / name).mkdir()
    for file in files:
        image = nib.load(file)
        labels = np.asarray(image.dataobj).astype(np.uint8)
        eroded = np.zeros_like(labels)
        for label in (1, 2):
            eroded[ndimage.binary_erosion(labels == label)] = label
        variants = {"reference": labels, "shifted": np.roll(labels, 1, axis=0), "eroded": eroded}
        for name, array in variants.items():
            nib.save(nib.Nifti1Image(array, image.affine, image.header), root / name / file.name)
        for name, values in by_hand.items():
            values.append(dice(variants[name] == 1, labels == 1))
    for name in by_hand:
        flags = [
            "--prediction",
            root / name,
            "--reference",
            root / "reference",
            "--region",
            "anterior=1",
            "--region",
            "posterior=2",
        ]
        done = CliRunner().invoke(
            build_app(),
            ["evaluate", *map(str, flags), "--results", str(root / "runs"), "--workers", "1", "-q"],
        )
        assert done.exit_code == 0, done.output
    return root, {name: np.array(values) for name, values in by_hand.items()}


@pytest.mark.real_data
def test_differences_of_real_label_maps_are_those_by_hand(scored):
    root, by_hand = scored
    result = compare("shifted", "eroded", runs=root / "runs", metrics=["dice"], regions=["anterior"])
    (item,) = result.pairs
    x, y = by_hand["shifted"], by_hand["eroded"]
    assert item.pair.n == CASES
    assert item.pair.difference == pytest.approx((x - y).mean(), rel=1e-12)
    assert (item.wins, item.losses) == ((x > y).sum(), (x < y).sum())
    expected = equivalence_test(x, y, margin=0.01)
    assert item.pair.verdict == expected.verdict == "better"
    assert (item.low, item.high) == pytest.approx((expected.low, expected.high))
    assert item.gains[0].case == f"hippocampus_{sorted_case(root)[int(np.argmax(x - y))]}"


@pytest.mark.real_data
def test_the_gate_closes_on_the_worse_side(scored):
    root, by_hand = scored
    bound = float(by_hand["eroded"].mean())
    for side, other, code in (("shifted", "eroded", 0), ("eroded", "shifted", 6)):
        result = compare(
            side,
            other,
            runs=root / "runs",
            metrics=["dice"],
            regions=["anterior"],
            fail_under={"dice": bound + 1e-6},
        )
        assert result.exit_code == code


def sorted_case(root):
    return [
        path.name.removeprefix("hippocampus_").removesuffix(".nii.gz")
        for path in sorted((root / "reference").iterdir())
    ]
