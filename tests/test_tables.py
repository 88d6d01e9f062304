"""Tables as users have them: masked arrays, frames with columns of any type."""

import re
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.model_selection import cross_val_score

from sklearn_mfgd import GradientMF, MaskedGradientMF, MFImputer
from sklearn_mfgd.model_selection import (
    cross_validate_entries,
    make_entries_scorer,
    train_test_split_entries,
)
from sklearn_mfgd.plotting._models import dense

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("one_thread"),
]

ESTIMATORS = [GradientMF(2), MaskedGradientMF(4), MFImputer()]


@pytest.fixture(params=ESTIMATORS, ids=lambda model: type(model).__name__)
def model(request):
    return clone(request.param).set_params(max_iter=20)


@pytest.fixture
def table(planted):
    """A table of 60 x 6 with missing values."""
    return planted(m=60, n=6, rank=2, noise=0.1, share_missing=0.2).X


def masked(X, under):
    """Mask what is missing; under the mask there is a number."""
    return np.ma.array(np.where(np.isnan(X), under, X), mask=np.isnan(X))


def entry_scores(model, X):
    return cross_validate_entries(model, X, cv=2, random_state=0)["test_score"]


# Masked arrays


@pytest.mark.parametrize(
    "under, dtype", [(-999.0, np.float64), (np.inf, np.float32), (np.nan, np.float64)]
)
def test_what_is_masked_is_missing(model, table, under, dtype):
    X = table.astype(dtype)
    given = masked(X, under).astype(dtype)
    expected = clone(model).fit(X)
    found = model.fit_transform(given)
    assert found.dtype == dtype
    assert_array_equal(found, expected.transform(X))
    assert type(found) is np.ndarray
    assert_array_equal(expected.transform(given), expected.transform(X))
    assert expected.score(given) == expected.score(X)
    assert_array_equal(given.mask, np.isnan(X))
    assert_array_equal(given.data[given.mask], np.full(given.mask.sum(), under))


def test_nan_besides_the_mask_and_masked_integers_and_rows(model, table):
    given, X = np.ma.array(table), table.copy()
    given[3], X[3] = np.ma.masked, np.nan
    assert_array_equal(model.fit_transform(given), clone(model).fit_transform(X))
    whole = np.round(10 * table)
    expected = clone(model).fit_transform(whole)
    given = masked(whole, -999).astype(np.int16)
    assert_array_equal(clone(model).fit_transform(given), expected)
    assert_array_equal(clone(model).fit_transform(list(given)), expected)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_an_imputer_that_looks_for_another_value_respects_the_mask(table, dtype):
    X = table.astype(dtype)
    X[~np.isnan(X)] += 1
    given = masked(X, 7).astype(dtype)
    given[5, 5] = -99.9
    X[5, 5] = np.nan
    found = MFImputer(missing_values=-99.9, max_iter=20).fit_transform(given)
    assert_array_equal(found, MFImputer(max_iter=20).fit_transform(X))


@pytest.mark.slow
def test_model_selection_respects_the_mask(model, table):
    given = masked(table, -999)
    found, expected = (
        train_test_split_entries(X, random_state=0) for X in (given, table)
    )
    assert_array_equal(found, expected)
    found, expected = (entry_scores(model, X) for X in (given, table))
    assert_array_equal(found, expected)
    for scoring in (None, make_entries_scorer()):
        found = cross_val_score(model, given, cv=2, scoring=scoring)
        assert_array_equal(found, cross_val_score(model, table, cv=2, scoring=scoring))


def test_displays_respect_the_mask(table):
    given = masked(table, -999).astype(np.float32)
    for missing_values in (np.nan, -99.9):
        model = MFImputer(missing_values=missing_values, max_iter=5).fit(given)
        assert_array_equal(dense(model, given), table.astype(np.float32))


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_a_masked_weight_is_zero_and_a_masked_mask_is_false(table, container):
    model = MaskedGradientMF(2, reg=0.1, max_iter=5)
    hidden = np.zeros(table.shape, bool)
    hidden[::3] = True
    X = container(np.nan_to_num(table))
    weights = np.ma.array(np.ones(table.shape), mask=hidden)
    mask = np.ma.array(np.ones(table.shape, bool), mask=hidden)
    expected = model.fit_transform(X, mask=~hidden)
    assert_array_equal(model.fit_transform(X, mask=mask), expected)
    if container is np.asarray:
        found = model.fit_transform(X, entry_weight=weights)
        assert_allclose(found, expected, rtol=1e-8, atol=1e-12)


# Frames


@pytest.fixture
def frame(table):
    return pd.DataFrame(table, columns=list("abcdef"))


DATES = pd.date_range("2020", periods=60)
NO_NUMBERS = {
    "text": (["x"] * 60, r"holds 'x' in row 0, .* no number.*{'city': 'category'}"),
    "one word": ([*range(59), "many"], "holds 'many' in row 59, which is no number"),
    "dates": (DATES, r"dates or times \(datetime64.*Timedelta\('1h'\)"),
    "dates of a zone": (DATES.tz_localize("UTC"), r"or times \(datetime64.*UTC"),
    "no date": ([pd.Timestamp("2020"), pd.NaT] * 30, r"dates or times \(datetime64"),
    "durations": (pd.to_timedelta(range(60)), r"dates or times \(timedelta64"),
    "periods": (DATES.to_period("D"), r"times \(period"),
    "objects": ([1.0, *DATES[:59].astype(object)], "Timestamp.* in row 1, .* hours"),
    "pandas.NA": ([1.0, pd.NA] * 30, r"<NA> in row 1, .*X = X\.convert_dtypes\(\)"),
}


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_a_column_of_no_numbers_is_named_with_a_remedy(frame, kind):
    values, message = NO_NUMBERS[kind]
    wrong = frame.assign(city=values)
    pattern = "Column 'city' of X .*" + message
    with pytest.raises((TypeError, ValueError), match=pattern):
        MFImputer().fit(wrong)


def test_what_takes_no_categories_advises_to_encode_them_and_text(frame):
    for city in (pd.Categorical(["x", "y"] * 30), ["x"] * 60):
        with pytest.raises(ValueError, match=r"Column 'city' of X .*\. Encode it"):
            MaskedGradientMF(2).fit(frame.assign(city=city))


def test_every_method_names_a_column_of_no_numbers(model, frame):
    wrong = frame.assign(city="x")
    fitted = clone(model).fit(frame.assign(city=1.0))
    calls = [model.fit, model.fit_transform, fitted.transform, fitted.score]
    calls += [train_test_split_entries, partial(cross_validate_entries, model)]
    for call in calls:
        with pytest.raises(ValueError, match="Column 'city' of X holds 'x' in row 0"):
            call(wrong)


def test_columns_of_no_numbers_in_polars(frame):
    columns = {name: frame[name].to_numpy() for name in frame}
    for value, dtype, message in (
        ("x", pl.String, "holds 'x' in row 0"),
        ("x", pl.Categorical, r"categories \(Categorical"),
        ("x", pl.Enum(["x"]), r"categories \(Enum"),
        (0, pl.Datetime, r"dates or times \(Datetime"),
        (0, pl.Date, r"dates or times \(Date"),
        (0, pl.Duration, r"dates or times \(Duration"),
    ):
        city = pl.Series([value] * 60, dtype=dtype)
        with pytest.raises(ValueError, match=f"Column 'city' of X.*{message}"):
            MFImputer().fit(pl.DataFrame(columns | {"city": city}))


@pytest.mark.parametrize(
    "X, message",
    [
        ([["a", 1.0], ["b", 2.0]], "Column 0 of X holds .*'a'.* in row 0"),
        (np.array([["1", "2"], ["3", "x"]]), "Column 1 of X holds 'x' in row 1"),
        (np.array([[1, {}], [2, 3]], object), r"Column 1 of X holds {} in row 0"),
        (np.zeros((4, 3), "M8[s]"), r"X holds dates or times \(datetime64"),
        ([[np.datetime64("2020")] * 2] * 2, r"X holds dates or times \(datetime64"),
        (np.ma.array([["a", "b"]] * 2), "Column 0 of X holds 'a' in row 0"),
    ],
)
def test_columns_without_names_have_numbers(X, message):
    with pytest.raises((TypeError, ValueError), match=message):
        MaskedGradientMF(2).fit(X)


def test_the_remedy_works(model, frame):
    mixed = frame.assign(city="x", when=pd.Timestamp("2020"))
    with pytest.raises(ValueError, match=r"make_column_selector\(dtype_include='numb"):
        clone(model).fit(mixed)
    numbers = make_column_selector(dtype_include="number")
    found = make_column_transformer((model, numbers)).fit_transform(mixed)
    assert_array_equal(found, clone(model).fit_transform(frame))


def test_pandas_na_among_objects_is_missing_after_the_remedy(model, frame):
    given = frame.astype(object).where(frame.notna(), pd.NA)
    with pytest.raises(TypeError, match=r"After X = X\.convert_dtypes"):
        model.fit(given)
    found = model.fit_transform(given.convert_dtypes())
    assert_allclose(found, clone(model).fit_transform(frame), rtol=1e-7, atol=1e-9)


def test_columns_that_can_be_numbers_are_taken(frame):
    model = MFImputer(max_iter=20)
    for values in ([True, False], [1, None], ["1.5", "2"]):
        given = frame.assign(g=pd.Series(30 * values, dtype=object))
        numbers = frame.assign(g=pd.Series(30 * values).astype(float))
        found = clone(model).fit_transform(given)
        assert_array_equal(found, model.fit_transform(numbers))


def test_of_two_columns_of_the_same_name_the_one_of_no_numbers_is_shown(frame):
    twice = pd.concat([frame, pd.DataFrame({"a": ["x"] * 60})], axis=1)
    with pytest.raises(ValueError, match="Column 'a' of X holds 'x'"):
        MFImputer().fit(twice)


# Sparse columns of pandas


@pytest.mark.filterwarnings("error")
def test_sparse_columns_with_nan_for_what_they_do_not_store(model, frame):
    given = frame.astype(pd.SparseDtype(float, np.nan))
    before = given.copy()
    found, expected = clone(model).fit(given), clone(model).fit(frame)
    assert list(found.feature_names_in_) == list(frame)
    Z = expected.transform(frame)
    assert_allclose(found.transform(given), Z, rtol=1e-7, atol=1e-9)
    assert_allclose(expected.transform(given), Z, rtol=1e-7, atol=1e-9)
    assert found.score(given) == pytest.approx(expected.score(frame))
    assert_allclose(entry_scores(model, given), entry_scores(model, frame))
    pd.testing.assert_frame_equal(given, before)


@pytest.mark.filterwarnings("error")
def test_some_sparse_columns_mean_what_they_show(model, frame):
    frame["a"] = np.where(frame["a"] > 0, frame["a"], 0)
    types = {"a": pd.SparseDtype(float, 0), "b": pd.SparseDtype(float, np.nan)}
    given = frame.astype(types)
    before = given.copy()
    found = model.fit_transform(given)
    assert_array_equal(found, clone(model).fit_transform(frame))
    pd.testing.assert_frame_equal(given, before)


def test_sparse_columns_of_zeros_mean_zero_unless_they_could_be_missing(frame):
    whole = frame.where(frame > 0.5, 0.0)
    given = whole.astype(pd.SparseDtype(float, 0))
    for model in (GradientMF(2, max_iter=20), MFImputer(max_iter=20)):
        found, expected = clone(model).fit(given), clone(model).fit(whole)
        assert_allclose(found.transform(given), expected.transform(whole), atol=1e-7)
    message = re.escape("X.sparse.to_dense() if these zeros are observed")
    with pytest.raises(ValueError, match=message):
        MaskedGradientMF(2).fit(given)
    MaskedGradientMF(2, max_iter=5).fit(given.sparse.to_dense())
    MaskedGradientMF(2, max_iter=5).fit(sparse.coo_array(whole.to_numpy()))
