"""What a stack imputes, and how uncertain that is, from what its members say.

A stack's deviation is the weighted mean of those of the members that tell deviations,
times a factor of the column that the errors at hidden entries call for. Without any
such member it is one deviation of the column, times that factor. Quantiles are weighted
means of those of members, moved and widened to suit the value and deviation of the
stack, or those of a normal distribution.
"""

import numpy as np

from ._columns import normal_quantiles
from ._stack_fit import Predicted, standardized_deviations


def shares_among(weights: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Divide the weight one among the chosen members, by weights of shape (k, n).

    Where these have no weight at all, each has the same.
    """
    shares = np.where(chosen[:, None], weights, 0.0)
    total = shares.sum(axis=0)
    equal = chosen[:, None] / max(1, np.count_nonzero(chosen))
    return np.where(total > 1e-6, shares / np.maximum(total, 1e-6), equal)


def combined(predicted: list[Predicted], weights: np.ndarray) -> np.ndarray:
    """Weighted means of values; weights are (k, n_entries).

    They lie between the values of the members: where these agree, so does the stack.
    """
    values = np.stack([member.values for member in predicted])
    mean = np.einsum("ki,ki->i", weights, values)
    return np.clip(mean, values.min(axis=0), values.max(axis=0))


def mean_deviations(deviations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means of deviations (k, n_entries), NaN for a member without any.

    All are in deviations of the columns, and so is the result, one without any member.
    """
    tells = ~np.isnan(deviations).any(axis=1)
    if not tells.any():
        return np.ones(deviations.shape[1])
    shares = shares_among(weights, tells)[tells]
    return np.einsum("ki,ki->i", shares, deviations[tells])


def all_deviations(predicted: list[Predicted], unit: np.ndarray) -> np.ndarray:
    """Return the standardized deviations of all members, (k, n_entries)."""
    nothing = np.full(len(unit), np.nan)
    return np.stack(
        [
            nothing
            if member.deviations is None
            else standardized_deviations(member.deviations, unit)
            for member in predicted
        ]
    )


def quantiles_around(values, std, probabilities, predicted, weights) -> np.ndarray:
    """Quantiles (n_quantiles, n_entries) around the values of the stack."""
    has = np.array([member.quantiles is not None for member in predicted])
    if not has.any():
        return normal_quantiles(values, std, probabilities)
    shares = shares_among(weights, has)
    quantiles, centre, spread = 0.0, 0.0, 0.0
    for member, share in zip(predicted, shares, strict=True):
        if member.quantiles is not None:
            quantiles = quantiles + share * member.quantiles
            centre = centre + share * member.values
            spread = spread + share * member.deviations
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = std / spread
    # Members that know neither how narrow nor how wide theirs are have no shape either.
    ratio = np.where(np.isfinite(ratio), ratio, 1.0)
    return values + (quantiles - centre) * ratio
