"""Rules and rows: what a card, a profile and a flag decide, and what each set of columns holds when a case
fails.
"""

import math

import numpy as np
import pytest

from segbench.cards import load_dataset_card
from segbench.core.errors import SegbenchError
from segbench.metrics import evaluate_case, load_profile
from segbench.metrics.policies import fill
from segbench.metrics.registry import METRICS
from segbench.scoring.case import (
    on_reference_grid,
    score_case,
    score_failure,
)
from segbench.scoring.rules import rules_for
from segbench.volumes import Volume

SPACING = (2.0, 1.0, 1.0)


def tree(shift=0):
    array = np.zeros((14, 24, 24), np.uint8)
    array[1:13, 11:14, 11:14] = 1
    array[6:8, 11:14, 4 + shift : 20] = 1
    return array


def volume(array, spacing=SPACING):
    return Volume(array, spacing, np.diag([*spacing[::-1], 1.0]))


def test_a_card_decides_regions_labels_tolerances_and_ignore():
    card = load_dataset_card("crc-2000")
    rules = rules_for(card, load_profile("honest"))
    assert dict(rules.regions) == {name: tuple(labels) for name, labels in card.regions.items()}
    assert set(rules.labels) == {0, *card.labels}
    assert rules.tolerances_mm == {name: card.nsd_tolerance(name) for name in card.regions}
    assert rules_for(card, load_profile("honest"), tolerance_mm=3).tolerances_mm == dict.fromkeys(
        card.regions, 3.0
    )
    assert rules_for(card, load_profile("honest"), any_label=True).labels is None


def test_trees_add_cldice_and_the_airway_set():
    card = load_dataset_card("aiib2023")
    assert card.evaluation.tree
    rules = rules_for(card, load_profile("honest"))
    assert "cldice" in rules.metrics
    assert {"airway_dlr", "airway_dbr"} <= set(rules.columns)
    assert "cldice" not in rules_for(card, load_profile("aiib2023")).columns


def test_no_region_is_a_usage_error():
    with pytest.raises(SegbenchError) as caught:
        rules_for(None, load_profile("honest"))
    assert (caught.value.code, caught.value.exit_code) == ("SB104", 2)


@pytest.mark.parametrize("task", ["", "-met", "-men"])
def test_the_lesion_rules_of_a_task_reach_the_scores(task):
    # two cubes of 27 mm3, 3 voxels apart, the second missed: one lesion where it is dilated three times, two
    # where once; and of 27 mm3 each is too small for the rules of meningiomas
    reference, guess = np.zeros((2, 20, 20, 20), np.uint8)
    reference[2:5, 2:5, 2:5] = reference[8:11, 2:5, 2:5] = guess[2:5, 2:5, 2:5] = 1
    rules = rules_for(None, load_profile(f"brats2023{task}"), regions={"a": (1,)})
    (row,) = score_case(rules, "c", volume(reference, (1.0, 1.0, 1.0)), guess)
    found = [row[name] for name in ("lesions_tp", "lesions_fn", "lesions_ignored")]
    assert found == {"": [1, 0, 0], "-met": [1, 1, 0], "-men": [0, 0, 2]}[task]


def test_a_profile_of_2026_wins_over_the_rules_of_the_card():
    card = load_dataset_card("brats2023-gli")
    assert rules_for(card, load_profile("brats2023")).lesionwise == "brats2023-gli"
    rules = rules_for(card, load_profile("brats2026"))
    assert (rules.lesionwise, list(rules.regions)) == ("brats2026", list(card.regions))
    assert rules.digest() != rules_for(card, load_profile("brats2023")).digest()
    card = card.model_copy(
        update={"evaluation": card.evaluation.model_copy(update={"lesionwise": "brats2022"})}
    )
    with pytest.raises(SegbenchError, match="brats2022"):
        rules_for(card, load_profile("brats2023"))


def test_the_digest_moves_with_what_moves_numbers():
    regions = {"a": (1,)}
    base = rules_for(None, load_profile("honest"), regions=regions).digest()
    others = [
        rules_for(None, load_profile("honest"), regions={"a": (2,)}),
        rules_for(None, load_profile("honest"), regions=regions, tolerance_mm=2),
        rules_for(None, load_profile("honest"), regions=regions, empty_policy="inf"),
        rules_for(None, load_profile("honest"), regions=regions, geometry="shape"),
        rules_for(None, load_profile("honest"), regions=regions, labels=(1, 2)),
        rules_for(None, load_profile("nnunet"), regions=regions),
    ]
    assert len({base, *(rules.digest() for rules in others)}) == len(others) + 1
    assert rules_for(None, load_profile("honest"), regions=regions, max_bytes=1).digest() == base


@pytest.mark.parametrize(
    "profile", ["honest", "brats2023", "brats2026", "aiib2023", "segmamba-v2-release", "nnunet"]
)
def test_every_column_of_a_failed_case_is_the_worst_there_is(profile):
    rules = rules_for(None, load_profile(profile), regions={"airway": (1,)})
    reference = volume(tree())
    (row,) = score_failure(rules, "c", reference, SegbenchError("SB204", "cut"))
    assert (row["status"], row["code"], row["prediction_voxels"]) == ("unreadable", "SB204", None)
    diagonal = row["diagonal_mm"]
    for name in rules.columns:
        info = METRICS[name]
        if info.descriptive:
            assert math.isnan(row[name])
        elif info.unit == "mm":
            assert row[name] >= diagonal
        else:
            assert row[name] == info.worst
    assert set(row["penalised"].split(";")) == {n for n in rules.columns if not METRICS[n].descriptive}


def test_lesionwise_failures_cost_at_least_the_challenges_penalty():
    rules = rules_for(None, load_profile("brats2023"), regions={"WT": (1,)})
    policy = rules.profile.empty_policy
    values = fill(rules.columns, "missing", policy=policy, diagonal_mm=240.0)
    assert values["lesionwise_hd95"] == values["legacy_hd95"] == 374.0
    assert values["lesionwise_dice"] == values["legacy_dice"] == 0.0
    assert fill(rules.columns, "missing", policy=policy, diagonal_mm=900.0)["lesionwise_hd95"] == 900.0


@pytest.mark.parametrize("profile", ["brats2023", "brats2026", "aiib2023"])
def test_scored_cases_hold_every_column(profile):
    rules = rules_for(None, load_profile(profile), regions={"it": (1,)})
    (row,) = score_case(rules, "c", volume(tree()), tree(2))
    assert set(rules.columns) <= set(row)
    expected = evaluate_case(
        tree(), tree(2), spacing_mm=SPACING, regions={"it": (1,)}, metrics=rules.metrics, empty_policy="worst"
    )["it"]
    assert {name: row[name] for name in rules.metrics} == dict(expected)


def test_the_ignore_label_hides_voxels_of_both_maps():
    reference, prediction = tree(), tree(1)
    reference[:, :, :12][tree()[:, :, :12] == 0] = 9
    rules = rules_for(None, load_profile("honest"), regions={"it": (1,)}, labels=(1, 9), ignore_label=9)
    before = reference.copy()
    (row,) = score_case(rules, "c", volume(reference), prediction)
    assert row["precision"] == 1.0
    np.testing.assert_array_equal(reference, before)


def test_unit_spacing_scores_in_voxels_and_keeps_volumes_in_ml():
    rules = rules_for(None, load_profile("segmamba-v2-release"), regions={"it": (1,)})
    (row,) = score_case(rules, "c", volume(tree()), tree(3))
    expected = evaluate_case(tree(), tree(3), spacing_mm=(1, 1, 1), regions={"it": (1,)})["it"]
    assert row["hd95"] == expected["hd95"]
    assert row["reference_volume_ml"] == pytest.approx(int(tree().sum()) * 2.0 / 1000)
    assert row["diagonal_mm"] == pytest.approx(math.sqrt(14**2 + 24**2 + 24**2))


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("flip", [False, True])
def test_axes_in_another_order_are_put_right_exactly(axes, flip):
    from segbench.volumes.geometry import Orientation, reorient

    array = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    reference = volume(array)
    turned = reorient(reference, Orientation(axes, (flip, False, flip)))
    found, warnings = on_reference_grid("c", reference, turned, "strict")
    np.testing.assert_array_equal(found.array, array)
    assert bool(warnings) == (axes != (0, 1, 2) or flip)


def test_shape_geometry_compares_the_shape_only():
    reference = volume(tree())
    other = Volume(tree(), (1.0, 1.0, 1.0), np.eye(4))
    found, warnings = on_reference_grid("c", reference, other, "shape")
    assert found is other
    assert warnings == ()
    with pytest.raises(SegbenchError) as caught:
        on_reference_grid("c", reference, other, "strict")
    assert caught.value.code == "SB214"
    with pytest.raises(SegbenchError, match="shape"):
        on_reference_grid("c", reference, volume(tree()[:-1]), "shape")
