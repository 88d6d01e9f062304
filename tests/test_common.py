"""The estimators follow scikit-learn's conventions, whatever their parameters."""

import pytest
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.utils.estimator_checks import check_estimator

from sklearn_mfgd import GradientMF, MaskedGradientMF, MFImputer, StackingImputer

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("one_thread"),
]

ESTIMATORS = [GradientMF, MaskedGradientMF]

# Absolute for gd, and the data of the checks reach 100; a share of the full step else.
FIXED_ETA = {"gd": 1e-5, "scaled": 0.9, "als": 0.9}


def results_of(estimator):
    """Return the results of the checks, and the names of those that were skipped."""
    results = check_estimator(estimator, on_fail=None, on_skip=None)
    return results, {r["check_name"] for r in results if r["status"] == "skipped"}


@pytest.fixture(scope="module")
def assert_conformant():
    _, excused = results_of(KNNImputer())  # for want of what scikit-learn needs, too

    def check(estimator):
        results, skipped = results_of(estimator)
        unmet = [r for r in results if r["status"] not in ("passed", "skipped")]
        assert unmet == []
        assert skipped <= excused
        assert len(results) - len(skipped) > 30

    return check


@pytest.mark.slow
@pytest.mark.parametrize("Estimator", [*ESTIMATORS, MFImputer])
def test_the_defaults_are_conformant(Estimator, assert_conformant):
    # No convention is about the number of sweeps, of which there would be many.
    assert_conformant(Estimator(max_iter=5))


@pytest.mark.slow
@pytest.mark.pairwise(
    Estimator=ESTIMATORS,
    solver=list(FIXED_ETA),
    fixed_eta=[False, True],
    fit_bias=[False, True, "columns"],
    init=["svd", "random"],
    early_stopping=[False, True],
)
def test_every_pair_of_parameters_is_conformant(
    Estimator, fixed_eta, params, assert_conformant
):
    eta = FIXED_ETA[params["solver"]] if fixed_eta else "auto"
    assert_conformant(Estimator(rank=2, eta=eta, reg=0.1, max_iter=3, **params))


@pytest.mark.slow
@pytest.mark.parametrize(
    "Estimator, params",
    [
        (MaskedGradientMF, {"solver": "auto", "reg": 0.1}),
        (MaskedGradientMF, {"solver": "sgd", "reg": 0.1}),
        (MaskedGradientMF, {"reg": "auto", "n_draws": 2}),
        (GradientMF, {"reg": "auto", "n_draws": 2}),
        (GradientMF, {"reg": "auto", "noise": "shared", "early_stopping": True}),
        (MFImputer, {"sample_posterior": True, "random_state": 0}),
        (MFImputer, {"add_indicator": True, "keep_empty_features": True}),
        (MFImputer, {"reg": 0.1, "solver": "scaled", "scale": False}),
    ],
    ids=str,
)
def test_what_the_pairs_leave_out_is_conformant(Estimator, params, assert_conformant):
    assert_conformant(Estimator(2, max_iter=3, **params))


@pytest.mark.slow
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"statistic": "median", "weights": "table", "cv": 2},
        {"add_indicator": True, "keep_empty_features": True, "shrinkage": 20},
    ],
    ids=str,
)
def test_a_stack_is_conformant(params, assert_conformant):
    members = [("mean", SimpleImputer()), ("neighbours", KNNImputer())]
    assert_conformant(StackingImputer(members, random_state=0, **params))
