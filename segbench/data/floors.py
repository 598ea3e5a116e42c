"""The name under which cards, and with them run ids, know the classes of `segbench.data.baselines`."""

from segbench.data.baselines import AtlasIntensity, Empty, Intensity, MeanAtlas

__all__ = ["AtlasIntensity", "Empty", "Intensity", "MeanAtlas"]
