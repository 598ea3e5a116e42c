"""The target table: parameters exactly, multiply-accumulates within 0.2 %, official keys; on meta tensors."""

import monai
import pytest
import torch
from meta_networks import meta_network

from segbench.networks import build_on_meta, export_official_weights, list_networks, network_card
from segbench.networks.fingerprint import gmacs, gmacs_at_128, read_fingerprint

TABLE = {
    "segmamba-v2": (138_776_824, 1864.6, 215),
    "segmamba-v2-nomamba": (136_343_800, 1855.7, None),
    "segmamba-v2-dwconv": (139_350_520, 1859.7, None),
    "segmamba-v2-bidirectional": (138_776_824, None, 215),
    "segmamba-v2-matched": (138_777_124, 1858.7, None),
    "segmamba-v2-paper": (102_571_300, 1574.3, None),
    "segmamba": (67_416_196, 1468.7, 291),
    "bisegmamba": (57_674_488, 426.4, 206),
    "uxnet": (53_059_444, 1390.0, 131),
    "nnunet": (31_199_796, 482.8, 292),
    "resenc-l": (102_353_972, 723.0, 956),
    "umamba-bot": (42_124_692, 975.6, None),
    "umamba-base": (41_448_852, 975.4, None),
    "stunet-s": (14_547_684, 127.7, None),
    "stunet-b": (58_164_660, 502.9, None),
    "stunet-l": (440_107_092, 3796.7, None),
    "medformer": (38_589_132, 1130.9, None),
    "medformer-tiny": (408_732, 52.1, None),
    "unetr-pp": (42_647_604, 72.8, None),
    "unetr-pp-tiny": (1_474_296, 4.24, None),
    "waveformer": (17_167_546, 789.7, None),
    "waveformer-tiny": (417_959, 23.7, None),
    "lhunet": (10_517_221, 85.5, None),
    "lhunet-tiny": (1_781_599, 37.3, None),
    "primus-v3-s": (72_085_031, 621.2, 377),
    "primus-v3-tiny": (752_191, 15.1, 147),
}
MONAI_TABLE = {
    ("mednext-s", 3): (5_551_076, 127.6),
    ("mednext-b", 3): (10_511_012, 165.8),
    ("mednext-m", 3): (17_533_668, 242.7),
    ("mednext-l", 3): (61_726_916, 492.5),
    ("mednext-s", 5): (5_980_708, 165.9),
    ("mednext-b", 5): (10_940_644, 204.1),
    ("mednext-m", 5): (18_245_540, 302.8),
    ("mednext-l", 5): (62_940_548, 556.8),
    ("swin-unetr", None): (62_191_990, 771.7),
    ("swin-unetr-v2", None): (72_767_350, 832.9),
    ("segresnet-16", None): (4_702_244, 148.0),
    ("segresnet-32", None): (18_798_660, 584.7),
    ("unetr", None): (102_468_164, 183.7),
}
TESTED_MONAI = ("1.5.2", "1.6")
"""First and last version (by its first two numbers) whose MONAI networks were counted."""


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.ci
@pytest.mark.parametrize("slug", TABLE)
def test_own_networks_meet_the_table(slug):
    parameters, cost, keys = TABLE[slug]
    network = meta_network(slug, 4, 4)
    assert count(network) == parameters == network_card(slug).fidelity.parameters
    if cost is not None:
        assert gmacs_at_128(network) == pytest.approx(cost, rel=2e-3)
        assert network_card(slug).fidelity.gmacs == cost
    if keys is not None:
        assert len(export_official_weights(network)) == keys


@pytest.mark.ci
@pytest.mark.parametrize(("slug", "kernel"), MONAI_TABLE)
def test_monai_networks_meet_the_table(slug, kernel):
    version = tuple(int(part) for part in monai.__version__.split("+")[0].split(".")[:2])
    if not (1, 5) <= version <= (1, 6):
        pytest.skip(f"MONAI {monai.__version__} is outside the counted versions {TESTED_MONAI}")
    if slug.startswith(("swin", "unetr")):
        pytest.importorskip("einops", reason="MONAI's transformer networks need einops")
    parameters, cost = MONAI_TABLE[slug, kernel]
    network = build_on_meta(slug, 4, 4, **({} if kernel is None else {"kernel_size": kernel}))
    assert count(network) == parameters
    assert gmacs_at_128(network) == pytest.approx(cost, rel=2e-3)
    if kernel in (None, 3):
        assert network_card(slug).fidelity.parameters == parameters


@pytest.mark.parametrize("slug", list_networks())
def test_cards_say_what_their_fingerprint_counted(slug):
    stored, facts = read_fingerprint(slug), network_card(slug).fidelity
    assert facts.parameters == stored["parameters"]["full"]
    assert facts.gmacs == pytest.approx(stored["gmacs_128"], rel=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("slug", list_networks())
def test_fingerprints_carry_the_counts_of_the_full_network(slug):
    if slug.startswith(("swin", "unetr")):
        pytest.importorskip("einops", reason="MONAI's transformer networks need einops")
    stored, network = read_fingerprint(slug), meta_network(slug, 4, 4)
    assert count(network) == stored["parameters"]["full"]
    assert gmacs_at_128(network) == pytest.approx(
        stored["gmacs_128"], abs=5.1e-5
    )  # stored with four decimals


def test_segmamba_v2_with_one_input_and_two_classes():
    assert count(build_on_meta("segmamba-v2", 1, 2)) == 138_772_694


@pytest.mark.ci
@pytest.mark.parametrize(
    ("slug", "size"),
    [
        ("segmamba-v2-tiny", 32),
        ("segmamba-v2-nomamba-tiny", 32),
        ("segmamba-v2-matched-tiny", 32),
        ("segmamba-tiny", 32),
        ("bisegmamba-tiny", 64),
        ("nnunet-tiny", 32),
        ("uxnet-tiny", 32),
        ("medformer-tiny", 32),
        ("unetr-pp-tiny", 64),
        ("primus-v3-tiny", 32),
        ("waveformer-tiny", 32),
        ("lhunet-tiny", 64),
    ],
)
def test_tiny_variants_are_small_and_train_on_a_small_volume(slug, size):
    fixed = {"patch_size": (size,) * 3} if network_card(slug).input.fixed_size else {}
    network = build_on_meta(slug, 1, 2, **fixed)
    assert count(network) <= 1_500_000
    assert gmacs(network, (1, 1, size, size, size)) < 30


def test_cost_of_a_convolution_and_of_a_transposed_one_is_the_closed_form():
    with torch.device("meta"):
        conv = torch.nn.Conv3d(3, 5, 3, padding=1, stride=2)
        up = torch.nn.ConvTranspose3d(3, 5, 2, stride=2)
        linear = torch.nn.Linear(7, 11)
    assert gmacs(conv, (2, 3, 8, 8, 8)) * 1e9 == pytest.approx(2 * 4**3 * 5 * 3 * 27)
    assert gmacs(up, (2, 3, 8, 8, 8)) * 1e9 == pytest.approx(2 * 8**3 * 3 * 5 * 8)
    assert gmacs(linear, (2, 3, 4, 5, 7)) * 1e9 == pytest.approx(2 * 3 * 4 * 5 * 7 * 11)
