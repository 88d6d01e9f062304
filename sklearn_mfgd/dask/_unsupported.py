"""What a fit in blocks cannot do, and why.

`fit` takes neither times nor groups, because rows in time need their neighbours, which
other blocks hold.
"""

from numbers import Real

LOCAL = "Use sklearn_mfgd.MaskedGradientMF, which fits in one process"


def _names_a_solver_of_steps(solver) -> bool:
    return solver in ("gd", "scaled", "sgd")


def _is_another_loss(loss) -> bool:
    return loss != "squared"


def _is_a_number(value) -> bool:
    return isinstance(value, Real)


def _is_a_pair(init) -> bool:
    return not isinstance(init, str)


def _is_a_name(value) -> bool:
    return isinstance(value, str)


# Parameter, which of its values are refused, and the reason.
UNSUPPORTED = [
    (
        "loss",
        _is_another_loss,
        "the values and weights of other losses change from sweep to sweep, and the "
        "blocks stay where they are; use loss='squared'",
    ),
    ("n_draws", bool, "each draw would need all blocks once more; use n_draws=0"),
    (
        "solver",
        _names_a_solver_of_steps,
        "only exact rows are updated block by block; use solver='auto' or 'als'",
    ),
    ("eta", _is_a_number, "exact rows take no fixed step; use eta='auto'"),
    (
        "init",
        _is_a_pair,
        "given row factors do not lie in the blocks of X; use 'svd' or 'random'",
    ),
    ("clip", _is_a_name, "blocks are not searched for their range; use (low, high)"),
]


def refuse_unsupported(estimator):
    """Refuse parameters that a fit in blocks has no use for, by their name."""
    for name, is_refused, reason in UNSUPPORTED:
        value = getattr(estimator, name)
        if is_refused(value):
            shown = repr(value) if isinstance(value, str | Real) else "a pair of arrays"
            raise ValueError(
                f"{name}={shown} does not work with Dask: {reason}. {LOCAL}, otherwise."
            )
