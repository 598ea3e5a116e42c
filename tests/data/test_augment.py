"""Augmentation: the drawn parameters follow their table, and each transform does what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage, stats
from skimage.transform import resize

from segbench.data.patches import spatial
from segbench.data.patches.augment import AugmentationSettings, augment
from segbench.data.patches.augment_parameters import (
    DEFAULTS,
    TRANSFORMS,
    choose,
    draw_augmentation,
    extent_needed,
)
from segbench.data.patches.sampling import plan_samples
from segbench.data.patches.spatial import cubic_on_device, transform_image, transform_labels

PATCH = (32, 32, 32)


def only(name, **more):
    """Settings under which one transform is certain and the others never happen."""
    overrides = {f"{other}.probability": float(other == name) for other in TRANSFORMS}
    return AugmentationSettings(overrides={**overrides, **more})


def plan(step=0, seed=0):
    return plan_samples(seed, step, 1, ["a"], foreground_fraction=0.33)


def sample(channels=2, size=PATCH, seed=0):
    r = np.random.default_rng(seed)
    image = torch.from_numpy(r.normal(size=(1, channels, *size)).astype(np.float32))
    fields = ndimage.gaussian_filter(r.normal(size=(4, *size)), (0, 2, 2, 2))
    return image, torch.from_numpy(fields.argmax(axis=0).astype(np.uint8))[None]


@pytest.fixture(scope="module")
def chosen():
    """What 10 000 plans choose under the default set."""
    settings = AugmentationSettings()
    return [
        choose(draw_augmentation(0, i // 2, i % 2), settings, patch=(96,) * 3, channels=2)
        for i in range(10_000)
    ]


@pytest.mark.ci
@pytest.mark.parametrize(
    "name", ["noise", "blur", "brightness", "contrast", "low_resolution", "gamma_inverted", "gamma"]
)
def test_each_transform_happens_as_often_as_its_table_says(chosen, name):
    count = sum(bool(getattr(c, name)) for c in chosen)
    assert stats.binomtest(count, len(chosen), float(DEFAULTS[f"{name}.probability"])).pvalue > 1e-4


@pytest.mark.ci
def test_rotation_and_scale_are_independent(chosen):
    count = sum(c.matrix is not None for c in chosen)
    assert stats.binomtest(count, len(chosen), 1 - 0.8 * 0.8).pvalue > 1e-4


def test_mirror_takes_each_axis_half_of_the_time(chosen):
    for axis in range(3):
        assert stats.binomtest(sum(axis in c.mirror for c in chosen), len(chosen), 0.5).pvalue > 1e-4


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("noise", 0.0, 0.1), ("low_resolution", 0.5, 1.0), ("brightness", 0.75, 1.25), ("contrast", 0.75, 1.25)],
)
def test_values_are_uniform_over_their_range(chosen, name, low, high):
    values = []
    for c in chosen:
        value = getattr(c, name)
        values += [value] if isinstance(value, float) else [v for v in value or () if v is not None]
    assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-4


def test_gamma_is_below_one_as_often_as_above(chosen):
    values = np.array([v for c in chosen for v in c.gamma])
    assert stats.binomtest(int((values < 1).sum()), values.size, 0.5).pvalue > 1e-4
    assert stats.kstest(values[values < 1], stats.uniform(0.7, 0.3).cdf).pvalue > 1e-4
    assert stats.kstest(values[values > 1], stats.uniform(1.0, 0.5).cdf).pvalue > 1e-4


def test_channels_of_blur_and_low_resolution_are_picked_half_of_the_time(chosen):
    for name in ("blur", "low_resolution"):
        flags = [v is not None for c in chosen for v in getattr(c, name)]
        assert stats.binomtest(sum(flags), len(flags), 0.5).pvalue > 1e-4
    sigmas = np.array([s for c in chosen for v in c.blur if v is not None for s in v])
    assert stats.kstest(sigmas, stats.uniform(0.5, 0.5).cdf).pvalue > 1e-4


def test_angles_and_scales_are_those_of_the_table(chosen):
    scales = np.array(
        [abs(np.linalg.det(np.array(c.matrix))) ** (1 / 3) for c in chosen if c.matrix is not None]
    )
    assert scales.min() >= 0.7 - 1e-9
    assert scales.max() <= 1.4 + 1e-9
    # with rotation alone the matrix is a rotation of at most about 30 degrees an axis
    turn = only("rotation")
    angles = []
    for i in range(2000):
        matrix = np.array(choose(draw_augmentation(1, i, 0), turn, patch=PATCH, channels=1).matrix)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
        angles.append(math.degrees(math.asin(abs(matrix[2, 0]))))  # of the middle rotation
    assert stats.kstest(angles, stats.uniform(0, 30).cdf).pvalue > 1e-4


def test_switching_one_transform_off_leaves_the_others_as_they_were():
    whole = AugmentationSettings()
    for name in TRANSFORMS:
        without = AugmentationSettings(overrides={f"{name}.probability": 0.0})
        for step in range(60):
            draws = draw_augmentation(7, step, 0)
            a, b = (choose(draws, s, patch=PATCH, channels=2) for s in (whole, without))
            for field in (
                "noise",
                "blur",
                "brightness",
                "contrast",
                "low_resolution",
                "gamma_inverted",
                "gamma",
                "mirror",
            ):
                if field != name:
                    assert getattr(a, field) == getattr(b, field)
            if name not in ("rotation", "scale"):
                assert a.matrix == b.matrix


def test_an_anisotropic_patch_turns_in_its_plane_only():
    patch = (16, 128, 128)
    seen = []
    for step in range(300):
        draws = draw_augmentation(0, step, 0)
        c = choose(
            draws, AugmentationSettings(overrides={"rotation.probability": 1.0}), patch=patch, channels=1
        )
        assert c.flat
        matrix = np.array(c.matrix)
        assert matrix[0].tolist() == [1.0, 0.0, 0.0]
        assert matrix[:, 0].tolist() == [1.0, 0.0, 0.0]
        seen.append(math.degrees(math.atan2(matrix[2, 1], matrix[1, 1])))
    assert min(seen) < -150
    assert max(seen) > 150
    assert not choose(
        draw_augmentation(0, 0, 0), AugmentationSettings(), patch=(43, 128, 128), channels=1
    ).flat


@pytest.mark.parametrize("seed", range(8))
def test_the_extent_holds_every_voxel_that_the_transform_reaches(seed):
    settings = AugmentationSettings(
        overrides={
            "rotation.probability": 1.0,
            "rotation.range": (-12, 12),
            "scale.probability": 1.0,
            "scale.range": (0.9, 1.1),
        }
    )
    draws = draw_augmentation(seed, 0, 0)
    extent = extent_needed(draws, settings, PATCH)
    assert max(extent) < 48, "not at its limit"
    assert all((e - p) % 2 == 0 for e, p in zip(extent, PATCH, strict=True))
    matrix = choose(draws, settings, patch=PATCH, channels=1).matrix
    ones = torch.ones(1, *extent)
    assert transform_image(ones, matrix, PATCH).min() > 0.999


def test_nothing_drawn_returns_the_centre_and_changes_no_argument():
    image, labels = sample(size=(40, 36, 34))
    before = image.clone()
    result, maps = augment(image, labels, plan(), AugmentationSettings(name="none"), patch=PATCH)
    assert torch.equal(result, image[..., 4:36, 2:34, 1:33])
    assert torch.equal(maps, labels[..., 4:36, 2:34, 1:33])
    result.zero_()
    assert torch.equal(image, before)


def test_it_is_a_pure_function_of_its_arguments():
    image, labels = sample()
    results = []
    for _ in range(2):
        torch.manual_seed(len(results))  # global generators do not matter
        results.append(augment(image, labels, plan(3), only("noise")))
    assert torch.equal(results[0][0], results[1][0])
    assert not torch.equal(results[0][0], augment(image, labels, plan(4), only("noise"))[0])


@pytest.mark.ci
def test_a_sample_does_not_depend_on_its_neighbours_in_the_batch():
    image, labels = sample(channels=1)
    plans = plan_samples(0, 11, 3, ["a"], foreground_fraction=0.33)
    settings = AugmentationSettings(overrides={f"{name}.probability": 0.6 for name in TRANSFORMS})
    together = augment(image.repeat(3, 1, 1, 1, 1), labels.repeat(3, 1, 1, 1), plans, settings)
    for index, one in enumerate(plans):
        alone = augment(image, labels, [one], settings)
        assert torch.equal(together[0][index], alone[0][0])
        assert torch.equal(together[1][index], alone[1][0])


@pytest.mark.parametrize("step", range(4))
def test_mirror_flips_image_and_labels_alike(step):
    image, labels = sample()
    settings = AugmentationSettings(
        name="mirror-brightness", mirror_axes=("z", "x"), overrides={"brightness.probability": 0.0}
    )
    result, maps = augment(image, labels, plan(step), settings)
    axes = choose(plan(step)[0].augmentation, settings, patch=PATCH, channels=2).mirror
    assert 1 not in axes
    assert torch.equal(result[0], image[0].flip([a + 1 for a in axes]))
    assert torch.equal(maps[0], labels[0].flip(list(axes)))


def test_brightness_multiplies_each_channel():
    image, labels = sample()
    result, maps = augment(image, labels, plan(), only("brightness"))
    factors = choose(plan()[0].augmentation, only("brightness"), patch=PATCH, channels=2).brightness
    assert factors[0] != factors[1]
    for channel, factor in enumerate(factors):
        torch.testing.assert_close(result[0, channel], image[0, channel] * factor)
    assert torch.equal(maps, labels)


def test_noise_has_the_drawn_standard_deviation_and_differs_between_channels():
    image, labels = sample()
    settings = only("noise", **{"noise.range": (0.3, 0.3)})
    noise = augment(image, labels, plan(), settings)[0] - image
    assert abs(float(noise.std()) - 0.3) < 0.01
    assert abs(float(noise.mean())) < 0.01
    assert not torch.equal(noise[0, 0], noise[0, 1])


def test_blur_is_scipys_gaussian():
    image, labels = sample()
    settings = only("blur", **{"blur.channel_probability": 1.0})
    result = augment(image, labels, plan(), settings)[0]
    sigmas = choose(plan()[0].augmentation, settings, patch=PATCH, channels=2).blur
    for channel, sigma in enumerate(sigmas):
        expected = ndimage.gaussian_filter(
            image[0, channel].double().numpy(), sigma, mode="mirror", truncate=3.0
        )
        np.testing.assert_allclose(result[0, channel].numpy(), expected, atol=1e-5)


def test_contrast_keeps_mean_and_range():
    image, labels = sample()
    for factor in (0.75, 1.25):
        result = augment(image, labels, plan(), only("contrast", **{"contrast.range": (factor, factor)}))[0]
        mean = image[0, 0].mean()
        stretched = ((image[0, 0] - mean) * factor + mean).clamp(image[0, 0].min(), image[0, 0].max())
        torch.testing.assert_close(result[0, 0], stretched, atol=1e-5, rtol=1e-5)


def test_low_resolution_is_nearest_down_linear_up():
    image, labels = sample()
    settings = only(
        "low_resolution", **{"low_resolution.channel_probability": 1.0, "low_resolution.range": (0.5, 0.5)}
    )
    result = augment(image, labels, plan(), settings)[0]
    down = image[..., 1::2, 1::2, 1::2]  # the nearer of two equal voxels: the upper
    expected = F.interpolate(down, PATCH, mode="trilinear", align_corners=False)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


def test_low_resolution_of_published_recipes_is_skimages_cubic():
    image, labels = sample(channels=1)
    settings = only(
        "low_resolution",
        image_order=3,
        **{"low_resolution.channel_probability": 1.0, "low_resolution.range": (0.5, 0.5)},
    )
    result = augment(image, labels, plan(), settings)[0][0, 0]
    down = image[0, 0, 1::2, 1::2, 1::2].double().numpy()
    expected = resize(down, PATCH, order=3, mode="edge", anti_aliasing=False, preserve_range=True)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("inverted", [False, True])
def test_gamma_keeps_moments_and_order(inverted):
    image, labels = sample()
    name = "gamma_inverted" if inverted else "gamma"
    result = augment(image, labels, plan(), only(name, **{f"{name}.range": (1.4, 1.4)}))[0][0, 0].double()
    before = image[0, 0].double()
    assert abs(float(result.mean() - before.mean())) < 1e-4
    assert abs(float(result.std() - before.std())) < 1e-4
    order = before.flatten().argsort()
    assert (result.flatten()[order].diff() >= -1e-5).all()
    # exponents above 1 push values down, on the inverted image up
    scaled = (-before if inverted else before) - (-before if inverted else before).min()
    expected = (scaled / scaled.max()) ** 1.4
    expected = (expected - expected.mean()) / expected.std() * before.std()
    expected = (-expected if inverted else expected) + before.mean()
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.ci
def test_constant_images_stay_finite():
    image, labels = torch.full((1, 1, 16, 16, 16), 3.0), torch.zeros(1, 16, 16, 16, dtype=torch.uint8)
    settings = AugmentationSettings(overrides={f"{name}.probability": 1.0 for name in TRANSFORMS})
    assert torch.isfinite(augment(image, labels, plan(), settings)[0]).all()


MATRICES = [
    np.eye(3),
    np.diag([1.3, 1.3, 1.3]),
    np.diag([0.7, 0.7, 0.7]),
    [[0.9, 0.3, 0.1], [-0.3, 0.95, 0.1], [0.05, -0.1, 1.1]],
    [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]],
]


@pytest.mark.parametrize("matrix", MATRICES, ids=["none", "in", "out", "turn", "quarter"])
def test_image_is_grid_samples(matrix):
    image = sample(size=(30, 36, 34))[0][0]
    grid = spatial._grid(matrix, image.shape[1:], PATCH, image.device)
    expected = F.grid_sample(image[None], grid[None], padding_mode="zeros", align_corners=False)[0]
    torch.testing.assert_close(transform_image(image, matrix, PATCH), expected, atol=2e-5, rtol=0)


@pytest.mark.ci
@pytest.mark.parametrize("matrix", MATRICES, ids=["none", "in", "out", "turn", "quarter"])
@pytest.mark.parametrize("outside", [0, 2, 9])
def test_labels_are_the_argmax_of_interpolated_one_hot(matrix, outside):
    labels = sample(size=(30, 36, 34))[1][0]
    padded = F.pad(labels[None, None].float(), (40,) * 6, value=outside)[0, 0].long()
    one_hot = F.one_hot(padded, 10).movedim(-1, 0).float()
    grid = spatial._grid(matrix, padded.shape, PATCH, labels.device)
    scores = F.grid_sample(one_hot[None], grid[None], align_corners=False)[0]
    result = transform_labels(labels, matrix, PATCH, outside=outside)
    assert result.dtype == torch.uint8
    top = scores.topk(2, dim=0).values
    clear = top[0] - top[1] > 1e-3
    assert torch.equal(result[clear].long(), scores.argmax(dim=0)[clear])
    # elsewhere one of the two best
    taken = scores.gather(0, result.long()[None])[0]
    assert (taken >= top[0] - 1e-3).all()


@pytest.mark.parametrize("matrix", MATRICES, ids=["none", "in", "out", "turn", "quarter"])
def test_compiled_and_torch_labels_agree(matrix):
    labels = sample(size=(30, 36, 34))[1][0]
    compiled = transform_labels(labels, matrix, PATCH, outside=1)
    on_device = spatial._labels_on_device(labels, matrix, PATCH, 1)
    assert (compiled != on_device).float().mean() < 1e-3, "only exact ties, decided by rounding"


def test_identity_is_exact():
    image, labels = sample()
    assert torch.equal(transform_image(image[0], np.eye(3), PATCH), image[0])
    assert torch.equal(transform_labels(labels[0], np.eye(3), PATCH), labels[0])


@pytest.mark.parametrize(
    ("shape", "size"), [((20, 24, 18), (16, 16, 16)), ((9, 7, 5), (9, 7, 5)), ((2, 3, 4), (5, 5, 5))]
)
def test_cubic_splines_on_an_accelerator_are_scipys(shape, size):
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0] * 0.9
    expected = transform_image(x, turn.tolist(), size, order=3)  # scipy, on the CPU
    found = cubic_on_device(x, turn.tolist(), size)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert float(expected.abs().max()) > 0.1
    torch.testing.assert_close(cubic_on_device(x, np.eye(3).tolist(), shape), x, rtol=0, atol=1e-5)


def test_cubic_interpolation_for_published_recipes():
    image, labels = sample(channels=1)
    smooth = torch.from_numpy(ndimage.gaussian_filter(image.numpy(), (0, 0, 2, 2, 2)))
    both = [
        augment(smooth, labels, plan(), only("rotation", image_order=order))[0][..., 8:24, 8:24, 8:24]
        for order in (1, 3)
    ]
    assert not torch.equal(*both)
    assert float((both[0] - both[1]).abs().max()) < 0.1 * float(smooth.std()) + 0.02


@pytest.mark.parametrize(
    "overrides",
    [
        {"noise.probability": 1.5},
        {"noise.range": 3},
        {"blur": 1},
        {"scale.range": (2, 1)},
        {"image_order": 2},
    ],
)
def test_overrides_that_mean_nothing_are_refused(overrides):
    with pytest.raises(ValueError):
        AugmentationSettings(overrides=overrides)


def test_shapes_that_do_not_belong_together_are_refused():
    image, labels = sample()
    with pytest.raises(ValueError, match="plans"):
        augment(image, labels, plan() * 2)
    with pytest.raises(ValueError, match="does not hold"):
        augment(image, labels, plan(), patch=(40, 32, 32))


@pytest.mark.gpu
def test_the_device_gives_the_cpus_numbers():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    image, labels = sample(size=(44, 44, 44))
    settings = AugmentationSettings(overrides={f"{name}.probability": 1.0 for name in TRANSFORMS})
    cpu = augment(image, labels, plan(), settings, patch=PATCH, noise_on_cpu=True)
    gpu = augment(image.cuda(), labels.cuda(), plan(), settings, patch=PATCH, noise_on_cpu=True)
    torch.testing.assert_close(gpu[0].cpu(), cpu[0], atol=1e-3, rtol=1e-3)
    assert (gpu[1].cpu() != cpu[1]).float().mean() < 1e-3
