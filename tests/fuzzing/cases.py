"""A case: an estimator, its parameters, and a table in a container."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from sklearn_mfgd import GradientMF, MaskedGradientMF, MFImputer

ESTIMATORS = {E.__name__: E for E in (GradientMF, MaskedGradientMF, MFImputer)}
DEFAULTS = {name: E().get_params() for name, E in ESTIMATORS.items()}
FORMATS = ("csr", "csc", "coo")
DENSE = ("ndarray", "Fortran order", "read-only", "list", "frame", "masked array")
SPARSE = tuple(f"{form}_{kind}" for kind in ("array", "matrix") for form in FORMATS)
MASKED = -987.0  # what stands where a mask says that nothing is observed


class Case(NamedTuple):
    """What a fit is given; NaN in X means missing, whatever the container."""

    estimator: str
    params: dict
    X: np.ndarray
    container: str = "ndarray"
    weight: np.ndarray | None = None
    seed: int = 0  # of what an invariant compares with

    @property
    def fills(self):
        return self.estimator == "MFImputer"

    @property
    def learns(self):
        return self.param("reg") == "auto"

    @property
    def observed(self):
        """What counts: neither NaN nor of weight zero."""
        seen = ~np.isnan(self.X)
        return seen if self.weight is None else seen & (self.weight > 0)

    @property
    def kept(self):
        """Columns of the output: an imputer may drop those that are empty."""
        filled = self.observed.any(axis=0)
        return filled | (not self.fills or self.param("keep_empty_features"))

    @property
    def rng(self):
        return np.random.RandomState(self.seed)

    def param(self, name):
        """Return the value of a parameter, None of one that the estimator lacks."""
        return self.params.get(name, DEFAULTS[self.estimator].get(name))

    def set(self, **params):
        return self._replace(params={**self.params, **params})

    @property
    def is_dense(self):
        return self.container not in SPARSE

    @property
    def unstored_is_zero(self):
        """Whether what a sparse X does not store is observed."""
        return self.estimator == "GradientMF" and not self.is_dense

    @property
    def is_sampled(self):
        return self.param("sample_posterior") or self.param("n_draws")

    @property
    def is_random(self):
        """Whether a fit or its answers depend on `random_state`, by position in X."""
        random = self.param("init") == "random" or self.param("solver") == "sgd"
        return random or self.is_sampled or self.param("early_stopping")

    @property
    def given_factors(self):
        return self.params["init"] if type(self.params.get("init")) is tuple else None

    def make(self):
        """Return the estimator, not fitted."""
        return ESTIMATORS[self.estimator](**self.params)

    def take(self, rows=slice(None), columns=slice(None)):
        """Return the case with some of the rows and columns, in any order."""
        case = self._replace(X=self.X[rows][:, columns])
        if self.weight is not None:
            case = case._replace(weight=self.weight[rows][:, columns])
        if self.given_factors:
            W, H = self.given_factors
            case = case.set(init=(W[rows], H[columns]))
        for name in ("min_value", "max_value"):
            if isinstance(self.params.get(name), np.ndarray):
                case = case.set(**{name: self.params[name][columns]})
        return case

    def data(self):
        """Return X as it is given, and what else `fit` is given by name."""
        X, options = self.X, {}
        marker = self.params.get("missing_values", np.nan)
        if not np.isnan(marker):
            X = np.where(np.isnan(X), X.dtype.type(marker), X)
        if self.weight is not None:
            options["entry_weight"] = self.weight.copy()
        if not self.is_dense:
            places = np.nonzero(X != 0 if self.unstored_is_zero else ~np.isnan(X))
            make = getattr(sparse, self.container)
            if self.weight is not None:
                options["entry_weight"] = make((self.weight[places], places), X.shape)
            return make((X[places], places), X.shape), options
        filled = np.where(np.isnan(X), X.dtype.type(MASKED), X)
        if self.container == "mask":
            return filled, options | {"mask": ~np.isnan(X)}
        if self.container == "masked array":
            return np.ma.masked_array(filled, np.isnan(X)), options
        if self.container == "list":
            return X.tolist(), options
        if self.container == "frame":
            return pd.DataFrame(X).add_prefix("c"), options
        X = np.array(X, order="F" if self.container == "Fortran order" else "C")
        X.flags.writeable = self.container != "read-only"
        return X, options


def containers_of(estimator):
    return DENSE if estimator == "MFImputer" else (*DENSE, "mask", *SPARSE)
