"""One factorization of the columns of a table, and what it imputes.

The columns are standardized, as they are or as normal scores. What is imputed comes as
arrays over the missing entries of the table, row by row.
"""

from collections import deque
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri

from .._data.normal_scores import NormalScores
from .._data.standardize import Standardization
from .._kernels.linalg import row_slices
from .._masked_gradient_mf import MaskedGradientMF
from .._parameters import default_rank
from .._state import RECORDS

# Draws of a chain that sampling chooses from, and those before, while it forgets where
# it started.
N_DRAWS, N_BURN_IN = 100, 50

# Tables of more entries are factorized in single precision: half of the memory, and
# rounding far below the noise of any measurement.
LARGE = 250_000

# A score so far out is that of the least or the largest value of any column.
OUTERMOST = 8.0


class Table(NamedTuple):
    """What a fit is given: X with anything where it is missing, weights, times."""

    X: np.ndarray
    missing: np.ndarray
    weights: np.ndarray | None = None  # of entries, zero where missing
    timeline: Any = None
    features: np.ndarray | None = None  # which each column encodes; itself if None

    def missing_features(self) -> np.ndarray:
        """Which entries of features are missing: in all of their columns at once."""
        if self.features is None:
            return self.missing
        firsts = np.unique(self.features, return_index=True)[1]
        return self.missing[:, firsts]

    def hide(self, hidden: np.ndarray) -> tuple["Table", np.ndarray]:
        """The table as if some entries of features were missing as well, and which."""
        if self.features is not None:
            hidden = hidden[:, np.unique(self.features, return_inverse=True)[1]]
        weights = self.weights
        if weights is not None:
            weights = np.where(hidden, 0, weights)
        shown = self._replace(missing=self.missing | hidden, weights=weights)
        return shown, hidden


class Settings(NamedTuple):
    """What the parameters of an imputer say about its factorizations."""

    rank: Any
    scale: bool
    samples: bool  # whether missing values are sampled
    shared: dict  # parameters of the factorization
    losses: Any = "squared"  # of all encoded columns, or of some, by their numbers

    def columns_with(self, kinds, n: int) -> np.ndarray:
        """Which of the encoded columns have a loss of these kinds."""
        if isinstance(self.losses, str):
            return np.full(n, self.losses in kinds)
        found = np.zeros(n, bool)
        found[[j for j, name in self.losses.items() if name in kinds]] = True
        return found

    def losses_of(self, standardization):
        """Losses of the columns that are factorized, by their numbers among these."""
        varies = standardization.varies
        if standardization.constant.all():  # and standardized, whatever their loss
            return "squared"
        if isinstance(self.losses, str):
            return self.losses
        numbers = np.cumsum(varies) - 1
        found = {int(numbers[j]): name for j, name in self.losses.items() if varies[j]}
        return found or "squared"

    def factorization(self, table: Table, standardization: Standardization):
        """Make the factorization of a table, which is still to be fitted."""
        varies = standardization.varies
        ordered = table.timeline is not None and is_ordered(
            table.timeline, table.missing[:, varies]
        )
        # Rows in time are sampled as they are imputed.
        losses = self.losses_of(standardization)
        sampled = self.samples and not ordered and losses == "squared"
        rank = self.rank
        if rank == "auto":
            rank = default_rank(varies, table.missing)
        return MaskedGradientMF(
            rank,
            pattern=False,
            n_draws=N_BURN_IN + N_DRAWS if sampled else 0,
            fit_bias="columns",
            loss=losses,
            **self.shared,
        )


class Wanted(NamedTuple):
    """What is to be told of a missing entry besides its value."""

    statistic: str = "mean"
    std: bool = False
    probabilities: tuple = ()  # of the quantiles


class Imputed(NamedTuple):
    """Of each missing entry the value, its standard deviation, its quantiles."""

    values: np.ndarray
    std: np.ndarray | None
    quantiles: np.ndarray  # (n_quantiles, n_missing)

    def clipped(self, limits, columns):
        """Bring values and quantiles within the limits of their columns."""
        bounds = [limit[columns] for limit in limits]
        return self._replace(
            values=np.clip(self.values, *bounds),
            quantiles=np.clip(self.quantiles, *bounds),
        )


class FactorizedColumns(NamedTuple):
    """A factorization of standardized columns, or of their normal scores."""

    scores: NormalScores | None
    standardization: Standardization
    factorization: MaskedGradientMF
    dtype: str

    def standardized(self, X: np.ndarray, missing: np.ndarray) -> np.ndarray:
        """Columns that vary, of about unit variance, NaN where missing."""
        if self.scores is not None:
            X = self.scores.apply(X, missing)
        standardization = self.standardization
        return standardization.apply(X, missing, standardization.varies, self.dtype)

    def impute(self, table: Table, wanted: Wanted, limits, rng=None) -> Imputed:
        """Tell of the missing entries of a table; sampled if there is a generator."""
        columns = np.nonzero(table.missing)[1]
        needs_deviation = rng is None and (
            wanted.std
            or len(wanted.probabilities) > 0
            or (self.scores is not None and wanted.statistic == "mean")
        )
        mean, deviation = self._moments(table, columns, limits, rng, needs_deviation)
        if self.scores is None:
            found = _normal(mean, deviation, wanted)
            return self._with_counts(found, columns, deviation, wanted)
        if rng is not None or not needs_deviation:
            values = self.scores.undo(mean, columns)
            return Imputed(values, None, np.empty((0, len(columns))))
        value, std = self.scores.moments(mean, deviation, columns)
        if wanted.statistic == "median":
            value = self.scores.undo(mean, columns)
        quantiles = _normal(mean, deviation, wanted).quantiles
        return Imputed(value, std, self.scores.undo(quantiles, columns))

    def _with_counts(self, found: Imputed, columns, deviation, wanted) -> Imputed:
        """The same with quantiles of counts, and of zeros and ones."""
        varies = self.standardization.varies
        plain = self.standardization.plain[columns] & varies[columns]
        if not (wanted.probabilities and plain.any()):
            return found
        quantiles, numbers = found.quantiles.copy(), np.cumsum(varies) - 1
        about = found.values[plain], np.square(deviation[plain])
        for k, probability in enumerate(wanted.probabilities):
            quantiles[k, plain] = self.factorization._quantiles_of_losses(
                numbers[columns[plain]], *about, probability
            )
        return found._replace(quantiles=quantiles)

    def _moments(self, table, columns, limits, rng, with_deviation):
        """Mean, or sample, and deviation of missing entries, as values or scores."""
        model, standardization = self.factorization, self.standardization
        varies = standardization.varies
        mean = np.zeros(len(columns))
        deviation = np.zeros(len(columns)) if with_deviation else None
        inner = varies[columns]
        Z = self.standardized(table.X, table.missing)
        places = np.nonzero(table.missing[:, varies])
        within = self._limits_at(columns[inner], limits)
        found = predict(model, Z, table.timeline, places, within, rng, with_deviation)
        mean[inner] = standardization.undo(found[0], columns[inner])
        # A constant column is filled with its value, and an empty one with zero.
        others = columns[~inner]
        values = standardization.undo(np.zeros(len(others)), others)
        mean[~inner] = np.where(standardization.counts[others] > 0, values, 0)
        if with_deviation:
            deviation[inner] = standardization.widen(found[1], columns[inner])
            deviation[~inner] = standardization.deviations_of_constants()[others]
        return mean, deviation

    def _limits_at(self, columns, limits):
        """Limits of standardized entries of columns that vary, None without any."""
        bounds = [limit[columns] for limit in limits]
        if not np.isfinite(bounds).any():
            return None
        if self.scores is not None:
            lower, upper = (self.scores.apply_to(bound, columns) for bound in bounds)
            bounds = np.minimum(lower, OUTERMOST), np.maximum(upper, -OUTERMOST)
        return [self.standardization.apply_to(bound, columns) for bound in bounds]


RECORDS["FactorizedColumns"] = FactorizedColumns


def fit_columns(table: Table, settings: Settings, as_scores=False, on_sweep=None):
    """Factorize the columns of a table, as they are or as normal scores."""
    X, missing, weights, timeline, _ = table
    scores = NormalScores.of(X, missing, weights) if as_scores else None
    if scores is not None:
        X = scores.apply(X, missing)
    standardization = Standardization.of(
        X,
        missing,
        scale=settings.scale,
        weights=weights,
        robust=settings.columns_with(("student_t", "huber"), X.shape[1]),
        plain=settings.columns_with(("logistic", "poisson"), X.shape[1]),
    )
    dtype = "float32" if X.size > LARGE else X.dtype.name
    model = settings.factorization(table, standardization)
    varies = standardization.varies
    Z = standardization.apply(X, missing, varies, dtype)
    if weights is not None and not varies.all():
        weights = weights[:, varies]
    del X, missing, table  # the fit needs the room
    given = Z, None, None, weights, timeline
    columns = FactorizedColumns(scores, standardization, model, dtype)
    if on_sweep is not None:
        on_sweep = partial(on_sweep, columns)
    deque(model._learn(*given, on_sweep=on_sweep), maxlen=0)  # rows are not kept
    return columns


def is_ordered(timeline, missing) -> bool:
    """Whether the times of rows with any value order these."""
    return timeline.take(np.flatnonzero(~missing.all(axis=1))).has_order


def predict(model, Z, timeline, places, limits, rng, with_deviation):
    """Values, or samples, and deviations or None of entries of standardized columns.

    The places are in the order of rows.
    """
    if model._model_at(timeline).has_times:
        if rng is None:
            return model._predict_in_time(Z, timeline, places, with_deviation)
        return model._sample_in_time(Z, timeline, places, rng, limits), None
    if rng is not None and not model._is_squared:
        return model._sample_losses(Z, places, rng), None
    # All are sampled given one sample of the columns.
    number = None if rng is None else N_BURN_IN + rng.randint(N_DRAWS)
    rows, columns = places
    values = np.zeros(len(rows))
    deviations = np.zeros(len(rows)) if with_deviation else None
    width = model.rank_ + 1
    with_covariance = with_deviation or model._expects_more_than_it_predicts
    for part in row_slices(len(Z), Z.shape[1] + width ** (1 + with_covariance)):
        of = slice(*np.searchsorted(rows, (part.start, part.stop)))
        entries = rows[of] - part.start, columns[of]
        if number is not None:
            bounds = None if limits is None else [limit[of] for limit in limits]
            values[of] = model._sample_entries(Z[part], entries, number, rng, bounds)
        elif with_covariance:
            W, covariance = model.transform(Z[part], return_cov=True)
            options = {"covariance": covariance, "return_std": with_deviation}
            found = model.predict_entries(W, *entries, **options)
            if with_deviation:
                found, deviations[of] = found
            values[of] = found
        else:
            W = model.transform(Z[part])
            values[of] = model.predict_entries(W, *entries)
    return values, deviations


def _normal(mean, deviation, wanted) -> Imputed:
    """What a normal distribution says of entries."""
    quantiles = np.empty((0, len(mean)))
    if wanted.probabilities:
        quantiles = normal_quantiles(mean, deviation, wanted.probabilities)
    return Imputed(mean, deviation if wanted.std else None, quantiles)


def normal_quantiles(values, std, probabilities) -> np.ndarray:
    """Quantiles of normal distributions; the median of an infinitely wide one, too."""
    scores = ndtri(probabilities)[:, None]
    with np.errstate(invalid="ignore"):
        return values + np.where(scores == 0, 0.0, scores * std)


def with_entries(X: np.ndarray, places, values: np.ndarray) -> np.ndarray:
    """Return a copy of X with other values at places, chosen by numbers or a mask."""
    result = X.copy()
    result[places] = values
    return result
