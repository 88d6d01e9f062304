"""The loss of each column: one of all, or a mapping of some columns to others."""

from typing import NamedTuple

import numpy as np

from .._data.standardize import NORMAL_RATIO
from .._kernels.dispatch import entry_products
from .._kernels.rows import Rows
from .losses import LOSSES, MAX_START_DEVIATIONS, Huber, Loss, StudentT


class ColumnLosses(NamedTuple):
    """Losses of entries by their columns, as functions of arrays over the entries.

    Predictions are those of the factors and biases; the intercept is added here.
    """

    kinds: tuple[Loss, ...]
    of_column: np.ndarray | None  # (n,), which of the kinds; None: the only one
    intercept: float = 0.0

    @classmethod
    def of(cls, given, n_columns: int) -> "ColumnLosses | None":
        """Losses by one name, or by names for numbers of columns; None: all squared."""
        if isinstance(given, str):
            return None if given == "squared" else cls((LOSSES[given](),), None)
        names = ["squared", *sorted(set(given.values()) - {"squared"})]
        of_column = np.zeros(n_columns, np.int64)
        for column, name in given.items():
            of_column[column] = names.index(name)
        if not of_column.any():
            return None
        return cls(tuple(LOSSES[name]() for name in names), of_column)

    @property
    def is_bound(self) -> bool:
        """Whether every working quadratic is a bound of its loss."""
        return all(kind.is_bound for kind in self.kinds)

    @property
    def has_unit_noise(self) -> bool:
        """Whether any loss has no noise to learn, and no unit to choose."""
        return any(kind.has_unit_noise for kind in self.kinds)

    @property
    def is_robust(self) -> bool:
        """Whether all are losses of outliers."""
        return all(isinstance(kind, StudentT | Huber) for kind in self.kinds)

    def over(self, columns) -> "ColumnLosses":
        """The losses of some of the columns, or of all."""
        if self.of_column is None or columns is None:
            return self
        return self._replace(of_column=self.of_column[columns])

    def unit_noise_columns(self, n: int) -> np.ndarray:
        """Which columns have no noise to learn, (n,)."""
        known = np.array([kind.has_unit_noise for kind in self.kinds])
        return known[np.zeros(n, int) if self.of_column is None else self.of_column]

    def groups(self, columns, n: int):
        """Each loss, and which of n entries, in these columns, have it."""
        if self.of_column is None:
            yield self.kinds[0], slice(n)
            return
        kinds = self.of_column[columns]
        for number, kind in enumerate(self.kinds):
            at = np.flatnonzero(kinds == number)
            if at.size:
                yield kind, at

    def apply(self, method: str, columns, *arrays):
        """What a method of each entry's loss returns, given arrays over the entries."""
        result = np.empty(len(arrays[0]))
        for kind, at in self.groups(columns, len(result)):
            result[at] = getattr(kind, method)(*(array[at] for array in arrays))
        return result

    def working(self, columns, x, p, v, precision) -> tuple[np.ndarray, np.ndarray]:
        """Working values, less the intercept, and working weights of entries."""
        arrays = x, p + self.intercept, v, precision
        values, weights = np.empty(len(x)), np.empty(len(x))
        for kind, at in self.groups(columns, len(x)):
            values[at], weights[at] = kind.working(*(array[at] for array in arrays))
        return values - self.intercept, weights

    def sample(self, columns, p, precision, rng) -> np.ndarray:
        """Sample entries given predictions."""
        p, sampled = p + self.intercept, np.empty(len(p))
        for kind, at in self.groups(columns, len(p)):
            sampled[at] = kind.sample(p[at], precision[at], rng)
        return sampled

    def value(self, columns, x, p, precision) -> np.ndarray:
        """Loss of entries given predictions."""
        return self.apply("value", columns, x, p + self.intercept, precision)

    def expected(self, columns, x, p, v, precision) -> np.ndarray:
        """Expected log likelihood of entries given predictions and their variance."""
        return self.apply("expected", columns, x, p + self.intercept, v, precision)

    def learned(self, columns, x, p, v, precision) -> "ColumnLosses":
        """The same with the parameters of losses one step nearer to their best."""
        arrays, kinds = (x, p + self.intercept, v, precision), list(self.kinds)
        for kind, at in self.groups(columns, len(x)):
            if isinstance(kind, StudentT | Huber):
                place = self.kinds.index(kind)
                kinds[place] = kind.learned(*(array[at] for array in arrays))
        return self._replace(kinds=tuple(kinds))

    def ranges(self, rows: Rows) -> np.ndarray:
        """Values of each column that a start takes as they are, from and to, (2, n)."""
        n = rows.n_columns
        ranges = np.repeat([[-np.inf], [np.inf]], n, axis=1)
        for kind, at in self.groups(np.arange(n), n):
            if isinstance(kind, StudentT | Huber):
                centre, deviation = medians(rows)
                limit = MAX_START_DEVIATIONS * deviation
                ranges[:, at] = (centre - limit)[at], (centre + limit)[at]
        return ranges

    def start(self, rows: Rows, ranges=None) -> Rows:
        """Values near what the factors are to predict, with weights, to start from.

        The ranges of values that count as they are, are those of the rows by default.
        """
        ranges = self.ranges(rows) if ranges is None else ranges
        values = np.asarray(rows.values, np.float64).copy()
        weights = np.ones_like(values)
        for kind, at in self.groups(rows.indices, len(values)):
            if kind.has_unit_noise:
                start, weights[at] = kind.start(values[at])
                values[at] = start - self.intercept
            elif isinstance(kind, StudentT | Huber):
                values[at] = np.clip(values[at], *ranges[:, rows.indices[at]])
        if rows.weights is not None:
            weights *= rows.weights
        dtype = rows.values.dtype
        return rows._replace(values=values.astype(dtype), weights=weights.astype(dtype))

    def null_predictor(self, rows: Rows) -> np.ndarray:
        """What each column would be predicted to be by itself, (n,)."""
        n = rows.n_columns
        totals = np.maximum(np.bincount(rows.indices, rows.weights, n), 1e-300)
        sums = np.bincount(rows.indices, rows.weighted_values.values, n)
        means = sums / totals
        for kind, at in self.groups(np.arange(n), n):
            if kind.has_unit_noise:
                means[at] = kind.link(means[at]) - self.intercept
            elif isinstance(kind, StudentT | Huber):
                means[at] = medians(rows)[0][at]
        return means

    def with_intercept(self, rows: Rows) -> "ColumnLosses":
        """The same, around what the mean of all entries is a prediction of."""
        kind = self.kinds[0]
        if len(self.kinds) > 1 or not kind.has_unit_noise:
            return self
        mean = np.average(rows.values, weights=rows.weights)
        return self._replace(intercept=float(kind.link(mean)))

    def refuse_outside(self, rows: Rows, names=None) -> None:
        """Refuse values that a loss has no likelihood for; name the first."""
        for kind, at in self.groups(rows.indices, rows.indices.size):
            if not kind.has_unit_noise:
                continue
            wrong = np.zeros(rows.indices.size, bool)
            wrong[at] = kind.outside(rows.values[at])
            if wrong.any():
                k = int(np.argmax(wrong))
                column = rows.indices[k]
                name = column if names is None else repr(str(names[column]))
                raise ValueError(
                    f"{kind.refused} in data that loss="
                    f"{type(kind).__name__.lower()!r} does not take: "
                    f"{rows.values[k]:g} in row {rows.row_numbers[k]}, column {name} "
                    "of X. Correct the value, or use another loss for this column."
                )


def root_mean_deviance(held_out, losses: ColumnLosses, biases):
    """Root of twice the mean loss of held-out entries, as a function of W and H."""
    x = held_out.values.astype(np.float64)
    places = held_out.rows, held_out.columns

    def validate(W, H):
        p = predictions_at(W, H, biases, *places)
        with np.errstate(over="ignore", invalid="ignore"):
            values = losses.value(held_out.columns, x, p, np.ones_like(x))
            return float(np.sqrt(2 * np.average(values, weights=held_out.weights)))

    return validate


def predictions_at(W, H, biases, rows, columns) -> np.ndarray:
    """Predictions of entries without the intercept, float64."""
    rank = H.shape[1] - biases.column
    p = entry_products(W[:, :rank], H[:, :rank], rows, columns).astype(np.float64)
    if biases.row:
        p += W[rows, -1]
    if biases.column:
        p += H[columns, -1]
    return p


def medians(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Median of each column, and its deviation by the median absolute deviation.

    Where more than half of the values are equal, the deviation is that of all columns
    together.
    """
    centre, deviation = np.zeros(rows.n_columns), np.zeros(rows.n_columns)
    order = np.argsort(rows.indices, kind="stable")
    values = rows.values[order].astype(np.float64)
    ends = np.cumsum(np.bincount(rows.indices, minlength=rows.n_columns))
    for j, (start, stop) in enumerate(zip(np.append(0, ends[:-1]), ends, strict=True)):
        if stop > start:
            of_column = values[start:stop]
            centre[j] = np.median(of_column)
            deviation[j] = NORMAL_RATIO * np.median(np.abs(of_column - centre[j]))
    of_all = robust_deviation(rows.values - centre[rows.indices])
    return centre, np.where(deviation > 0, deviation, of_all)


def robust_deviation(values) -> float:
    """Standard deviation of most values around zero; of all where most are zero."""
    deviation = NORMAL_RATIO * float(np.median(np.abs(values)))
    if deviation > 0:
        return deviation
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
