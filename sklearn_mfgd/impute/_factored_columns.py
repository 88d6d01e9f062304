"""The scales and factors of the columns of a table, for an imputer."""

from typing import Any

import numpy as np

from .._data.observed import rows_of
from .._data.standardize import Standardization
from .._optim.column_losses import ColumnLosses
from .._parameters import SHARED_PARAMETERS, Data
from ._columns import Settings
from ._marginals import WeightedColumns
from ._tables import TableMixin


class FactoredColumnsMixin(TableMixin):
    """Standardize the columns of a table; tell what a factorization learned of them."""

    _base: WeightedColumns
    _takes_categories = True
    factorization_: Any
    rank: Any
    sample_posterior: bool
    scale: bool
    time: str | None

    def __sklearn_is_fitted__(self):
        return hasattr(self, "_base")

    @property
    def _standardization(self) -> Standardization:
        return self._base.members[0].standardization

    @property
    def mean_(self) -> np.ndarray:
        """Mean of each column, or of its normal scores; NaN for an empty column."""
        return self._standardization.mean

    @property
    def scale_(self) -> np.ndarray:
        """Standard deviation of each column, or of its normal scores."""
        return self._standardization.scale

    @property
    def timescale_(self) -> np.ndarray | None:
        """How long each factor remembers, in units of `times`; None without times."""
        return self.factorization_.timescale_

    @property
    def seasonality_(self) -> np.ndarray | None:
        """Share of the variance of each factor that the day, week and year explain."""
        return self.factorization_.seasonality_

    @property
    def residual_timescale_(self) -> np.ndarray | None:
        """How long the residuals of each column remember; NaN for constant columns."""
        return self._of_all_columns(self.factorization_.residual_timescale_)

    @property
    def residual_variance_(self) -> np.ndarray | None:
        """Variance of the residuals of each column that is not noise, in units of X."""
        variance = self._of_all_columns(self.factorization_.residual_variance_)
        return None if variance is None else variance * np.square(self.scale_)

    def _of_all_columns(self, values):
        """Values of the columns that vary, NaN for the others."""
        if values is None:
            return None
        varies = self._standardization.varies
        spread = np.full(len(varies), np.nan)
        spread[varies] = values
        return spread

    def _settings(self) -> Settings:
        """What the parameters say about factorizations of the encoded columns."""
        shared = {name: getattr(self, name) for name in SHARED_PARAMETERS}
        losses = self._encoded_losses()
        return Settings(self.rank, self.scale, self.sample_posterior, shared, losses)

    def _refuse_outside_losses(self, X, missing):
        """Refuse values that the loss of their column has no likelihood for."""
        losses = ColumnLosses.of(self._encoded_losses(), X.shape[1])
        if losses is not None:
            losses.refuse_outside(rows_of(X, ~missing), self._encoded_names(X.shape[1]))

    def _names_of_features(self, names: Data) -> Data:
        """Return the names without the column of times, which is no feature."""
        if names is None or self.time in (None, "index"):
            return names
        return [name for name in names if name != self.time]

    def _standardized(self, X, missing):
        """Columns of about unit variance, NaN where missing, without constant ones."""
        return self._base.members[0].standardized(X, missing)
