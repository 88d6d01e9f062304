"""What comes of a case: all that its estimator answers, or the error and where."""

import pickle
import re
import traceback
import warnings
from functools import cached_property

import numpy as np
from scipy import sparse


class Study:
    """A fit of a case and its answers; after an error `stage` is the method."""

    def __init__(self, case):
        self.case, self.error = case, None
        self.X, self.options = case.data()
        self.answers = {}
        self.before = fingerprint(self.X, self.options)
        with warnings.catch_warnings(record=True) as self.warnings:
            warnings.simplefilter("always")
            try:
                self._answer()
            except Exception as error:
                self.error = error
        self.after = fingerprint(self.X, self.options)

    def _answer(self):
        """Call every method; names of answers say what they are answers to."""
        case, X, options, answers = self.case, self.X, self.options, self.answers
        self.stage, self.model = "fit", case.make()
        model = self.model.fit(X, **options)
        options = case.transform_options(options)
        self.stage = "transform"
        answers["transform"] = Z = model.transform(X, **options)
        samples = case.param("sample_posterior") or case.param("n_draws")
        if case.fills and case.learns and not samples:
            self.stage = "impute"
            answers["impute"], answers["std"] = model.impute(X, return_std=True)
        elif not case.fills:
            self.stage = "inverse_transform"
            answers["inverse_transform"] = model.inverse_transform(Z)
            if case.learns and not samples:
                self.stage = "predict_entries"
                Z, covariance = model.transform(X, return_cov=True, **options)
                places = np.indices(case.X.shape).reshape(2, -1)
                predicted = model.predict_entries(
                    Z, *places, covariance=covariance, return_std=True
                )
                shaped = [part.reshape(case.X.shape) for part in predicted]
                answers["predict_entries"], answers["std"] = shaped
                answers["covariance"] = covariance
        self.stage = "score"
        answers["score"] = np.asarray(model.score(X, **options))

    @cached_property
    def factorization(self):
        """The factorization itself, or the one within an imputer."""
        return self.model.factorization_ if self.case.fills else self.model

    def attributes(self):
        """Return the numbers that the fit has left, by name."""
        found = {}
        for model in (self.factorization, self.model):
            for name in dir(model):
                if re.fullmatch(r"[a-z]\w*_", name) and hasattr(model, name):
                    value = getattr(model, name)
                    if isinstance(value, (float, list, np.ndarray)):
                        found[f"{type(model).__name__}.{name}"] = np.asarray(value)
        return {name: value for name, value in found.items() if value.dtype.kind == "f"}

    def pickled(self):
        """Return the fitted model after a trip through a file."""
        return pickle.loads(pickle.dumps(self.model))


def complete(case, probe=None):
    """Fit to a case, and predict every entry of a probe; NaN in a dropped column.

    An imputer returns what is observed: there only the rest is predicted.
    """
    X, options = case.data()
    model = case.make().fit(X, **options)
    X, options = (case if probe is None else probe).data()
    if not case.fills:
        return model.inverse_transform(model.transform(X, **options))
    predicted = np.full(np.shape(X), np.nan)
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
    frames = [frame for frame in frames if "sklearn_mfgd" in frame.filename]
    if not frames:
        return "outside"
    path = frames[-1].filename.rsplit("sklearn_mfgd", 1)[-1].lstrip("/\\")
    return f"{path}:{frames[-1].name}"
