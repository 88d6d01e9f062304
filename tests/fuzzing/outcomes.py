"""What comes of a case: all that its estimator answers, or the error and where."""

import pickle
import traceback
import warnings
from functools import cached_property

import numpy as np
from scipy import sparse


class Study:
    """A fit of a case and its answers, computed when they are asked for first."""

    def __init__(self, case):
        self.case = case
        self.X, self.options = case.data()
        self.before = fingerprint(self.X, self.options)
        self.warnings, self.error = [], None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                self._answer()
            except Exception as error:
                self.error = error
            self.warnings = caught
        self.after = fingerprint(self.X, self.options)

    def _answer(self):
        """Call every method; names of answers say what they are answers to."""
        case, X, options = self.case, self.X, self.options
        self.answers = answers = {}
        self.model = model = case.make()
        self.stage = "fit"
        model.fit(X, **options)
        self.stage = "transform"
        if case.fills:
            answers["transform"] = model.transform(X)
            if case.learns and not case.param("sample_posterior"):
                self.stage = "impute"
                filled, std = model.impute(X, return_std=True)
                answers["impute"], answers["std"] = filled, std
            options = {}
        else:
            answers["transform"] = Z = model.transform(X, **options)
            self.stage = "inverse_transform"
            answers["inverse_transform"] = model.inverse_transform(Z)
            if case.learns and not case.param("n_draws"):
                self.stage = "predict_entries"
                Z, covariance = model.transform(X, return_cov=True, **options)
                places = np.indices(case.X.shape).reshape(2, -1)
                x, std = model.predict_entries(
                    Z, *places, covariance=covariance, return_std=True
                )
                answers["covariance"] = covariance
                answers["predict_entries"] = x.reshape(case.X.shape)
                answers["std"] = std.reshape(case.X.shape)
        self.stage = "score"
        answers["score"] = np.asarray(model.score(X, **options))
        self.stage = None

    @cached_property
    def factorization(self):
        """The factorization itself, or the one within an imputer."""
        return self.model.factorization_ if self.case.fills else self.model

    def attributes(self):
        """Return the numbers that the fit has left, by name."""
        found = {}
        for prefix, model in (
            ("", self.model),
            ("factorization_.", self.factorization),
        ):
            for name, value in vars(model).items():
                public = name.endswith("_") and not name.startswith("_")
                if public and isinstance(value, (float, list, np.ndarray)):
                    value = np.asarray(value)
                    if value.dtype.kind == "f":
                        found[prefix + name] = value
        return found

    def pickled(self):
        """Return the fitted model after a trip through a file."""
        return pickle.loads(pickle.dumps(self.model))


def complete(case, probe=None):
    """Fit to a case, and predict every entry of a probe; NaN in a dropped column.

    An imputer returns what is observed: there only the rest is predicted.
    """
    X, options = case.data()
    model = case.make().fit(X, **options)
    return predict(case, model, case if probe is None else probe)


def predict(case, model, probe):
    """Predict the rows of a probe."""
    X, options = probe.data()
    if not case.fills:
        return model.inverse_transform(model.transform(X, **options))
    predicted = np.full(probe.X.shape, np.nan)
    predicted[:, case.kept] = model.impute(X)
    return predicted


def fingerprint(X, options):
    """Return all bits of what is given, to tell whether they change."""
    return [part for given in (X, *options.values()) for part in _bits(given)]


def _bits(given):
    if sparse.issparse(given):
        names = ["coords"] if given.format == "coo" else ["indices", "indptr"]
        parts = [given.data, *(getattr(given, name) for name in names)]
        return [repr(given), *(np.asarray(part).tobytes() for part in parts)]
    if isinstance(given, np.ma.MaskedArray):
        return [given.data.tobytes(), given.mask.tobytes()]
    return [np.asarray(given).tobytes()]


def place_of(error):
    """Return where the package raised: module and function, without the line."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "sklearn_mfgd" in frame.filename]
    if not own:
        return "outside"
    path = own[-1].filename.rsplit("sklearn_mfgd", 1)[-1].lstrip("/\\")
    return f"{path}:{own[-1].name}"
