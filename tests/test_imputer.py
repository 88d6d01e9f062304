"""Imputation: what is observed stays, and what is missing is filled well."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_mfgd import MaskedGradientMF, MFImputer, _imputer

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture
def table(planted):
    """A table of ten columns in units of their own, 30 % missing."""
    data = planted(m=120, n=10, rank=2, noise=0.2, share_missing=0.3)
    units = 10.0 ** np.random.RandomState(1).uniform(-3, 3, size=10)
    return data._replace(
        X=units * data.X + 5 * units, complete=units * data.complete + 5 * units
    )


def rmse(filled, data):
    """Error of the holes in standard deviations of the columns."""
    errors = (filled - data.complete) / data.complete.std(axis=0)
    return np.sqrt(np.mean(errors[np.isnan(data.X)] ** 2))


# What comes back


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"sample_posterior": True}, {"reg": 1.0}])
def test_what_is_observed_comes_back_bit_by_bit(table, dtype, options):
    X = table.X.astype(dtype)
    before = X.copy()
    filled = MFImputer(3, random_state=0, max_iter=20, **options).fit_transform(X)
    seen = ~np.isnan(X)
    assert filled.dtype == dtype
    assert_array_equal(filled[seen], X[seen])
    assert np.isfinite(filled).all()
    assert_array_equal(X, before)


def test_holes_are_filled_with_what_the_factorization_predicts(table):
    imputer = MFImputer().fit(table.X)
    shift, width = np.nanmean(table.X, axis=0), np.nanstd(table.X, axis=0)
    model = MaskedGradientMF(9, fit_bias="columns", pattern=False)
    predicted = model.inverse_transform(model.fit_transform((table.X - shift) / width))
    expected = shift + predicted * width
    filled = imputer.transform(table.X)
    holes = np.isnan(table.X)
    assert_allclose(filled[holes], expected[holes], rtol=1e-6)


def test_it_beats_neighbours_and_means_on_a_table_of_factors(table):
    ours = rmse(MFImputer().fit_transform(table.X), table)
    neighbours = rmse(KNNImputer().fit_transform(table.X), table)
    means = rmse(SimpleImputer().fit_transform(table.X), table)
    assert ours < 0.6 * neighbours < 0.9 * means


def test_new_rows_are_filled_by_what_was_fitted(table):
    imputer = MFImputer().fit(table.X[:80])
    whole = imputer.transform(table.X[80:])
    alone = np.vstack([imputer.transform(row[None]) for row in table.X[80:]])
    assert_allclose(alone, whole, rtol=1e-9)
    new = table._replace(X=table.X[80:], complete=table.complete[80:])
    assert rmse(whole, new) < 0.5


def test_a_row_with_nothing_observed_gets_about_the_means(table):
    imputer = MFImputer().fit(table.X)
    filled = imputer.transform(np.full((1, 10), np.nan))[0]
    assert (np.abs(filled - imputer.mean_) < 0.3 * imputer.scale_).all()


def test_units_do_not_matter(table):
    units = 2.0 ** np.array([0, 3, -5, 10, 0, 1, -9, 2, 4, 4])
    filled = MFImputer().fit_transform(table.X)
    assert_allclose(MFImputer().fit_transform(units * table.X), units * filled)


@pytest.mark.parametrize("size", [1e-150, 1e150, 1e300])
def test_values_of_any_size(table, size):
    scaled = MFImputer().fit_transform(size * table.X)
    assert_allclose(scaled / size, MFImputer().fit_transform(table.X), rtol=1e-6)


def test_columns_of_very_different_size_at_once(table):
    units = np.where(np.arange(10) % 2, 1e-150, 1e150)
    filled = MFImputer().fit_transform(units * table.X)
    assert_allclose(filled / units, MFImputer().fit_transform(table.X), rtol=1e-6)


def test_a_constant_column_is_filled_with_its_value(table):
    table.X[:, 3] = np.where(np.isnan(table.X[:, 3]), np.nan, 0.1)
    filled = MFImputer().fit_transform(table.X)
    assert_allclose(filled[:, 3], 0.1, rtol=1e-6)


def test_a_column_far_from_zero_counts_in_single_precision_as_well(planted):
    data = planted(m=400, n=6, rank=2, noise=0.2, share_missing=0.3)
    # A pressure in single precision: its digits end at 1e-4 of 1000.
    unit, offset = np.ones(6), np.zeros(6)
    unit[0], offset[0] = 0.005 / data.complete[:, 0].std(), 1000
    X = (offset + unit * data.X).astype(np.float32)
    expected, expected_std = MFImputer().fit(X.astype(float)).impute(X, return_std=True)
    imputer = MFImputer().fit(X)
    filled, std = imputer.impute(X, return_std=True)
    assert 0.004 < imputer.scale_[0] < 0.006
    assert_allclose((filled - expected) / imputer.scale_, 0, atol=0.02)
    assert_allclose(std, expected_std, rtol=1e-3)


def test_without_scale_columns_are_centred_only(table):
    imputer = MFImputer(scale=False).fit(table.X)
    assert (imputer.scale_ == imputer.scale_[0]).all()
    assert_allclose(imputer.mean_, np.nanmean(table.X, axis=0))
    model = MaskedGradientMF(9, fit_bias="columns", pattern=False)
    Z = (table.X - imputer.mean_) / imputer.scale_
    predicted = model.inverse_transform(model.fit_transform(Z))
    expected = imputer.mean_ + imputer.scale_ * predicted
    holes = np.isnan(table.X)
    filled = imputer.transform(table.X)
    assert_allclose(filled[holes], expected[holes], rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    m=st.integers(1, 12),
    n=st.integers(1, 8),
    share=st.floats(0, 0.9),
    seed=st.integers(0, 1000),
)
def test_any_shape_and_pattern_is_filled(m, n, share, seed):
    rng = np.random.RandomState(seed)
    X = rng.standard_normal((m, n))
    X[rng.uniform(size=X.shape) < share] = np.nan
    X[0, 0] = 1.0
    imputer = MFImputer(max_iter=10, keep_empty_features=True)
    filled = imputer.fit_transform(X)
    assert filled.shape == X.shape
    assert np.isfinite(filled).all()
    assert_array_equal(filled[~np.isnan(X)], X[~np.isnan(X)])
    assert_array_equal(imputer.transform(X), filled)


def test_large_tables_are_filled_in_single_precision_as_well(monkeypatch, table):
    expected = MFImputer().fit_transform(table.X)
    monkeypatch.setattr(_imputer, "LARGE", 1000)
    filled = MFImputer().fit_transform(table.X)
    seen = ~np.isnan(table.X)
    assert filled.dtype == np.float64
    assert_array_equal(filled[seen], table.X[seen])
    assert rmse(filled, table) == pytest.approx(rmse(expected, table), rel=1e-3)
    assert not np.array_equal(filled, expected)


# Empty columns, limits, indicators, names


@pytest.fixture
def with_empty(table):
    X = table.X.copy()
    X[:, 4] = np.nan
    return X


def test_empty_columns_are_dropped_or_kept_as_zeros(with_empty):
    dropped = MFImputer().fit_transform(with_empty)
    kept = MFImputer(keep_empty_features=True).fit_transform(with_empty)
    assert dropped.shape == (120, 9)
    assert_array_equal(np.delete(kept, 4, axis=1), dropped)
    assert_array_equal(kept[:, 4], 0)


def test_a_kept_column_that_was_empty_keeps_what_it_has_later(with_empty):
    imputer = MFImputer(keep_empty_features=True).fit(with_empty)
    new = with_empty[:3].copy()
    new[1, 4] = 7.0
    assert_array_equal(imputer.transform(new)[:, 4], [0, 7, 0])


def test_columns_that_become_empty_are_filled(table):
    imputer = MFImputer().fit(table.X)
    new = table.X[:20].copy()
    new[:, 2] = np.nan
    filled = imputer.transform(new)
    assert filled.shape == (20, 10)
    error = filled[:, 2] - table.complete[:20, 2]
    assert np.sqrt(np.mean(error**2)) < 0.8 * table.complete[:, 2].std()


@pytest.mark.parametrize("per_column", [False, True])
def test_limits_cut_what_is_imputed_and_leave_the_rest(table, per_column):
    low, high = np.nanquantile(table.X, [0.4, 0.6], axis=0)
    if not per_column:
        low, high = 4.0, 6.0
    X = table.X
    filled = MFImputer(min_value=low, max_value=high).fit_transform(X)
    free = MFImputer().fit_transform(X)
    holes = np.isnan(X)
    assert_array_equal(filled[~holes], X[~holes])
    assert_array_equal(filled[holes], np.clip(free, low, high)[holes])
    assert not np.array_equal(filled, free)


@pytest.mark.parametrize(
    "limits, expected",
    [
        ({"min_value": 1.0}, 1.0),
        ({"max_value": -2.0}, -2.0),
        ({"min_value": -1.0, "max_value": 1.0}, 0.0),
        ({"min_value": [5.0] * 4 + [7.0] + [5.0] * 5}, 7.0),
        ({"min_value": -np.inf, "max_value": [0.0] * 4 + [-3.0] + [0.0] * 5}, -3.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("options", [{}, {"sample_posterior": True}, {"reg": 1.0}])
def test_a_kept_column_that_was_empty_is_filled_within_the_limits(
    with_empty, limits, expected, options
):
    imputer = MFImputer(3, keep_empty_features=True, max_iter=5, **limits, **options)
    assert_array_equal(imputer.fit_transform(with_empty)[:, 4], expected)
    with_empty[2, 4] = 100.0
    assert imputer.transform(with_empty)[2, 4] == 100


@pytest.mark.filterwarnings("ignore:Skipping features without any observed values")
def test_an_indicator_marks_what_was_imputed_and_takes_it_back(with_empty):
    with_empty[:, 0] = 1.0
    imputer = MFImputer(add_indicator=True)
    filled = imputer.fit_transform(with_empty)
    marks = SimpleImputer(add_indicator=True).fit_transform(with_empty)[:, 9:]
    assert_array_equal(filled[:, 9:], marks)
    assert_array_equal(imputer.inverse_transform(filled), with_empty)


@pytest.mark.filterwarnings("ignore:Skipping features without any observed values")
@pytest.mark.parametrize("keep", [False, True])
def test_names_are_those_of_other_imputers(with_empty, keep):
    frame = pd.DataFrame(with_empty, columns=[f"c{k}" for k in range(10)])
    options = {"add_indicator": True, "keep_empty_features": keep}
    ours = MFImputer(max_iter=3, **options).set_output(transform="pandas")
    theirs = SimpleImputer(**options).set_output(transform="pandas")
    filled, expected = ours.fit_transform(frame), theirs.fit_transform(frame)
    assert list(filled.columns) == list(expected.columns)
    assert_array_equal(
        ours.get_feature_names_out(), theirs.fit(frame).get_feature_names_out()
    )


# Other kinds of input


def test_another_value_may_stand_for_missing(table):
    X = np.where(np.isnan(table.X), -1.0, table.X)
    filled = MFImputer(missing_values=-1).fit_transform(X)
    assert_array_equal(filled, MFImputer().fit_transform(table.X))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("kind", [float, np.float32, np.float64])
def test_a_value_for_missing_is_looked_for_in_the_type_of_the_data(table, dtype, kind):
    X = (table.X / np.nanstd(table.X, axis=0)).astype(dtype)
    expected = MFImputer(max_iter=10).fit_transform(X)
    X[np.isnan(X)] = -99.9
    missing = kind(-99.9) if dtype != np.float64 else -99.9
    found = MFImputer(missing_values=missing, max_iter=10).fit_transform(X)
    assert_array_equal(found, expected)


@pytest.mark.parametrize("narrow", ["float32", "Float32", "float16"])
def test_a_value_for_missing_is_looked_for_in_the_type_of_each_column(table, narrow):
    X = np.where(np.isnan(table.X), -99.9, table.X)
    frame = pd.DataFrame(X[:, 3:], columns=list("abcdefg")).astype({"b": narrow})
    frame["c"] = frame["c"].round().astype(int)  # -100 is no -99.9
    expected = frame.astype(float).mask(frame.astype(float).sub(-99.9).abs() < 0.04)
    found = MFImputer(missing_values=-99.9, max_iter=10).fit_transform(frame)
    assert_array_equal(found, MFImputer(max_iter=10).fit_transform(expected))


def test_a_value_for_missing_that_is_too_large_for_the_type_is_nowhere():
    X = np.random.RandomState(0).standard_normal((20, 4)).astype(np.float32)
    found = MFImputer(missing_values=1e300, max_iter=5).fit_transform(X)
    assert_array_equal(found, X)


def test_zeros_of_integers_may_be_missing():
    rng = np.random.RandomState(0)
    X = rng.randint(0, 5, size=(40, 6))
    filled = MFImputer(missing_values=0).fit_transform(X)
    assert filled.dtype == np.float64
    assert_array_equal(filled[X != 0], X[X != 0])
    expected = MFImputer().fit_transform(np.where(X == 0, np.nan, X))
    assert_array_equal(filled, expected)


def test_nullable_dtypes_of_pandas_are_numbers(table):
    frame = pd.DataFrame(table.X).convert_dtypes()
    assert isinstance(frame.dtypes[0], pd.Float64Dtype)
    filled = MFImputer().fit_transform(frame)
    assert_allclose(filled, MFImputer().fit_transform(table.X), rtol=1e-10)


def test_missing_values_of_pandas_are_nan(table):
    X = table.X.copy()
    X[0] = np.nan_to_num(X[0])
    imputer = MFImputer(missing_values=pd.NA, add_indicator=True)
    filled = imputer.fit_transform(pd.DataFrame(X).convert_dtypes())
    expected = MFImputer(add_indicator=True).fit_transform(X)
    assert_allclose(filled, expected, rtol=1e-10)
    assert_array_equal(imputer.inverse_transform(expected), X)
    complete = table.complete
    assert_array_equal(
        MFImputer(missing_values=pd.NA).fit_transform(complete), complete
    )


# Uncertainty


def test_deviations_are_zero_where_observed_and_calibrated_where_not(planted):
    data = planted(m=400, n=12, rank=3, noise=0.3, share_missing=0.3)
    imputer = MFImputer().fit(data.X)
    filled, std = imputer.impute(data.X, return_std=True)
    holes = np.isnan(data.X)
    assert_array_equal(filled, imputer.transform(data.X))
    assert_array_equal(std[~holes], 0)
    off = np.abs(filled - data.complete)[holes]
    assert 0.92 < np.mean(off < 1.96 * std[holes]) < 0.97


def test_deviations_of_an_empty_column_are_unbounded(with_empty):
    imputer = MFImputer(keep_empty_features=True).fit(with_empty)
    _, std = imputer.impute(with_empty, return_std=True)
    assert np.isinf(std[:, 4]).all()
    assert np.isfinite(np.delete(std, 4, axis=1)).all()


def test_draws_differ_by_the_seed_only(table):
    def filled(seed):
        return MFImputer(sample_posterior=True, random_state=seed).fit(table.X)

    one, same, other = filled(0), filled(0), filled(1)
    found = one.transform(table.X)
    assert_array_equal(one.transform(table.X), found)
    assert_array_equal(same.transform(table.X), found)
    assert not np.array_equal(other.transform(table.X), found)
    rng = np.random.RandomState(0)
    moving = filled(rng)
    assert not np.array_equal(moving.transform(table.X), moving.transform(table.X))


def test_draws_have_the_mean_and_the_spread_of_the_posterior(planted):
    data = planted(m=300, n=12, rank=3, noise=0.3, share_missing=0.3)
    filled, std = MFImputer().fit(data.X).impute(data.X, return_std=True)
    sampler = MFImputer(sample_posterior=True, random_state=np.random.RandomState(0))
    sampler.fit(data.X)
    draws = np.array([sampler.transform(data.X) for _ in range(100)])
    holes = np.isnan(data.X)
    centre, spread = draws.mean(axis=0)[holes], draws.std(axis=0)[holes]
    assert np.mean(np.abs(centre - filled[holes]) / std[holes]) < 0.3
    assert 0.9 < np.median(spread / std[holes]) < 1.2


# Conventions of others


def test_the_score_is_that_of_the_standardized_columns(table):
    imputer = MFImputer().fit(table.X)
    Z = (table.X - imputer.mean_) / imputer.scale_
    expected = imputer.factorization_.score(Z)
    assert imputer.score(table.X) == pytest.approx(expected, rel=1e-9)
    assert imputer.score(table.X) > 0.6


@pytest.mark.parametrize(
    "grid",
    [
        {"rank": [1, 2, 5]},
        {"rank": [2], "reg": [1.0, 100.0]},
        {"reg": [1.0], "solver": ["gd", "als"], "eta": ["auto", 0.01]},
    ],
    ids=str,
)
def test_a_grid_search_finds_settings_alone_and_in_a_pipeline(table, grid):
    search = GridSearchCV(MFImputer(), grid, cv=2, error_score=-1).fit(table.X)
    assert set(search.best_params_) == set(grid)
    grid = {f"mfimputer__{name}": values for name, values in grid.items()}
    pipeline = make_pipeline(MFImputer(), LinearRegression())
    y = table.complete[:, 0]
    search = GridSearchCV(pipeline, grid, cv=2, error_score=-1).fit(table.X, y)
    assert set(search.best_params_) == set(grid)
    assert search.best_score_ > 0.8


def test_a_classifier_profits(planted):
    data = planted(m=300, n=20, rank=3, noise=0.5, share_missing=0.5)
    y = data.W @ [1, -1, 0.5] > 0
    scores = [
        make_pipeline(imputer, LogisticRegression())
        .fit(data.X[:200], y[:200])
        .score(data.X[200:], y[200:])
        for imputer in (MFImputer(), SimpleImputer())
    ]
    assert scores[0] > scores[1] + 0.02


# Bad input


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rank": 0}, "'rank' parameter of MFImputer"),
        ({"reg": 1.0, "sample_posterior": True}, "sample_posterior=True .* reg=1.0"),
        ({"min_value": 2, "max_value": 1}, r"min_value must not exceed .* column 0"),
        ({"min_value": np.inf}, "min_value leaves no finite value .* where it is inf"),
        ({"max_value": [-np.inf] * 10}, "max_value leaves no finite .* it is -inf"),
        ({"min_value": np.inf, "max_value": -np.inf}, "min_value leaves no finite"),
        ({"max_value": [1.0, 2.0]}, r"max_value .* shape \(10,\).* got shape \(2,\)"),
        ({"min_value": [np.nan] * 10}, "min_value must not be NaN"),
        ({"missing_values": "none"}, "'missing_values' parameter of MFImputer"),
        ({"solver": "sgd"}, "reg='auto' works with"),
    ],
    ids=str,
)
def test_parameters_that_are_refused(table, options, message):
    imputer = MFImputer(**options)
    with pytest.raises(ValueError, match=message):
        imputer.fit(table.X)
    assert not hasattr(imputer, "factorization_")


@pytest.mark.parametrize(
    "X, message",
    [
        (np.full((3, 2), np.nan), "every entry of X is missing"),
        ([[1.0, np.inf], [2.0, 3.0]], "contains infinity"),
        ([["a", "b"], ["c", "d"]], "could not convert string to float"),
        (np.zeros((0, 3)), "0 sample"),
        (sparse.csr_array(np.eye(3)), "sparse X is not accepted. Use X.toarray"),
        (pd.DataFrame({"a": pd.Categorical(["x", "y"])}), "Column 'a' .* categories"),
    ],
    ids=["all missing", "infinite", "strings", "no rows", "sparse", "categories"],
)
def test_data_that_are_refused(X, message):
    with pytest.raises(ValueError, match=message):
        MFImputer().fit(X)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1)])
def test_one_row_or_one_column_is_filled(shape):
    X = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    filled = MFImputer().fit_transform(X)
    assert_array_equal(filled, X)
    X = np.array([[1.0], [np.nan], [3.0]])
    assert_allclose(MFImputer().fit_transform(X)[1], 2.0, rtol=1e-6)


def test_what_has_to_be_fitted_first(table):
    for call in ("transform", "impute", "inverse_transform", "score"):
        with pytest.raises(NotFittedError, match="MFImputer instance is not fitted"):
            getattr(MFImputer(), call)(table.X)


def test_other_columns(table):
    imputer = MFImputer(max_iter=3).fit(table.X)
    with pytest.raises(ValueError, match="10 features"):
        imputer.transform(table.X[:, :5])
    frame = pd.DataFrame(table.X, columns=[f"c{k}" for k in range(10)])
    imputer.fit(frame)
    with pytest.raises(ValueError, match="feature names"):
        imputer.transform(frame[frame.columns[::-1]])


def test_nan_among_values_where_another_is_missing(table):
    with pytest.raises(ValueError, match="contains NaN"):
        MFImputer(missing_values=-1).fit(table.X)


def test_what_it_does_not_know(table):
    imputer = MFImputer(2, reg=1.0).fit(table.X)
    with pytest.raises(ValueError, match=r"return_std=True needs .* had reg=1.0"):
        imputer.impute(table.X, return_std=True)
    with pytest.raises(ValueError, match="needs add_indicator=True"):
        imputer.inverse_transform(table.X)
    imputer = MFImputer(2, add_indicator=True, max_iter=3).fit(table.X)
    with pytest.raises(ValueError, match=re.escape("must have 20 columns")):
        imputer.inverse_transform(np.zeros((2, 10)))


def test_an_error_leaves_the_earlier_fit(table):
    imputer = MFImputer(max_iter=3).fit(table.X)
    before = imputer.transform(table.X)
    with pytest.raises(ValueError, match="every entry"):
        imputer.fit(np.full((4, 3), np.nan))
    assert imputer.n_features_in_ == 10
    assert_array_equal(imputer.transform(table.X), before)
    assert clone(imputer).get_params() == imputer.get_params()
