"""Five notebooks that factorized by hand, and how the same goes here.

Each class tells what its notebook did; sizes and figures are the notebook's own.
"""

import numpy as np
import pytest

from sklearn_mfgd import DivergenceError, GradientMF, MaskedGradientMF

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


# A rise by this share is rounding.
ROUNDING = 1e-12

# Notebook 1
N_DETECTORS, N_DAYS, N_READINGS, N_WAVES = 323, 61, 288, 60

# Notebook 2
SEEDS = range(4)


@pytest.fixture(scope="module")
def speeds():
    """Daily waves of 60 kinds, each with its own strength on each day; 0 to 80."""
    rng = np.random.RandomState(0)
    hour = 2 * np.pi * np.arange(N_READINGS) / N_READINGS
    phase = rng.uniform(0, 2 * np.pi, (N_WAVES, 1))
    wave = np.cos(np.outer(1 + np.arange(N_WAVES) % 6, hour) + phase)
    strength = rng.standard_normal((N_WAVES, N_DAYS, 1))
    times = (strength * wave[:, None]).reshape(N_WAVES, -1)
    weights = 6 * 0.9 ** np.arange(N_WAVES)
    speeds = 50 + weights * rng.standard_normal((N_DETECTORS, N_WAVES)) @ times
    speeds += 2 * rng.standard_normal(speeds.shape)
    return np.clip(speeds, 0, 80)


class TestTraffic:
    """Notebook 1: speeds of 323 loop detectors, 61 days of 288 readings, rank 60.

    Ten sweeps of gradient descent with a step of 0.01 on the complete matrix: the loss
    was 6.6e17 after one, 8.2e93 after two, then inf and nan. Scenarios of 40 % missing,
    at random or whole days of a detector, were prepared and left switched off.
    """

    @pytest.mark.slow
    def test_the_step_of_the_notebook_diverges_and_the_error_names_one_that_descends(
        self, speeds
    ):
        model = GradientMF(N_WAVES, solver="gd", init="random", random_state=0)
        with pytest.raises(DivergenceError, match=r"eta=0\.01") as caught:
            model.set_params(eta=0.01, max_iter=10).fit(speeds)
        stable_eta = caught.value.stable_eta
        assert f"eta={stable_eta:.3g}" in str(caught.value)
        assert stable_eta > 1e-9
        model.set_params(eta=stable_eta, max_iter=6).fit(speeds)
        assert (np.diff(model.loss_curve_) < 0).all()
        assert model.reconstruction_err_ < np.linalg.norm(speeds)

    @pytest.mark.slow
    @pytest.mark.accuracy
    def test_eta_auto_ends_within_a_thousandth_of_the_truncated_svd(self, speeds):
        eigenvalues = np.linalg.eigvalsh(speeds @ speeds.T)[::-1]
        optimum = np.sqrt(eigenvalues[N_WAVES:].sum())
        model = GradientMF(N_WAVES, eta="auto").fit(speeds)
        assert model.reconstruction_err_ <= 1.001 * optimum

    @pytest.mark.slow
    @pytest.mark.accuracy
    @pytest.mark.parametrize("missing", ["readings", "days"])
    def test_missing_speeds_are_predicted_far_better_than_by_means(
        self, speeds, missing
    ):
        rng = np.random.RandomState(1)
        if missing == "readings":
            mask = rng.uniform(size=speeds.shape) >= 0.4
        else:
            days = rng.uniform(size=(N_DETECTORS, N_DAYS)) >= 0.4
            mask = np.repeat(days, N_READINGS, axis=1)
        X = np.where(mask, speeds, np.nan)
        model = GradientMF(20, fit_bias=True, reg=100.0, max_iter=2)
        errors = [
            np.sqrt(np.mean((prediction - speeds)[~mask] ** 2))
            for prediction in (
                model.inverse_transform(model.fit_transform(X)),
                np.broadcast_to(np.nanmean(X, axis=0), X.shape),
                np.broadcast_to(np.nanmean(X, axis=1)[:, None], X.shape),
            )
        ]
        assert errors[0] < 0.5 * min(errors[1:])


def five_by_six(seed):
    rng = np.random.RandomState(seed)
    X = rng.standard_normal((5, 2)) @ rng.standard_normal((2, 6))
    X += 0.05 * rng.standard_normal((5, 6))
    return np.where(rng.uniform(size=(5, 6)) < 0.6, X, np.nan)


@pytest.fixture(scope="module")
def curves():
    """Every value of F that gradient descent with a step of 0.05 passed, by seed."""
    model = GradientMF(2, solver="gd", eta=0.05, init="random", max_iter=2000, tol=0)
    return [
        np.array(model.set_params(random_state=seed).fit(five_by_six(seed)).loss_curve_)
        for seed in SEEDS
    ]


class TestFiveBySix:
    """Notebook 2: 5 x 6 of rank 2 with noise 0.05, 60 % observed.

    Both factors start from a normal distribution and make 2000 gradient steps of 0.05;
    the printed objective falls from 15.5 to 4.6e-5.
    """

    @pytest.mark.slow
    def test_the_objective_falls_at_every_one_of_2000_sweeps(self, curves):
        for curve in curves:
            # A fit to the last digit ends the descent earlier.
            assert len(curve) == 2000 or curve[-1] < 1e-20
            assert (np.diff(curve) <= ROUNDING * curve[:-1]).all()

    @pytest.mark.slow
    @pytest.mark.accuracy
    def test_the_default_gets_there_in_200_sweeps_for_three_of_four(self, curves):
        reached = [
            GradientMF(2, max_iter=200, tol=0).fit(five_by_six(seed)).loss_curve_[-1]
            <= curves[seed][-1]
            for seed in SEEDS
        ]
        assert sum(reached) >= 3


class TestRatings:
    """Notebook 3: 10 x 10 ratings, zeros missing, rank 3, row and column biases.

    420 epochs of stochastic gradient descent (step 0.01, ridge 0.001) end at a root
    mean squared error of 0.4045 on the 82 observed entries, after the printed
    prediction.
    """

    @pytest.mark.accuracy
    @pytest.mark.parametrize(
        "Estimator, options",
        [
            (GradientMF, {}),
            (MaskedGradientMF, {}),
            (MaskedGradientMF, {"solver": "sgd", "eta": "auto", "init": "svd"}),
            (MaskedGradientMF, {"solver": "sgd", "eta": "auto", "init": "random"}),
            (MaskedGradientMF, {"solver": "sgd", "eta": 0.01, "init": "random"}),
        ],
    )
    def test_the_error_is_at_most_that_of_the_notebook_in_as_many_epochs(
        self, ratings, Estimator, options
    ):
        observed = ratings > 0
        assert observed.sum() == 82
        model = Estimator(3, fit_bias=True, reg=0.001, max_iter=420, random_state=0)
        Z = model.set_params(**options).fit_transform(ratings, mask=observed)
        residuals = (model.inverse_transform(Z) - ratings)[observed]
        assert np.sqrt(np.mean(residuals**2)) <= 0.4045


class TestThreeByThree:
    """Notebook 4: 3 x 3, rank 2, 1000 epochs of stochastic gradient descent: 0.1222.

    The truncated SVD gives 0.1219. A mask that hides entries (1, 0) and (2, 1) is made
    and never used: its epochs skip zeros instead, and there are none.
    """

    @pytest.mark.accuracy
    @pytest.mark.parametrize(
        "solver, init, most",
        [("auto", "svd", 0.122), ("sgd", "svd", 0.1222), ("sgd", "random", 0.1222)],
    )
    def test_the_squared_error_is_that_of_the_truncated_svd(
        self, three_by_three, solver, init, most
    ):
        model = GradientMF(2, solver=solver, init=init, max_iter=1000, random_state=0)
        error = model.set_params(tol=0).fit(three_by_three).reconstruction_err_
        assert 0.1219 < error**2 <= most

    @pytest.mark.accuracy
    @pytest.mark.parametrize("solver", ["auto", "gd", "scaled", "als", "sgd"])
    def test_with_two_entries_really_hidden_the_others_are_fitted(
        self, three_by_three, solver
    ):
        mask = np.ones((3, 3), bool)
        mask[[1, 2], [0, 1]] = False
        model = GradientMF(2, solver=solver, tol=0, max_iter=5000, random_state=0)
        Z = model.fit_transform(three_by_three, mask=mask)
        residuals = (model.inverse_transform(Z) - three_by_three)[mask]
        assert np.abs(residuals).max() <= (1e-3 if solver == "sgd" else 1e-6)


class TestThreeByFour:
    """Notebook 5: 3 x 4, rank 2, factors uniform in [0, 1], by automatic derivatives.

    10,000 steps of 0.001 bring the sum of squares from 1.8741 to 0.0014.
    """

    @pytest.mark.accuracy
    def test_a_hundred_sweeps_are_better_than_its_ten_thousand_steps(
        self, three_by_four
    ):
        model = GradientMF(2, max_iter=100).fit(three_by_four)
        assert model.reconstruction_err_**2 < 0.0014

    @pytest.mark.parametrize("solver", ["auto", "gd", "scaled", "als"])
    def test_from_the_start_of_the_notebook_the_loss_falls_at_every_step(
        self, three_by_four, solver
    ):
        rng = np.random.RandomState(0)
        start = rng.uniform(size=(3, 2)), rng.uniform(size=(4, 2))
        first = np.sum((start[0] @ start[1].T - three_by_four) ** 2) / 2
        model = GradientMF(2, solver=solver, init=start, max_iter=100, tol=0)
        curve = np.array([first, *model.fit(three_by_four).loss_curve_])
        assert len(curve) > 3
        # It is the residuals that are rounded, to the digits of data of order 1.
        rounding = ROUNDING * np.sqrt(curve[:-1])
        assert (np.diff(curve) <= rounding).all()
        assert 2 * curve[-1] < 0.0014
