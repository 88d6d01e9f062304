r"""The model with learned regularization: its data, and what is known after a sweep.

The model is

.. math::

    x_{ij} = \mu + b_i + c_j + w_i \cdot h_j + \epsilon_{ij}, \quad
    \epsilon_{ij} \sim N(0, 1 / (s_{ij} \alpha_j)), \quad
    w_i \sim N(A_w' f_i, \Lambda_w^{-1}), \; h_j \sim N(A_h' g_j, \Lambda_h^{-1})

with missingness features f and g of a row and of a column, see `priors`. The posteriors
of ``[w_i, b_i]`` and of ``[h_j, c_j]`` are taken to be independent and Gaussian, with
full covariances [1]_, [2]_. A sweep updates all rows, all columns, then the noise and
the priors by their maximum, and never lowers the evidence lower bound (ELBO)

.. math::

    L = \sum_{ij} E \log p(x_{ij}) - \sum_i KL(w_i, b_i) - \sum_j KL(h_j, c_j)
      + \log p(\Lambda, \alpha).

Mean-field updates rotate factors slowly to the axes along which they can be pruned. So
after each sweep the precisions are taken along the axes of a rotation Q, w' = Q w, in
which the second moments of both sides are diagonal [3]_: only the priors change.

References
----------
.. [1] Y. J. Lim, Y. W. Teh, "Variational Bayesian Approach to Movie Rating Prediction",
   KDD Cup and Workshop 2007.
.. [2] A. Ilin, T. Raiko, "Practical Approaches to Principal Component Analysis in the
   Presence of Missing Values", Journal of Machine Learning Research 11 (2010).
.. [3] J. Luttinen, A. Ilin, "Transformations in Variational Bayesian Factor Analysis to
   Speed up Learning", Neurocomputing 73 (2010).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._kernels.rows import Biases
from .._optim.objective import objective_of
from . import row_scales
from .covariance import DiagonalCovariance, FullCovariance, covariances_are_diagonal
from .missingness import Features
from .noise import FIRST_DOF, FLOAT32_MIN_VARIANCE, Noise
from .priors import Prior, best_precision, with_bias

# Precision of the row factors in the first sweep, over what their start suggests. With
# all of it weak factors are given up before they have shown what they explain.
FIRST_PRECISION_RATIO = 0.1

# Least variance of the first noise, per unit of weight.
FIRST_MIN_VARIANCE = 1e-3


@dataclass(frozen=True)
class Model:
    """The data, and what never changes during a fit."""

    data: Any  # the entries as the type of the covariances prepares them
    covariance_type: type
    shape: tuple[int, int]
    biases: Biases
    noise: str
    counts: np.ndarray  # (n,), entries of each column
    squares: np.ndarray  # (n,), their weighted sum of squares
    row_features: Features
    column_features: Features
    dtype: np.dtype
    of_raters: bool = False  # rows are exchangeable raters

    @property
    def n_observed(self) -> float:
        """Number of entries."""
        return self.counts.sum()

    @property
    def can_rotate(self) -> bool:
        """Whether factors can be rotated, and therefore pruned."""
        return self.covariance_type.can_rotate

    @property
    def has_row_scales(self) -> bool:
        """Whether rows have scales of their own, see `row_scales`."""
        return self.of_raters and self.can_rotate

    @property
    def flat_bias(self) -> bool:
        """Whether column biases have no prior: columns are different quantities."""
        return self.biases.column and not self.biases.row

    def row_means(self, state: "State") -> np.ndarray:
        """Means of [w, b] of all rows, (m, q)."""
        return state.columns.row_means(self, state)

    @property
    def has_features(self) -> bool:
        """Whether missingness may say anything about the factors."""
        sides = self.row_features, self.column_features
        return any(len(side.scales) for side in sides)


@dataclass(frozen=True)
class State:
    """What is known after a sweep: of the rows their prior, as they follow from it."""

    columns: FullCovariance | DiagonalCovariance  # posterior of [h, c]
    row_prior: Prior  # along the axes of Q w
    column_prior: Prior  # along those of inv(Q') h
    noise: Noise
    row_dof: float = 0.0  # degrees of freedom of the scales of rows; 0: all are one

    @property
    def H(self) -> np.ndarray:
        """Means of [h, c]."""
        return self.columns.means

    @property
    def rank(self) -> int:
        """Number of factors."""
        return self.row_prior.rank

    @property
    def alpha(self) -> np.ndarray:
        """Precision of the noise of each column."""
        return self.noise.alpha

    @property
    def needs_float64(self) -> bool:
        """Whether the noise is too small for single precision."""
        single = self.H.dtype == np.float32
        return single and self.alpha.max() * FLOAT32_MIN_VARIANCE > 1

    def astype(self, dtype) -> "State":
        """The same in another precision."""
        return replace(self, columns=self.columns.astype(dtype))

    def with_rotation(self, rotation) -> "State":
        """The same factors with priors along other axes, which are yet to be updated.

        W Q' and H inv(Q) predict the same, so columns have the inverse transpose.
        """
        row_prior = replace(self.row_prior, rotation=rotation)
        column_prior = replace(self.column_prior, rotation=np.linalg.inv(rotation).T)
        return replace(self, row_prior=row_prior, column_prior=column_prior)

    def rotated(self, like: "State | None" = None) -> "State":
        """The same state with the factors themselves along the axes of the priors.

        `like` is what a state of the same axes and covariances has become: there is no
        need to rotate these again.
        """
        rank = self.rank
        if np.array_equal(self.row_prior.rotation, np.eye(rank)):
            return self
        T = np.eye(self.H.shape[1])  # of [h, c]: the bias stays
        T[:rank, :rank] = self.column_prior.rotation
        if like is None:
            columns = self.columns.transformed(T)
        else:
            H = (self.H @ T.T).astype(self.H.dtype, copy=False)
            columns = like.columns.with_means(H)
        return replace(
            self,
            columns=columns,
            row_prior=self.row_prior.rotated(),
            column_prior=self.column_prior.rotated(),
        )

    def with_factors(self, kept) -> "State":
        """The same state with some of its factors, not rotated; `kept` is a mask."""
        of_columns = with_bias(kept, self.H.shape[1] > self.rank)
        return replace(
            self,
            columns=self.columns.with_coefficients(of_columns),
            row_prior=self.row_prior.with_factors(kept),
            column_prior=self.column_prior.with_factors(kept),
        )


def model_of(matrix, rank: int, biases: Biases, noise: str, features) -> Model:
    """Prepare centred entries of about unit variance, and features of both sides."""
    diagonal = covariances_are_diagonal(matrix, rank, biases)
    covariance_type = DiagonalCovariance if diagonal else FullCovariance
    data = covariance_type.data_of(matrix, rank, biases.row)
    of_data = matrix.counts(axis=0).astype(np.float64), matrix.column_sums(2)
    given = data, covariance_type, matrix.shape, biases, noise, *of_data, *features
    return Model(*given, matrix.dtype)


def first_state(model: Model, W, H, matrix) -> State:
    """Start from factors and biases."""
    rank, column_bias = H.shape[1] - model.biases.column, model.biases.column
    weight = matrix.weight()
    mean_weight = weight / matrix.n_observed
    noise = _first_noise(model, W, H, matrix, mean_weight)
    row_squares = np.asarray((W.astype(np.float64) ** 2).sum(axis=0))
    column_squares = np.square(H, dtype=np.float64).sum(axis=0)
    of_rows = FIRST_PRECISION_RATIO * best_precision(row_squares, len(W))
    of_columns = best_precision(column_squares, len(H))
    scales, flat_bias = model.column_features.scales, model.flat_bias
    row_prior = Prior.of_mean_zero(of_rows, model.row_features.scales, rank)
    column_prior = Prior.of_mean_zero(of_columns, scales, rank, flat_bias=flat_bias)
    # One over the precision of each coefficient, its entries taken for average ones.
    regressor_squares = with_bias(row_squares[:rank] / len(W), column_bias)
    weights = mean_weight * noise.alpha * model.counts
    variances = 1 / (of_columns + np.outer(weights, regressor_squares))
    columns = model.covariance_type.of_variances(H, variances, column_bias)
    row_dof = row_scales.FIRST_DOF if model.has_row_scales else 0.0
    return State(columns, row_prior, column_prior, noise, row_dof)


def _first_noise(model, W, H, matrix, mean_weight):
    """Noise of the variance that the start leaves, the same for all columns."""
    squares = 2 * objective_of(matrix, model.biases).value(W, H)
    variance = squares / matrix.n_observed
    variance = max(variance, FIRST_MIN_VARIANCE * mean_weight)
    dof = FIRST_DOF if model.noise == "column" else 0.0
    return Noise(np.full(model.shape[1], 1 / variance), variance, dof)
