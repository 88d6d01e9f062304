"""What holds for every case: each rule is a function that raises where it is broken.

A rule takes a `Study` of a case, asserts what holds, and raises `Moot` where it is
"idle", that is, does not apply, or "excused": a fit that mere rounding moves as far has
no right answer to compare with. All but `OF_ERRORS` are for fits without an error.
"""

import re
import warnings
import zlib
from functools import partial

import numpy as np
from sklearn.utils import check_random_state

from .cases import Study, complete, place_of
from .relations import RELATIONS, Moot, idle_if

TOLERANCE = {8: 1e-6, 4: 1e-3}  # in deviations of a column, by bytes of a number
PLACES = "X|columns?|rows?|features?|samples?|mask|entry_weight|entry|entries"


def errors_are_clear(study):
    """An error is a ValueError or TypeError that names a parameter, X or a place."""
    error = study.error
    idle_if(error is None)
    name = f"{type(error).__name__} at {place_of(error)} in {study.stage}"
    message = _text(error)
    assert message is not None, f"{name}: it has no text"
    blurred = isinstance(error, (np.linalg.LinAlgError, FloatingPointError))
    assert isinstance(error, (ValueError, TypeError)) and not blurred, (
        f"{name}: {message}"
    )
    words = "|".join([PLACES, *study.case.make().get_params()])
    assert re.search(rf"\b({words})\b", message), f"{name} names nothing: {message}"
    # `fit` is where all of the data are seen: what it takes, the others take.
    if not message.startswith("return_cov=True needs the squares"):
        assert study.stage == "fit", f"{name}, after fit took the same: {message}"


def _text(error):
    try:
        return str(error)
    except Exception:
        return None


def numpy_does_not_warn(study):
    for warning in study.warnings:
        where = f"{warning.filename.rsplit('/', 1)[-1]}:{warning.lineno}"
        of_numpy = RuntimeWarning, np.exceptions.ComplexWarning
        assert not issubclass(warning.category, of_numpy), (
            f"{warning.message} at {where}"
        )


def nothing_given_is_changed(study):
    assert study.before == study.after, "X, mask or weights are changed"


def answers_are_finite(study):
    for name, value in study.answers.items():
        finite = np.isfinite(value)
        by_column = study.case.fills or study.case.param("fit_bias") == "columns"
        if name == "std" and by_column:
            finite |= _barely_observed(study.case)[study.case.kept]
        assert finite.all(), f"{name} is {value[~finite][:1]}"


def _barely_observed(case):
    """Columns with less than two distinct values, of which nobody knows the spread."""
    X = np.where(case.observed, case.X, np.nan)
    return ~(np.nanmin(X, axis=0) < np.nanmax(X, axis=0))


def attributes_are_finite(study):
    """So is what the fit leaves, but for mean and scale of an empty column."""
    for name, value in study.attributes().items():
        finite = np.isfinite(value)
        if name in ("MFImputer.mean_", "MFImputer.scale_"):
            finite |= ~study.case.observed.any(axis=0)
        assert finite.all(), f"{name} is {value[~finite][:1]}"


def deviations_are_not_negative(study):
    """Standard deviations are zero at least, and zero where a value is observed."""
    idle_if("std" not in study.answers)
    std = study.answers["std"]
    assert (std >= 0).all(), f"std is {std.min()}"
    if study.case.fills:
        observed = ~np.isnan(study.case.X[:, study.case.kept])
        assert (std[observed] == 0).all(), "std of an observed entry is not 0"


def objective_goes_one_way(study):
    """The ELBO never falls; F never rises, unless the step is fixed."""
    case, curve = study.case, np.asarray(study.factorization.loss_curve_)
    idle_if(not np.isfinite(curve).all() or case.param("eta") != "auto")
    single = case.X.dtype == np.float32
    if case.learns:
        name, worst = "ELBO falls", -np.diff(curve).min(initial=0)
        size = np.abs(curve).max(initial=0) + case.observed.sum()
        # The ELBO of an exact fit sums up rounding over the variance of the noise.
        limit = (1e-3 if single else 1e-6) * size
    else:
        name, worst = "objective rises", np.diff(curve).max(initial=0)
        X, weight = case.X, 1.0 if case.weight is None else case.weight
        if case.fills:  # the objective counts in these units
            X = X * 0 + (1.0 if case.param("scale") else deviations(case))
        # Where the fit is exact, F is what rounding leaves of the squares of X.
        squares = (weight * X.astype(np.float64) ** 2)[case.observed]
        size = curve.max(initial=0) + 1e-3 * 0.5 * squares.sum()
        limit = (1e-4 if single else 1e-9) * size
    assert worst <= limit, f"{name} by {worst:.3g}; it is about {size:.3g}"


def single_precision_is_kept(study):
    for name in {"transform", "std"} & set(study.answers):
        kind = study.answers[name].dtype
        same = kind == study.case.X.dtype or study.case.container == "list"
        assert same, f"{name} is {kind}"


def observed_entries_come_back(study):
    case = study.case
    idle_if(not case.fills)
    X = case.X[:, case.kept]
    filled = study.answers["transform"][:, : X.shape[1]]
    wrong = ~np.isnan(X) & (filled != X)
    assert not wrong.any(), f"{X[wrong][:1]} becomes {filled[wrong][:1]}"


def imputed_values_keep_limits(study):
    case = study.case
    idle_if(not case.limits)
    filled = study.answers["transform"][:, : case.kept.sum()]
    missing = np.isnan(case.X[:, case.kept])
    for name, sign in (("min_value", 1), ("max_value", -1)):
        limit = np.broadcast_to(case.param(name), case.X.shape[1:])[case.kept]
        beyond = missing & (sign * filled < sign * limit.astype(filled.dtype))
        assert not beyond.any(), f"{filled[beyond][:1]} is beyond {name}"


def fit_transform_is_transform(study):
    idle_if(study.case.params.get("warm_start"))
    _require_same(study, study.case.make().fit_transform(study.X, **study.options))


def pickling_keeps_results(study):
    again = study.pickled().transform(study.X, **study.transform_options)
    same = np.array_equal(again, study.answers["transform"], equal_nan=True)
    seeded = study.case.param("random_state") is not None
    assert same or (study.case.param("sample_posterior") and not seeded), "other bits"


def a_second_fit_is_the_same(study):
    """A fit leaves nothing behind that the next one could see."""
    idle_if(study.case.params.get("warm_start") or study.case.is_unseeded)
    model = study.pickled().fit(study.X, **study.options)
    _require_same(study, model.transform(study.X, **study.transform_options))


def warm_starts_go_on(study):
    """A fit with `warm_start` can be continued, and stays finite."""
    idle_if(not study.case.params.get("warm_start"))
    model = study.pickled().fit(study.X, **study.options)
    again = model.transform(study.X, **study.transform_options)
    assert np.isfinite(again).all(), "not finite after going on"


def rows_are_folded_in_one_by_one(study):
    idle_if(study.case.param("sample_posterior"))
    rows = np.flatnonzero(study.case.rng.uniform(size=len(study.case.X)) < 0.5)
    idle_if(rows.size == 0 or not np.isfinite(study.answers["transform"]).all())
    X, options = study.case.take(rows).data()
    options = options if study.transform_options else {}
    _require_same(study, study.model.transform(X, **options), rows)


def _require_same(study, found, rows=slice(None)):
    """Compare with what `transform` has returned, in deviations of columns."""
    case, expected = study.case, study.answers["transform"][rows]
    idle_if(case.is_unseeded)
    assert found.shape == expected.shape, f"shape {found.shape}, not {expected.shape}"
    idle_if(not np.isfinite(expected).all())  # another rule's
    size = deviations(case)
    if case.fills:  # indicators of missing entries follow
        size = np.broadcast_to(size, case.X.shape[1:])[case.kept]
        size = np.append(size, np.ones(found.shape[1] - size.size))
    else:  # weak factors are rounding: compare what they make
        expected, found = map(study.model.inverse_transform, (expected, found))
    worst = _distance(found, expected, size)
    same = worst <= TOLERANCE[expected.dtype.itemsize]
    assert same, f"differs by {worst:.2g} deviations of a column"


def related(name, study):
    """A change of the case changes predictions in the way that is known."""
    case = _repeatable(study.case, name)
    other, there, back = RELATIONS[name](case)
    probe = _hide_more(case)
    found = back(complete(other, other._replace(X=there(probe.X))))
    if name == "dtype" and not case.learns:
        # Gains are rounding sooner in single precision: the sweeps are the same.
        X, options = other.data()
        model = other.make().fit(X, **options)
        n_sweeps = getattr(model, "factorization_", model).n_iter_
        case = case.set(max_iter=n_sweeps, tol=0.0)
    expected = complete(case, probe)
    idle_if(not np.isfinite(expected[:, case.kept]).all())  # another rule's
    size = _sizes_to_compare(case, name)
    worst = _distance(found, expected, size)
    n_bytes = min(case.X.itemsize, other.X.itemsize)
    if worst <= TOLERANCE[n_bytes]:
        return
    rounded = np.abs(case.X) + (np.abs(other.X) if name == "shift" else 0)
    rounding = 4 * np.finfo(f"f{n_bytes}").eps * rounded
    for k in range(4):
        noise = np.random.RandomState(k).choice([-1.0, 0.0, 1.0], case.X.shape)
        X = (case.X + rounding * noise).astype(case.X.dtype)
        moved = complete(case._replace(X=X), probe)
        if worst <= 100 * _distance(moved, expected, size):
            raise Moot("excused")
    given = f" as {other.container}" if name == "container" else ""
    message = f"predictions{given} differ by {worst:.2g} deviations of a column"
    raise AssertionError(message)


def _repeatable(case, name):
    """Let two fits of a case be the same; round what single precision is to hold."""
    if case.is_unseeded:
        case = case.set(random_state=0)
    if case.params.get("warm_start"):
        case = case.set(warm_start=False)
    if name == "dtype":
        case = case._replace(X=case.X.astype(np.float32).astype(np.float64))
        if case.weight is not None:
            weight = case.weight.astype(np.float32).astype(np.float64)
            case = case._replace(weight=weight)
    return case


def _sizes_to_compare(case, name):
    """Deviations of columns, infinite where nothing can be compared."""
    size = deviations(case)
    if name.startswith("unit") and case.param("sample_posterior"):
        # What is sampled in a column of one value has no unit.
        size = np.where(_barely_observed(case), np.inf, size)
    if case.fills:  # zero stands for what an empty column would have
        size = np.where(case.observed.any(axis=0), size, np.inf)
    return size


def _hide_more(case):
    """Hide entries that the fit has seen, for the prediction of which it is asked."""
    hidden = check_random_state(case.seed + 1).uniform(size=case.X.shape) < 0.2
    if case.unstored_is_zero:
        return case  # no sparse X of it has missing entries
    return case._replace(X=np.where(hidden, np.nan, case.X).astype(case.X.dtype))


def deviations(case):
    """What predictions are measured by: for imputers deviations of columns.

    A column of one value is measured by its size; the others have the unit of all of X.
    """
    X = np.where(case.observed, case.X, np.nan).astype(np.float64)
    largest = np.nan_to_num(np.nanmax(np.abs(X), axis=0))
    if not case.fills:
        centre = 0 if case.param("fit_bias") is False else np.nanmean(X)
        spread = np.sqrt(np.nanmean((X - centre) ** 2))
        return (spread if spread > 1e-9 * largest.max() else largest.max()) or 1.0
    spread = np.nan_to_num(np.nanstd(X, axis=0))
    if not case.param("scale"):
        spread, largest = spread.max(keepdims=True), largest.max(keepdims=True)
    size = np.where(spread > 1e-9 * largest, spread, largest)
    size[size == 0] = size.max(initial=0) or 1.0
    return size


def _distance(found, expected, size):
    assert found.shape == expected.shape, f"shape {found.shape}, not {expected.shape}"
    apart = np.abs(found - expected) / size
    same = np.isnan(found) & np.isnan(expected)
    return np.where(same, 0, np.where(np.isnan(apart), np.inf, apart)).max(initial=0)


OF_ERRORS = [errors_are_clear, numpy_does_not_warn, nothing_given_is_changed]
OWN = [answers_are_finite, attributes_are_finite, deviations_are_not_negative]
OWN += [objective_goes_one_way, single_precision_is_kept, observed_entries_come_back]
OWN += [imputed_values_keep_limits, warm_starts_go_on, pickling_keeps_results]
# These take another fit or more: a case is put to some of them.
OTHERS = [fit_transform_is_transform, a_second_fit_is_the_same]
OTHERS += [rows_are_folded_in_one_by_one]
INVARIANTS = {rule.__name__: rule for rule in OF_ERRORS + OWN + OTHERS}
INVARIANTS |= {f"same_up_to_{name}": partial(related, name) for name in RELATIONS}


def chosen(case):
    """Return the names of the rules that a case is put to."""
    n_own = len(OF_ERRORS + OWN)
    names = list(INVARIANTS)
    # Not by the seed alone: hypothesis likes small ones.
    rng = np.random.RandomState(zlib.crc32(case.X.tobytes()) ^ case.seed)
    return names[:n_own] + list(rng.choice(names[n_own:], 2, replace=False))


def verdict(name, study):
    """Return how a rule fares, "held", "broken", "excused" or "idle", and a message."""
    rule = INVARIANTS[name]
    try:
        idle_if(study.error is not None and rule not in OF_ERRORS)
        with warnings.catch_warnings(action="ignore"):  # that has a rule of its own
            rule(study)
    except Moot as why:
        return str(why), ""
    except AssertionError as failure:
        return "broken", str(failure)
    except Exception as error:
        return "broken", f"{type(error).__name__} at {place_of(error)}: {_text(error)}"
    return "held", ""


def check(case, name):
    """Print how a rule fares: what a reproducer calls."""
    found, message = verdict(name, Study(case))
    print(f"{name}: {found} {message}")
