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
from sklearn.metrics import make_scorer, max_error, mean_squared_error, r2_score
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

LARGEST_ERROR = make_scorer(max_error, greater_is_better=False)


@pytest.fixture
def table(planted):
    return planted(m=60, n=12, rank=2, noise=0.2, share_missing=0.1).X


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
        assert_array_equal((~np.isnan(train)).any(axis=axis), seen.any(axis=axis))
    of_sparse = train_test_split_entries(stored(X), **options)
    assert_array_equal([dense(part) for part in of_sparse], [train, test])


@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
@pytest.mark.parametrize("kind, dtype", [("array", "f4"), ("matrix", "f8")])
def test_sparse_parts_are_of_the_same_kind(format, kind, dtype):
    container = getattr(sparse, f"{format}_{kind}")
    X = container(np.arange(20, dtype=dtype).reshape(4, 5))
    for part in train_test_split_entries(X, random_state=0):
        assert type(part) is container
        assert part.dtype == dtype
        assert part.shape == X.shape


def test_a_number_holds_out_that_many_which_the_seed_chooses():
    def held_out(seed):
        _, test = train_test_split_entries(
            np.ones((5, 6)), test_size=7, random_state=seed
        )
        return ~np.isnan(test)

    chosen = np.array([held_out(seed) for seed in range(200)])
    assert (chosen.sum(axis=(1, 2)) == 7).all()
    assert (chosen.sum(axis=0) > 10).all()  # no entry is spared
    assert_array_equal(chosen[0], held_out(0))


@pytest.mark.parametrize(
    "X, test_size, message",
    [
        (np.ones((3, 3)), 0.0, "test_size must be a share"),
        (np.ones((3, 3)), 1.5, "test_size must be a share"),
        (np.ones((3, 3)), True, "test_size must be a share"),
        (np.ones((3, 3)), "many", "test_size must be a share"),
        (np.where(np.eye(3) > 0, 1, np.nan), 0.4, "only 0 can be"),
        (np.ones((3, 3)), 8, "hold out 8 of 9 observed entries, but only [45]"),
        (sparse.coo_array(([1.0, 2.0], ([0, 0], [1, 1]))), 0.5, "more than once"),
    ],
)
def test_splits_that_are_refused(X, test_size, message):
    with pytest.raises(ValueError, match=message):
        train_test_split_entries(X, test_size=test_size, random_state=0)


@pytest.mark.parametrize("container", [np.array, sparse.csr_array, sparse.coo_matrix])
def test_infinity_is_refused_as_the_estimators_do(container):
    X = container(np.array([[1.0, 2, 3], [4, 5, -np.inf], [6, 7, 8]]))
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


@pytest.mark.parametrize(
    "estimator",
    [
        MaskedGradientMF(4),
        GradientMF(2, reg=1.0),
        MFImputer(sample_posterior=True, random_state=0),
        make_pipeline(StandardScaler(), MaskedGradientMF(4)),
        make_pipeline(StandardScaler(), MFImputer()),
        make_pipeline(StandardScaler(), make_pipeline(MinMaxScaler(), KNNImputer())),
        make_pipeline(KNNImputer(), StandardScaler()),
        IterativeImputer(max_iter=2),
    ],
    ids=lambda estimator: str(estimator)[:60],
)
def test_whatever_predicts_entries_is_scored(table, estimator):
    scores = cross_validate_entries(estimator, table, cv=3, random_state=0)
    assert set(scores) == {"fit_time", "score_time", "test_score"}
    assert all(values.shape == (3,) for values in scores.values())
    means = cross_validate_entries(SimpleImputer(), table, cv=3, random_state=0)
    assert 0 > scores["test_score"].mean() > 0.9 * means["test_score"].mean()


def test_scores_are_those_of_a_loop_over_the_folds(table):
    scores = cross_validate_entries(
        SimpleImputer(),
        table,
        cv=4,
        random_state=3,
        scoring={"worst": LARGEST_ERROR, "r2": "r2"},
        return_train_score=True,
    )
    places = np.argwhere(~np.isnan(table))
    order = np.random.RandomState(3).permutation(len(places))
    for k in range(4):
        X, held_out = table.copy(), tuple(places[order[k::4]].T)
        X[held_out] = np.nan
        predicted, truth = np.nanmean(X, axis=0)[held_out[1]], table[held_out]
        worst = max_error(truth, predicted)
        assert scores["test_worst"][k] == pytest.approx(-worst)
        assert scores["test_r2"][k] == pytest.approx(r2_score(truth, predicted))
    # An imputer returns the entries that it was shown.
    assert_array_equal(scores["train_worst"], 0)
    assert_array_equal(scores["train_r2"], 1)


@pytest.mark.slow
@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_matrix])
def test_sparse_data_have_the_scores_of_dense_ones(table, container):
    table[table > 1] = 0.0
    model, X = MaskedGradientMF(4), stored(table, container)
    found, expected = (
        cross_validate_entries(model, data, cv=3, random_state=0)["test_score"]
        for data in (X, table)
    )
    assert_allclose(found, expected, rtol=1e-8)
    model, scorer = model.fit(X), make_entries_scorer()
    assert scorer(model, X) == pytest.approx(scorer(model, table), rel=1e-8)


@pytest.mark.slow
def test_folds_may_be_fitted_at_once_in_clones(table):
    options = {"cv": 3, "random_state": 0, "return_estimator": True}
    model = MFImputer()
    one, two = (
        cross_validate_entries(model, table, n_jobs=n_jobs, **options)
        for n_jobs in (None, 2)
    )
    assert_array_equal(one["test_score"], two["test_score"])
    assert [type(fitted) for fitted in two["estimator"]] == 3 * [MFImputer]
    assert len({fitted.mean_[0] for fitted in two["estimator"]}) == 3
    assert not hasattr(model, "factorization_")


@pytest.mark.parametrize(
    "estimator, message",
    [
        (StandardScaler(), "leaves hidden entries missing"),
        (MFImputer(add_indicator=True), r"add any \(add_indicator=False\)"),
        (KNNImputer(add_indicator=True), r"add any \(add_indicator=False\)"),
    ],
    ids=str,
)
def test_what_does_not_predict_every_entry_is_refused(table, estimator, message):
    with pytest.raises(ValueError, match=message):
        cross_validate_entries(estimator, table, cv=2, random_state=0)
    with pytest.raises(ValueError, match=message):
        make_entries_scorer()(estimator.fit(table), table)


@pytest.mark.parametrize(
    "estimator, message",
    [
        (GradientMF(2), "for zeros, so entries cannot be hidden"),
        (MFImputer(), "needs an estimator with predict_entries"),
        (SimpleImputer(), "needs an estimator with predict_entries"),
    ],
    ids=str,
)
def test_what_cannot_predict_entries_of_sparse_data_is_refused(
    table, estimator, message
):
    with pytest.raises(ValueError, match=message):
        cross_validate_entries(estimator, stored(table), cv=2)
    with pytest.raises(ValueError, match=message):
        make_entries_scorer()(estimator.fit(table), stored(table))


@pytest.mark.filterwarnings("ignore:Skipping features without any observed values")
@pytest.mark.parametrize("imputer", [MFImputer, SimpleImputer])
def test_an_imputer_that_drops_columns_is_told_to_keep_them(table, imputer):
    table[:, 3] = np.nan
    table[5, 3] = 1.0  # empty whenever this entry is held out
    with pytest.raises(ValueError, match="use keep_empty_features=True"):
        cross_validate_entries(imputer(), table, cv=2, random_state=0)
    kept = imputer(keep_empty_features=True)
    scores = cross_validate_entries(kept, table, cv=2, random_state=0)
    assert np.isfinite(scores["test_score"]).all()


def test_a_scaled_imputer_is_scored_in_the_units_of_the_data(table):
    """Scaling by one number changes no imputed value, so scores stay the same."""
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
    ids=["a metric", "no such name", "none"],
)
def test_scores_that_are_refused(table, scoring, message):
    with pytest.raises(ValueError, match=message):
        cross_validate_entries(SimpleImputer(), table, cv=2, scoring=scoring)
    with pytest.raises(ValueError, match=message):
        make_entries_scorer(scoring)


def test_numbers_of_folds_that_are_refused(table):
    for number in (1, 2.5, None):
        with pytest.raises(ValueError, match="cv must be a number of folds"):
            cross_validate_entries(SimpleImputer(), table, cv=number)
        with pytest.raises(ValueError, match="n_folds must be a number of folds"):
            make_entries_scorer(n_folds=number)
    with pytest.raises(ValueError, match="need as many observed entries; X has 3"):
        cross_validate_entries(SimpleImputer(), np.ones((1, 3)), cv=4)


# Scorers of hidden entries


def hidden_entries(model, X, n_folds):
    """What a fitted model predicts of each entry from the others of its row, and X."""
    predicted, truth = [], []
    for row in X:
        seen = np.flatnonzero(~np.isnan(row))
        for fold in range(n_folds):
            hidden, shown = seen[fold::n_folds], row.copy()
            shown[hidden] = np.nan
            Z = model.transform(shown[None])
            if Z.shape[1] != len(row):
                Z = model.inverse_transform(Z)
            predicted.extend(Z[0, hidden])
            truth.extend(row[hidden])
    return np.array(truth), np.array(predicted)


@pytest.mark.parametrize(
    "model, n_folds",
    [(GradientMF(2), 2), (MaskedGradientMF(3), 5), (MFImputer(), 3), (KNNImputer(), 5)],
    ids=str,
)
def test_a_scorer_hides_every_entry_once(table, model, n_folds):
    model.fit(table[:40])
    truth, predicted = hidden_entries(model, table[40:], n_folds)
    mean_square = mean_squared_error(truth, predicted)
    for scoring, expected in (
        ("neg_root_mean_squared_error", -np.sqrt(mean_square)),
        ("r2", r2_score(truth, predicted)),
        (LARGEST_ERROR, -max_error(truth, predicted)),
    ):
        scorer = make_entries_scorer(scoring, n_folds=n_folds)
        assert scorer(model, table[40:]) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("Estimator", [GradientMF, MaskedGradientMF])
def test_a_scorer_hides_what_the_method_score_hides(table, Estimator):
    model = Estimator(2).fit(table)
    squares = make_entries_scorer("neg_mean_squared_error")(model, table)
    total = np.nanmean((table - model.column_mean_) ** 2)
    assert 1 + squares / total == pytest.approx(model.score(table), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [MaskedGradientMF(3), make_pipeline(StandardScaler(), MFImputer()), KNNImputer()],
    ids=lambda model: str(model)[:40],
)
def test_cross_val_score_takes_a_scorer_without_y(table, model):
    options = {"cv": 3, "scoring": make_entries_scorer(), "error_score": "raise"}
    scores = cross_val_score(model, table, **options)
    assert (scores < 0).all()
    scaled = cross_val_score(model, 4 * table, **options)
    assert_allclose(scaled, 4 * scores, rtol=0.02)  # in units of X


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator, n_jobs", [(GradientMF(), None), (MFImputer(), 2)], ids=str
)
def test_a_grid_search_finds_the_rank_by_a_scorer(planted, estimator, n_jobs):
    X = planted(m=150, n=15, rank=2, noise=0.3, share_missing=0.1).X
    scorer = make_entries_scorer()
    grid = {"rank": [1, 2], "reg": [1.0]}
    search = GridSearchCV(estimator, grid, scoring=scorer, cv=3, n_jobs=n_jobs).fit(X)
    assert search.best_params_["rank"] == 2
    assert -search.best_score_ == pytest.approx(0.35, abs=0.1)
    assert search.score(X) == scorer(search.best_estimator_, X)


def test_a_scorer_gives_several_scores_at_once(table):
    scorer = make_entries_scorer(["r2", "neg_mean_absolute_error"])
    scores = cross_validate(MFImputer(4), table, cv=2, scoring=scorer)
    r2 = make_entries_scorer("r2")
    expected = cross_val_score(MFImputer(4), table, cv=2, scoring=r2)
    assert_array_equal(scores["test_r2"], expected)
    assert (scores["test_neg_mean_absolute_error"] < 0).all()


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("Frame", [pd.DataFrame, pl.DataFrame])
def test_frames_keep_their_names(table, Frame):
    X = Frame({f"c{k}": column for k, column in enumerate(table.T)})
    for model in (MFImputer(), make_pipeline(StandardScaler(), MaskedGradientMF(3))):
        expected = make_entries_scorer()(clone(model).fit(table), table)
        found = make_entries_scorer()(model.fit(X), X)
        assert found == pytest.approx(expected, rel=1e-9)


def test_a_scorer_can_be_pickled_and_works_with_routing(table):
    scorer = pickle.loads(pickle.dumps(make_entries_scorer("r2", n_folds=3)))
    assert "n_folds=3" in repr(scorer)
    with sklearn.config_context(enable_metadata_routing=True):
        search = GridSearchCV(MFImputer(), {"rank": [1, 2]}, scoring=scorer, cv=2)
        assert search.fit(table).best_params_ == {"rank": 2}


def test_nothing_observed_is_nothing_to_score(table):
    with pytest.raises(ValueError, match="every entry of X is missing"):
        make_entries_scorer()(MFImputer().fit(table), np.full_like(table, np.nan))


# What it is for: settings


@pytest.mark.slow
@pytest.mark.accuracy
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


@pytest.mark.parametrize("solver", ["als", "scaled", "gd", "sgd"])
def test_a_grid_search_chooses_among_steps_and_ridges(table, solver):
    model = MaskedGradientMF(2, solver=solver, max_iter=5, random_state=0)
    grid = {"eta": ["auto", 1e-3], "reg": [0.1, 10.0]}
    search = GridSearchCV(model, grid, cv=2).fit(table)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_params_["eta"] == "auto"
