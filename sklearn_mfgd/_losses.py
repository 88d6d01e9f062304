"""Losses other than squared error, as the estimators use them."""

from typing import Any

import numpy as np
from sklearn.utils.validation import _get_feature_names

from ._data.observed import rows_of
from ._data.prepared import PreparedData
from ._kernels.rows import Rows
from ._optim.column_losses import ColumnLosses, robust_deviation
from ._optim.loss_model import LossModelMixin
from ._optim.losses import LOSSES


class LossMixin:
    """Read the parameter `loss`, and turn predictions into expected values."""

    _biases: Any
    _matrix: Any
    _model: Any
    _units: Any
    loss: Any
    reg: Any

    @property
    def _is_squared(self) -> bool:
        return are_squared(self.loss)

    def _losses_of(self, X) -> ColumnLosses | None:
        """Losses of the columns of X, None if all are squared errors."""
        if isinstance(self.loss, str):
            return ColumnLosses.of(self.loss, 0)
        n = X.shape[1]
        return ColumnLosses.of(numbered_losses(self.loss, n, _get_feature_names(X)), n)

    def _prepared_for(self, losses, observed, names) -> PreparedData:
        """Data as a fit with losses takes them: all entries listed, none empty."""
        if isinstance(observed, np.ndarray):
            observed = rows_of(observed, np.ones(observed.shape, bool))
        elif not isinstance(observed, Rows):
            raise ValueError(
                f"loss={self.loss!r} visits every entry, which would store all the "
                "zeros of a sparse X. Pass a dense X or, where what is not stored is "
                "missing, use MaskedGradientMF."
            )
        losses.refuse_outside(observed, names)
        biases = self._biases
        if losses.has_unit_noise or not losses.is_robust:
            data = PreparedData.raw(observed, biases)
        else:
            centre = float(np.median(observed.values)) if biases.column else 0.0
            deviation = robust_deviation(observed.values - centre)
            unit_variance = self.reg == "auto"
            data = PreparedData.around(
                observed, biases, centre, deviation, unit_variance=unit_variance
            )
        losses = losses.over(data.occupied.columns)
        if biases.column:
            losses = losses.with_intercept(data.matrix.rows)
        return data._replace(losses=losses)

    def _refuse_outside_losses(self, observed) -> None:
        """Refuse new values that the loss of their column has no likelihood for."""
        if not isinstance(self._model, LossModelMixin):
            return
        if not isinstance(observed, Rows):
            observed = rows_of(observed, np.ones(observed.shape, bool))
        names = getattr(self, "feature_names_in_", None)
        self._model.losses_here.refuse_outside(observed, names)

    def _responses(self, X):
        """Expected values of complete rows given their predictions."""
        if not isinstance(self._model, LossModelMixin):
            return X
        with np.errstate(over="ignore"):
            return self._model.respond(X)

    def _responses_at(self, columns, x, posterior=None):
        """Expected values of entries of columns given their predictions.

        With the arguments of `variances` these are uncertain.
        """
        if not isinstance(self._model, LossModelMixin):
            return x
        v = np.zeros(len(x))
        if posterior is not None and self._expects_more_than_it_predicts:
            v = self._model.spread(*posterior)
        with np.errstate(over="ignore"):
            return self._model.respond_at(columns, x, v)

    @property
    def _expects_more_than_it_predicts(self) -> bool:
        """Whether expected values depend on the variance of predictions."""
        model = self._model
        if not (isinstance(model, LossModelMixin) and model.has_variances):
            return False
        return model.losses.has_unit_noise

    def _quantiles_of_losses(self, columns, mean, variance, probability):
        """Quantile of entries of columns whose loss has no noise to learn."""
        losses = self._model.losses_here
        filled = np.full(len(mean), probability)
        return losses.apply("quantiles", columns, mean, variance, filled)

    def _sample_losses(self, X, places, rng):
        """Sample chosen entries of X given sampled factors of columns and rows."""
        matrix = self._matrix(X, None, None)
        x = self._model.sample(matrix, places, rng)
        return self._units.leave(x + matrix.mean)

    def _refuse_losses(self, what: str) -> None:
        """Refuse a method that needs squared errors."""
        if not self._is_squared:
            raise ValueError(
                f"{what} needs loss='squared'; this estimator has loss={self.loss!r}."
            )


def are_squared(losses) -> bool:
    """Whether a loss, or all losses of a mapping, are squared errors."""
    names = [losses] if isinstance(losses, str) else losses.values()
    return all(name == "squared" for name in names)


def numbered_losses(losses, n_columns: int, names):
    """Losses of some columns by their numbers instead of their names, or one of all."""
    if isinstance(losses, str):
        return losses
    found: dict[int, str] = {}
    for column, loss in losses.items():
        if not (isinstance(loss, str) and loss in LOSSES):
            raise ValueError(
                f"loss[{column!r}] must be one of {sorted(LOSSES)}; got {loss!r}."
            )
        found[_position_of(column, n_columns, names)] = loss
    return found


def _position_of(column, n_columns: int, names) -> int:
    """Number of a column that is named by its name or its number."""
    if isinstance(column, str):
        known_names = [] if names is None else names
        places = np.flatnonzero([name == column for name in known_names])
        if places.size == 1:
            return int(places[0])
        known = "X has no names of columns" if names is None else "X has no such column"
        raise ValueError(f"loss names the column {column!r}, but {known}.")
    if not 0 <= column < n_columns:
        raise ValueError(
            f"loss names the column {column!r}; X has columns 0 to {n_columns - 1}."
        )
    return int(column)
