"""Variances of a family, each shrunk towards the others': more degrees of freedom than few seeds."""

import numpy as np

from segbench.stats.arrays import FloatArray
from segbench.stats.laws import digamma, polygamma

SAME = 1e8  # prior degrees of freedom beyond which the variances count as one and the same


def moderate(variances: FloatArray, df: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Variances (..., models) shrunk towards their family's, and the degrees of freedom they then have.

    The true variances are taken to follow a scaled inverse chi-square law, estimated from the family:
    variances that look alike are pooled, variances that differ keep their own. A variance of zero
    (equal rows, such as copied runs) tells nothing about the family and is only shrunk.

    Args:
        variances: (..., models), each >= 0.
        df: (models,) their degrees of freedom, >= 1.

    **Source:** Smyth 2004, sections 6.1-6.2 (limma's squeezeVar and fitFDist).
    """
    df = np.broadcast_to(df, variances.shape)
    tells = variances > 0
    number = tells.sum(axis=-1, keepdims=True)
    counted = np.maximum(number, 1)
    logs = np.log(np.where(tells, variances, 1.0)) - digamma(df / 2) + np.log(df / 2)
    centre = np.where(tells, logs, 0.0).sum(axis=-1, keepdims=True) / counted
    squares = np.where(tells, (logs - centre) ** 2, 0.0).sum(axis=-1, keepdims=True)
    spread = squares / np.maximum(number - 1, 1)
    excess = spread - np.where(tells, polygamma(1, df / 2), 0.0).sum(axis=-1, keepdims=True) / counted
    differ = excess > 0
    prior_df = np.where(differ, 2 * trigamma_inverse(np.where(differ, excess, 1.0)), np.inf)
    capped: FloatArray = np.minimum(prior_df, SAME)
    scale = np.exp(centre + digamma(capped / 2) - np.log(capped / 2))
    all_df = np.where(tells, df, 0).sum(axis=-1, keepdims=True)
    pooled: FloatArray = np.where(tells, df * variances, 0.0).sum(axis=-1, keepdims=True) / np.maximum(
        all_df, 1
    )
    own: FloatArray = (capped * scale + df * variances) / (capped + df)
    shrunk = np.where(prior_df >= SAME, pooled, own)
    alone = number < 2
    return np.where(alone, variances, shrunk), np.where(alone, df, np.minimum(prior_df + df, all_df))


def trigamma_inverse(values: FloatArray) -> FloatArray:
    """The y with trigamma(y) = value, by Newton's method on 1 / trigamma, which is nearly straight.

    **Source:** Smyth 2004, appendix.
    """
    y = 0.5 + 1 / values
    for _ in range(50):
        height = polygamma(1, y)
        step = height * (1 - height / values) / polygamma(2, y)
        y = y + step
        if float(np.max(-step / y)) < 1e-10:
            break
    return np.where(values > 1e7, 1 / np.sqrt(values), np.where(values < 1e-6, 1 / values, y))
