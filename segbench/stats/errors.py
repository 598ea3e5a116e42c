"""What the statistics refuse, in words a caller can print."""


class StatsError(ValueError):
    """Input from which no honest number follows: NaN, inf, wrong shape, too few cases, unknown option."""


class NotEnoughSeeds(StatsError):  # noqa: N818 - the public name is pinned
    """Fewer than two training seeds on a side: the spread of retraining cannot be estimated."""
