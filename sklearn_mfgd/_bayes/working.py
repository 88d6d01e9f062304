"""Working values and weights of entries, given the posterior of their predictions."""

import numpy as np

from .._kernels.rows import Rows
from .._optim.column_losses import ColumnLosses


def precision_of_entries(rows: Rows, losses: ColumnLosses, precision) -> np.ndarray:
    """Precision of the noise of entries: a weight multiplies it where there is noise.

    `precision` is that of an entry of weight one of each column.
    """
    of_entries = precision[rows.indices]
    if rows.weights is None:
        return of_entries
    has_noise = ~losses.unit_noise_columns(rows.n_columns)[rows.indices]
    return np.where(has_noise, of_entries * rows.weights, of_entries)


def working_rows(rows: Rows, losses: ColumnLosses, moments, precision) -> Rows:
    """Working values and weights of entries whose predictions have these moments.

    Means and variances are arrays over the entries, `precision` is by column.
    """
    x = rows.values.astype(np.float64, copy=False)
    precision = precision_of_entries(rows, losses, precision)
    values, weights = losses.working(rows.indices, x, *moments, precision)
    if rows.weights is not None:
        weights = weights * rows.weights
    return rows._replace(values=values, weights=weights)


def partly(rows: Rows, towards: Rows, share: float) -> Rows:
    """Working values and weights a share of the way towards others.

    Mixed are the coefficients of the quadratics, so that for a share of one the result
    is the other end.
    """
    if share == 1:
        return towards
    weights = (1 - share) * rows.weights + share * towards.weights
    linear = (1 - share) * rows.weights * rows.values
    linear = linear + share * towards.weights * towards.values
    return rows._replace(values=linear / weights, weights=weights)
