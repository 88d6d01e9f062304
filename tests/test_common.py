"""Both estimators follow scikit-learn's conventions, whatever their parameters."""

import pytest
from sklearn.impute import KNNImputer
from sklearn.utils.estimator_checks import check_estimator

from sklearn_mfgd import GradientMF, MaskedGradientMF, MFImputer
from sklearn_mfgd._optim.steps import STEPS

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("one_thread"),
]

ESTIMATORS = [GradientMF, MaskedGradientMF]

# Absolute for gd, and the data of the checks reach 100; a share of the full step else.
FIXED_ETA = {"gd": 1e-5, "scaled": 0.9, "als": 0.9}


def results_of(estimator):
    return check_estimator(estimator, on_fail=None, on_skip=None)


def names_of(results, status):
    return {result["check_name"] for result in results if result["status"] == status}


@pytest.fixture(scope="module")
def excused():
    """Checks that cannot run here for an estimator of scikit-learn itself."""
    return names_of(results_of(KNNImputer()), "skipped")


@pytest.fixture
def assert_conformant(excused):
    def check(estimator):
        results = results_of(estimator)
        skipped = names_of(results, "skipped")
        unmet = [
            (result["check_name"], result["exception"])
            for result in results
            if result["status"] not in ("passed", "skipped")
        ]
        assert unmet == []
        assert skipped <= excused
        assert len(results) - len(skipped) > 30

    return check


@pytest.mark.parametrize("Estimator", [*ESTIMATORS, MFImputer])
def test_the_defaults_are_conformant(Estimator, assert_conformant):
    # No convention is about the number of sweeps, of which there would be many.
    assert_conformant(Estimator(max_iter=5))


@pytest.mark.pairwise(
    Estimator=ESTIMATORS,
    solver=list(STEPS),
    eta=["auto", "fixed"],
    fit_bias=[False, True, "columns"],
    init=["svd", "random"],
    early_stopping=[False, True],
)
def test_every_pair_of_parameters_is_conformant(
    Estimator, solver, eta, fit_bias, init, early_stopping, assert_conformant
):
    model = Estimator(
        rank=2,
        solver=solver,
        eta=FIXED_ETA[solver] if eta == "fixed" else "auto",
        fit_bias=fit_bias,
        init=init,
        early_stopping=early_stopping,
        reg=0.1,
        max_iter=3,
    )
    assert_conformant(model)


@pytest.mark.parametrize(
    "params",
    [
        {"solver": "auto", "reg": 0.1},
        {"reg": "auto", "n_draws": 2},
        {"reg": "auto", "noise": "shared", "early_stopping": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_what_the_pairs_leave_out_is_conformant(Estimator, params, assert_conformant):
    assert_conformant(Estimator(rank=2, max_iter=3, **params))


def test_stochastic_descent_is_conformant(assert_conformant):
    assert_conformant(MaskedGradientMF(rank=2, max_iter=3, solver="sgd", reg=0.1))


@pytest.mark.parametrize(
    "params",
    [
        {"sample_posterior": True, "random_state": 0},
        {"add_indicator": True, "keep_empty_features": True, "scale": False},
        {"reg": 0.1, "solver": "scaled", "rank": 2},
    ],
    ids=str,
)
def test_imputation_is_conformant(params, assert_conformant):
    assert_conformant(MFImputer(max_iter=3, **params))
