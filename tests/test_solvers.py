"""Steps and descent: what falls, where it ends, and how a bad step is reported."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.base import clone

from sklearn_mfgd import DivergenceError, GradientMF, MaskedGradientMF, MFImputer
from sklearn_mfgd._kernels.rows import Biases
from sklearn_mfgd._optim.divergence import descending_step
from sklearn_mfgd._optim.loop import History, descend
from sklearn_mfgd._optim.objective import CompleteObjective
from sklearn_mfgd._optim.penalty import Ridge, penalties_of
from sklearn_mfgd._optim.steps import (
    STEPS,
    gradient_step,
    least_squares_step,
    scaled_step,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SOLVERS = list(STEPS)
BIASES = [Biases(False, False), Biases(True, True), Biases(False, True)]
# A rise by this share is rounding: the squares of complete data are not summed one by
# one, but as a difference of sums that are a thousand times larger here.
ROUNDING = 1e-10


@pytest.fixture(params=[0.0, 0.4], ids=["complete", "holes"])
def share_missing(request):
    return request.param


KINDS = ["complete", "holes", "holes, weighted"]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def problem(planted, observed_objective, kind):
    """Return ``problem(biases, ridge)``: an objective, a random start, F itself."""

    def make(biases=BIASES[1], ridge=0.5, rank=3):
        share_missing = 0.4 if "holes" in kind else 0.0
        data = planted(m=30, n=20, noise=0.5, share_missing=share_missing)
        flags = {"row_bias": biases.row, "column_bias": biases.column}
        weights = data.mask.astype(float)
        if "weighted" in kind:
            weights *= np.random.RandomState(1).uniform(0.2, 4, weights.shape)
        if share_missing:
            given = weights if "weighted" in kind else None
            objective = observed_objective(data.complete, data.mask, given, **flags)
        else:
            objective = CompleteObjective(data.complete, **flags)
        penalties = penalties_of(rank, biases, Ridge(ridge, ridge))
        rng = np.random.RandomState(0)
        W = rng.standard_normal((30, rank + biases.row))
        H = rng.standard_normal((20, rank + biases.column))

        def penalized(W, H):
            penalty = ridge * ((W**2).sum() + (H**2).sum())
            return objective.value(W, H) + 0.5 * penalty

        return SimpleNamespace(
            objective=objective,
            W=W,
            H=H,
            penalties=penalties,
            penalized=penalized,
            data=data,
            weights=weights,
        )

    return make


def run(problem, solver, eta="auto", max_iter=60, tol=0.0, **options):
    return descend(
        problem.objective,
        problem.W,
        problem.H,
        problem.penalties,
        solver=solver,
        eta=eta,
        max_iter=max_iter,
        tol=tol,
        **options,
    )


def assert_never_rises(curve):
    curve = np.asarray(curve)
    assert len(curve) > 1
    assert (np.diff(curve) <= ROUNDING * curve[:-1]).all()


# Steps


@pytest.mark.parametrize("step", STEPS.values())
@pytest.mark.parametrize("biases", BIASES)
def test_an_exact_step_is_the_minimum_along_its_direction(problem, step, biases):
    case = problem(biases)
    moved = step(case.objective, case.W, case.H, case.penalties[0], "auto")
    best = case.penalized(moved.factors, case.H)
    for share in (0.9, 0.99, 1.01, 1.1):
        along = case.W + share * (moved.factors - case.W)
        assert case.penalized(along, case.H) > best
    assert best < case.penalized(case.W, case.H)


@pytest.mark.parametrize("step", [gradient_step, scaled_step])
@pytest.mark.parametrize("biases", BIASES)
def test_a_step_knows_the_value_it_reaches(problem, step, biases):
    case = problem(biases)
    moved = step(case.objective, case.W, case.H, case.penalties[0], "auto")
    penalty = 0.25 * (case.H**2).sum()
    assert moved.loss + penalty == pytest.approx(case.penalized(moved.factors, case.H))


@pytest.mark.parametrize("biases", BIASES)
def test_the_step_of_als_is_the_minimum_of_every_row(problem, biases):
    case = problem(biases)
    W = least_squares_step(
        case.objective, case.W, case.H, case.penalties[0], "auto"
    ).factors
    _, gradient = case.objective.value_and_gradient(W, case.H)
    assert_allclose(gradient + 0.5 * W, 0, atol=1e-10)


def test_a_fixed_gd_step_moves_against_the_gradient(problem):
    case = problem()
    moved = gradient_step(
        case.objective, case.W, case.H, case.penalties[0], 0.01
    ).factors
    _, gradient = case.objective.value_and_gradient(case.W, case.H)
    assert_allclose(moved, case.W - 0.01 * (gradient + 0.5 * case.W), rtol=1e-12)


def test_a_scaled_step_solves_with_the_gram_matrix(problem):
    case = problem()
    moved = scaled_step(case.objective, case.W, case.H, case.penalties[0], 0.7).factors
    _, gradient = case.objective.value_and_gradient(case.W, case.H)
    system = case.objective.gram(case.H) + 0.5 * np.eye(4)
    direction = np.linalg.solve(system, (gradient + 0.5 * case.W).T).T
    assert_allclose(moved, case.W - 0.7 * direction, rtol=1e-9)


@pytest.mark.parametrize("biases", BIASES)
def test_the_full_scaled_step_is_that_of_soft_impute_als(problem, biases):
    """Fill the holes with the model, then solve the complete ridge problem.

    An entry of less than the largest weight is a hole by the share that it lacks.
    """
    case = problem(biases)
    design, offset = case.H, np.zeros(20)
    if biases.column:
        design, offset = case.H[:, :-1], case.H[:, -1]
    if biases.row:
        design = np.column_stack([design, np.ones(20)])
    model = case.W @ design.T + offset
    largest = case.weights.max()
    target = model + case.weights / largest * (case.data.complete - model) - offset
    system = largest * design.T @ design + 0.5 * np.eye(design.shape[1])
    expected = np.linalg.solve(system, largest * design.T @ target.T).T
    moved = scaled_step(case.objective, case.W, case.H, case.penalties[0], 1.0)
    assert_allclose(moved.factors, expected, rtol=1e-8)


def test_a_fixed_als_step_goes_that_part_of_the_way(problem):
    case = problem()
    whole, part = (
        least_squares_step(
            case.objective, case.W, case.H, case.penalties[0], eta
        ).factors
        for eta in ("auto", 0.3)
    )
    assert_allclose(part, 0.7 * case.W + 0.3 * whole, rtol=1e-12)


@pytest.mark.parametrize("step", STEPS.values())
@pytest.mark.parametrize("size", [1e-120, 1e-30, 1e30])
def test_a_step_survives_gradients_of_any_size(
    problem, observed_objective, kind, step, size
):
    case, X = problem(BIASES[0], ridge=0.0), np.full((30, 20), size)
    case.objective = CompleteObjective(X)
    if "holes" in kind:
        case.objective = observed_objective(X, case.data.mask, case.weights)
    start = case.W * 0 + np.sqrt(size) / 2, case.H * 0 + np.sqrt(size) / 2
    W = step(case.objective, *start, case.penalties[0], "auto").factors
    assert np.isfinite(W).all()
    assert case.objective.value(W, start[1]) <= case.objective.value(*start)


# Descent


@pytest.mark.pairwise(kind=KINDS, solver=SOLVERS, biases=BIASES, ridge=[0.0, 0.5])
def test_the_objective_never_rises_with_exact_steps(problem, solver, biases, ridge):
    case = problem(biases, ridge)
    start = case.penalized(case.W, case.H)
    assert_never_rises([start, *run(case, solver, max_iter=200).loss_curve])


@pytest.mark.parametrize("solver", ["scaled", "als"])
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_the_objective_never_rises_with_part_of_the_full_step(problem, solver, eta):
    case = problem()
    start = case.penalized(case.W, case.H)
    assert_never_rises([start, *run(case, solver, eta=eta).loss_curve])


@pytest.mark.pairwise(kind=KINDS, solver=SOLVERS, biases=BIASES, eta=["auto", 1e-3])
def test_the_loss_curve_holds_the_penalized_objective(problem, solver, biases, eta):
    case = problem(biases)
    for max_iter in (1, 2, 7):
        descent = run(case, solver, eta=eta, max_iter=max_iter)
        assert len(descent.loss_curve) == descent.n_iter == max_iter
        assert descent.loss_curve[-1] == pytest.approx(
            case.penalized(descent.W, descent.H), rel=1e-9
        )


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_start_is_left_as_it_was(problem, solver):
    case = problem()
    W, H = case.W.copy(), case.H.copy()
    run(case, solver, max_iter=3)
    assert (case.W == W).all() and (case.H == H).all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_all_solvers_end_at_a_stationary_point(problem, solver):
    case = problem(ridge=4.0)
    descent = run(case, solver, max_iter=200)
    for objective, factors, other in (
        (case.objective, descent.W, descent.H),
        (case.objective.T, descent.H, descent.W),
    ):
        _, gradient = objective.value_and_gradient(factors, other)
        assert_allclose(gradient + 4 * factors, 0, atol=1e-4)


@pytest.mark.pairwise(kind=KINDS, solver=SOLVERS, tol=[1e-2, 1e-4, 1e-6])
def test_descent_ends_when_the_objective_falls_by_less_than_tol(problem, solver, tol):
    descent = run(problem(), solver, tol=tol, max_iter=5000)
    curve = np.array(descent.loss_curve)
    assert descent.converged
    assert 1 < descent.n_iter < 5000
    assert curve[-2] - curve[-1] < tol * curve[-1]


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_smaller_tol_never_ends_earlier(problem, solver):
    sweeps = [
        run(problem(), solver, tol=tol, max_iter=5000).n_iter
        for tol in (1e-2, 1e-4, 1e-6)
    ]
    assert sweeps == sorted(sweeps)


def test_out_of_sweeps_is_not_convergence(problem):
    assert not run(problem(), "als", tol=1e-9, max_iter=2).converged


def test_the_monitor_sees_the_start_and_every_sweep(problem):
    seen, case = [], problem()
    descent = run(case, "als", max_iter=4, monitor=seen.append)
    assert [now.n_iter for now in seen] == [0, 1, 2, 3, 4]
    assert_allclose(seen[0].W, case.W)
    assert_allclose(seen[-1].W, descent.W)
    assert seen[-1].loss_curve == descent.loss_curve


def test_the_monitor_may_end_the_descent(problem):
    descent = run(problem(), "als", monitor=lambda now: now.n_iter == 2)
    assert descent.n_iter == 2
    assert descent.converged


def test_gains_that_tol_does_not_count_end_the_descent_but_are_kept():
    errors = iter([5.0, 4.9, 4.8])
    track = History(
        np.zeros(1),
        np.zeros(1),
        tol=0.5,
        validate=lambda W, H: next(errors),
        n_iter_no_change=2,
        monitor=None,
    )
    for sweep in (1, 2, 3):
        assert not track.converged
        track.add(np.full(1, sweep), np.zeros(1), 1.0, lambda: np.ones(1), False)
    assert track.converged
    assert track.descent().W == 3


@pytest.mark.parametrize("error", [np.nan, np.inf])
def test_a_held_out_error_that_is_not_finite_is_no_success(problem, error):
    with pytest.raises(ValueError, match=r"after sweep 1: .* Use a larger reg"):
        run(problem(), "als", validate=lambda W, H: error)


def test_the_iterate_of_least_held_out_error_is_returned(problem):
    case = problem()
    errors, iterates = iter([5.0, 3.0, 4.0, 3.5, 6.0]), []

    def validate(W, H):
        iterates.append((W, H))
        return next(errors)

    descent = run(case, "scaled", validate=validate, n_iter_no_change=3, max_iter=5)
    assert descent.validation_curve == [5.0, 3.0, 4.0, 3.5, 6.0]
    assert descent.converged
    assert_allclose(descent.W, iterates[1][0])
    assert_allclose(descent.H, iterates[1][1])


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


# Steps that are too long


TOO_LONG = [("gd", 10.0), ("gd", 0.3), ("scaled", 3.0), ("als", 3.0)]


@pytest.mark.parametrize("init", ["svd", "random"])
@pytest.mark.parametrize("solver, eta", TOO_LONG)
def test_divergence_names_eta_sweep_and_a_stable_step(
    planted, share_missing, solver, eta, init
):
    X = 3 * planted(share_missing=share_missing).X + 1
    model = GradientMF(3, solver=solver, eta=eta, init=init, random_state=0)
    with pytest.raises(DivergenceError) as caught:
        model.fit(X)
    error, message = caught.value, str(caught.value)
    assert isinstance(error, ValueError)
    assert error.eta == eta
    assert 1 <= error.n_iter <= model.max_iter
    assert f"at sweep {error.n_iter} with eta={eta:g}" in message
    assert f"eta={error.stable_eta:.3g}" in message


@pytest.mark.pairwise(
    step=[("gd", 10.0), ("scaled", 3.0), ("als", 3.0)],
    init=["svd", "random"],
    fit_bias=[False, True],
    share_missing=[0.0, 0.4],
    mean=[0.0, 50.0],
    seed=range(6),
)
def test_the_stable_step_makes_the_objective_fall_at_every_sweep(
    planted, step, init, fit_bias, share_missing, mean, seed
):
    X = 3 * planted(share_missing=share_missing, seed=seed).X + mean
    solver, eta = step
    model = GradientMF(
        3, solver=solver, eta=eta, fit_bias=fit_bias, init=init, random_state=0
    )
    with pytest.raises(DivergenceError) as caught:
        model.fit(X)
    model.set_params(eta=caught.value.stable_eta, tol=0, max_iter=30)
    assert_never_rises(model.fit(X).loss_curve_)


def test_a_step_that_overflows_diverges_without_warnings(planted, recwarn):
    with pytest.raises(DivergenceError):
        GradientMF(3, solver="gd", eta=1e300).fit(planted().X)
    assert not recwarn.list


def test_a_rise_is_never_taken_for_convergence(planted):
    """With tol=1 anything but a rise would end the descent at once."""
    X = planted(noise=1.0).X
    model = GradientMF(3, solver="gd", eta=0.1, init="random", tol=1.0, random_state=0)
    with pytest.raises(DivergenceError):
        model.fit(X)


@pytest.mark.parametrize("seed", [0, 6, 11])
def test_a_step_is_named_only_if_it_lasts_as_long_as_the_fit(seed):
    """Without a ridge the optimum for outliers has huge factors, where steps fail."""
    rng = np.random.default_rng(seed)
    X = np.where(rng.random((80, 50)) < 0.01, 100, rng.standard_normal((80, 50)))
    X[rng.random(X.shape) > 0.4] = np.nan
    model = MaskedGradientMF(
        2, solver="gd", reg=0.0, eta=0.5, init="random", random_state=0, tol=0
    )
    with pytest.raises(DivergenceError) as caught:
        model.fit(X)
    curve = model.set_params(eta=caught.value.stable_eta).fit(X).loss_curve_
    assert len(curve) == 200
    assert (np.array(curve[1:]) < curve[0]).all()


def test_a_step_is_halved_until_the_objective_falls():
    tried = []

    def trial(eta):
        tried.append(eta)
        yield 9.0
        yield 11.0 if eta > 0.2 else 8.0

    assert descending_step(1.0, trial, start=10.0) == 0.125
    assert tried == [1.0, 0.5, 0.25, 0.125]


def test_at_a_minimum_a_step_may_hover():
    assert descending_step(1.0, lambda eta: [10 + 0.2 * eta], start=10.0) == 0.5


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_step_beyond_the_range_of_floats_diverges_without_warnings(
    planted, dtype, solver, recwarn
):
    X = planted(share_missing=0.3).X.astype(dtype)
    imputer = MFImputer(3, reg=1.0, solver=solver, eta=1e200)
    with pytest.raises(DivergenceError) as caught:
        imputer.fit(X)
    imputer.set_params(eta=caught.value.stable_eta).fit(X)
    assert not recwarn.list


def test_a_slow_divergence_in_single_precision_raises_no_warning(recwarn):
    """F passes the largest float32 before it is seen five times above its start."""
    X = np.arange(1, 12, dtype=np.float32)[:, None]
    model = GradientMF(
        1, solver="als", eta=1000.0, reg=1.0, init="random", random_state=0
    )
    with pytest.raises(DivergenceError):
        model.fit(X)
    assert not recwarn.list


@pytest.mark.parametrize("solver", SOLVERS)
def test_factors_that_overflow_are_no_divergence_of_steps_that_are_found(
    problem, solver
):
    case = problem()
    case.W, case.H = 1e100 * case.W, 1e100 * case.H
    with (
        np.errstate(all="ignore"),
        pytest.raises(ValueError, match="at the start") as c,
    ):
        run(case, solver)
    assert not isinstance(c.value, DivergenceError)


@pytest.mark.parametrize("eta", ["auto", 0.5])
def test_the_error_can_always_be_printed(eta):
    assert f"eta={eta}." in str(DivergenceError(eta, 3, 1e-4))


def test_the_error_survives_pickle():
    error = DivergenceError(0.5, 3, 1e-4)
    twin = pickle.loads(pickle.dumps(error))
    assert (twin.eta, twin.n_iter, twin.stable_eta) == (0.5, 3, 1e-4)
    assert str(twin) == str(error)


# Complete data, where the answer is known


@pytest.fixture
def complete(planted):
    return planted(m=40, n=25, rank=6, noise=0.5).X


@pytest.mark.parametrize("shape", ["tall", "wide"])
@pytest.mark.parametrize("init", ["svd", "random"])
@pytest.mark.parametrize("solver", [*SOLVERS, "auto"])
def test_every_solver_reaches_the_truncated_svd(complete, solver, init, shape):
    """Eckart and Young: no factorization of this rank is nearer."""
    X = complete if shape == "tall" else complete.T
    left, singular, right = np.linalg.svd(X, full_matrices=False)
    model = GradientMF(
        4, solver=solver, init=init, tol=1e-10, max_iter=5000, random_state=0
    )
    Z = model.fit_transform(X)
    optimum = np.sqrt((singular[4:] ** 2).sum())
    assert model.reconstruction_err_ == pytest.approx(optimum, rel=1e-6)
    nearest = left[:, :4] * singular[:4] @ right[:4]
    assert_allclose(model.inverse_transform(Z), nearest, atol=0.01)


@pytest.mark.parametrize("init", ["svd", "random"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_ridge_subtracts_from_the_singular_values(complete, solver, init):
    """The ridge on both factors is the nuclear norm of their product."""
    left, singular, right = np.linalg.svd(complete, full_matrices=False)
    reg = singular[3] + 0.5 * (singular[2] - singular[3])
    model = GradientMF(
        6, solver=solver, init=init, reg=reg, tol=1e-12, max_iter=5000, random_state=0
    )
    found = model.inverse_transform(model.fit_transform(complete))
    expected = left * np.maximum(singular - reg, 0) @ right
    assert_allclose(found, expected, atol=0.02)


def test_a_ridge_above_all_singular_values_leaves_nothing(complete):
    reg = 1.1 * np.linalg.norm(complete, 2)
    model = GradientMF(3, reg=reg, max_iter=1000, tol=1e-12)
    found = model.inverse_transform(model.fit_transform(complete))
    assert_allclose(found, 0, atol=1e-2)


@pytest.mark.parametrize("solver", ["scaled", "als"])
def test_the_product_does_not_depend_on_the_basis_of_the_start(planted, solver):
    X = planted(share_missing=0.3).X
    rng = np.random.RandomState(0)
    W, H = rng.standard_normal((40, 3)), rng.standard_normal((15, 3))
    basis = rng.standard_normal((3, 3))
    starts = [(W, H), (W @ basis, H @ np.linalg.inv(basis).T)]
    model = GradientMF(3, solver=solver, tol=0, max_iter=5)
    first, second = (
        twin.inverse_transform(twin.fit_transform(X))
        for twin in (clone(model).set_params(init=start) for start in starts)
    )
    assert_allclose(first, second, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("solver", SOLVERS)
def test_zeros_are_fitted_by_zeros(solver):
    for eta in ("auto", 0.1):
        model = GradientMF(2, solver=solver, eta=eta)
        Z = model.fit_transform(np.zeros((5, 4)))
        assert_allclose(model.inverse_transform(Z), 0)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_constant_matrix_with_biases_is_its_mean(solver):
    for eta in ("auto", 0.1):
        model = MaskedGradientMF(2, solver=solver, eta=eta, reg=0.1)
        Z = model.fit_transform(np.full((5, 4), 7.0))
        assert_allclose(model.inverse_transform(Z), 7)
