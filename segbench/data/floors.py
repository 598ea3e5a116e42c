"""The names under which cards, and with them run ids, know the baselines of `segbench.data.baselines`."""

from segbench.data.baselines import BASELINES

__all__ = ["AtlasIntensity", "Empty", "Intensity", "MeanAtlas"]

Empty = BASELINES["empty"]
MeanAtlas = BASELINES["mean-atlas"]
Intensity = BASELINES["intensity"]
AtlasIntensity = BASELINES["atlas-intensity"]
