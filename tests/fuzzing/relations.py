"""Changes of a case that change its predictions in a known way, or not at all.

Each takes a case and returns a `Change`, or None where the rule does not apply.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .cases import DENSE, SPARSE, Case, containers_of, takes_weights

FACTORS = (3.0, 10.0, 0.1, 7e-3, 640.0, -1.0)


class Change(NamedTuple):
    """Another case, and how tables go there and predictions come back."""

    case: Case
    there: Callable
    back: Callable


def _change(case, there=lambda X: X, back=lambda predicted: predicted, **params):
    return Change(case._replace(X=there(case.X)).set(**params), there, back)


def _has_limits(case):
    return {"min_value", "max_value"} & set(case.params)


def _as_complete(case):
    """Whether a solver of complete data is chosen, which takes another way."""
    complete = not np.isnan(case.X).any() and case.weight is None
    return complete and not case.learns and case.is_dense


def _everyday(X, dtype=None):
    """Whether neither squares nor their inverses over- or underflow."""
    sizes = np.abs(X[~np.isnan(X) & (X != 0)])
    limit = np.finfo(dtype or X.dtype).max ** 0.25
    return not sizes.size or 1 / limit < sizes.min() <= sizes.max() < limit


def unit(case):
    """All of X is multiplied by a number; so are the predictions."""
    factor = case.rng.choice(FACTORS)
    if case.param("n_draws") or case.param("sample_posterior"):
        factor = abs(factor)  # what is sampled has the sign of its random numbers
    if case.param("reg") == 0.0 and case.param("fit_bias") is not False:
        # Of the solutions that fit as well the smallest is taken, in units that are
        # powers of four, and biases are measured by another power than factors.
        factor = case.rng.choice([4.0, 1 / 16])
    if case.param("missing_values") == -99.9 or not _everyday(case.X):
        return None
    params, reg = {}, case.param("reg")
    plain = case.param("fit_bias") is False
    if reg not in ("auto", 0.0) and not (case.fills and case.param("scale")):
        if case.fills or not plain or factor < 0:
            return None  # the ridge of biases and that of factors have two units
        params["reg"] = reg * factor
    if case.param("eta") != "auto" and case.param("solver") in ("gd", "sgd", "auto"):
        return None  # so does a step
    if isinstance(case.params.get("init"), tuple):
        if factor < 0:
            return None
        root = np.sqrt(factor)
        params["init"] = tuple(root * given for given in case.params["init"])
    if _has_limits(case):
        if factor < 0:
            return None
        params |= {name: factor * case.params[name] for name in _has_limits(case)}
    if factor < 0 and (case.param("init") == "random" or case.param("solver") == "sgd"):
        return None
    return _change(
        case, lambda X: X * X.dtype.type(factor), lambda found: found / factor, **params
    )


def unit_of_columns(case):
    """Each column is multiplied by a number of its own."""
    if not (case.fills and case.param("scale")) or not _everyday(case.X):
        return None
    if case.param("missing_values") == -99.9:
        return None
    factors = case.rng.choice(np.abs(FACTORS), case.X.shape[1])
    params = {name: factors * case.params[name] for name in _has_limits(case)}
    return _change(
        case,
        lambda X: (X * factors).astype(X.dtype),
        lambda found: found / factors,
        **params,
    )


def shift(case):
    """A number is added to each column, or to all of X where columns have a prior."""
    if not _everyday(case.X) or case.param("missing_values") == -99.9:
        return None
    if case.param("fit_bias") is False or case.X.dtype != np.float64:
        return None
    if case.param("reg") == 0.0 and not case.fills:
        return None  # the smallest solution, in units of X with its mean
    if case.param("solver") == "gd" and not case.fills:
        return None  # its way, not its end, depends on the unit, and that on max |X|
    n = case.X.shape[1]
    sizes = np.nanmax(np.abs(case.X), axis=0, initial=0)
    sizes[sizes == 0] = 1
    if not case.fills:
        sizes[:] = sizes.max()
        if case.weight is not None or case.unstored_is_zero:
            return None
    shifts = sizes * case.rng.choice([-1.0, 1.0, 10.0, 1000.0], n if case.fills else 1)
    params = {name: shifts + case.params[name] for name in _has_limits(case)}
    return _change(case, lambda X: X + shifts, lambda found: found - shifts, **params)


def order(case):
    """Rows and columns are permuted."""
    if case.is_random:
        return None
    rng = case.rng
    rows, columns = (rng.permutation(size) for size in case.X.shape)
    back = np.ix_(np.argsort(rows), np.argsort(columns))
    other = case.take(rows, columns)
    return Change(other, lambda X: X[rows][:, columns], lambda found: found[back])


def container(case):
    """The same numbers come in another container."""
    excluded = {case.container}
    if case.estimator == "GradientMF":  # what is not stored is zero, not missing
        excluded |= set((*DENSE, "mask") if case.unstored_is_zero else SPARSE)
    if case.X.dtype != np.float64:
        excluded.add("list")
    if "missing_values" in case.params:
        excluded.add("masked array")
    if _as_complete(case):
        excluded |= set(SPARSE)
    others = [name for name in containers_of(case.estimator) if name not in excluded]
    return _change(case._replace(container=str(case.rng.choice(others))))


def dtype(case):
    """Numbers that single precision holds come in single precision."""
    with np.errstate(over="ignore"):
        X = case.X.astype(np.float32)
    if case.param("missing_values") == -99.9 or case.container == "list":
        return None
    if case.param("sample_posterior") or case.param("n_draws"):
        return None  # there are other numbers for every precision
    if case.learns and case.param("tol") > 1e-2:
        return None  # rounding decides which sweep is the last
    if not case.learns and case.param("reg") < 1e-4:
        return None  # rounding decides which systems of equations are singular
    given = case.params.get("init")
    numbers = np.concatenate(given) if isinstance(given, tuple) else np.ones(1)
    if not case.learns:
        numbers = np.append(numbers, case.param("reg"))
    if not (_everyday(case.X, np.float32) and _everyday(numbers, np.float32)):
        return None
    if case.weight is not None and not _everyday(case.weight, np.float32):
        return None
    if not np.array_equal(X, case.X, equal_nan=True):
        raise ValueError("X has numbers that single precision does not hold")
    return _change(case, lambda X: X.astype(np.float32))


def empty_lines(case):
    """Rows and columns without an entry are added somewhere."""
    if (
        case.is_random
        or case.unstored_is_zero
        or isinstance(case.params.get("init"), tuple)
    ):
        return None
    if case.fills and _has_limits(case):
        return None
    rng, (m, n) = case.rng, case.X.shape
    more = rng.randint(0, 4, 2) * rng.choice([1, 10])
    rows, columns = (
        np.sort(rng.choice(size + extra, size, replace=False))
        for size, extra in zip((m, n), more, strict=True)
    )
    places = np.ix_(rows, columns)

    def wider(X, filling=np.nan):
        result = np.full((m + more[0], n + more[1]), filling, X.dtype)
        result[places] = X
        return result

    if case.weight is not None:
        case = case._replace(weight=wider(case.weight, 1))
    return _change(case, wider, lambda found: found[places])


def unit_of_weights(case):
    """All weights are multiplied by a number."""
    if case.weight is None or case.param("eta") != "auto":
        return None
    factor = case.rng.choice([3.0, 0.1, 1e-10, 1e10])
    params = {}
    if not case.learns and not case.fills:  # an imputer takes weights by their mean
        params["reg"] = case.param("reg") * factor
    if not _everyday(case.weight * factor):
        return None
    weight = (factor * case.weight).astype(case.weight.dtype)
    return _change(case._replace(weight=weight), **params)


def weights_of_one(case):
    """Every entry gets the weight of one, which is that of an entry without."""
    if case.weight is not None or not takes_weights(case.estimator):
        return None
    if case.is_random or _as_complete(case) or case.unstored_is_zero:
        return None
    weight = np.ones_like(case.X)
    return _change(case._replace(weight=weight))


_ALL = (unit, unit_of_columns, shift, order, container, dtype, empty_lines)
_ALL += (unit_of_weights, weights_of_one)
RELATIONS = {relation.__name__: relation for relation in _ALL}
