"""How a fitted factorization of standardized columns fills the missing values of X."""

from typing import NamedTuple

import numpy as np

from ._base import BaseMatrixFactorization
from ._kernels.linalg import row_slices


class Predictor(NamedTuple):
    """What predicts, or samples, entries of the standardized columns Z."""

    model: BaseMatrixFactorization
    Z: np.ndarray
    number: int | None = None  # of the sample of the posterior to fill with
    rng: np.random.RandomState | None = None

    def __call__(self, rows, places, limits, with_std):
        """Return values, and deviations or None, at places in a slice of the rows."""
        Z = self.Z[rows]
        if self.number is not None:
            sampled = self.model._sample_entries(
                Z, places, self.number, self.rng, limits
            )
            return sampled, None
        if not with_std:
            return self.model.predict_entries(self.model.transform(Z), *places), None
        W, covariance = self.model.transform(Z, return_cov=True)
        return self.model.predict_entries(
            W, *places, covariance=covariance, return_std=True
        )


def fill_missing(X, missing, standardization, limits, predictor, *, with_std):
    """Return a copy of X with its missing values filled, and their deviations or None.

    `limits` are the least and the largest imputed value of each column. Deviations are
    zero where X is observed.
    """
    filled = np.where(missing, X.dtype.type(0), X)
    std = np.where(missing, X.dtype.type(np.inf), X.dtype.type(0)) if with_std else None
    varies = standardization.varies
    numbers = np.flatnonzero(varies)
    width = predictor.model.rank_ + 1
    for part in row_slices(len(X), len(numbers) + width ** (1 + with_std)):
        rows, columns = np.nonzero(missing[part][:, varies])
        of_X = numbers[columns]
        bounds = [limit[of_X] for limit in limits]
        standardized = None
        if np.isfinite(bounds).any():
            standardized = [standardization.apply_to(b, of_X) for b in bounds]
        values, deviations = predictor(part, (rows, columns), standardized, with_std)
        rows = rows + part.start
        filled[rows, of_X] = np.clip(standardization.undo(values, of_X), *bounds)
        if with_std:
            std[rows, of_X] = standardization.widen(deviations, of_X)
    _fill_other_columns(filled, std, missing & ~varies, standardization, limits)
    return filled, std


def _fill_other_columns(filled, std, missing, standardization, limits):
    """Fill constant columns with their value, and empty ones with zero, in place."""
    rows, columns = np.nonzero(missing)
    values = standardization.undo(np.zeros(len(columns)), columns)
    values = np.where(standardization.counts[columns] > 0, values, 0)
    filled[rows, columns] = np.clip(values, *(limit[columns] for limit in limits))
    if std is not None:
        std[rows, columns] = standardization.deviations_of_constants()[columns]


def check_limits(min_value, max_value, n_features):
    """Validate limits of imputed values; return the pair, one of each per column."""
    limits = []
    given = ("min_value", min_value, np.inf), ("max_value", max_value, -np.inf)
    for name, value, useless in given:
        limit = np.asarray(value, dtype=np.float64)
        if limit.ndim and limit.shape != (n_features,):
            raise ValueError(
                f"{name} must be a number or have shape ({n_features},), one for each "
                f"feature; got shape {limit.shape}."
            )
        if np.isnan(limit).any():
            raise ValueError(f"{name} must not be NaN.")
        if (limit == useless).any():
            raise ValueError(
                f"{name} leaves no finite value to impute where it is {useless}; "
                f"{-useless} is no limit."
            )
        limits.append(np.broadcast_to(limit, n_features))
    crossed = np.flatnonzero(limits[0] > limits[1])
    if crossed.size:
        j = crossed[0]
        raise ValueError(
            f"min_value must not exceed max_value; in column {j} they are "
            f"{limits[0][j]:g} and {limits[1][j]:g}."
        )
    return limits
