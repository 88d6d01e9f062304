"""Frames with columns of categories: encoded, imputed and decoded."""

import pickle
from itertools import pairwise

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from scipy.spatial.distance import pdist
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sklearn_mfgd import MFImputer
from sklearn_mfgd._data.categories import Encoding, nearest_probabilities
from sklearn_mfgd.impute import _marginals

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Skipping features without any observed values"),
    pytest.mark.usefixtures("one_thread"),
]

GRADES, COLOURS = list("abcd"), ["red", "green", "blue", "grey", "black"]


def planted_table(m=300, seed=0, share_missing=0.2):
    """Return a complete frame of three factors, and the frame with missing values."""
    rng = np.random.RandomState(seed)
    W = rng.standard_normal((m, 3))

    def column(*shape):
        return W @ rng.standard_normal((3, *shape)) + 0.4 * rng.standard_normal(
            (m, *shape)
        )

    columns = {f"number {k}": column() for k in range(4)}
    for k in range(3):
        columns[f"binary {k}"] = pd.Categorical(np.where(column() > 0, "yes", "no"))
    for k in range(2):
        cuts = [-np.inf, -1.5, 0, 1.5, np.inf]
        columns[f"grade {k}"] = pd.cut(column(), cuts, labels=GRADES)
    columns["colour"] = pd.Categorical.from_codes(column(5).argmax(axis=1), COLOURS)
    complete = pd.DataFrame(columns, index=np.arange(m) + 1000)
    return complete, complete.mask(rng.uniform(size=complete.shape) < share_missing)


@pytest.fixture(scope="module")
def table():
    """A complete frame of mixed columns and the same with 20 % missing."""
    return planted_table()


@pytest.fixture(scope="module")
def X(table):
    return table[1]


@pytest.fixture(scope="module")
def fitted(X):
    return MFImputer(max_iter=30).fit(X)


# Columns of numbers


def test_the_probabilities_of_encoded_categories_are_the_dummies_of_pandas(table):
    colours = table[0][["colour"]]
    expected = pd.get_dummies(colours["colour"], dtype=float)
    encoding = Encoding.of(colours)
    encoded = encoding.encode(colours)
    assert_array_equal(encoding.probabilities(encoded)[0], expected)


def test_encoded_categories_are_uncorrelated_and_as_far_apart_as_dummies(X):
    colours = X[["colour"]].dropna()
    dummies = pd.get_dummies(colours["colour"], dtype=float)
    encoded = Encoding.of(colours).encode(colours)
    assert encoded.shape == (len(colours), 4)
    assert_allclose(pdist(encoded), pdist(dummies), atol=1e-12)
    covariance = np.cov(encoded.T)
    assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-12)


def test_a_missing_category_is_missing_in_all_of_its_columns(X):
    encoded = Encoding.of(X[["colour"]]).encode(X[["colour"]])
    assert_array_equal(np.isnan(encoded), np.tile(X[["colour"]].isna(), 4))


def test_a_category_that_does_not_occur_gets_no_column(X):
    colours = X[["colour"]]
    declared = colours.astype(pd.CategoricalDtype(["pink", *COLOURS, "white"]))
    expected = Encoding.of(colours).encode(colours)
    assert_array_equal(Encoding.of(declared).encode(declared), expected)


def test_two_categories_become_one_column_of_two_values(X):
    binary = X[["binary 0"]]
    second = binary["binary 0"].map({"no": -0.5, "yes": 0.5}).to_numpy(float)
    found = Encoding.of(binary).encode(binary)[:, 0]
    assert_allclose(np.sign(found[0] * second[0]) * found, second * np.sqrt(2))


def test_ordered_categories_become_positions_in_their_order(X):
    grades = X[["grade 0"]]
    expected = grades["grade 0"].map(dict(zip(GRADES, range(4), strict=True)))
    found = Encoding.of(grades).encode(grades)
    assert_array_equal(found, expected.astype(float).to_numpy()[:, None])


def test_numbers_stay_as_they_are_between_categories(X):
    mixed = X[["grade 0", "number 2", "colour", "number 0"]]
    found = Encoding.of(mixed).encode(mixed)
    assert found.shape == (len(X), 1 + 1 + 4 + 1)
    assert_array_equal(found[:, [1, 6]], mixed[["number 2", "number 0"]].to_numpy())


def test_there_is_no_encoding_without_categories_of_pandas(X):
    assert Encoding.of(X[["number 0"]]) is None
    assert Encoding.of(X.to_numpy()) is None
    assert (
        Encoding.of(pl.DataFrame({"a": pl.Series(["x"], dtype=pl.Enum(["x"]))})) is None
    )


def test_values_of_columns_and_of_encoded_columns_lead_to_each_other(X):
    encoding = Encoding.of(X[["grade 0", "colour", "number 0"]])
    values = np.array([[1, 2, 3], [4, 5, 6]])
    spread = encoding.spread(values)
    assert_array_equal(spread, [[1, 2, 2, 2, 2, 3], [4, 5, 5, 5, 5, 6]])
    assert_array_equal(encoding.gather(spread), values)


# Values of any plain kind, sorted, or declared in an order of their own.
VALUES = [list("zyxw"), [3, 1, 2], [0.5, -1.0], [True, False], ["only"]]


@st.composite
def frames(draw):
    """Draw a frame of random columns, with missing values, and its complete twin."""
    m = draw(st.integers(1, 8))
    complete, incomplete = {}, {}
    for k in range(draw(st.integers(1, 5))):
        values = draw(st.sampled_from(VALUES))
        chosen = draw(st.lists(st.sampled_from(values), min_size=m, max_size=m))
        hidden = draw(st.lists(st.booleans(), min_size=m, max_size=m))
        if draw(st.booleans()):
            column = pd.Series(np.arange(m) + 0.25)
        else:
            column = pd.Series(pd.Categorical(chosen, values, draw(st.booleans())))
        complete[k], incomplete[k] = column, column.mask(np.array(hidden))
    return pd.DataFrame(complete), pd.DataFrame(incomplete)


@settings(max_examples=40, deadline=None)
@given(frames())
def test_what_is_encoded_is_decoded(pair):
    complete, incomplete = pair
    encoding = Encoding.of(complete)
    if encoding is not None:
        codes = encoding.codes(encoding.encode(complete))
        missing = incomplete.isna().to_numpy()
        assert_array_equal(
            np.isnan(encoding.gather(encoding.encode(incomplete))), missing
        )
        assert_frame_equal(encoding.decode(codes, incomplete, missing), complete)


def test_the_nearest_code_and_the_most_probable_category_are_chosen():
    """Of expected indicators that sum to one, some of them out of range."""
    levels = pd.Categorical(list("abcd"), list("abcd"), ordered=True)
    frame = pd.DataFrame(
        {"level": levels, "kind": pd.Categorical(list("xyzx"), list("wxyz"))}
    )
    expected = np.array(
        [[0.5, 0.3, 0.2], [0.3, 0.1, 0.6], [-0.2, 0.7, 0.5], [1.2, -0.1, -0.1]]
    )
    encoding = Encoding.of(frame)
    of_each = encoding.encode(frame.iloc[:3])[:, 1:]  # x, y and z
    filled = np.column_stack([[-0.7, 1.4, 1.6, 3.9], expected @ of_each])
    codes = encoding.codes(filled)
    assert_array_equal(codes, [[0, 1], [1, 3], [2, 2], [3, 1]])


def nearest_probabilities_by_bisection(values):
    """Find the shift for which the shares, ``max(value - shift, 0)``, sum to one."""
    low, high = values.min() - 1, values.max()
    for _ in range(100):
        shift = (low + high) / 2
        if np.maximum(values - shift, 0).sum() > 1:
            low = shift
        else:
            high = shift
    return np.maximum(values - shift, 0)


def test_expected_indicators_become_the_nearest_probabilities():
    values = np.random.RandomState(0).normal(0.3, 0.5, size=(50, 4))
    expected = [nearest_probabilities_by_bisection(row) for row in values]
    assert_allclose(nearest_probabilities(values), expected, atol=1e-12)
    certain = np.eye(4)[[2, 0]] + 1e-15
    assert_array_equal(nearest_probabilities(certain), np.eye(4)[[2, 0]])


@pytest.mark.parametrize(
    "dtype, imputed, expected",
    [
        ("float32", 2.5, "float32"),
        ("Float64", 2.5, "Float64"),
        ("Float32", 2.5, "Float32"),
        ("Int64", 2.5, "Float64"),
        ("Int64", 2.0, "Int64"),
        ("UInt8", 2.0, "UInt8"),
        ("UInt8", 300.0, "Float64"),
        ("UInt8", -1.0, "Float64"),
        ("boolean", 1.0, "boolean"),
        ("boolean", 0.5, "Float64"),
        ("object", 0.5, "float64"),
    ],
)
def test_a_column_of_numbers_keeps_its_type_if_what_is_imputed_fits(
    dtype, imputed, expected
):
    numbers = pd.Series([1, None, 0], dtype=dtype)
    frame = pd.DataFrame({"n": numbers, "c": pd.Categorical(["x", "y", "x"])})
    missing = np.array([[False, False], [True, False], [False, False]])
    codes = np.array([[1.0, 0], [imputed, 1], [0, 0]])
    found = Encoding.of(frame).decode(codes, frame, missing)["n"]
    assert found.dtype == expected
    assert found.tolist() == [1, imputed, 0]


def test_rows_that_declare_fewer_categories_get_the_type_of_the_fit():
    values = pd.DataFrame({"c": pd.Categorical(["x", "y", "z"])})
    few = pd.DataFrame({"c": pd.Categorical(["z", None])})
    encoding = Encoding.of(values)
    expected = [encoding.encode(values)[2], [np.nan] * 2]
    assert_array_equal(encoding.encode(few), expected)
    missing = np.array([[False], [True]])
    found = encoding.decode(np.array([[2.0], [1.0]]), few, missing)["c"]
    assert found.tolist() == ["z", "y"]
    assert found.dtype == values["c"].dtype


def test_rows_that_declare_other_categories_keep_their_type_if_it_has_all():
    values = pd.DataFrame({"c": pd.Categorical(["x", "y", "z"])})
    more = pd.DataFrame({"c": pd.Categorical(["z", None], list("qzyx"))})
    found = Encoding.of(values).decode(
        np.array([[2.0], [0.0]]), more, np.array([[False], [True]])
    )
    assert found["c"].tolist() == ["z", "x"]
    assert found["c"].dtype == more["c"].dtype


def test_rows_that_declare_all_that_occurred_in_the_fit_keep_their_type():
    values = pd.DataFrame({"c": pd.Categorical(["x", "y"], list("xyz"))})
    fewer = pd.DataFrame({"c": pd.Categorical(["y", None], list("yx"))})
    found = Encoding.of(values).decode(
        np.array([[1.0], [0.0]]), fewer, np.array([[False], [True]])
    )
    assert found["c"].tolist() == ["y", "x"]
    assert found["c"].dtype == fewer["c"].dtype


def test_intervals_and_dates_are_categories_too():
    numbers = pd.Series([0.0, 1.0, 2.0, 3.0])
    frame = pd.DataFrame(
        {
            "bin": pd.cut(numbers, 3),
            "day": pd.Categorical(pd.date_range("2020", periods=4, tz="UTC")),
        }
    )
    incomplete = frame.mask(np.eye(4, 2, dtype=bool))
    encoding = Encoding.of(frame)
    codes = encoding.codes(encoding.encode(frame))
    found = encoding.decode(codes, incomplete, incomplete.isna().to_numpy())
    assert_frame_equal(found, frame)
    few = incomplete[:2]
    few = few.assign(bin=few["bin"].cat.remove_unused_categories())
    with pytest.raises(ValueError, match="'bin' of X does not declare all categories"):
        encoding.decode(codes[:2], few, few.isna().to_numpy())


# Imputation


def by_hand(X, **options):
    """Fit an imputer to the array of encoded columns."""
    encoding = Encoding.of(X)
    encoded = encoding.encode(X)
    imputer = MFImputer(max_iter=30, **options).fit(encoded)
    return encoding, encoded, imputer


def probabilities_by_hand(imputer, encoded, span, classes, weights=None):
    """Regress classes on what is expected of their columns if all of these are missing.

    Observed entries are those of any weight; `classes` are those of all rows.
    """
    hidden = encoded.copy()
    hidden[:, span] = np.nan
    expected = imputer.transform(hidden)[:, span]
    observed = ~np.isnan(encoded[:, span.start])
    unit = np.maximum(
        expected[observed].std(axis=0), encoded[observed][:, span].std(axis=0) / 10
    )
    model = LogisticRegression(tol=1e-8, max_iter=1000)
    given = None if weights is None else weights[observed]
    model.fit(expected[observed] / unit, classes[observed], given)
    return model.predict_proba(expected / unit)


def test_a_frame_is_imputed_as_the_array_of_its_encoded_columns(X, fitted):
    encoding, encoded, imputer = by_hand(X)
    filled, std = imputer.impute(encoded, return_std=True)
    found, found_std, proba = fitted.impute(X, return_std=True, return_proba=True)
    assert_frame_equal(found, fitted.transform(X))
    assert_array_equal(found.iloc[:, :4], filled[:, :4])
    for k in (7, 8):
        nearest = np.clip(np.rint(filled[:, k]), 0, 3)
        assert_array_equal(found.iloc[:, k].cat.codes, nearest)
    assert_array_equal(found_std[:, [0, 1, 2, 3, 7, 8]], std[:, [0, 1, 2, 3, 7, 8]])
    assert np.isnan(found_std[:, [4, 5, 6, 9]]).all()
    for k, name in ((4, "binary 0"), (9, "colour")):
        given = encoded, encoding.spans[k], X[name].cat.codes
        expected = probabilities_by_hand(imputer, *given)
        hidden = X[name].isna()
        assert_allclose(proba[name][hidden], expected[hidden], atol=1e-4)
        most_probable = proba[name].to_numpy().argmax(axis=1)
        assert_array_equal(found[name].cat.codes, most_probable)
    assert fitted.score(X) == imputer.score(encoded)


@pytest.mark.parametrize("options", [{}, {"sample_posterior": True}, {"reg": 1.0}])
def test_what_is_observed_comes_back_and_nothing_is_missing(X, options):
    found = MFImputer(3, max_iter=20, random_state=0, **options).fit_transform(X)
    assert not found.isna().any(axis=None)
    assert_frame_equal(found.mask(X.isna()), X)


@pytest.mark.parametrize(
    "options",
    [
        {"marginal": "normal"},
        {"marginal": "normal", "statistic": "median", "discrete": "nearest"},
        {"residual": KNeighborsRegressor()},
    ],
)
def test_other_ways_to_impute_numbers_find_categories_too(table, options):
    found = MFImputer(3, max_iter=20, random_state=0, **options).fit_transform(table[1])
    assert_frame_equal(found.mask(table[1].isna()), table[1])
    ours, modes = error_rates(found, table)
    assert ours.mean() < 0.65 * modes.mean()


def test_quantiles_are_of_positions_of_ordered_categories(X, fitted):
    _, encoded, imputer = by_hand(X)
    expected = imputer.impute(encoded, return_quantiles=(0.1, 0.9))[1]
    found = fitted.impute(X, return_quantiles=(0.1, 0.9))[1]
    ordered = [0, 1, 2, 3, 7, 8]
    assert found.shape == (2, *X.shape)
    assert_array_equal(found[..., ordered], expected[..., ordered])
    assert np.isnan(found[..., [4, 5, 6, 9]]).all()


def test_a_complete_frame_comes_back_as_it_is(table, fitted):
    complete = table[0].assign(**{"number 0": np.arange(300), "number 1": True})
    assert_frame_equal(fitted.transform(complete), complete)
    assert_frame_equal(MFImputer(max_iter=5).fit_transform(complete), complete)


def error_rates(found, table):
    """Return the share of wrong categories per column, and that of the mode."""
    complete, X = table
    names = complete.select_dtypes("category").columns
    hidden = X.isna()
    ours = [np.mean((found[n] != complete[n])[hidden[n]]) for n in names]
    modes = [np.mean((X[n].mode()[0] != complete[n])[hidden[n]]) for n in names]
    return np.array(ours), np.array(modes)


def test_imputed_categories_beat_the_most_frequent_one(table, fitted):
    ours, modes = error_rates(fitted.transform(table[1]), table)
    assert (ours < 0.75 * modes).all()
    assert ours.mean() < 0.6 * modes.mean()


def test_new_rows_are_imputed_as_well(table):
    complete, X = table
    imputer = MFImputer(max_iter=30).fit(X[:150])
    ours, modes = error_rates(imputer.transform(X[150:]), (complete[150:], X[150:]))
    assert ours.mean() < 0.65 * modes.mean()


def categories_of(imputed):
    return imputed.select_dtypes("category").astype(str)


def test_the_order_of_rows_does_not_matter(X, fitted):
    order = np.random.RandomState(0).permutation(len(X))
    shuffled = X.iloc[order]
    imputer = MFImputer(max_iter=30).fit(shuffled)
    found, proba = imputer.impute(shuffled, return_proba=True)
    expected, expected_proba = fitted.impute(X, return_proba=True)
    assert_frame_equal(categories_of(found).loc[X.index], categories_of(expected))
    assert_allclose(
        proba["colour"].loc[X.index], expected_proba["colour"], rtol=0, atol=1e-5
    )


def test_other_names_of_categories_do_not_matter(X, fitted):
    names = dict(zip(COLOURS, [5, 4, 3, 2, 1], strict=True))
    renamed = X.assign(colour=X["colour"].cat.rename_categories(names))
    found = MFImputer(max_iter=30).fit_transform(renamed)["colour"]
    expected = fitted.transform(X)["colour"].cat.rename_categories(names)
    pd.testing.assert_series_equal(found, expected)


def test_the_order_in_which_unordered_categories_are_declared_does_not_matter(
    X, fitted
):
    reordered = X.assign(
        colour=X["colour"].cat.reorder_categories(COLOURS[::-1]),
        **{"binary 1": X["binary 1"].cat.reorder_categories(["yes", "no"])},
    )
    imputer = MFImputer(max_iter=30).fit(reordered)
    found, proba = imputer.impute(reordered, return_proba=True)
    expected, expected_proba = fitted.impute(X, return_proba=True)
    assert_frame_equal(categories_of(found), categories_of(expected))
    for name in ("colour", "binary 1"):
        ours = proba[name][expected_proba[name].columns]
        assert_allclose(ours, expected_proba[name], rtol=0, atol=1e-5)
    # And rows that declare another order than the fit are read by their values.
    assert_frame_equal(
        categories_of(fitted.transform(reordered)), categories_of(expected)
    )


# Probabilities and samples


def test_probabilities_are_of_the_categories_that_occurred(X, fitted):
    proba = fitted.impute(X, return_proba=True)[1]
    assert list(proba) == ["binary 0", "binary 1", "binary 2", "colour"]
    assert list(proba["colour"]) == COLOURS
    assert list(proba["binary 0"]) == ["no", "yes"]
    for name, shares in proba.items():
        assert_array_equal(shares.index, X.index)
        assert_allclose(shares.sum(axis=1), 1)
        assert (shares >= 0).all(axis=None)
        seen = X[name].notna()
        for category in shares:
            assert_array_equal(shares[category][seen], X[name][seen] == category)
    likely = proba["colour"].idxmax(axis=1)
    assert_array_equal(likely, fitted.transform(X)["colour"])


def test_probabilities_are_calibrated():
    complete, X = planted_table(m=1500, share_missing=0.3)
    proba = MFImputer(max_iter=30).fit(X).impute(X, return_proba=True)[1]
    for name in ("binary 0", "colour"):
        hidden = X[name].isna()
        for category, shares in proba[name][hidden].items():
            truth = complete[name][hidden] == category
            for low, high in pairwise([0.0, 0.25, 0.5, 0.75, 1.01]):
                chosen = shares.between(low, high, inclusive="left")
                if chosen.sum() > 40:
                    assert abs(truth[chosen].mean() - shares[chosen].mean()) < 0.12


def test_categories_in_the_middle_of_a_factor_are_found():
    """What is expected of their indicator is never the largest."""
    rng = np.random.RandomState(0)
    factor = rng.uniform(-1, 1, size=(400, 1))
    X = pd.DataFrame(factor + 0.1 * rng.standard_normal((400, 6))).add_prefix("n")
    complete = pd.cut(factor[:, 0], 3, labels=["low", "middle", "high"], ordered=False)
    X["third"] = pd.Series(complete).mask(rng.uniform(size=400) < 0.3)
    found = MFImputer(max_iter=30).fit_transform(X)["third"]
    hidden = X["third"].isna()
    assert np.mean(found[hidden] == complete[hidden]) > 0.85


def test_there_are_no_probabilities_without_unordered_categories(X):
    numbers = X[["number 0", "number 1"]]
    imputer = MFImputer(max_iter=5).fit(numbers)
    assert imputer.impute(numbers, return_proba=True)[1] == {}


def test_categories_are_sampled_by_their_probabilities_and_others_are_samples():
    levels = pd.Categorical(list("abc"), ordered=True)
    frame = pd.DataFrame({"level": levels, "kind": pd.Categorical(list("zyx"))})
    encoding = Encoding.of(frame)
    indicators = encoding.encode(frame)[:, 1:]  # z, y and x
    n, shares = 4000, [0.1, 0.6, 0.3]
    expected = np.tile([1.0, *(shares @ indicators)], (n, 1))
    sampled = np.tile([1.8, *indicators[0]], (n, 1))
    rng = np.random.RandomState(0)
    codes = encoding.sampled_codes(sampled, expected, rng)
    assert (codes[:, 0] == 2).all()
    found = [np.mean(codes[:, 1] == code) for code in (2, 1, 0)]
    assert_allclose(found, shares, atol=0.03)
    certain = np.tile([1.0, *indicators[1]], (n, 1))
    assert (encoding.sampled_codes(sampled, certain, rng)[:, 1] == 1).all()


def test_samples_of_categories_differ_by_the_seed_only(X):
    imputer = MFImputer(3, max_iter=5, sample_posterior=True, random_state=0).fit(X)
    first, proba = imputer.impute(X, return_proba=True)
    assert_frame_equal(imputer.transform(X), first)
    other, other_proba = imputer.set_params(random_state=1).impute(X, return_proba=True)
    assert_frame_equal(other_proba["colour"], proba["colour"])
    for name, shares in proba.items():
        hidden = X[name].isna()
        assert 0.02 < np.mean(first[name][hidden] != other[name][hidden]) < 0.9
        places = np.arange(len(X)), shares.columns.get_indexer(first[name])
        assert (shares.to_numpy()[places] > 0).all()


@pytest.mark.slow
def test_samples_of_ordered_categories_are_rounded_samples(X):
    options = {"sample_posterior": True, "random_state": 3}
    _, encoded, imputer = by_hand(X, **options)
    expected = np.clip(np.rint(imputer.transform(encoded)[:, 7]), 0, 3)
    found = MFImputer(max_iter=30, **options).fit_transform(X)
    assert_array_equal(found["grade 0"].cat.codes, expected)


# Options


def test_limits_are_of_columns_and_leave_categories_alone(X, fitted):
    low = np.array([-0.1, -np.inf, *[0.05] * 8])
    imputer = MFImputer(max_iter=30, min_value=low, max_value=0.1).fit(X)
    found, expected = imputer.transform(X), fitted.transform(X)
    for name, limit in zip(["number 0", "number 1"], low, strict=False):
        clipped = expected[name].clip(limit, 0.1).where(X[name].isna(), X[name])
        assert_array_equal(found[name], clipped)
    names = X.columns[4:]
    assert_frame_equal(found[names], expected[names])
    with pytest.raises(ValueError, match=r"min_value .* shape \(10,\)"):
        MFImputer(min_value=np.zeros(13)).fit(X)


def test_weights_are_of_the_entries_of_columns(X):
    rng = np.random.RandomState(0)
    weights = rng.choice([0.0, 1.0, 2.0], size=X.shape, p=[0.04, 0.56, 0.4])
    rows = rng.uniform(0.5, 2, size=len(X))
    encoding = Encoding.of(X)
    encoded = encoding.encode(X)
    of_encoded = weights[:, [*range(9), 9, 9, 9, 9]]
    expected = MFImputer(max_iter=30)
    expected.fit(encoded, entry_weight=of_encoded, sample_weight=rows)
    imputer = MFImputer(max_iter=30)
    imputer.fit(X, entry_weight=weights, sample_weight=rows)
    found, proba = imputer.impute(X, return_proba=True)
    assert_array_equal(found.iloc[:, :4], expected.transform(encoded)[:, :4])
    seen = np.where(of_encoded == 0, np.nan, encoded)  # as the fit does
    products = np.where(np.isnan(seen), 0, of_encoded * rows[:, None])
    products /= products[products > 0].mean()
    given = seen, slice(9, 13), X["colour"].cat.codes, products[:, 9]
    shares = probabilities_by_hand(expected, *given)
    # Of rows of which the fit has seen all that it is given now.
    chosen = X["colour"].isna() & (weights[:, :9] > 0).all(axis=1)
    assert chosen.sum() > 0
    assert_allclose(proba["colour"][chosen], shares[chosen], atol=1e-4)
    with pytest.raises(ValueError, match="entry_weight"):
        imputer.fit(X, entry_weight=np.ones((len(X), 13)))


def test_an_indicator_marks_columns_and_takes_back_what_was_imputed(X):
    X = X[["colour", *X.columns[:9]]]
    given = X.assign(count=np.arange(len(X)))
    imputer = MFImputer(max_iter=5, add_indicator=True).fit(given)
    found = imputer.transform(given)
    marks = [f"missingindicator_{name}" for name in X]
    assert list(found) == [*given, *marks]
    assert_array_equal(imputer.get_feature_names_out(), list(found))
    assert_array_equal(found[marks], X.isna())
    assert_frame_equal(imputer.inverse_transform(found), given)
    with pytest.raises(ValueError, match="data frame with 21 columns"):
        imputer.inverse_transform(found.iloc[:, :-1])


EMPTY = {
    "nothing": np.nan,
    "no colour": pd.Categorical([None] * 300, COLOURS),
    "no grade": pd.Categorical([None] * 300, GRADES, ordered=True),
}


def test_empty_columns_are_dropped_and_come_back_without_values(X):
    given = X.assign(**EMPTY)[["no colour", *X, "no grade", "nothing"]]
    imputer = MFImputer(max_iter=5, add_indicator=True).fit(given)
    found, std, proba = imputer.impute(given, return_std=True, return_proba=True)
    assert list(found) == list(X)
    assert std.shape == X.shape
    assert "no colour" not in proba
    assert_array_equal(imputer.get_feature_names_out()[:10], list(X))
    assert_frame_equal(imputer.inverse_transform(imputer.transform(given)), given)


def test_empty_columns_are_kept_as_zeros_and_first_categories(X):
    given = X.assign(**EMPTY)
    imputer = MFImputer(max_iter=5, keep_empty_features=True).fit(given)
    found = imputer.transform(given)
    assert (found["nothing"] == 0).all()
    assert (found["no colour"] == "red").all()
    assert (found["no grade"] == "a").all()
    later = given.assign(**{"no colour": pd.Categorical(["pink"] + [None] * 299)})
    assert (imputer.transform(later)["no colour"] == "pink").all()
    undeclared = X.assign(none=pd.Categorical([None] * 300))
    with pytest.raises(ValueError, match="'none' of X had no values in fit"):
        MFImputer(max_iter=5, keep_empty_features=True).fit_transform(undeclared)


def test_a_marker_is_of_columns_of_numbers_only(X, fitted):
    numbers = list(X.columns[:4])
    given = X.assign(**{name: X[name].fillna(0.0) for name in numbers})
    imputer = MFImputer(max_iter=30, missing_values=0, add_indicator=True).fit(given)
    found = imputer.transform(given)
    assert_frame_equal(found[list(X)], fitted.transform(X))
    assert_frame_equal(imputer.inverse_transform(found), given)


def test_missing_integers_may_be_marked(X):
    given = X[["colour"]].assign(count=np.arange(300) % 7 - 1)
    found = MFImputer(max_iter=5, missing_values=-1).fit_transform(given)
    assert found["count"].dtype == np.float64
    seen = given["count"] >= 0
    assert_array_equal(found["count"][seen], given["count"][seen])
    assert (found["count"][~seen] > 0).all()


@pytest.mark.parametrize("options", [{}, {"sample_posterior": True, "random_state": 0}])
def test_rows_in_time_take_their_times_from_a_column(X, options):
    given = X.assign(when=np.arange(len(X)))
    imputer = MFImputer(3, max_iter=5, time="when", **options).fit(given)
    found = imputer.transform(given)
    assert list(found) == list(X)
    assert not found.isna().any(axis=None)
    same = MFImputer(3, max_iter=5, **options).fit(X, times=given["when"])
    assert_frame_equal(found, same.transform(X, times=given["when"]))


def test_columns_without_names_are_imputed(X, fitted):
    given = X.set_axis(range(10), axis=1)
    imputer = MFImputer(max_iter=30, add_indicator=True).fit(given)
    found = imputer.transform(given)
    expected = fitted.transform(X)
    assert_frame_equal(found.iloc[:, :10].set_axis(list(X), axis=1), expected)
    assert list(found)[9:11] == [9, "missingindicator_0"]
    assert_frame_equal(imputer.inverse_transform(found), given, check_column_type=False)


# Conventions of scikit-learn


def test_names_and_numbers_of_features_are_those_of_the_frame(X, fitted):
    assert fitted.n_features_in_ == 10
    assert_array_equal(fitted.feature_names_in_, list(X))
    assert_array_equal(fitted.get_feature_names_out(), list(X))
    assert fitted.mean_.shape == (13,)


def test_the_container_is_the_one_that_is_set(X, fitted):
    expected = fitted.transform(X)
    imputer = MFImputer(max_iter=30).set_output(transform="pandas")
    assert_frame_equal(imputer.fit_transform(X), expected)
    found = imputer.set_output(transform="polars").transform(X)
    assert isinstance(found, pl.DataFrame)
    assert found["colour"].dtype == pl.Categorical
    assert found["colour"].to_list() == expected["colour"].tolist()
    assert_array_equal(found["number 0"], expected["number 0"])


def test_it_works_in_pipelines_and_column_transformers(X):
    y = X["number 0"].fillna(0)
    kinds = make_column_selector(dtype_include="category")
    dummies = make_column_transformer((OneHotEncoder(), kinds), remainder="passthrough")
    pipeline = make_pipeline(MFImputer(max_iter=5), dummies, LinearRegression())
    assert cross_val_score(pipeline, X, y, cv=2).mean() > 0.5
    names = ["number 1", "colour"]
    columns = make_column_transformer((MFImputer(max_iter=5), names))
    found = columns.set_output(transform="pandas").fit_transform(X)
    expected = MFImputer(max_iter=5).fit_transform(X[names])
    assert_frame_equal(found.set_axis(names, axis=1), expected)


def by_skops(imputer):
    trusted = ["sklearn_mfgd.impute._mf_imputer.MFImputer"]
    trusted.append("sklearn_mfgd._masked_gradient_mf.MaskedGradientMF")
    return skops.io.loads(skops.io.dumps(imputer), trusted=trusted)


@pytest.mark.parametrize("store", [by_skops, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_stored_imputer_is_the_same(X, store):
    given = X.assign(bin=pd.cut(X["number 0"], 3))
    imputer = MFImputer(max_iter=5).fit(given)
    assert_frame_equal(store(imputer).transform(given), imputer.transform(given))


# Errors


def changed(X, name, values):
    return X.assign(**{name: values})


ERRORS = {
    "new category": (
        lambda X: changed(
            X, "colour", X["colour"].cat.rename_categories({"red": "nan"})
        ),
        r"Column 'colour' of X holds the category 'nan' in row \d+, which did not",
    ),
    "declared, not in the data": (
        lambda X: changed(X, "rare", pd.Categorical(["c"] * len(X), list("abc"))),
        "Column 'rare' of X holds the category 'c' in row 0, which did not occur in",
    ),
    "new grade": (
        lambda X: changed(X, "grade 1", X["grade 1"].cat.rename_categories({"b": "f"})),
        "Column 'grade 1' of X holds the category 'f'",
    ),
    "text": (
        lambda X: changed(X, "colour", X["colour"].astype(object)),
        "Column 'colour' of X held unordered categories in fit and is of type object",
    ),
    "order": (
        lambda X: changed(X, "colour", X["colour"].cat.as_ordered()),
        "Column 'colour' of X held unordered categories .* read as ordered",
    ),
    "other order": (
        lambda X: changed(
            X,
            "grade 0",
            X["grade 0"].cat.reorder_categories(GRADES[::-1], ordered=True),
        ),
        "Column 'grade 0' of X orders its categories otherwise than in fit",
    ),
    "numbers": (
        lambda X: changed(X, "number 0", X["colour"]),
        "Column 'number 0' of X held numbers in fit and is of type category",
    ),
    "array": (lambda X: np.zeros((3, 10)), "must be a pandas data frame.*ndarray"),
    "other columns": (lambda X: X.iloc[:, :9], "feature names should match"),
    "fewer columns": (
        lambda X: X.iloc[:, :9].set_axis(range(9), axis=1),
        "9 features.*10 features",
    ),
    "words": (
        lambda X: changed(X, "number 1", "x"),
        "Column 'number 1' of X holds 'x' in row 0",
    ),
    "infinite": (lambda X: changed(X, "number 1", np.inf), "infinity"),
    "no rows": (lambda X: X.iloc[:0], "0 sample"),
}


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("kind", ERRORS)
def test_other_frames_than_that_of_the_fit_are_refused(X, fitted, kind):
    change, message = ERRORS[kind]
    if kind == "declared, not in the data":
        rare = pd.Categorical(["a", "b"] * 150, list("abc"))
        fitted = MFImputer(max_iter=5).fit(changed(X, "rare", rare))
    for call in (fitted.transform, fitted.impute, fitted.score):
        with pytest.raises(ValueError, match=message):
            call(change(X))


def test_categories_after_a_fit_without_any_are_refused(X):
    imputer = MFImputer(max_iter=5).fit(X[["number 0", "number 1"]])
    later = X[["number 0", "number 1"]].assign(**{"number 1": X["colour"]})
    with pytest.raises(
        ValueError, match="Column 'number 1' of X holds categories, and"
    ):
        imputer.transform(later)


def test_text_beside_categories_is_an_error_that_says_how_to_convert_it(X):
    with pytest.raises(ValueError, match=r"Column 'word' .*{'word': 'category'}"):
        MFImputer().fit(X.assign(word="x"))


def test_an_error_leaves_the_last_fit(X, fitted):
    imputer = MFImputer(max_iter=30).fit(X)
    with pytest.raises(ValueError, match="'word'"):
        imputer.fit(X[["colour"]].assign(word="x"))
    assert_frame_equal(imputer.transform(X), fitted.transform(X))


@pytest.mark.parametrize("option", [{"marginal": "auto"}, {"residual": Ridge()}])
def test_all_columns_of_a_category_are_hidden_together(option, monkeypatch):
    tables, fit_columns = [], _marginals.fit_columns

    def spy(table, *args):
        tables.append(table)
        return fit_columns(table, *args)

    monkeypatch.setattr(_marginals, "fit_columns", spy)
    rng = np.random.RandomState(0)
    X = pd.DataFrame(rng.standard_normal((60, 2)), columns=["first", "second"])
    X.insert(1, "colour", pd.Categorical(rng.choice(list("rgby"), 60)))
    MFImputer(max_iter=3, random_state=0, **option).fit(X.mask(rng.rand(60, 3) < 0.1))
    hidden = [table.missing[:, 1:4] for table in tables]
    assert len(np.unique([one.sum() for one in hidden])) > 1
    for one in hidden:
        assert_array_equal(one, np.repeat(one[:, :1], 3, axis=1))
