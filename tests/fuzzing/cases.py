"""A case: an estimator, parameters, a table in a container; and what comes of it."""

import pickle
import re
import traceback
import warnings
from pathlib import Path
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
BITS = "data", "coords", "indices", "indptr"  # of arrays, dense and sparse
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
    def is_unseeded(self):
        return self.is_random and self.param("random_state") is None

    @property
    def given_factors(self):
        return self.params["init"] if type(self.params.get("init")) is tuple else None

    @property
    def limits(self):
        names = {"min_value", "max_value"} & set(self.params)
        return {name: self.params[name] for name in names}

    def make(self):
        return ESTIMATORS[self.estimator](**self.params)

    def take(self, rows=slice(None), columns=slice(None)):
        """Return the case with some of the rows and columns, in any order."""
        case = self._replace(X=self.X[rows][:, columns])
        if self.weight is not None:
            case = case._replace(weight=self.weight[rows][:, columns])
        if self.given_factors:
            W, H = self.given_factors
            case = case.set(init=(W[rows], H[columns]))
        for name, limit in self.limits.items():
            if isinstance(limit, np.ndarray):
                case = case.set(**{name: limit[columns]})
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


class Study:
    """A fit of a case and its answers; after an error `stage` is the method."""

    def __init__(self, case):
        self.case, self.error, self.stage = case, None, "fit"
        self.X, self.options = case.data()
        self.transform_options = {} if case.fills else self.options
        self.answers = {}
        self.before = fingerprint(self.X, self.options)
        with warnings.catch_warnings(record=True, action="always") as self.warnings:
            try:
                self._answer()
            except Exception as error:
                self.error = error
        self.after = fingerprint(self.X, self.options)

    def _answer(self):
        """Call every method; names of answers say what they are answers to."""
        case, X, options, answers = (
            self.case,
            self.X,
            self.transform_options,
            self.answers,
        )
        self.model = case.make().fit(X, **self.options)
        # The factorization itself, or the one within an imputer.
        self.factorization = getattr(self.model, "factorization_", self.model)

        def ask(method, *args, **more):
            self.stage = method
            return getattr(self.model, method)(*args, **more)

        answers["transform"] = Z = ask("transform", X, **options)
        knows_std = case.learns and not case.is_sampled
        if case.fills and knows_std:
            answers["impute"], answers["std"] = ask("impute", X, return_std=True)
        elif not case.fills:
            answers["inverse_transform"] = ask("inverse_transform", Z)
            if knows_std:
                Z, covariance = ask("transform", X, return_cov=True, **options)
                given = Z, *np.indices(case.X.shape).reshape(2, -1)
                std = {"covariance": covariance, "return_std": True}
                predicted = np.reshape(
                    ask("predict_entries", *given, **std), (2, *case.X.shape)
                )
                answers["predict_entries"], answers["std"] = predicted
                answers["covariance"] = covariance
        answers["score"] = np.asarray(ask("score", X, **options))

    def attributes(self):
        """Return the numbers that the fit has left, by name."""
        found = {}
        for model in (self.factorization, self.model):
            for name in filter(re.compile(r"[a-z]\w*_").fullmatch, dir(model)):
                value = getattr(model, name, None)
                if isinstance(value, (float, list, np.ndarray)):
                    found[f"{type(model).__name__}.{name}"] = np.asarray(value)
        return {name: value for name, value in found.items() if value.dtype.kind == "f"}

    def pickled(self):
        return pickle.loads(pickle.dumps(self.model))


def complete(case, probe=None):
    """Fit to a case, and predict every entry of a probe; NaN in a dropped column.

    An imputer returns what is observed: there only the rest is predicted.
    """
    X, options = case.data()
    model = case.make().fit(X, **options)
    X, options = (probe or case).data()
    if not case.fills:
        return model.inverse_transform(model.transform(X, **options))
    predicted = np.full(np.shape(X), np.nan)
    predicted[:, case.kept] = model.impute(X)
    return predicted


def fingerprint(X, options):
    """Return all bits of what is given, to tell whether they change."""
    parts = []
    for given in (X, *options.values()):
        arrays = [getattr(given, name) for name in BITS if hasattr(given, name)]
        parts += [np.ma.getmask(given), *(arrays or [given])]
    return [np.asarray(part).tobytes() for part in parts]


def place_of(error):
    """Return where the package raised: module and function, without the line."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [(frame.filename, frame.name) for frame in frames]
    inside = [
        f"{Path(file).name}:{name}" for file, name in places if "sklearn_mfgd" in file
    ]
    return inside[-1] if inside else "outside"
