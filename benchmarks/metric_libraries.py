"""The same two masks, scored by every library that is installed: why HD95, ASSD and NSD of two papers differ.

    python benchmarks/metric_libraries.py
    python benchmarks/metric_libraries.py --reference A.nii.gz --prediction B.nii.gz --tolerance 1

Without files it is the tumour pair with a far false positive, tolerance 2 mm. Libraries that are not
installed are named as left out. The table of docs/reference/metric-definitions.md comes from here.
"""

import argparse
import importlib
import warnings

import numpy as np
from metric_pairs import PAIRS

from segbench.metrics import evaluate_case
from segbench.metrics.boxes import box_of

warnings.simplefilter("ignore")


def segbench(r, p, spacing, tolerance):
    names = ("hd95", "hd95_max", "assd", "masd", "nsd")
    score = evaluate_case(
        r, p, spacing_mm=spacing, regions={"it": (1,)}, metrics=names, nsd_tolerance_mm=tolerance
    )["it"]
    return {
        "HD95": f"{score['hd95']:.4f} pooled, {score['hd95_max']:.4f} max",
        "ASSD": f"{score['assd']:.4f} pooled, {score['masd']:.4f} MASD",
        "NSD": f"{score['nsd']:.4f}",
    }


def medpy(r, p, spacing, tolerance):
    binary = importlib.import_module("medpy.metric.binary")
    return {
        "HD95": f"{binary.hd95(p, r, voxelspacing=spacing):.4f}",
        "ASSD": f"{binary.assd(p, r, voxelspacing=spacing):.4f}",
    }


def monai(r, p, spacing, tolerance):
    torch = importlib.import_module("torch")
    metrics = importlib.import_module("monai.metrics")
    r, p = (torch.from_numpy(mask)[None, None].float() for mask in (r, p))
    options = {"include_background": True, "spacing": list(spacing)}
    voxel = metrics.compute_surface_dice(p, r, [tolerance], **options)
    surfel = metrics.compute_surface_dice(p, r, [tolerance], use_subvoxels=True, **options)
    hausdorff = metrics.compute_hausdorff_distance(p, r, percentile=95, **options)
    average = metrics.compute_average_surface_distance(p, r, symmetric=True, **options)
    return {
        "HD95": f"{float(hausdorff):.4f}",
        "ASSD": f"{float(average):.4f}",
        "NSD": f"{float(voxel):.4f} voxel, {float(surfel):.4f} surfel",
    }


def surface_distance(r, p, spacing, tolerance):
    module = importlib.import_module("surface_distance")
    found = module.compute_surface_distances(r, p, spacing)
    there, back = module.compute_average_surface_distance(found)
    return {
        "HD95": f"{module.compute_robust_hausdorff(found, 95):.4f}",
        "ASSD": f"{there:.4f} and {back:.4f}, directed",
        "NSD": f"{module.compute_surface_dice_at_tolerance(found, tolerance):.4f}",
    }


def mikan(r, p, spacing, tolerance):
    module = importlib.import_module("mikan")
    maps = (mask.astype(np.uint8) for mask in (r, p))
    scores = module.ArrayEvaluator(*maps, tuple(reversed(spacing))).labels(1)
    hausdorff, assd, masd = scores.metrics(["hausdorff_distance_95", "assd", "masd"])
    return {"HD95": f"{hausdorff:.4f}", "ASSD": f"{assd:.4f} ASSD, {masd:.4f} MASD"}


def panoptica(r, p, spacing, tolerance):
    metrics = importlib.import_module("panoptica.metrics")
    average = importlib.import_module("panoptica.metrics.assd")
    surface_dice = metrics._compute_normalized_surface_dice(r, p, voxelspacing=spacing, threshold=tolerance)
    return {
        "HD95": f"{metrics._compute_hausdorff_distance95(r, p, voxelspacing=spacing):.4f}",
        "ASSD": f"{average._average_symmetric_surface_distance(r, p, voxelspacing=spacing):.4f}",
        "NSD": f"{surface_dice:.4f}",
    }


def seg_metrics(r, p, spacing, tolerance):
    module = importlib.import_module("seg_metrics.seg_metrics")
    (found,) = module.write_metrics(
        labels=[1],
        gdth_img=r.astype(np.uint8),
        pred_img=p.astype(np.uint8),
        spacing=list(spacing),
        metrics=["hd95", "msd"],
    )
    return {"HD95": f"{float(found['hd95'][0]):.4f}", "ASSD": f"{float(found['msd'][0]):.4f}"}


LIBRARIES = {
    "segbench": segbench, "medpy": medpy, "MONAI": monai, "surface-distance": surface_distance,
    "mikan-rs": mikan, "panoptica": panoptica, "seg-metrics": seg_metrics,
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference")
    parser.add_argument("--prediction")
    parser.add_argument("--tolerance", type=float, default=2.0)
    options = parser.parse_args()
    if options.reference:
        from segbench.volumes import read_label_map

        one, two = (read_label_map(path) for path in (options.reference, options.prediction))
        reference, prediction, spacing = one.array, two.array, one.spacing_mm
    else:
        pair = PAIRS["crc"]()
        reference, prediction, spacing = pair.reference, pair.prediction, pair.spacing_mm
    r, p = reference > 0, prediction > 0
    box = box_of(r, p)
    r, p = (np.pad(mask[box], 2) for mask in (r, p))  # spares the slow ones minutes and moves no number
    print(f"{int(r.sum())} and {int(p.sum())} voxels at {spacing} mm, tolerance {options.tolerance} mm")
    for name, score in LIBRARIES.items():
        try:
            found = score(r, p, tuple(float(value) for value in spacing), options.tolerance)
        except ImportError as error:
            print(f"  {name:17s} left out: {error.name} is not installed")
            continue
        print(f"  {name:17s} " + "   ".join(f"{metric} {value}" for metric, value in found.items()))


if __name__ == "__main__":
    main()
