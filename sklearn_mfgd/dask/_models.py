"""The fitted estimator on a worker: what it does with one block."""

import numpy as np

from .._data.matrix import matrix_of
from .._kernels.rows import Rows
from .._masked_gradient_mf import MaskedGradientMF as LocalMF
from .._optim.score import score_sums
from .._parameters import check_places


class ModelOfRows(LocalMF, auto_wrap_output_keys=None):
    """A fitted estimator whose methods take validated `Rows` in place of X.

    They return arrays, whatever output scikit-learn is set to.
    """

    def _matrix(self, X, mask, entry_weight):
        return matrix_of(X, self._units, mean=self._centre)


def copy_of(estimator, kind: type[LocalMF]) -> LocalMF:
    """Return an estimator of another class with the same parameters and fit."""
    parameters = estimator.get_params(deep=False)
    parameters.pop("client", None)
    copied = kind(**parameters)
    state = {name: value for name, value in vars(estimator).items() if name != "client"}
    vars(copied).update(state)
    return copied


def transformed(model: ModelOfRows, rows: Rows) -> np.ndarray:
    """Row factors of a block."""
    return model.transform(rows)


def transformed_with_covariances(
    model: ModelOfRows, rows: Rows, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Row factors of a block, and their covariances in the type that was announced."""
    Z, covariance = model.transform(rows, return_cov=True)
    return Z, covariance.astype(dtype, copy=False)


def reconstructed(model: ModelOfRows, Z: np.ndarray) -> np.ndarray:
    """Complete rows of a block of row factors, which may be empty."""
    if len(Z) == 0:
        return np.empty((0, model.n_features_in_), model_type(Z.dtype))
    return model.inverse_transform(Z)


def model_type(dtype) -> np.dtype:
    """The type of what is computed from row factors of a type."""
    return np.dtype(np.float32 if dtype == np.float32 else np.float64)


def sums_of_squares(model: ModelOfRows, rows: Rows) -> tuple[int, float, float]:
    """What a block adds to the score: its number of entries, and two sums.

    They are the squared error of hidden entries (PRESS), and the squared distance from
    the column means.
    """
    matrix = model._matrix(rows, None, None)
    if matrix.n_observed == 0:
        return 0, 0.0, 0.0
    centre = model._units.enter(model.column_mean_) - matrix.mean
    return matrix.n_observed, *score_sums(matrix, model._model, centre)


def checked_places(rows, columns, shape: tuple[int, int]) -> tuple:
    """Validate a chunk of the places of entries."""
    return check_places(rows, columns, shape)


def places_between(places: tuple, start: int, stop: int) -> tuple:
    """Those in a range of the rows: their numbers, rows counted from there, columns."""
    rows, columns = places
    numbers = np.flatnonzero((start <= rows) & (rows < stop))
    return numbers, rows[numbers] - start, columns[numbers]


def predicted(model: ModelOfRows, Z, covariance, places: tuple) -> tuple:
    """Predict entries of a block; their numbers, the predictions, and deviations.

    There are deviations where there is a covariance.
    """
    numbers, *places = places
    if numbers.size == 0:  # the block may be empty, too
        none = np.empty(0, model_type(Z.dtype))
        return numbers, none, none
    if covariance is None:
        return numbers, model.predict_entries(Z, *places), None
    options = {"covariance": covariance, "return_std": True}
    return numbers, *model.predict_entries(Z, *places, **options)


def entries_in_order(length, parts: list[tuple], dtype: np.dtype) -> tuple:
    """Put the predictions of all blocks where their entries were asked for."""
    x, deviations = np.empty((2, length), dtype)
    for numbers, of_block, deviations_of_block in parts:
        x[numbers] = of_block
        if deviations_of_block is not None:
            deviations[numbers] = deviations_of_block
    return x, deviations
