"""Changes of a case that change its predictions in a known way, or not at all.

Each takes a case and returns another one, and how tables go there and predictions come
back. It raises `Moot` where the rule does not apply.
"""

import numpy as np

from .cases import DENSE, SPARSE, containers_of

FACTORS = (3.0, 10.0, 0.1, 7e-3, 640.0, -1.0)


class Moot(Exception):
    """Nothing can be said of a rule, which is "idle" or "excused"."""


def idle_if(does_not_apply):
    """Leave a rule that does not apply."""
    if does_not_apply:
        raise Moot("idle")


def _change(case, there=lambda X: X, back=lambda predicted: predicted, **params):
    return case._replace(X=there(case.X)).set(**params), there, back


def _as_complete(case):
    """Whether a solver of complete data is chosen, which takes another way."""
    complete = not np.isnan(case.X).any() and case.weight is None
    return complete and not case.learns and case.is_dense


def _everyday(X, dtype=None):
    """Whether neither squares nor their inverses over- or underflow."""
    sizes = np.abs(X[~np.isnan(X) & (X != 0)])
    limit = np.finfo(dtype or X.dtype).max ** 0.25
    return not sizes.size or 1 / limit < sizes.min() <= sizes.max() < limit


def _idle_unless_numbers_can_change(case):
    idle_if(case.param("missing_values") == -99.9 or not _everyday(case.X))


def unit(case):
    """All of X is multiplied by a number; so are the predictions."""
    _idle_unless_numbers_can_change(case)
    factor, reg = case.rng.choice(FACTORS), case.param("reg")
    plain = case.param("fit_bias") is False
    if case.is_sampled:
        factor = abs(factor)  # what is sampled has the sign of its random numbers
    if reg == 0.0 and not plain:
        # Of the solutions that fit as well the smallest is taken, in units that are
        # powers of four, and biases are measured by another power than factors.
        factor = case.rng.choice([4.0, 1 / 16])
    idle_if(factor < 0 and (case.given_factors or case.limits))
    idle_if(
        factor < 0 and (case.param("init") == "random" or case.param("solver") == "sgd")
    )
    params = {name: factor * limit for name, limit in case.limits.items()}
    if reg not in ("auto", 0.0) and not (case.fills and case.param("scale")):
        # The ridge of biases and that of factors have two units.
        idle_if(case.fills or not plain or factor < 0)
        params["reg"] = reg * factor
    # So does a step.
    idle_if(
        case.param("eta") != "auto" and case.param("solver") in ("gd", "sgd", "auto")
    )
    if case.given_factors:
        params["init"] = tuple(np.sqrt(factor) * given for given in case.given_factors)
    return _change(
        case, lambda X: X * X.dtype.type(factor), lambda X: X / factor, **params
    )


def unit_of_columns(case):
    idle_if(not (case.fills and case.param("scale")))
    _idle_unless_numbers_can_change(case)
    factors = case.rng.choice(np.abs(FACTORS), case.X.shape[1])
    params = {name: factors * limit for name, limit in case.limits.items()}
    # Of the type of X: so are the products.
    factors = factors.astype(case.X.dtype)
    return _change(case, lambda X: X * factors, lambda found: found / factors, **params)


def shift(case):
    """A number is added to each column, or to all of X where columns have a prior."""
    _idle_unless_numbers_can_change(case)
    idle_if(case.param("fit_bias") is False or case.X.dtype != np.float64)
    sizes = np.nanmax(np.abs(case.X), axis=0, initial=0)
    sizes[sizes == 0] = 1
    if not case.fills:
        idle_if(
            case.param("reg") == 0.0
        )  # the smallest one, in units of X with its mean
        # Its way, not its end, depends on the unit, and that on max |X|.
        idle_if(case.param("solver") == "gd")
        idle_if(case.weight is not None or case.unstored_is_zero)
        sizes[:] = sizes.max()
    n_shifts = sizes.size if case.fills else 1
    shifts = sizes * case.rng.choice([-1.0, 1.0, 10.0, 1000.0], n_shifts)
    params = {name: shifts + limit for name, limit in case.limits.items()}
    return _change(case, lambda X: X + shifts, lambda found: found - shifts, **params)


def order(case):
    idle_if(case.is_random)
    rng = case.rng
    rows, columns = (rng.permutation(size) for size in case.X.shape)
    back = np.ix_(np.argsort(rows), np.argsort(columns))
    other = case.take(rows, columns)
    return other, lambda X: X[rows][:, columns], lambda found: found[back]


def container(case):
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
    idle_if(case.param("missing_values") == -99.9 or case.container == "list")
    idle_if(case.is_sampled)  # there are other numbers for every precision
    numbers = [np.ravel(given) for given in case.given_factors or ()]
    if case.learns:
        idle_if(case.param("tol") > 1e-2)  # rounding decides which sweep is the last
    else:
        # Rounding decides which systems of equations are singular.
        idle_if(case.param("reg") < 1e-4)
        numbers.append([case.param("reg")])
    if case.weight is not None:
        numbers.append(case.weight.ravel())
    idle_if(not _everyday(np.concatenate([case.X.ravel(), *numbers]), np.float32))
    if not np.array_equal(case.X.astype(np.float32), case.X, equal_nan=True):
        raise ValueError("X has numbers that single precision does not hold")
    return _change(case, lambda X: X.astype(np.float32))


def empty_lines(case):
    """Rows and columns without an entry are added somewhere."""
    idle_if(case.is_random or case.unstored_is_zero)
    idle_if(case.given_factors or case.limits)
    rng, shape = case.rng, np.array(case.X.shape)
    more = rng.randint(0, 4, 2) * rng.choice([1, 10])
    rows, columns = (
        np.sort(rng.choice(new, old, replace=False))
        for old, new in zip(shape, shape + more, strict=True)
    )
    places = np.ix_(rows, columns)

    def wider(X, filling=np.nan):
        result = np.full(shape + more, filling, X.dtype)
        result[places] = X
        return result

    if case.weight is not None:
        case = case._replace(weight=wider(case.weight, 1))
    return _change(case, wider, lambda found: found[places])


def unit_of_weights(case):
    idle_if(case.weight is None or case.param("eta") != "auto")
    factor = case.rng.choice([3.0, 0.1, 1e-10, 1e10])
    idle_if(not _everyday(case.weight * factor))
    if not case.learns and not case.fills:  # an imputer takes weights by their mean
        case = case.set(reg=case.param("reg") * factor)
    weight = (factor * case.weight).astype(case.weight.dtype)
    return _change(case._replace(weight=weight))


def weights_of_one(case):
    """Every entry gets the weight of one, which is that of an entry without."""
    idle_if(case.weight is not None or case.is_random)
    idle_if(_as_complete(case) or case.unstored_is_zero)
    return _change(case._replace(weight=np.ones_like(case.X)))


_ALL = [unit, unit_of_columns, shift, order, container, dtype, empty_lines]
_ALL += [unit_of_weights, weights_of_one]
RELATIONS = {relation.__name__: relation for relation in _ALL}
