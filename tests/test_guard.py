"""What ends a fit early leaves the estimator as it was, at every moment."""

import sys
from functools import partial
from inspect import CO_GENERATOR

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils.validation import check_is_fitted

from sklearn_mfgd import DivergenceError, GradientMF, MaskedGradientMF, MFImputer

N_MOMENTS = 12


def call_during(fit, act):
    """Fit, and call ``act(k)`` before the k-th call of a function of the package."""
    n_calls = 0

    def watch(frame, event, argument):
        nonlocal n_calls
        codes = [frame.f_code, frame.f_back.f_code]
        if event != "call" or "sklearn_mfgd" not in codes[0].co_filename:
            return
        # A context manager that is not left would spoil the tests that follow.
        names = {code.co_name for code in codes}
        if names & {"__enter__", "__exit__"} or codes[0].co_flags & CO_GENERATOR:
            return
        n_calls += 1
        act(n_calls)

    sys.setprofile(watch)
    try:
        fit()
    finally:
        sys.setprofile(None)
    return n_calls


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("reg", [0.1, "auto"])
@pytest.mark.parametrize(
    "Estimator, method",
    [(GradientMF, "fit"), (MaskedGradientMF, "fit_transform"), (MFImputer, "fit")],
)
def test_ctrl_c_at_any_moment_changes_nothing(Estimator, reg, method, incomplete):
    model = Estimator(3, reg=reg, max_iter=3, random_state=0)
    fitted = clone(model).fit(incomplete)
    state, Z = vars(fitted).copy(), fitted.transform(incomplete)

    def look(number):  # a second Ctrl-C must not find half of a state
        assert vars(fitted).keys() == state.keys()

    def fit(estimator, act):
        return call_during(partial(getattr(estimator, method), incomplete[:, :9]), act)

    n_calls = fit(clone(model), look)
    for moment in np.unique(np.linspace(1, n_calls, N_MOMENTS, dtype=int)):

        def press(number, moment=moment):
            look(number)
            if number == moment:
                raise KeyboardInterrupt

        for estimator in (model, fitted):
            with pytest.raises(KeyboardInterrupt):
                fit(estimator, press)
        with pytest.raises(NotFittedError):
            check_is_fitted(model)
        assert vars(model).keys() == vars(clone(model)).keys()
        assert vars(fitted).keys() == state.keys()
        assert all(vars(fitted)[name] is value for name, value in state.items())
    assert_array_equal(fitted.transform(incomplete), Z)


SQUARES = np.arange(12.0).reshape(4, 3) ** 2


@pytest.mark.parametrize(
    "change, X, error",
    [
        ({}, np.full((4, 9), np.nan), ValueError),
        ({"solver": "gd", "eta": 1e3}, np.eye(9), DivergenceError),
        # After the fit, when it has set its attributes.
        ({"max_iter": 1, "tol": 1e-9}, SQUARES, ConvergenceWarning),
    ],
    ids=["refused", "diverging", "warning"],
)
@pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("Estimator", [GradientMF, MaskedGradientMF, MFImputer])
def test_a_fit_that_fails_keeps_the_last_one(Estimator, change, X, error, incomplete):
    model = Estimator(3, reg=1.0, solver="als", tol=1.0).fit(incomplete)
    model.set_params(**change)
    state, Z = vars(model).copy(), model.transform(incomplete)
    with pytest.raises(error):
        model.fit(X)
    assert vars(model).keys() == state.keys()
    assert all(vars(model)[name] is value for name, value in state.items())
    assert_array_equal(model.transform(incomplete), Z)
