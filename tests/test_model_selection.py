"""Entries held out: splits, and scores of whatever predicts them."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.metrics import make_scorer, max_error, mean_squared_error
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler

from sklearn_mfgd import GradientMF, MaskedGradientMF, MFImputer
from sklearn_mfgd.model_selection import (
    cross_validate_entries,
    make_entries_scorer,
    train_test_split_entries,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("one_thread"),
]

FORMATS = [
    getattr(sparse, f"{format}_{kind}")
    for format in ("csr", "csc", "coo")
    for kind in ("array", "matrix")
]


def stored(X, container=sparse.csr_array):
    """Store the observed entries of X, zeros among them."""
    rows, columns = np.nonzero(~np.isnan(X))
    return container(sparse.coo_array((X[rows, columns], (rows, columns)), X.shape))


def dense(S):
    X = np.full(S.shape, np.nan)
    S = S.tocoo()
    X[S.row, S.col] = S.data
    return X


# Splits


@settings(max_examples=60, deadline=None)
@given(
    m=st.integers(2, 12),
    n=st.integers(2, 12),
    share=st.floats(0.3, 1),
    test_size=st.floats(0.05, 0.4),
    seed=st.integers(0, 999),
)
def test_a_split_is_a_partition_that_empties_nothing(m, n, share, test_size, seed):
    rng = np.random.RandomState(seed)
    X = np.where(rng.uniform(size=(m, n)) < share, rng.randint(0, 3, (m, n)), np.nan)
    seen = ~np.isnan(X)
    options = {"test_size": test_size, "random_state": seed}
    try:
        train, test = train_test_split_entries(X, **options)
    except ValueError as error:
        few = round(test_size * seen.sum()) < 1
        assert few or "without emptying a row or a column" in str(error)
        return
    held = ~np.isnan(test)
    assert_array_equal(~np.isnan(train) ^ held, seen)
    assert held.sum() == round(test_size * seen.sum())
    assert_array_equal(np.where(held, test, train)[seen], X[seen])
    for axis in (0, 1):
        left = ~np.isnan(train).all(axis=axis)
        assert_array_equal(left, seen.any(axis=axis))
    for part, expected in zip(
        train_test_split_entries(stored(X), **options), (train, test), strict=True
    ):
        assert_array_equal(dense(part), expected)


@pytest.mark.parametrize("container", FORMATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sparse_parts_are_of_the_same_kind(container, dtype):
    X = container(np.arange(20, dtype=dtype).reshape(4, 5))
    for part in train_test_split_entries(X, random_state=0):
        assert type(part) is container
        assert part.dtype == dtype
        assert part.shape == X.shape


def test_a_number_holds_out_that_many():
    _, test = train_test_split_entries(np.ones((5, 6)), test_size=7, random_state=1)
    assert (~np.isnan(test)).sum() == 7


def test_the_seed_decides():
    X = np.arange(30.0).reshape(5, 6)

    def held(seed):
        return train_test_split_entries(X, random_state=seed)[1]

    assert_array_equal(held(0), held(0))
    assert not np.array_equal(held(0), held(1), equal_nan=True)


def test_every_entry_is_held_out_at_times():
    X = np.ones((3, 4))
    held = sum(
        ~np.isnan(train_test_split_entries(X, random_state=seed)[1])
        for seed in range(200)
    )
    assert (held > 10).all()


@pytest.mark.parametrize(
    "X, test_size, message",
    [
        (np.ones((3, 3)), 0.0, "test_size must be a share"),
        (np.ones((3, 3)), 1.5, "test_size must be a share"),
        (np.ones((3, 3)), "many", "test_size must be a share"),
        (np.eye(3) + np.where(np.eye(3) > 0, 0, np.nan), 0.4, "only 0 can be"),
        (np.ones((3, 3)), 8, "hold out 8 of 9 observed entries, but only [45]"),
        (sparse.coo_array(([1.0, 2.0], ([0, 0], [1, 1]))), 0.5, "more than once"),
    ],
)
def test_splits_that_are_refused(X, test_size, message):
    with pytest.raises(ValueError, match=message):
        train_test_split_entries(X, test_size=test_size, random_state=0)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("container", [np.array, *FORMATS])
def test_infinity_is_refused_as_the_estimators_do(container, value):
    X = container(np.array([[1.0, 2, 3], [4, 5, value], [6, 7, 8]]))
    model = MaskedGradientMF(1)
    for call in (
        lambda: train_test_split_entries(X),
        lambda: cross_validate_entries(model, X, cv=2),
        lambda: make_entries_scorer()(model, X),
        lambda: model.fit(X),
    ):
        with pytest.raises(ValueError, match="Input X contains infinity"):
            call()


# Cross-validation


PREDICTORS = [
    MaskedGradientMF(4),
    GradientMF(2, reg=1.0),
    MFImputer(),
    MFImputer(sample_posterior=True, random_state=0),
    make_pipeline(StandardScaler(), MaskedGradientMF(4)),
    make_pipeline(StandardScaler(), GradientMF(2, reg=1.0)),
    make_pipeline(StandardScaler(), MFImputer()),
    make_pipeline(StandardScaler(), KNNImputer()),
    make_pipeline(StandardScaler(), make_pipeline(MinMaxScaler(), SimpleImputer())),
    make_pipeline(KNNImputer(), StandardScaler()),
    SimpleImputer(),
    KNNImputer(),
    IterativeImputer(max_iter=2),
]


@pytest.fixture
def table(planted):
    return planted(m=60, n=12, rank=2, noise=0.2, share_missing=0.1).X


@pytest.mark.parametrize("estimator", PREDICTORS, ids=lambda e: str(e)[:60])
def test_whatever_predicts_entries_is_scored(table, estimator):
    scores = cross_validate_entries(estimator, table, cv=3, random_state=0)
    assert set(scores) == {"fit_time", "score_time", "test_score"}
    assert all(values.shape == (3,) for values in scores.values())
    assert (scores["test_score"] < 0).all()
    if "SimpleImputer" not in str(estimator):
        means = cross_validate_entries(SimpleImputer(), table, cv=3, random_state=0)
        assert scores["test_score"].mean() > 0.9 * means["test_score"].mean()


def test_scores_are_those_of_a_loop_over_the_folds(table):
    found = cross_validate_entries(
        SimpleImputer(),
        table,
        cv=4,
        random_state=3,
        scoring=["neg_mean_absolute_error", "r2"],
        return_train_score=True,
    )
    places = np.argwhere(~np.isnan(table))
    order = np.random.RandomState(3).permutation(len(places))
    for k in range(4):
        X, held = table.copy(), places[order[k::4]].T
        X[tuple(held)] = np.nan
        means, truth = np.nanmean(X, axis=0)[held[1]], table[tuple(held)]
        error = np.abs(means - truth).mean()
        assert found["test_neg_mean_absolute_error"][k] == pytest.approx(-error)
        explained = (
            1 - ((means - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
        )
        assert found["test_r2"][k] == pytest.approx(explained)
    assert_array_equal(found["train_neg_mean_absolute_error"], 0)


def test_scorers_may_be_callables_with_names(table):
    largest = make_scorer(max_error, greater_is_better=False)
    one = cross_validate_entries(
        KNNImputer(), table, cv=2, scoring=largest, random_state=0
    )
    named = cross_validate_entries(
        KNNImputer(), table, cv=2, scoring={"worst": largest}, random_state=0
    )
    assert_array_equal(one["test_score"], named["test_worst"])


def test_sparse_is_the_same_as_dense(table):
    table[table > 1] = 0.0
    model = MaskedGradientMF(4)
    expected = cross_validate_entries(model, table, cv=3, random_state=0)
    for container in (sparse.csr_array, sparse.csc_array, sparse.coo_array):
        X = stored(table, container)
        found = cross_validate_entries(model, X, cv=3, random_state=0)
        assert_allclose(found["test_score"], expected["test_score"], rtol=1e-8)


def test_folds_may_be_fitted_at_once(table):
    options = {"cv": 3, "random_state": 0, "return_estimator": True}
    one = cross_validate_entries(MFImputer(), table, **options)
    two = cross_validate_entries(MFImputer(), table, n_jobs=2, **options)
    assert_array_equal(one["test_score"], two["test_score"])
    assert [type(model) for model in two["estimator"]] == 3 * [MFImputer]
    assert len({model.mean_[0] for model in two["estimator"]}) == 3


def test_the_estimator_itself_is_not_fitted(table):
    model = MFImputer()
    cross_validate_entries(model, table, cv=2, random_state=0)
    assert not hasattr(model, "factorization_")


@pytest.mark.parametrize(
    "estimator, container, message",
    [
        (StandardScaler(), np.array, "leaves hidden entries missing"),
        *(
            (imputer(add_indicator=True), np.array, r"add any \(add_indicator=False\)")
            for imputer in (MFImputer, SimpleImputer, KNNImputer)
        ),
        (GradientMF(2), sparse.csr_array, "for zeros, so entries cannot be hidden"),
        (MFImputer(), sparse.csr_array, "needs an estimator with predict_entries"),
    ],
)
def test_what_does_not_predict_is_refused(table, estimator, container, message):
    X = np.array(table) if container is np.array else stored(table, container)
    with pytest.raises(ValueError, match=message):
        cross_validate_entries(estimator, X, cv=2, random_state=0)


@pytest.mark.filterwarnings("ignore:Skipping features without any observed values")
@pytest.mark.parametrize("imputer", [MFImputer, SimpleImputer, KNNImputer])
def test_an_imputer_that_drops_columns_is_told_to_keep_them(table, imputer):
    table[:, 3] = np.nan
    table[5, 3] = 1.0  # empty whenever this entry is held out
    with pytest.raises(ValueError, match="use keep_empty_features=True"):
        cross_validate_entries(imputer(), table, cv=2, random_state=0)
    kept = imputer(keep_empty_features=True)
    scores = cross_validate_entries(kept, table, cv=2, random_state=0)
    assert np.isfinite(scores["test_score"]).all()


def test_a_scaled_imputer_is_scored_in_the_units_of_the_data(table):
    """Scaling by one number changes no imputed value; scores are those without."""
    doubled = FunctionTransformer(lambda X: 2 * X, lambda X: X / 2, check_inverse=False)
    found, expected = (
        cross_validate_entries(model, table, cv=3, random_state=0)["test_score"]
        for model in (make_pipeline(doubled, KNNImputer()), KNNImputer())
    )
    assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "scoring, message",
    [
        (mean_squared_error, "make_scorer"),
        ("no_such_score", "no_such_score"),
        ([], "Empty list"),
    ],
)
def test_scores_that_are_refused(table, scoring, message):
    with pytest.raises(ValueError, match=message):
        cross_validate_entries(SimpleImputer(), table, cv=2, scoring=scoring)


@pytest.mark.parametrize("cv", [1, 0, 2.5, None])
def test_folds_that_are_refused(table, cv):
    with pytest.raises(ValueError, match="cv must be a number of folds"):
        cross_validate_entries(SimpleImputer(), table, cv=cv)


# Scorers of hidden entries


FITTED_BY_ROWS = [
    GradientMF(2),
    MaskedGradientMF(3),
    MFImputer(),
    make_pipeline(StandardScaler(), MaskedGradientMF(3)),
    make_pipeline(StandardScaler(), MFImputer()),
    KNNImputer(),
]


def hidden_entries(model, X, n_folds=5):
    """What a fitted model predicts of each entry from the others of its row, and X."""
    found, truth = [], []
    for row in X:
        seen = np.flatnonzero(~np.isnan(row))
        for fold in range(n_folds):
            part = row.copy()
            part[seen[fold::n_folds]] = np.nan
            Z = model.transform(part[None])
            if hasattr(model, "inverse_transform") and Z.shape[1] != len(row):
                Z = model.inverse_transform(Z)
            found.extend(Z[0, seen[fold::n_folds]])
            truth.extend(row[seen[fold::n_folds]])
    return np.array(found), np.array(truth)


@pytest.mark.parametrize("model", FITTED_BY_ROWS[:3] + FITTED_BY_ROWS[-1:], ids=str)
@pytest.mark.parametrize("n_folds", [2, 5])
def test_a_scorer_hides_every_entry_once(table, model, n_folds):
    model = clone(model).fit(table[:40])
    found, truth = hidden_entries(model, table[40:], n_folds)
    for scoring, expected in (
        ("neg_root_mean_squared_error", -np.sqrt(np.mean((found - truth) ** 2))),
        ("neg_mean_absolute_error", -np.abs(found - truth).mean()),
        ("r2", 1 - ((found - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()),
    ):
        scorer = make_entries_scorer(scoring, n_folds=n_folds)
        assert scorer(model, table[40:]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("Estimator", [GradientMF, MaskedGradientMF])
def test_it_hides_what_the_score_hides(table, Estimator):
    model = Estimator(2).fit(table)
    squares = make_entries_scorer("neg_mean_squared_error")(model, table)
    total = np.nanmean((table - model.column_mean_) ** 2)
    assert 1 + squares / total == pytest.approx(model.score(table), rel=1e-9)


@pytest.mark.parametrize("model", FITTED_BY_ROWS, ids=lambda e: str(e)[:60])
def test_cross_val_score_takes_it_without_y(table, model):
    scores = cross_val_score(
        model, table, cv=3, scoring=make_entries_scorer(), error_score="raise"
    )
    assert scores.shape == (3,)
    assert (scores < 0).all()
    scaled = cross_val_score(model, 4 * table, cv=3, scoring=make_entries_scorer())
    assert_allclose(scaled, 4 * scores, rtol=0.02)  # in units of X


@pytest.mark.parametrize("Estimator", [GradientMF, MaskedGradientMF, MFImputer])
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_a_grid_search_takes_it_and_finds_the_rank(planted, Estimator, n_jobs):
    X = planted(m=150, n=15, rank=2, noise=0.3, share_missing=0.1).X
    grid = {"rank": [1, 2], "reg": [1.0]}
    scorer = make_entries_scorer()
    search = GridSearchCV(Estimator(), grid, scoring=scorer, cv=3, n_jobs=n_jobs)
    search.fit(X)
    assert search.best_params_["rank"] == 2
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert -search.best_score_ == pytest.approx(0.35, abs=0.1)
    assert search.score(X) == scorer(search.best_estimator_, X)


def test_it_gives_several_scores_at_once(table):
    scorer = make_entries_scorer(["r2", "neg_mean_absolute_error"])
    found = cross_validate(MFImputer(), table, cv=2, scoring=scorer)
    alone = make_entries_scorer("r2")
    expected = cross_val_score(MFImputer(), table, cv=2, scoring=alone)
    assert_array_equal(found["test_r2"], expected)
    assert (found["test_neg_mean_absolute_error"] < 0).all()
    search = GridSearchCV(MFImputer(), {"rank": [1, 2]}, scoring=scorer, refit="r2")
    assert search.fit(table).best_params_ == {"rank": 2}


def test_it_takes_metrics_of_ones_own(table):
    largest = make_scorer(max_error, greater_is_better=False)
    model = MaskedGradientMF(3).fit(table)
    found, truth = hidden_entries(model, table)
    score = make_entries_scorer(largest)(model, table)
    assert score == pytest.approx(-np.abs(found - truth).max(), rel=1e-9)


def test_sparse_data_are_scored_as_dense_ones(table):
    scorer = make_entries_scorer()
    model = MaskedGradientMF(3)
    expected = cross_val_score(model, table, cv=3, scoring=scorer)
    for container in (sparse.csr_array, sparse.csc_matrix):
        X = stored(table, container)
        found = cross_val_score(model, X, cv=3, scoring=scorer)
        assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("Frame", [pd.DataFrame, pl.DataFrame])
def test_frames_keep_their_names(table, Frame):
    names = [f"c{k}" for k in range(table.shape[1])]
    X = Frame({name: table[:, k] for k, name in enumerate(names)})
    for model in (MFImputer(), make_pipeline(StandardScaler(), MaskedGradientMF(3))):
        expected = make_entries_scorer()(clone(model).fit(table), table)
        found = make_entries_scorer()(clone(model).fit(X), X)
        assert found == pytest.approx(expected, rel=1e-9)


def test_it_can_be_pickled_and_works_with_routing(table):
    scorer = pickle.loads(pickle.dumps(make_entries_scorer("r2", n_folds=3)))
    assert "n_folds=3" in repr(scorer)
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(MFImputer(), {"rank": [1, 2]}, scoring=scorer, cv=2)
        assert search.fit(table).best_params_ == {"rank": 2}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"n_folds": 1}, "n_folds must be a number of folds"),
        ({"n_folds": 2.5}, "n_folds must be a number of folds"),
        ({"scoring": "no_such_score"}, "no_such_score"),
        ({"scoring": mean_squared_error}, "make_scorer"),
        ({"scoring": []}, "Empty list"),
    ],
    ids=["one fold", "half a fold", "no such name", "a metric", "none"],
)
def test_scorers_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_entries_scorer(**options)


def test_what_a_scorer_cannot_score_is_refused(table):
    scorer = make_entries_scorer()
    imputer = MFImputer(add_indicator=True).fit(table)
    with pytest.raises(ValueError, match="must not drop columns"):
        scorer(imputer, table)
    with pytest.raises(ValueError, match="leaves hidden entries missing"):
        scorer(StandardScaler().fit(table), table)
    with pytest.raises(ValueError, match="for zeros, so entries cannot be hidden"):
        scorer(GradientMF(2).fit(table), stored(table))
    with pytest.raises(ValueError, match="every entry of X is missing"):
        scorer(MFImputer().fit(table), np.full_like(table, np.nan))


# What it is for: settings


def test_the_planted_rank_is_found_by_the_score_and_by_learning(planted):
    """In 19 of 20 seeds; the error of a reconstruction would take the largest."""
    by_score, by_learning = 0, 0
    for seed in range(20):
        X = planted(150, 30, 3, noise=0.3, share_missing=0.1, seed=seed).X
        ranks = {"rank": [2, 3, 4, 6]}
        search = GridSearchCV(GradientMF(max_iter=10, tol=1e-3), ranks, cv=3).fit(X)
        by_score += search.best_params_["rank"] == 3
        by_learning += MaskedGradientMF(10).fit(X).rank_ == 3
    assert by_score >= 19
    assert by_learning >= 19


def test_a_grid_search_in_workers_is_the_same(table):
    grid = {"mfimputer__rank": [1, 2, 4], "mfimputer__reg": ["auto", 1.0]}
    pipeline = make_pipeline(StandardScaler(), MFImputer())
    one, two = (
        GridSearchCV(pipeline, grid, cv=2, n_jobs=n_jobs).fit(table)
        for n_jobs in (None, 2)
    )
    assert one.best_params_ == two.best_params_
    assert_allclose(
        one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"]
    )


@pytest.mark.parametrize("solver", ["als", "scaled", "gd", "sgd"])
def test_a_grid_search_over_steps_and_ridges(table, solver):
    model = MaskedGradientMF(2, solver=solver, max_iter=5, random_state=0)
    grid = {"eta": ["auto", 1e-3], "reg": [0.1, 10.0]}
    search = GridSearchCV(model, grid, cv=2).fit(table)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_params_["eta"] == "auto"
