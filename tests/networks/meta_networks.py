"""Networks on the meta device, built once for all tests of a process; read them, do not change them."""

from functools import cache

from segbench.networks import build_on_meta


@cache
def meta_network(slug, in_channels, out_channels):
    return build_on_meta(slug, in_channels, out_channels)
