"""Steps and descent: what falls, where it ends, and how a bad step is reported."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.random import RandomState
from numpy.testing import assert_allclose

from sklearn_mfgd import DivergenceError, GradientMF, MaskedGradientMF, MFImputer
from sklearn_mfgd._kernels.rows import Biases
from sklearn_mfgd._optim import sweeps
from sklearn_mfgd._optim.divergence import descending_step
from sklearn_mfgd._optim.loop import History, descend
from sklearn_mfgd._optim.objective import CompleteObjective
from sklearn_mfgd._optim.penalty import Ridge, penalties_of
from sklearn_mfgd._optim.steps import STEPS

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SOLVERS = list(STEPS)
KINDS = ["complete", "missing", "missing, weighted"]
NONE, BOTH, COLUMN = Biases(False, False), Biases(True, True), Biases(False, True)
BIASES = [NONE, BOTH, COLUMN]
# A rise by this share is rounding: the squares of complete data are not summed one by
# one, but as a difference of sums that are a thousand times larger here.
ROUNDING = 1e-10


@pytest.fixture
def problem(planted, observed_objective):
    """Return ``problem(kind, biases, ridge)``: an objective, a random start, and F."""

    def make(kind="missing, weighted", biases=BOTH, ridge=0.5, rank=3):
        share = 0.4 if "missing" in kind else 0.0
        data, rng = planted(30, 20, noise=0.5, share_missing=share), RandomState(0)
        weights = data.mask.astype(float)
        if "weighted" in kind:
            weights *= RandomState(1).uniform(0.2, 4, weights.shape)

        def objective_of(X):
            if kind == "complete":
                return CompleteObjective(X, biases=biases)
            given = weights if "weighted" in kind else None
            return observed_objective(X, data.mask, given, biases=biases)

        def penalized(W, H):
            penalty = ridge * ((W**2).sum() + (H**2).sum())
            return objective.value(W, H) + 0.5 * penalty

        objective = objective_of(data.complete)
        case = SimpleNamespace(objective=objective, objective_of=objective_of)
        case.W = rng.standard_normal((30, rank + biases.row))
        case.H = rng.standard_normal((20, rank + biases.column))
        case.penalties = penalties_of(rank, biases, Ridge(ridge, ridge))
        case.penalized, case.data, case.weights = penalized, data, weights
        return case

    return make


def step_of(case, solver, eta="auto"):
    return STEPS[solver](case.objective, case.W, case.H, case.penalties[0], eta)


def run(case, solver, validate=None, monitor=None, **replaced):
    parameters = {"eta": "auto", "max_iter": 60, "tol": 0.0, "n_iter_no_change": 5}
    parameters = SimpleNamespace(solver=solver, **(parameters | replaced))
    data = case.objective, case.W, case.H, case.penalties
    return descend(*data, parameters, None, validate, monitor)


def assert_never_rises(curve):
    curve = np.asarray(curve)
    assert len(curve) > 1
    assert (np.diff(curve) <= ROUNDING * curve[:-1]).all()


# Steps


@pytest.mark.pairwise(kind=KINDS, solver=SOLVERS, biases=BIASES)
def test_an_exact_step_is_the_minimum_along_its_direction_and_knows_its_value(
    problem, kind, solver, biases
):
    case = problem(kind, biases)
    step = step_of(case, solver)
    least = case.penalized(step.factors, case.H)
    assert least < case.penalized(case.W, case.H)
    for share in (0.99, 1.01):
        along = case.W + share * (step.factors - case.W)
        assert case.penalized(along, case.H) > least
    if solver == "als":
        _, gradient = case.objective.value_and_gradient(step.factors, case.H)
        assert_allclose(gradient + 0.5 * step.factors, 0, atol=1e-10)
    else:
        assert step.loss + 0.25 * (case.H**2).sum() == pytest.approx(least)


@pytest.mark.pairwise(kind=KINDS, solver=SOLVERS)
def test_a_fixed_step_goes_that_share_of_the_direction_of_its_solver(
    problem, kind, solver
):
    case, eta = problem(kind), 0.3
    gradient = case.objective.value_and_gradient(case.W, case.H)[1] + 0.5 * case.W
    system = case.objective.gram(case.H) + 0.5 * np.eye(4)
    directions = {"gd": -gradient, "scaled": -np.linalg.solve(system, gradient.T).T}
    directions["als"] = step_of(case, "als").factors - case.W
    moved = step_of(case, solver, eta).factors
    assert_allclose(moved, case.W + eta * directions[solver], rtol=1e-9, atol=1e-12)


@pytest.mark.pairwise(kind=KINDS, biases=BIASES)
def test_the_full_scaled_step_is_that_of_soft_impute_als(problem, kind, biases):
    """Fill missing entries with the model, then solve the complete ridge problem.

    An entry of less than the largest weight is missing by the share that it lacks.
    """
    case = problem(kind, biases)
    offset = case.H[:, -1] if biases.column else np.zeros(20)
    design = np.column_stack([case.H[:, :3], np.ones((20, int(biases.row)))])
    model = case.W @ design.T + offset
    largest = case.weights.max()
    target = model + case.weights / largest * (case.data.complete - model) - offset
    system = largest * design.T @ design + 0.5 * np.eye(design.shape[1])
    expected = np.linalg.solve(system, largest * design.T @ target.T).T
    assert_allclose(step_of(case, "scaled", 1.0).factors, expected, rtol=1e-8)


@pytest.mark.pairwise(kind=KINDS, solver=SOLVERS, size=[1e-120, 1e-30, 1e30])
def test_a_step_survives_gradients_of_any_size(problem, kind, solver, size):
    case = problem(kind, NONE, ridge=0.0)
    case.objective = case.objective_of(np.full((30, 20), size))
    case.W, case.H = (np.full_like(F, np.sqrt(size) / 2) for F in (case.W, case.H))
    W = step_of(case, solver).factors
    assert np.isfinite(W).all()
    assert case.objective.value(W, case.H) <= case.objective.value(case.W, case.H)


# Descent


@pytest.mark.pairwise(
    solver=SOLVERS, eta=["auto", 0.3, 1.0], kind=KINDS, biases=BIASES, ridge=[0, 0.5]
)
def test_the_objective_never_rises_with_exact_steps_or_a_share_of_the_full_step(
    problem, kind, solver, eta, biases, ridge
):
    case, eta = problem(kind, biases, ridge), "auto" if solver == "gd" else eta
    descent = run(case, solver, eta=eta, max_iter=200)
    assert_never_rises([case.penalized(case.W, case.H), *descent.loss_curve])


@pytest.mark.pairwise(kind=KINDS, solver=SOLVERS, biases=BIASES, eta=["auto", 1e-3])
def test_the_loss_curve_holds_the_penalized_objective(
    problem, kind, solver, biases, eta
):
    case = problem(kind, biases)
    W, H = case.W.copy(), case.H.copy()
    for max_iter in (1, 2, 7):
        descent = run(case, solver, eta=eta, max_iter=max_iter)
        assert len(descent.loss_curve) == descent.n_iter == max_iter
        expected = case.penalized(descent.W, descent.H)
        assert descent.loss_curve[-1] == pytest.approx(expected, rel=1e-9)
    assert (case.W == W).all() and (case.H == H).all()


@pytest.mark.pairwise(kind=KINDS, solver=SOLVERS)
def test_all_solvers_end_at_a_stationary_point(problem, kind, solver):
    case = problem(kind, ridge=4.0)
    descent = run(case, solver, max_iter=200)
    sides = case.objective, case.objective.T
    for side, F, G in zip(sides, descent[:2], descent[1::-1], strict=True):
        assert_allclose(side.value_and_gradient(F, G)[1] + 4 * F, 0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.accuracy
@pytest.mark.parametrize("solver", ["scaled", "als"])
def test_extrapolated_sweeps_converge_in_half_the_number_of_plain_ones(problem, solver):
    case = problem(ridge=0.01)
    n_extrapolated, n_plain = (
        run(case, solver, eta=eta, tol=1e-5, max_iter=900).n_iter
        for eta in ("auto", 1.0)
    )
    assert n_extrapolated < 0.5 * n_plain


@pytest.mark.pairwise(kind=KINDS, solver=SOLVERS)
def test_descent_ends_when_the_objective_falls_by_less_than_tol(problem, kind, solver):
    case, numbers_of_sweeps = problem(kind), [1]
    for tol in (1e-2, 1e-4, 1e-6):
        descent = run(case, solver, tol=tol, max_iter=5000)
        before, last = descent.loss_curve[-2:]
        assert descent.converged and before - last < tol * last
        numbers_of_sweeps.append(descent.n_iter)
    assert numbers_of_sweeps == sorted(numbers_of_sweeps)
    assert not run(case, solver, tol=1e-9, max_iter=2).converged


def test_the_decrease_still_to_come_is_that_of_a_geometric_series(problem):
    curve = np.array(run(problem(), "gd", max_iter=60).loss_curve)
    gains = -np.diff(curve)
    still_to_come = gains[1:] / (1 - np.minimum(gains[1:] / gains[:-1], 0.99))
    for tol in (1e-2, 1e-3):
        n_iter = run(problem(), "gd", tol=tol).n_iter
        assert n_iter == 3 + np.argmax(still_to_come < tol * curve[2:])


def test_the_monitor_sees_the_start_and_every_sweep_and_may_end_the_descent(problem):
    seen, case = [], problem()

    def monitor(now):
        seen.append(now)
        return now.n_iter == 4

    descent = run(case, "als", monitor=monitor)
    assert [now.n_iter for now in seen] == [0, 1, 2, 3, 4]
    assert_allclose(seen[0].W, case.W)
    assert_allclose(seen[-1].W, descent.W)
    assert seen[-1].loss_curve == descent.loss_curve
    assert descent.n_iter == 4 and descent.converged


def test_gains_below_tol_do_not_go_on_but_are_kept():
    errors, zero = iter([5.0, 4.9, 4.8]), np.zeros(1)
    stopping = {"validate": lambda W, H: next(errors), "n_iter_no_change": 2}
    history = History(zero, zero, tol=0.5, monitor=None, **stopping)
    for sweep in (1, 2, 3):
        assert not history.converged
        history.add(zero + sweep, zero, 1.0, lambda: np.ones(1), False)
    assert history.converged and history.descent().W == 3


def test_the_iterate_of_least_held_out_error_is_returned(problem):
    for error in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"after sweep 1: .* Use a larger reg"):
            run(problem(), "als", validate=lambda W, H, error=error: error)
    errors, iterates = iter([5.0, 3.0, 4.0, 3.5, 6.0]), []

    def validate(W, H):
        iterates.append((W, H))
        return next(errors)

    descent = run(problem(), "scaled", validate=validate, n_iter_no_change=3)
    assert descent.validation_curve == [5.0, 3.0, 4.0, 3.5, 6.0] and descent.converged
    assert all(map(np.array_equal, descent[:2], iterates[1]))


@pytest.mark.parametrize("seed", [36, 45, 71, 109, 385])
def test_single_precision_that_cannot_solve_a_system_keeps_what_it_has_reached(seed):
    """Three factors of data that have one, beside biases a million times smaller."""
    rng = np.random.default_rng(seed)
    X = 3e14 * np.outer(rng.standard_normal(12), rng.standard_normal(13))
    start = rng.standard_normal((12, 3)), rng.standard_normal((13, 3))
    model = MaskedGradientMF(3, reg=1.0, init=start, max_iter=40, tol=0)
    curve = np.array(model.fit(X.astype(np.float32)).loss_curve_)
    assert (curve[1:] <= 1.001 * curve[:-1]).all()
    assert np.isfinite(model.components_).all()


def diverging(model, X):
    """Return the error that fitting raises."""
    with pytest.raises(DivergenceError) as caught:
        model.fit(X)
    return caught.value


# Steps that are too long


@pytest.mark.pairwise(
    solver_and_eta=[("gd", 10.0), ("gd", 0.3), ("scaled", 3.0), ("als", 3.0)],
    init=["svd", "random"],
    fit_bias=[False, True],
    share_missing=[0.0, 0.4],
    mean=[0.0, 50.0],
    seed=range(4),
)
def test_the_error_names_a_step_under_which_the_objective_falls_at_every_sweep(
    planted, solver_and_eta, share_missing, mean, seed, params
):
    X = 3 * planted(share_missing=share_missing, seed=seed).X + mean
    solver, eta = solver_and_eta
    model = GradientMF(3, solver=solver, eta=eta, random_state=0, **params)
    error = diverging(model, X)
    assert isinstance(error, ValueError) and error.eta == eta
    assert 1 <= error.n_iter <= model.max_iter
    assert f"at sweep {error.n_iter} with eta={eta:g}" in str(error)
    assert f"eta={error.stable_eta:.3g}" in str(error)
    model.set_params(eta=error.stable_eta, tol=0, max_iter=30)
    assert_never_rises(model.fit(X).loss_curve_)


def test_a_rise_is_never_taken_for_convergence(planted):
    """With tol=1 anything but a rise would end the descent at once."""
    model = GradientMF(3, solver="gd", eta=0.1, init="random", tol=1.0, random_state=0)
    diverging(model, planted(noise=1.0).X)


@pytest.mark.parametrize("seed", [0, 6, 11])
def test_a_step_is_named_only_if_it_lasts_as_long_as_the_fit(seed):
    """Without a ridge the optimum for outliers has huge factors, where steps fail."""
    rng = np.random.default_rng(seed)
    X = np.where(rng.random((80, 50)) < 0.01, 100, rng.standard_normal((80, 50)))
    X[rng.random(X.shape) > 0.4] = np.nan
    model = MaskedGradientMF(2, solver="gd", reg=0.0, eta=0.5, init="random", tol=0)
    stable_eta = diverging(model.set_params(random_state=0), X).stable_eta
    curve = model.set_params(eta=stable_eta).fit(X).loss_curve_
    assert len(curve) == 200
    assert (np.array(curve[1:]) < curve[0]).all()


def test_the_search_for_a_step_begins_at_the_smaller_bound(problem, monkeypatch):
    """Of those at the start and at the lowest F before the descent diverged."""
    case = problem("complete", NONE, ridge=0.0)

    def bound(objective, W, H, penalties):
        return 1e-3 if W is case.W else 1e-6

    monkeypatch.setattr(sweeps, "gradient_bound", bound)
    with pytest.raises(DivergenceError) as caught:
        run(case, "gd", eta=0.06)
    assert caught.value.stable_eta == 1e-6


@pytest.mark.parametrize(
    "too_long, falls_from, named",
    [(11, 1e-3, 2**-10), (10.05, 0.125, 0.125), (10.05, 0.05, 1)],
)
def test_a_step_is_halved_until_f_falls_three_times_at_most_if_it_hovers(
    too_long, falls_from, named
):
    def losses(eta):
        yield 9.0
        yield 9.9 if eta <= falls_from else too_long

    assert descending_step(1.0, losses, start=10.0) == named


@pytest.mark.pairwise(solver=SOLVERS, dtype=[np.float64, np.float32], eta=[1e200, 1e30])
def test_a_step_beyond_the_range_of_floats_diverges_without_warnings(
    planted, dtype, solver, eta, recwarn
):
    X = planted(share_missing=0.3).X.astype(dtype)
    imputer = MFImputer(3, reg=1.0, solver=solver, eta=eta)
    imputer.set_params(eta=diverging(imputer, X).stable_eta).fit(X)
    assert not recwarn.list


def test_a_slow_divergence_in_single_precision_raises_no_warning(recwarn):
    """F passes the largest float32 before it is seen five times above its start."""
    X = np.arange(1, 12, dtype=np.float32)[:, None]
    model = GradientMF(1, solver="als", eta=1000.0, reg=1.0, init="random")
    diverging(model.set_params(random_state=0), X)
    assert not recwarn.list


@pytest.mark.parametrize("solver", SOLVERS)
def test_factors_that_overflow_are_no_divergence_of_exact_steps(problem, solver):
    case = problem()
    case.W, case.H = 1e100 * case.W, 1e100 * case.H
    with pytest.raises(ValueError, match="at the start") as caught:
        run(case, solver)
    assert not isinstance(caught.value, DivergenceError)


@pytest.mark.parametrize("eta", ["auto", 0.5])
def test_the_error_can_be_printed_and_survives_pickle(eta):
    error = DivergenceError(eta, 3, 1e-4)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.eta, copy.n_iter, copy.stable_eta) == (eta, 3, 1e-4)
    assert f"eta={eta}." in str(error) == str(copy)


# Complete data, where the answer is known


@pytest.fixture
def complete(planted):
    return planted(m=40, n=25, rank=6, noise=0.5).X


@pytest.mark.pairwise(
    solver=[*SOLVERS, "auto"], init=["svd", "random"], shape=["tall", "wide"]
)
def test_every_solver_reaches_the_truncated_svd(complete, params, shape):
    """Eckart and Young: no factorization of this rank is nearer."""
    X = complete if shape == "tall" else complete.T
    left, singular, right = np.linalg.svd(X, full_matrices=False)
    model = GradientMF(4, tol=1e-10, max_iter=5000, random_state=0, **params)
    Z = model.fit_transform(X)
    optimum = np.sqrt((singular[4:] ** 2).sum())
    assert model.reconstruction_err_ == pytest.approx(optimum, rel=1e-6)
    nearest = left[:, :4] * singular[:4] @ right[:4]
    assert_allclose(model.inverse_transform(Z), nearest, atol=0.01)


@pytest.mark.pairwise(solver=SOLVERS, init=["svd", "random"])
def test_a_ridge_subtracts_from_the_singular_values(complete, params):
    """The ridge on both factors is the nuclear norm of their product."""
    left, singular, right = np.linalg.svd(complete, full_matrices=False)
    model = GradientMF(6, tol=1e-12, max_iter=5000, random_state=0, **params)
    for reg in (0.5 * (singular[2] + singular[3]), 1.1 * singular[0]):
        model.set_params(reg=reg)
        product = model.inverse_transform(model.fit_transform(complete))
        expected = left * np.maximum(singular - reg, 0) @ right
        assert_allclose(product, expected, atol=0.02)


@pytest.mark.parametrize("solver", ["scaled", "als"])
def test_the_product_does_not_depend_on_the_basis_of_the_start(planted, solver):
    X = planted(share_missing=0.3).X
    rng = RandomState(0)
    W, H, basis = (rng.standard_normal((n, 3)) for n in (40, 15, 3))
    model, projections = GradientMF(3, solver=solver, tol=0, max_iter=5), []
    for start in ((W, H), (W @ basis, H @ np.linalg.inv(basis).T)):
        components = model.set_params(init=start).fit(X).components_
        # H and H B span the same column space, so the projections on it agree.
        projections.append(np.linalg.pinv(components) @ components)
    assert_allclose(*projections, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("eta", ["auto", 0.1])
def test_constant_data_are_fitted(solver, eta):
    for model, value in ((GradientMF(2), 0.0), (MaskedGradientMF(2, reg=0.1), 7.0)):
        model.set_params(solver=solver, eta=eta)
        Z = model.fit_transform(np.full((5, 4), value))
        assert_allclose(model.inverse_transform(Z), value)
