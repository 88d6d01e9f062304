"""The estimators among others: pipelines, labels, searches over parameters."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import FitFailedWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_mfgd import GradientMF, MaskedGradientMF, MFImputer

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:One or more of the test scores are non-finite"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture
def labelled(planted):
    """A table with 40 % missing, of columns in different units; two classes."""
    data = planted(m=300, n=30, rank=3, noise=0.5, share_missing=0.4)
    units = 10.0 ** np.random.RandomState(1).uniform(-2, 2, size=30)
    return data.X * units + 5 * units, data.W @ [1, -1, 0.5] > 0


@pytest.mark.slow
@pytest.mark.accuracy
def test_factors_and_imputed_values_classify_better_than_column_means(labelled):
    X, y = labelled
    accuracy = {
        step: cross_val_score(
            make_pipeline(StandardScaler(), step, LogisticRegression()), X, y, cv=3
        ).mean()
        for step in (MaskedGradientMF(), MFImputer(), SimpleImputer())
    }
    factors, imputed, means = accuracy.values()
    assert factors > 0.9
    assert min(factors, imputed) > means + 0.02


@pytest.mark.slow
@pytest.mark.parametrize("share_missing", [0.0, 0.2])
def test_a_grid_search_without_labels_finds_the_planted_rank(planted, share_missing):
    ranks = []
    for seed in range(4):
        X = planted(300, 60, 5, noise=0.3, share_missing=share_missing, seed=seed).X
        model = GradientMF(reg=0.0, max_iter=5)
        search = GridSearchCV(model, {"rank": list(range(1, 11))}, cv=3).fit(X)
        ranks.append(search.best_params_["rank"])
    assert ranks == 4 * [5]


@pytest.mark.parametrize("share_missing", [0.0, 0.2])
def test_a_grid_search_survives_steps_that_diverge(planted, share_missing):
    X = planted(300, 60, 5, noise=0.3, share_missing=share_missing).X
    model = GradientMF(reg=0.0, solver="gd", max_iter=50)
    search = GridSearchCV(model, {"rank": [4, 5, 6], "eta": [10.0, "auto"]}, cv=3)
    with pytest.warns(FitFailedWarning, match="DivergenceError"):
        search.fit(X)
    diverging = search.cv_results_["param_eta"] == 10.0
    scores = search.cv_results_["mean_test_score"].astype(float)
    assert np.isnan(scores[diverging]).all()
    assert np.isfinite(scores[~diverging]).all()
    assert search.best_params_ == {"eta": "auto", "rank": 5}


def test_a_grid_search_in_a_pipeline_with_labels_chooses_for_the_classifier(labelled):
    model = GradientMF(reg=1.0, solver="gd", max_iter=30)
    pipeline = make_pipeline(StandardScaler(), model, LogisticRegression())
    grid = {"gradientmf__rank": [1, 3], "gradientmf__eta": [10.0, "auto"]}
    search = GridSearchCV(pipeline, grid, cv=3)
    with pytest.warns(FitFailedWarning):
        search.fit(*labelled)
    assert search.best_params_ == {"gradientmf__rank": 3, "gradientmf__eta": "auto"}
    assert search.best_score_ > 0.85


@pytest.mark.accuracy
def test_the_last_step_of_a_pipeline_scores_and_reconstructs(planted):
    data = planted(m=200, n=30, noise=0.1, share_missing=0.2)
    units = np.linspace(1, 100, 30)
    pipeline = make_pipeline(StandardScaler(), MaskedGradientMF(3, reg=1.0))
    Z = pipeline.fit_transform(data.X * units)
    filled = pipeline.inverse_transform(Z) / units
    assert np.std((filled - data.complete)[~data.mask]) < 0.3
    assert pipeline.score(data.X * units) > 0.9


def test_cross_validation_runs_without_warnings(planted):
    X = planted(m=100, n=20, share_missing=0.2).X
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = cross_val_score(GradientMF(3, max_iter=500), X, cv=3)
    assert (scores > 0.8).all()
