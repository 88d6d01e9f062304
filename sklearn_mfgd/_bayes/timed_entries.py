"""The entries of rows that are sorted by time, by rows and by columns."""

from typing import NamedTuple

import numpy as np

from .._data.timeline import Timeline
from .._kernels import dispatch
from .._kernels.problems import ProcessProblem
from .._kernels.rows import Rows


class TimedEntries(NamedTuple):
    """Entries by rows, and by columns with the time since the entry before."""

    rows: Rows
    columns: ProcessProblem  # float64
    order: np.ndarray  # number by rows of each entry by columns

    @classmethod
    def of(cls, rows: Rows, timeline: Timeline) -> "TimedEntries":
        """Sort entries by columns; the rows are in the order of the timeline."""
        n = rows.shape[1]
        # Numbers of entries are exact in float64.
        numbers = np.arange(rows.indices.size, dtype=np.float64)
        numbered = rows._replace(values=numbers, weights=None).transpose()
        is_small = rows.indices.size < np.iinfo(np.int32).max
        order = numbered.values.astype(np.int32 if is_small else np.int64)
        by_columns = Rows(
            numbered.indptr,
            numbered.indices,
            rows.values[order].astype(np.float64),
            None if rows.weights is None else rows.weights[order].astype(np.float64),
            rows.shape[0],
        )
        of_entries = by_columns.indices
        column = np.repeat(np.arange(n, dtype=np.int32), np.diff(by_columns.indptr))
        series, gaps = timeline.series[of_entries], np.full(of_entries.size, np.inf)
        follows = (series[1:] == series[:-1]) & (column[1:] == column[:-1])
        steps = np.diff(timeline.elapsed[of_entries])
        gaps[1:][follows] = steps[follows]
        columns = ProcessProblem(
            by_columns.indptr, of_entries, by_columns.values, by_columns.weights, gaps
        )
        return cls(rows, columns, order)

    @property
    def counts(self) -> np.ndarray:
        """Number of entries of each column."""
        return np.diff(self.columns.indptr)

    def rows_less(self, residual) -> Rows:
        """Rows, double precision, less residuals in the order of columns, or None."""
        rows = self.rows.astype(np.float64)
        if residual is None:
            return rows
        return rows._replace(values=rows.values - self.by_rows(residual))

    def by_rows(self, values) -> np.ndarray:
        """Values of entries in the order of rows, given in that of columns."""
        by_rows = np.empty_like(values)
        by_rows[self.order] = values
        return by_rows

    def errors(self, W, H, biases) -> np.ndarray:
        """Entries less their approximation, in the order of columns."""
        of_columns = self._by_columns(self.columns.values)
        return -dispatch.residuals(of_columns, H, W, biases[::-1])

    def products(self, W, H, biases) -> np.ndarray:
        """Approximations of the entries, in the order of columns."""
        nothing = self._by_columns(np.zeros(len(self.columns.values)))
        return dispatch.residuals(nothing, H, W, biases[::-1])

    def sum_by_columns(self, values) -> np.ndarray:
        """Weighted sums of values of entries, (n,)."""
        if self.columns.weights is not None:
            values = values * self.columns.weights
        sums = np.append(0.0, np.cumsum(values))
        return np.diff(sums[self.columns.indptr])

    def target_sums(self, regressors) -> np.ndarray:
        """Weighted sums of entry times regressors of its row, (n, k)."""
        values, weights = self.columns.values, self.columns.weights
        weighted = values if weights is None else weights * values
        return dispatch.product(self._by_columns(weighted), regressors)

    def _by_columns(self, values) -> Rows:
        columns, m = self.columns, self.rows.shape[0]
        return Rows(columns.indptr, columns.indices, values, None, m)
