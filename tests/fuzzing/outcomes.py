"""What comes of a case: all that its estimator answers, or the error and where."""

import pickle
import re
import traceback
import warnings

import numpy as np

BITS = "data", "coords", "indices", "indptr"  # of arrays, dense and sparse


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
            for name in dir(model):
                if re.fullmatch(r"[a-z]\w*_", name) and hasattr(model, name):
                    value = getattr(model, name)
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
    frames = [frame for frame in frames if "sklearn_mfgd" in frame.filename]
    if not frames:
        return "outside"
    path = frames[-1].filename.rsplit("sklearn_mfgd", 1)[-1].lstrip("/\\")
    return f"{path}:{frames[-1].name}"
