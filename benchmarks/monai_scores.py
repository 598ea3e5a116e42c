"""Scores of other tools for `benchmarks/claims.py`: MONAI's networks, trained and scored by MONAI alone.

DATA is a folder as the MSD has them (imagesTr, labelsTr; Task04_Hippocampus was used). Every third case by name is a
test case; every second of the others is trained on. A training is 100 steps of two crops of 32^3, a minute on a
processor: far from converged, DynUNet and SegResNet may miss a structure. A table per training (case, region, dice)
goes to OUT/seedN; for each seed then, and in the end:

    segbench data import scores OUT/seed0/*.csv --dataset msd-hippocampus --seed 0 --results RUNS
    python benchmarks/claims.py RUNS

    python benchmarks/monai_scores.py DATA OUT [--networks unet,dynunet,...] [--seeds 0] [--steps 100]
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai import transforms as t
from monai.data import CacheDataset, DataLoader
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from monai.networks import nets
from monai.networks.utils import one_hot
from monai.utils import set_determinism
from torch import nn

PATCH = (32, 32, 32)
BOTH = ["image", "label"]
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet": lambda: nets.UNet(3, 1, 3, (16, 32, 64, 128), (2, 2, 2), num_res_units=2),
    "dynunet": lambda: nets.DynUNet(
        3, 1, 3, [3] * 4, [1, 2, 2, 2], [2, 2, 2], filters=[8, 16, 32, 64], norm_name="instance"
    ),
    "segresnet": lambda: nets.SegResNet(3, 8, 1, 3, blocks_down=(1, 2, 2), blocks_up=(1, 1)),
    "attentionunet": lambda: nets.AttentionUnet(3, 1, 3, (8, 16, 32, 64), (2, 2, 2)),
    "basicunet": lambda: nets.BasicUNet(3, 1, 3, features=(8, 8, 16, 32, 64, 8)),
}


def cases(data: Path, *, test: bool) -> CacheDataset:
    """The test cases whole, the others as random crops."""
    names = sorted(path.name for path in (data / "labelsTr").glob("*.nii.gz"))
    chosen = names[1::3] if test else [name for k, name in enumerate(names) if k % 3 != 1][::2]
    items = [{"image": data / "imagesTr" / n, "label": data / "labelsTr" / n, "name": n} for n in chosen]
    steps: list[Any] = [t.LoadImaged(BOTH), t.EnsureChannelFirstd(BOTH), t.NormalizeIntensityd("image")]
    if test:
        steps += [t.DivisiblePadd(BOTH, 8)]
    else:
        steps += [
            t.SpatialPadd(BOTH, PATCH),
            t.RandCropByPosNegLabeld(BOTH, "label", PATCH, pos=2, neg=1, num_samples=2),
            t.RandScaleIntensityd("image", 0.1, prob=0.5),
            t.RandShiftIntensityd("image", 0.1, prob=0.5),
        ]
    return CacheDataset(items, t.Compose(steps), progress=False)


def train(network: nn.Module, dataset: CacheDataset, steps: int) -> None:
    """Dice and cross-entropy, AdamW, one cycle."""
    loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-3)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    loader = DataLoader(dataset, batch_size=1, shuffle=True)
    network.train()
    done = 0
    while done < steps:
        for batch in loader:
            optimiser.zero_grad()
            loss(network(batch["image"].as_tensor()), batch["label"].as_tensor()).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 12)
            optimiser.step()
            plan.step()
            done += 1
            if done == steps:
                return


@torch.inference_mode()
def scores(network: nn.Module, dataset: CacheDataset) -> list[tuple[str, str, float]]:
    """Case, region and Dice, by MONAI's metric."""
    parts = DiceMetric(include_background=False, reduction="none")
    whole = DiceMetric(include_background=True, reduction="none")
    network.eval()
    rows = []
    for case in dataset:
        found = network(case["image"].as_tensor()[None]).argmax(1, keepdim=True)
        label = case["label"].as_tensor()[None]
        values = parts(one_hot(found, 3), one_hot(label, 3))[0].tolist()
        values.append(whole((found > 0).float(), (label > 0).float())[0].item())
        name = case["name"].removesuffix(".nii.gz")
        rows += [(name, *each) for each in zip(("anterior", "posterior", "hippocampus"), values, strict=True)]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    training, test = cases(options.data, test=False), cases(options.data, test=True)
    for seed in map(int, options.seeds.split(",")):
        for name in options.networks.split(","):
            set_determinism(seed, use_deterministic_algorithms=False)
            training.transform.set_random_state(seed)
            network = NETWORKS[name]()
            train(network, training, options.steps)
            target = options.out / f"seed{seed}" / f"{name}.csv"
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("w", newline="") as file:
                csv.writer(file).writerows([("case", "region", "dice"), *scores(network, test)])


if __name__ == "__main__":
    main()
