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
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_mfgd import MaskedGradientMF, MFImputer, StackingImputer
from sklearn_mfgd._kernels import linalg
from sklearn_mfgd.impute import _columns

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Skipping features without any observed values"),
    pytest.mark.usefixtures("one_thread"),
]

OPTIONS = [{}, {"sample_posterior": True, "random_state": 0}, {"reg": 1.0}]


@pytest.fixture
def table(planted):
    """A table of ten columns in units of their own, 30 % missing."""
    data = planted(m=120, n=10, rank=2, noise=0.2, share_missing=0.3)
    units = 10.0 ** np.random.RandomState(1).uniform(-3, 3, size=10)
    X, complete = units * (data.X + 5), units * (data.complete + 5)
    return data._replace(X=X, complete=complete)


@pytest.fixture
def with_empty(table):
    """The table without what is observed of a column."""
    X = table.X.copy()
    X[:, 4] = np.nan
    return X


def rmse(filled, data):
    """Error of what was missing in standard deviations of the columns."""
    errors = (filled - data.complete) / data.complete.std(axis=0)
    return np.sqrt(np.mean(errors[~data.mask] ** 2))


# What comes back


@pytest.mark.pairwise(dtype=[np.float32, np.float64], options=OPTIONS)
def test_what_is_observed_comes_back_bit_by_bit(table, dtype, options):
    X = table.X.astype(dtype)
    before = X.copy()
    filled = MFImputer(3, max_iter=20, **options).fit_transform(X)
    assert filled.dtype == dtype
    assert_array_equal(filled[table.mask], X[table.mask])
    assert np.isfinite(filled).all()
    assert_array_equal(X, before)


@pytest.mark.parametrize("scale", [True, False])
def test_a_missing_value_is_filled_with_what_the_factorization_predicts(table, scale):
    imputer = MFImputer(scale=scale).fit(table.X)
    assert_allclose(imputer.mean_, np.nanmean(table.X, axis=0))
    if scale:
        assert_allclose(imputer.scale_, np.nanstd(table.X, axis=0))
    else:
        assert (imputer.scale_ == imputer.scale_[0]).all()
    model = MaskedGradientMF(9, fit_bias="columns", pattern=False)
    standardized = (table.X - imputer.mean_) / imputer.scale_
    Z, covariance = model.fit(standardized).transform(standardized, return_cov=True)
    rows, columns = places = np.nonzero(~table.mask)
    options = {"covariance": covariance, "return_std": True}
    predicted, predicted_std = model.predict_entries(Z, rows, columns, **options)
    filled, std = imputer.impute(table.X, return_std=True)
    expected = imputer.mean_[columns] + imputer.scale_[columns] * predicted
    assert_allclose(filled[places], expected, rtol=1e-6)
    n = table.mask.sum(axis=0)  # values are closer to their own mean than to the true
    unit = imputer.scale_ * np.sqrt(n / (n - 1))
    assert_allclose(std[places], unit[columns] * predicted_std, rtol=1e-6)
    score = model.score(standardized)
    assert imputer.score(table.X) == pytest.approx(score, rel=1e-6)


@pytest.mark.accuracy
def test_it_beats_neighbours_and_means_on_a_table_of_factors(table):
    imputers = MFImputer(), KNNImputer(), SimpleImputer()
    ours, neighbours, means = (rmse(i.fit_transform(table.X), table) for i in imputers)
    assert ours < 0.6 * neighbours < 0.9 * means


def test_new_rows_are_filled_each_by_itself(table):
    imputer = MFImputer().fit(table.X[:80])
    whole = imputer.transform(table.X[80:])
    alone = np.vstack([imputer.transform(row[None]) for row in table.X[80:]])
    assert_allclose(alone, whole, rtol=1e-9)
    new = table._replace(complete=table.complete[80:], mask=table.mask[80:])
    assert rmse(whole, new) < 0.5
    empty = imputer.transform(np.full((1, 10), np.nan))[0]
    assert (np.abs(empty - imputer.mean_) < 0.3 * imputer.scale_).all()


@pytest.mark.parametrize(
    "units",
    [1e-150, 1e300, np.where(np.arange(10) % 2, 1e-150, 1e150), 2.0 ** np.arange(10)],
    ids=["small", "large", "both", "each"],
)
def test_units_do_not_matter(table, units):
    filled = MFImputer().fit_transform(units * table.X)
    assert_allclose(filled / units, MFImputer().fit_transform(table.X), rtol=1e-6)


def test_a_constant_column_is_filled_with_its_value(table):
    table.X[:, 3] = np.where(table.mask[:, 3], 0.1, np.nan)
    assert_allclose(MFImputer().fit_transform(table.X)[:, 3], 0.1, rtol=1e-6)


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


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 8), st.floats(0, 0.9), st.integers(0, 1000))
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


@pytest.mark.parametrize("shape", [(1, 5), (5, 1), (1, 1)])
def test_one_row_or_one_column_is_enough(shape):
    X = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    imputer = MFImputer()
    assert_array_equal(imputer.fit_transform(X), X)
    filled = imputer.transform(np.full((1, shape[1]), np.nan))
    assert_allclose(filled[0], X.mean(axis=0), rtol=1e-6)


def test_a_large_table_is_factorized_in_single_precision(monkeypatch, table):
    expected = MFImputer().fit_transform(table.X)
    monkeypatch.setattr(_columns, "LARGE", 1000)
    filled = MFImputer().fit_transform(table.X)
    assert filled.dtype == np.float64
    assert_array_equal(filled[table.mask], table.X[table.mask])
    assert rmse(filled, table) == pytest.approx(rmse(expected, table), rel=1e-3)
    assert not np.array_equal(filled, expected)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_table_is_filled_block_by_block(monkeypatch, table, options):
    imputer = MFImputer(3, max_iter=20, **options).fit(table.X)
    expected = imputer.transform(table.X)
    monkeypatch.setattr(linalg, "BLOCK", 100)
    filled = imputer.transform(table.X)
    if "sample_posterior" in options:  # the blocks share one sequence of random numbers
        assert rmse(filled, table) < 2 * rmse(expected, table)
    else:
        assert_allclose(filled, expected, rtol=1e-9)


# Empty columns, limits, indicators, names


def test_empty_columns_are_dropped_or_kept_as_zeros_of_unbounded_deviation(with_empty):
    dropped = MFImputer().fit_transform(with_empty)
    imputer = MFImputer(keep_empty_features=True).fit(with_empty)
    kept, std = imputer.impute(with_empty, return_std=True)
    assert dropped.shape == (120, 9)
    assert_array_equal(np.delete(kept, 4, axis=1), dropped)
    assert_array_equal(kept[:, 4], 0)
    assert_array_equal(np.isinf(std), np.arange(10)[None] == 120 * [[4]])
    with_empty[1, 4] = 7.0
    assert_array_equal(imputer.transform(with_empty[:3])[:, 4], [0, 7, 0])


@pytest.mark.accuracy
def test_columns_that_become_empty_are_filled(table):
    imputer = MFImputer().fit(table.X)
    table.X[:, 2], table.mask[:, 2] = np.nan, False
    filled = imputer.transform(table.X[:20])
    assert filled.shape == (20, 10)
    error = filled[:, 2] - table.complete[:20, 2]
    assert np.sqrt(np.mean(error**2)) < 0.8 * table.complete[:, 2].std()


@pytest.mark.parametrize("per_column", [False, True])
def test_limits_cut_what_is_imputed_and_leave_the_rest(table, per_column):
    low, high = np.nanquantile(table.X, [0.4, 0.6], axis=0) if per_column else (4, 6)
    filled = MFImputer(min_value=low, max_value=high).fit_transform(table.X)
    free = MFImputer().fit_transform(table.X)
    expected = np.where(table.mask, table.X, np.clip(free, low, high))
    assert_array_equal(filled, expected)
    assert not np.array_equal(filled, free)


@pytest.mark.pairwise(
    case=[
        ({"min_value": 1.0}, 1.0),
        ({"max_value": -2.0}, -2.0),
        ({"min_value": -1.0, "max_value": 1.0}, 0.0),
        ({"min_value": [5.0] * 4 + [7.0] + [5.0] * 5}, 7.0),
        ({"min_value": -np.inf, "max_value": [0.0] * 4 + [-3.0] + [0.0] * 5}, -3.0),
    ],
    options=OPTIONS,
)
def test_a_kept_empty_column_is_filled_within_limits(with_empty, case, options):
    limits, expected = case
    imputer = MFImputer(3, keep_empty_features=True, max_iter=5, **limits, **options)
    assert_array_equal(imputer.fit_transform(with_empty)[:, 4], expected)
    with_empty[2, 4] = 100.0
    assert imputer.transform(with_empty)[2, 4] == 100


def test_an_indicator_marks_what_was_imputed_and_takes_it_back(with_empty):
    with_empty[:, 0] = 1.0
    imputer = MFImputer(add_indicator=True)
    filled = imputer.fit_transform(with_empty)
    marks = SimpleImputer(add_indicator=True).fit_transform(with_empty)[:, 9:]
    assert_array_equal(filled[:, 9:], marks)
    assert_array_equal(imputer.inverse_transform(filled), with_empty)


@pytest.mark.parametrize("keep", [False, True])
def test_columns_are_named_as_other_imputers_name_them(with_empty, keep):
    frame = pd.DataFrame(with_empty).add_prefix("c")
    options = {"add_indicator": True, "keep_empty_features": keep}
    ours = MFImputer(max_iter=3, **options).set_output(transform="pandas")
    theirs = SimpleImputer(**options).set_output(transform="pandas")
    filled, expected = ours.fit_transform(frame), theirs.fit_transform(frame)
    assert list(filled.columns) == list(expected.columns)
    assert_array_equal(ours.get_feature_names_out(), theirs.get_feature_names_out())


# Other kinds of input


@pytest.mark.pairwise(
    dtype=[np.float16, np.float32, np.float64], kind=[float, np.float32, np.float64]
)
def test_a_marker_is_looked_for_in_the_type_of_the_data(table, dtype, kind):
    X = (table.X / np.nanstd(table.X, axis=0)).astype(dtype)
    expected = MFImputer(max_iter=10).fit_transform(X)
    X[~table.mask] = -99.9
    marker = kind(-99.9) if dtype != np.float64 else -99.9
    filled = MFImputer(missing_values=marker, max_iter=10).fit_transform(X)
    assert_array_equal(filled, expected)


@pytest.mark.parametrize("narrow", ["float32", "Float32", "float16"])
def test_a_marker_is_looked_for_in_the_type_of_each_column(table, narrow):
    X = np.where(table.mask, table.X, -99.9)
    frame = pd.DataFrame(X[:, 3:], columns=list("abcdefg")).astype({"b": narrow})
    frame["c"] = frame["c"].round().astype(int)  # -100 is no -99.9
    expected = frame.astype(float).mask(frame.astype(float).sub(-99.9).abs() < 0.04)
    filled = MFImputer(missing_values=-99.9, max_iter=10).fit_transform(frame)
    assert_array_equal(filled, MFImputer(max_iter=10).fit_transform(expected))


def test_a_marker_that_is_too_large_for_the_type_is_nowhere():
    X = np.random.RandomState(0).standard_normal((20, 4)).astype(np.float32)
    filled = MFImputer(missing_values=1e300, max_iter=5).fit_transform(X)
    assert_array_equal(filled, X)


def test_zeros_of_integers_may_be_missing():
    X = np.random.RandomState(0).randint(0, 5, size=(40, 6))
    filled = MFImputer(missing_values=0).fit_transform(X)
    expected = MFImputer().fit_transform(np.where(X == 0, np.nan, X))
    assert filled.dtype == np.float64
    assert_array_equal(filled, expected)


@pytest.mark.parametrize("marker", [np.nan, pd.NA])
def test_missing_values_of_pandas_are_nan(table, marker):
    X = np.where(np.arange(120)[:, None], table.X, table.complete)
    frame = pd.DataFrame(X, dtype="Float64")
    imputer = MFImputer(missing_values=marker, add_indicator=True)
    expected = MFImputer(add_indicator=True).fit_transform(X)
    assert_allclose(imputer.fit_transform(frame), expected, rtol=1e-10)
    assert_array_equal(imputer.inverse_transform(expected), X)
    complete = MFImputer(missing_values=marker).fit_transform(table.complete)
    assert_array_equal(complete, table.complete)


@pytest.mark.accuracy
@pytest.mark.parametrize("add_indicator", [False, True])
@pytest.mark.parametrize("container", ["pandas", "polars"])
@pytest.mark.parametrize(
    "imputer",
    [
        MFImputer(),
        StackingImputer([("m", SimpleImputer()), ("f", MFImputer())], random_state=0),
    ],
    ids=["factors", "stack"],
)
def test_impute_returns_what_set_output_asks_for(
    table, imputer, container, add_indicator
):
    X = pd.DataFrame(table.X, index=range(5, 125)).add_prefix("v")
    imputer = clone(imputer).set_params(add_indicator=add_indicator).fit(X)
    options = {"return_std": True, "return_quantiles": (0.1, 0.9)}
    arrays = imputer.impute(X, **options)
    imputer.set_output(transform=container)
    filled, std, quantiles = imputer.impute(X, **options)
    assert len(quantiles) == 2
    for frame, array in zip(
        [filled, std, *quantiles], [*arrays[:2], *arrays[2]], strict=True
    ):
        assert type(frame).__module__.startswith(container)
        assert list(frame.columns) == list(X.columns)
        assert_array_equal(frame.to_numpy(), array)
    if container == "pandas":
        assert std.index.equals(X.index)


def test_deviations_are_zero_where_observed_and_calibrated_where_not(planted):
    data = planted(m=400, n=12, rank=3, noise=0.3, share_missing=0.3)
    imputer = MFImputer().fit(data.X)
    filled, std = imputer.impute(data.X, return_std=True)
    assert_array_equal(filled, imputer.transform(data.X))
    assert_array_equal(std[data.mask], 0)
    within = np.abs(filled - data.complete) < 1.96 * std
    assert 0.92 < np.mean(within[~data.mask]) < 0.97


@pytest.mark.slow
def test_samples_differ_by_the_seed_only(table):
    def filled(seed):
        imputer = MFImputer(3, sample_posterior=True, random_state=seed).fit(table.X)
        return imputer.transform(table.X), imputer.transform(table.X)

    samples = [*filled(0), *filled(0)]
    assert_array_equal(samples, 4 * samples[:1])
    assert not np.array_equal(filled(1)[0], samples[0])
    one, other = filled(np.random.RandomState(0))
    assert not np.array_equal(one, other)


@pytest.mark.slow
@pytest.mark.accuracy
def test_samples_have_the_mean_and_the_spread_of_the_posterior(planted):
    data = planted(m=300, n=12, rank=3, noise=0.3, share_missing=0.3)
    mean, std = MFImputer().fit(data.X).impute(data.X, return_std=True)
    seed = np.random.RandomState(0)
    sampler = MFImputer(sample_posterior=True, random_state=seed).fit(data.X)
    samples = np.array([sampler.transform(data.X) for _ in range(100)])
    apart = np.abs(samples.mean(axis=0) - mean)[~data.mask] / std[~data.mask]
    assert np.mean(apart) < 0.3
    spread = samples.std(axis=0)[~data.mask]
    assert 0.9 < np.median(spread / std[~data.mask]) < 1.2


@pytest.mark.slow
@pytest.mark.parametrize(
    "grid",
    [
        {"rank": [1, 2, 5], "reg": ["auto", 100.0]},
        {"reg": [1.0], "solver": ["gd", "als"], "eta": ["auto", 0.01]},
    ],
    ids=str,
)
def test_a_grid_search_finds_settings_alone_and_in_a_pipeline(table, grid):
    pipeline = make_pipeline(MFImputer(), LinearRegression())
    for model, prefix, enough in (MFImputer(), "", 0.6), (pipeline, "mfimputer__", 0.8):
        choices = {prefix + name: values for name, values in grid.items()}
        search = GridSearchCV(model, choices, cv=2, error_score=-1)
        search.fit(table.X, table.complete[:, 0])
        assert set(search.best_params_) == set(choices)
        assert search.best_score_ > enough


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
        ({"missing_values": -1}, "contains NaN"),
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
        ([["a", "b"], ["c", "d"]], "Column 0 of X holds 'a' in row 0"),
        (np.zeros((0, 3)), "0 sample"),
        (sparse.csr_array(np.eye(3)), "sparse X is not accepted. Use X.toarray"),
        (pd.DataFrame({"a": ["x", "y"]}), r"Column 'a' .*{'a': 'category'}"),
    ],
    ids=["all missing", "infinite", "strings", "no rows", "sparse", "text"],
)
def test_data_that_are_refused(X, message):
    with pytest.raises(ValueError, match=message):
        MFImputer().fit(X)


@pytest.mark.parametrize("call", ["transform", "impute", "inverse_transform", "score"])
def test_an_imputer_has_to_be_fitted_first(table, call):
    with pytest.raises(NotFittedError, match="MFImputer instance is not fitted"):
        getattr(MFImputer(), call)(table.X)


def test_other_columns_than_those_of_the_fit_are_refused(table):
    imputer = MFImputer(max_iter=3).fit(table.X)
    with pytest.raises(ValueError, match="10 features"):
        imputer.transform(table.X[:, :5])
    frame = pd.DataFrame(table.X).add_prefix("c")
    imputer.fit(frame)
    with pytest.raises(ValueError, match="feature names"):
        imputer.transform(frame[frame.columns[::-1]])


def test_what_a_fit_did_not_learn_is_refused(table):
    imputer = MFImputer(2, reg=1.0).fit(table.X)
    with pytest.raises(ValueError, match=r"return_std=True needs .* had reg=1.0"):
        imputer.impute(table.X, return_std=True)
    with pytest.raises(ValueError, match="needs add_indicator=True"):
        imputer.inverse_transform(table.X)
    imputer = MFImputer(2, add_indicator=True, max_iter=3).fit(table.X)
    with pytest.raises(ValueError, match=re.escape("must have 20 columns")):
        imputer.inverse_transform(np.zeros((2, 10)))
