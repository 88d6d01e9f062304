"""The fitted model of Gibbs sampling: samples of the columns, and how rows fold in.

What is predicted is the mean over the samples, which is more accurate than any of them.
"""

from typing import NamedTuple

import numpy as np
from scipy.stats import truncnorm

from .._data.row_blocks import BLOCK
from .._kernels import dispatch
from .._kernels.rows import Biases
from .._optim.objective import objective_of
from .._optim.ridge_model import press_of_factors
from .missingness import FeatureMap
from .row_scales import RowScales


class SidePrior(NamedTuple):
    """Prior of the factors of one side in one sample."""

    mean: np.ndarray  # (q,), 0 for the bias
    precision: np.ndarray  # (q,)
    slopes: np.ndarray  # (n_features, q)

    def means(self, features, dtype):
        """Mean of each row given its features, (n_rows, q)."""
        return (features @ self.slopes + self.mean).astype(dtype)


class Sample(NamedTuple):
    """What of one sample is needed to fold rows in."""

    H: np.ndarray  # [h, c]
    noise_precision: np.ndarray  # (n,)
    row_prior: SidePrior
    row_dof: float = 0.0  # of the scales of rows; 0: all are one

    def of_weight(self, weight):
        """The same for data in which entries that counted as one have this weight."""
        return self._replace(noise_precision=self.noise_precision / weight)

    def astype(self, dtype):
        """The same with column factors in another precision."""
        return self._replace(H=self.H.astype(dtype, copy=False))

    def row_factors(self, rows, biases, features, normal=None):
        """Mean of the factors of rows given this sample, (n_rows, q).

        With `normal`, standard normal numbers of that shape, one sample of them.
        """
        rows = rows.scale_weights(self.noise_precision)
        prior = self.row_prior
        means = prior.means(features, self.H.dtype)
        return rows_around_means(rows, self.H, biases, means, prior.precision, normal)

    def squares_of_rows(self, rows, W, biases, features):
        """Squares of each row, over the variances that they have at scale one."""
        weighted = rows.scale_weights(self.noise_precision)
        squares = dispatch.squares(weighted, W, self.H, biases)
        deviations = W - self.row_prior.means(features, np.float64)
        return squares + np.square(deviations) @ self.row_prior.precision

    def sample_scales(self, rows, biases, features, rng):
        """Sample the scales of rows given their entries and this sample."""
        means = self.row_factors(rows, biases, features)
        squares = self.squares_of_rows(rows, means, biases, features)
        scales = RowScales.of(np.diff(rows.indptr), squares, self.row_dof)
        return rng.gamma(scales.shape, 1 / scales.rate)


def rows_around_means(rows, H, biases, means, precision, normal):
    """Row factors from their prior means and from what these leave of the entries."""
    residuals = -dispatch.residuals(rows, means, H, biases)
    H = np.ascontiguousarray(H[:, : H.shape[1] - biases.column])
    rows = rows._replace(values=residuals)
    given = rows, H, (biases.row, False), precision, normal
    return means + dispatch.least_squares(*given)


class DrawsModel(NamedTuple):
    """Samples whose predictions are averaged; see `RidgeModel` for the contract."""

    samples: list
    biases: Biases
    feature_map: FeatureMap
    # What the variational fit learned that sampling began with.
    rank: int
    noise_variances: np.ndarray  # of the columns with entries, and of others
    row_precision: np.ndarray
    column_precision: np.ndarray
    columns: np.ndarray | None = None

    has_variances = has_times = False

    @classmethod
    def of(cls, samples, model):
        """Make one of samples, and of the variational model that they began with."""
        learned = model.rank, 1 / model.noise_precision
        learned = *learned, model.row_precision, model.column_precision
        return cls(samples, model.biases, model.feature_map, *learned)

    @property
    def n_factors(self):
        """Number of factors of all samples, side by side."""
        return sum(sample.H.shape[1] - self.biases.column for sample in self.samples)

    @property
    def numbers(self):
        """Numbers of columns among those with entries; the last is an empty one."""
        n_known = len(self.samples[0].H)
        return np.arange(n_known) if self.columns is None else self.columns

    @property
    def H(self):
        """Column factors of all samples side by side, over their number; mean bias."""
        factors = [sample.H for sample in self.samples]
        H = _side_by_side(factors, self.biases.column, 1 / len(factors))
        return np.vstack([H, np.zeros_like(H[:1])])[self.numbers]

    @property
    def noise_variance(self):
        """Variance of the noise of an entry of weight one, of all columns."""
        return self.noise_variances[self.numbers]

    def over(self, columns):
        """Make the same model of columns with these numbers; None: all."""
        return self._replace(columns=columns)

    def take(self, columns):
        """Make the same model of some of the columns."""
        return self._replace(columns=self.numbers[columns])

    def fold_in(self, matrix):
        """Mean of the row factors given each sample, side by side, (m, .)."""
        rows = self._known_rows(matrix.listed().rows)
        features = self.feature_map.transform(rows)
        samples = [sample.astype(rows.values.dtype) for sample in self.samples]
        factors = [each.row_factors(rows, self.biases, features) for each in samples]
        return _side_by_side(factors, self.biases.row, 1)

    def reconstruct(self, matrix):
        """Yield row factors of blocks of rows, and half of their squared residuals."""
        matrix = matrix.listed()
        H = self.H.astype(matrix.dtype, copy=False)
        step = max(1, BLOCK // H.shape[1])
        for start in range(0, matrix.shape[0], step):
            rows = matrix.rows.between(start, min(start + step, matrix.shape[0]))
            block = matrix._replace(rows=rows)
            W = self.fold_in(block)
            yield W, objective_of(block, self.biases).value(W, H)

    def press(self, seen, hidden, columns):
        """Squared error of hidden entries, see `RidgeModel`."""
        return press_of_factors(self, seen, hidden, columns)

    def sample(self, number, matrix, places, rng, limits=None):
        """Sample entries at places (rows, columns), given one of the samples, float64.

        `matrix` holds what is observed of the rows, `limits` a pair of arrays between
        which the entries are known to lie.
        """
        known = self._known_rows(matrix.listed().rows)
        rows, columns = places
        columns = self.numbers[columns]
        sample = self.samples[number].astype(known.values.dtype)
        rank = sample.H.shape[1] - self.biases.column
        normal = rng.standard_normal((known.shape[0], rank + self.biases.row))
        normal = normal.astype(sample.H.dtype)
        features, scales = self.feature_map.transform(known), None
        if sample.row_dof:
            scales = sample.sample_scales(known, self.biases, features, rng)
            normal /= np.sqrt(scales).astype(normal.dtype)[:, None]
        W = sample.row_factors(known, self.biases, features, normal)
        x = dispatch.entry_products(W[:, :rank], sample.H[:, :rank], rows, columns)
        x = x.astype(np.float64)
        if self.biases.column:
            x += sample.H[columns, rank]
        if self.biases.row:
            x += W[rows, rank]
        deviations = 1 / np.sqrt(sample.noise_precision[columns])
        if scales is not None:
            deviations /= np.sqrt(scales[rows])
        if limits is None:
            return x + deviations * rng.standard_normal(len(rows))
        lower, upper = ((limit - x) / deviations for limit in limits)
        return x + deviations * truncnorm.ppf(rng.uniform(size=len(rows)), lower, upper)

    def _known_rows(self, rows):
        """The entries in columns that the fit knows."""
        if self.columns is None:
            return rows
        return rows.renumber(self.columns, len(self.samples[0].H))


def _side_by_side(factors, biased, scale):
    """Factors of all samples in one matrix, times `scale`, and the mean of biases."""
    if not biased:
        return scale * np.column_stack(factors)
    bias = np.mean([F[:, -1] for F in factors], axis=0)
    return np.column_stack([*(scale * F[:, :-1] for F in factors), bias])
