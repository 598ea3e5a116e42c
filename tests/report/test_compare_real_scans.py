"""Real label maps, two ways to be wrong about them, scored and compared end to end."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from typer.testing import CliRunner

from segbench import compare
from segbench.stats import compare_models

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
            root / name,
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
    result = compare("eroded", "shifted", runs=root / "runs", metrics=["dice"])
    x, y = by_hand["shifted"], by_hand["eroded"]
    column = result.analysis.column(result.analysis.blocks[0], result.analysis.metrics[0], "anterior")
    (pair,) = column.comparisons
    (expected,) = compare_models({"shifted": x[None], "eroded": y[None]}, bounds=(0, 1))
    assert (pair.a, pair.b, pair.n) == ("shifted", "eroded", CASES)
    for name in ("difference", "low", "high", "p", "wins"):
        assert getattr(pair, name) == pytest.approx(getattr(expected, name), rel=1e-9)
    assert column.means["shifted"].value == pytest.approx(x.mean(), rel=1e-12)
    (item,) = result.pairs
    assert item.pair.verdict == "better"
    assert item.wins + item.ties + item.losses == CASES
    assert item.gains[0].case in {f"hippocampus_{name}" for name in sorted_case(root)}


@pytest.mark.real_data
def test_the_gate_closes_on_the_worse_side(scored):
    root, by_hand = scored
    result = compare("shifted", "eroded", runs=root / "runs", metrics=["dice"])
    assert by_hand["eroded"].mean() < by_hand["shifted"].mean()
    bound = result.analysis.main_columns()[0].means["eroded"].value
    for side, other, code in (("shifted", "eroded", 0), ("eroded", "shifted", 6)):
        result = compare(
            side,
            other,
            runs=root / "runs",
            metrics=["dice"],
            fail_under={"dice": bound + 1e-6},
        )
        assert result.exit_code == code


def sorted_case(root):
    return [
        path.name.removeprefix("hippocampus_").removesuffix(".nii.gz")
        for path in sorted((root / "reference").iterdir())
    ]
