"""Which parameters suit one another, and which arguments a method takes."""

from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from sklearn.utils import check_array
from sklearn.utils._param_validation import Interval, StrOptions

from ._data.tables import FLOATS
from ._optim.losses import LOSSES
from ._optim.steps import STEPS

# Array-like, data frame or sparse matrix: no type of NumPy or SciPy says so.
Data = Any
Solver = Literal["auto", "gd", "scaled", "als", "sgd"]
LossName = Literal["squared", "student_t", "huber", "logistic", "poisson"]

CONSTRAINTS: dict = {
    "rank": [Interval(Integral, 1, None, closed="left")],
    "eta": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
    "solver": [StrOptions({"auto", "sgd", *STEPS})],
    "reg": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
    "loss": [StrOptions(set(LOSSES)), dict],
    "noise": [StrOptions({"column", "shared"})],
    "pattern": ["boolean"],
    "n_draws": [Interval(Integral, 0, None, closed="left")],
    "fit_bias": ["boolean", StrOptions({"columns"})],
    "non_negative": ["boolean", StrOptions({"components"})],
    "init": [StrOptions({"svd", "random"}), tuple, list],
    "clip": [None, StrOptions({"observed"}), tuple, list],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
    "warm_start": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
    "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
}

# Those that an imputer hands on to its factorization.
SHARED_PARAMETERS = [
    "reg",
    "solver",
    "eta",
    "noise",
    "max_iter",
    "tol",
    "random_state",
    "verbose",
]

# Factors that an imputer of many columns starts with; it drops those that explain
# nothing.
LARGEST_RANK = 50


def default_rank(varies, missing):
    """Choose the rank of an imputer with ``rank="auto"``.

    As many factors as there are rows, or columns that vary, would leave nothing to the
    noise.
    """
    n_rows = int((~missing).any(axis=1).sum())
    return max(1, min(LARGEST_RANK, n_rows - 1, int(varies.sum()) - 1))


def check_parameters_together(estimator):
    """Refuse values of parameters that contradict one another."""
    check_clip(estimator.clip)
    learns, solver, eta = estimator.reg == "auto", estimator.solver, estimator.eta
    if estimator.non_negative:
        _check_goes_with_non_negative(estimator)
    if learns and solver in ("gd", "scaled", "sgd"):
        raise ValueError(
            f"solver={solver!r} needs a number for reg, such as reg=0.1; reg='auto' "
            "works with solver='als' or 'auto'."
            + _grids({"reg": "auto", "solver": "auto"}, {"reg": 0.1, "solver": solver})
        )
    if estimator.n_draws and not learns:
        raise ValueError(
            f"n_draws={estimator.n_draws} draws from what reg='auto' learns; with "
            f"reg={estimator.reg!r} use n_draws=0."
            + _grids(
                {"reg": "auto", "n_draws": estimator.n_draws},
                {"reg": estimator.reg, "n_draws": 0},
            )
        )
    if estimator.n_draws and estimator.warm_start:
        raise ValueError(
            "warm_start=True continues one fit, not draws: use n_draws=0, or "
            f"warm_start=False with n_draws={estimator.n_draws}."
        )
    if learns and eta != "auto":
        raise ValueError(
            f"eta={eta!r} needs a number for reg, such as reg=0.1; reg='auto' has no "
            "steps to choose, and needs eta='auto'."
            + _grids({"reg": "auto", "eta": "auto"}, {"reg": 0.1, "eta": eta})
        )

    check_goes_with_loss(estimator)


def _grids(*candidates: dict) -> str:
    """Say how a search has values apart that do not go together."""
    grids = [{name: [value] for name, value in values.items()} for values in candidates]
    return f" In GridSearchCV, list them apart: param_grid={grids}."


# With which kind of `reg` a loss of outliers goes, and what goes with the other kind.
ROBUST = {"huber": (False, "student_t"), "student_t": (True, "huber")}


def check_goes_with_loss(estimator):
    """Refuse parameters that a loss other than squared error has no use for."""
    loss, learns = estimator.loss, estimator.reg == "auto"
    names = [loss] if isinstance(loss, str) else list(loss.values())
    for name in names:
        needs_learned, other = ROBUST.get(name, (learns, None))
        if needs_learned != learns:
            wanted = "reg='auto'" if needs_learned else "a number for reg"
            number = 0.1 if learns else estimator.reg
            apart = {"student_t": "auto", "huber": number}
            raise ValueError(
                f"loss={name!r} needs {wanted}; with reg={estimator.reg!r} use "
                f"loss={other!r}."
                + _grids(*({"reg": reg, "loss": one} for one, reg in apart.items()))
            )
    if all(name == "squared" for name in names):
        return
    for parameter, allowed in (("n_draws", 0), ("early_stopping", False)):
        given = getattr(estimator, parameter)
        if learns and given != allowed:
            raise ValueError(
                f"{parameter}={given!r} with reg='auto' needs loss='squared'; with "
                f"loss={loss!r} use {parameter}={allowed!r}."
                + _grids(
                    {"loss": "squared", parameter: given},
                    {"loss": loss, parameter: allowed},
                )
            )


def check_clip(clip):
    """Validate the range of predictions: None, "observed" or a pair of floats."""
    if clip is None or (isinstance(clip, str) and clip == "observed"):
        return clip
    pair = clip if isinstance(clip, tuple | list) else ()
    if len(pair) != 2 or not all(isinstance(limit, Real) for limit in pair):
        raise ValueError(
            f"clip must be None, 'observed' or a pair of numbers (low, high); got "
            f"{clip!r}."
        )
    low, high = map(float, pair)
    if not low < high:
        raise ValueError(
            f"clip=(low, high) needs a low below high; got {clip!r}. Use -inf or inf "
            "to leave one side open."
        )
    return low, high


def _check_goes_with_non_negative(estimator):
    """Refuse parameters under which factors may have either sign."""
    name = f"non_negative={estimator.non_negative!r}"
    changes = ["reg=1.0"] if estimator.reg == "auto" else []
    changes += ["fit_bias=False"] if estimator.fit_bias is not False else []
    if changes:
        raise ValueError(
            f"{name} needs a number for reg and no biases, as priors and biases have "
            f"either sign: use {' and '.join(changes)}; got reg={estimator.reg!r} and "
            f"fit_bias={estimator.fit_bias!r}."
            + _grids(
                {"non_negative": False},
                {"non_negative": estimator.non_negative, "reg": 1.0, "fit_bias": False},
            )
        )
    if estimator.solver == "sgd":
        raise ValueError(
            f"{name} does not work with solver='sgd', whose steps see one entry at a "
            "time; use solver='als', 'gd', 'scaled' or 'auto'."
        )


def check_goes_with_times(estimator):
    """Refuse parameters that a fit of rows in time has no use for."""
    if estimator.reg != "auto":
        raise ValueError(
            "times needs reg='auto', which learns how rows change in time; this "
            f"estimator has reg={estimator.reg!r}. Use reg='auto', or leave out times."
        )
    estimator._refuse_losses("times=")
    if estimator.n_draws:
        raise ValueError(
            f"times and n_draws={estimator.n_draws} do not go together: use n_draws=0."
        )
    if estimator.early_stopping:
        raise ValueError(
            "times and early_stopping=True do not go together: a fit in time ends by "
            "itself. Use early_stopping=False."
        )


def advice_on_rank(rank, learns: bool) -> str:
    """Say what to do about a rank that is no number; `learns` is ``reg="auto"``."""
    number = float(rank) if isinstance(rank, Real) or str(rank).isdecimal() else 0
    if 1 <= number < np.inf:
        return f"Use rank={int(number)}."
    if learns:
        return (
            "With reg='auto' the fit finds the number of factors by itself, up to rank:"
            " use rank=10, or a larger number if rank_ comes out near it. MFImputer "
            "takes rank='auto'."
        )
    return (
        "Give the number of factors, such as rank=10. MaskedGradientMF() finds it by "
        "itself, up to rank, and MFImputer takes rank='auto'."
    )


def check_row_factors(Z, n_columns):
    """Validate row factors as `transform` returns them."""
    Z = check_array(Z, dtype=FLOATS, input_name="Z")
    if Z.shape[1] != n_columns:
        raise ValueError(
            f"Z must have {n_columns} columns, as transform returns them; got "
            f"{Z.shape[1]}. Use Z = model.transform(X), of the same fit."
        )
    return Z


def check_places(rows, columns, shape):
    """Validate the places of entries in a matrix of this shape."""
    rows = check_numbers(rows, shape[0], "rows")
    columns = check_numbers(columns, shape[1], "columns")
    if rows.shape != columns.shape:
        raise ValueError(
            f"rows and columns must have the same length; got {len(rows)} and "
            f"{len(columns)}. Entry k is in row rows[k] and column columns[k]: for one "
            "column use columns=np.full(len(rows), j)."
        )
    return rows, columns


def check_numbers(indices, length, name):
    """Validate numbers of rows or columns: integers from 0 to `length` - 1."""
    indices = np.asarray(indices)
    if indices.size == 0:  # an empty list has no type
        indices = indices.astype(np.intp)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise ValueError(
            f"{name} must be a one-dimensional array of integers. "
            f"{_advice_on_numbers(indices, name)}"
        )
    outside = np.flatnonzero((indices < 0) | (indices >= length))
    if outside.size:
        place, index = outside[0], indices[outside[0]]
        advice = f"The {name} are numbered from 0 to {length - 1}."
        if -length <= index < 0:
            advice = (
                "Negative numbers do not count from the end here: use "
                f"{index + length}, which is {length} - {-index}."
            )
        raise ValueError(
            f"{name}[{place}] is {index}; it must lie in [0, {length}). {advice}"
        )
    return indices


def _advice_on_numbers(indices: np.ndarray, name: str) -> str:
    """Say how to pass numbers of rows or columns that were passed otherwise."""
    kind, ndim = indices.dtype.kind, indices.ndim
    if kind == "b":
        what, name = "a mask", f"{name} = np.flatnonzero({name})"
        if ndim == 2:
            name = "rows, columns = np.nonzero(mask)"
        return f"Got {what}: use {name}."
    if kind in "OSU":
        names = f"{name} = [list(model.feature_names_in_).index(name) for name in ...]"
        if name != "columns":
            names = f"{name} = X.index.get_indexer(labels)"
        return f"Got labels, not numbers: use {names}."
    if ndim == 0 and kind in "iu":
        return "Got one number: for a single entry use rows=[i], columns=[j]."
    if ndim > 1 and kind in "iu":
        return f"Got an array of shape {indices.shape}: use np.ravel({name})."
    return f"Got {indices.dtype}: use np.asarray({name}).astype(int)."


def check_covariance(covariance, Z):
    """Validate covariances of the row factors Z as `transform` returns them."""
    shape = (*Z.shape, Z.shape[1])
    if covariance is None or np.shape(covariance) != shape:
        raise ValueError(
            f"return_std=True needs the covariance of shape {shape} that "
            "transform(X, return_cov=True) returns with Z; got "
            f"{None if covariance is None else np.shape(covariance)}."
        )
    return check_array(covariance, dtype=FLOATS, allow_nd=True, input_name="covariance")


def refuse_overflow(X):
    """Refuse reconstructed values that are no longer finite."""
    if not np.isfinite(X).all():
        raise ValueError(
            "Factors as large as those of Z and components_ have products beyond the "
            f"range of {X.dtype}. Fit with a larger reg, or to data in other units."
        )
    return X
