"""Moving the mean of row factors into the column biases."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sklearn_mfgd._bayes.centring import centre
from sklearn_mfgd._bayes.elbo import align, bound
from sklearn_mfgd._bayes.missingness import nothing
from sklearn_mfgd._bayes.model import first_state, problem_of, sweep
from sklearn_mfgd._bayes.moments import unpack
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._kernels.rows import Biases

BIASES = [Biases(False, True), Biases(True, True)]


@pytest.fixture(params=BIASES, ids=str)
def swept(request, planted):
    """A problem whose row factors have a mean, and what a sweep finds."""
    data, biases = planted(m=40, n=12, rank=3, share_missing=0.3), request.param
    rng = np.random.RandomState(0)
    W = 1.0 + rng.standard_normal((40, 3 + biases.row))
    H = rng.standard_normal((12, 4))
    rows = rows_of(data.complete, data.mask)
    features = nothing(40, 12, np.float64)[:2]
    problem = problem_of(rows, 3, biases, "column", features)
    return problem, *sweep(problem, first_state(problem, W, H, rows))


def predicted(problem, state):
    x = state.W[:, :3] @ state.H[:, :3].T + state.H[:, 3]
    return x + state.W[:, 3:] if problem.row_bias else x


def test_does_not_change_predictions(swept):
    problem, state, sums = swept
    moved, _ = centre(problem, state, sums)
    assert np.abs(moved.W - state.W).max() > 0.1
    assert_allclose(predicted(problem, moved), predicted(problem, state), atol=1e-10)


def test_sums_are_those_of_the_moved_factors(swept):
    problem, state, sums = swept
    moved, of_moved = centre(problem, state, sums)
    total = unpack(moved.moments.sum(axis=0), 5)
    assert_allclose(of_moved.columns, total, rtol=1e-9, atol=1e-9)
    assert_allclose(of_moved.rows[:3, 3], moved.W[:, :3].sum(axis=0), atol=1e-9)
    change = state.W[:, :3] - moved.W[:, :3]
    before = sums.rows[:3, :3] - state.W[:, :3].T @ state.W[:, :3]
    after = of_moved.rows[:3, :3] - moved.W[:, :3].T @ moved.W[:, :3]
    assert_allclose(after, before, atol=1e-8)  # covariances stay
    assert_allclose(change, np.broadcast_to(change[0], change.shape), atol=1e-12)


def test_a_flat_prior_takes_all_of_the_mean(swept):
    problem, state, sums = swept
    moved, _ = centre(problem, state, sums)
    means = np.abs(moved.W[:, :3].mean(axis=0))
    if problem.flat_bias:
        assert (means < 1e-5).all()
    else:
        assert (means > 1e-5).all()


def test_no_other_step_has_a_larger_bound(swept):
    """Moved once more, by any step, the bound is smaller."""
    problem, state, sums = swept
    moved, of_moved = centre(problem, state, sums)
    value = bound(problem, moved, of_moved)
    assert value > bound(problem, state, sums)
    again, of_again = centre(problem, moved, of_moved)
    assert_allclose(bound(problem, again, of_again), value, rtol=1e-10)
    assert align(problem, moved, of_moved)[1] >= value
