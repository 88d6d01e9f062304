"""Columns of categories in a stack: hidden as a whole, weighed, and linked."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression

from sklearn_mfgd import MFImputer, StackingImputer
from sklearn_mfgd._data.categories import Encoding
from sklearn_mfgd.impute import _residual as residual
from sklearn_mfgd.impute._stack_fit import Hidden

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("one_thread"),
]

GRADES, COLOURS = list("abcd"), ["red", "green", "blue", "grey"]
# Two numbers, a colour in three encoded columns, a grade, and a yes or no.
FEATURES = np.array([0, 1, 1, 1, 2, 3, 4])
COLOUR = slice(1, 4)


class Spy(SimpleImputer):
    """The mean, which writes down what it is given."""

    fits, transforms = [], []

    def fit(self, X, y=None):
        self.fits.append(X)
        return super().fit(X)

    def transform(self, X):
        self.transforms.append(X)
        return super().transform(X)


MEMBERS = [
    ("spy", Spy()),
    ("factors", MFImputer(2, max_iter=10)),
    ("neighbours", KNNImputer()),
]


def stack(**options):
    options = {"imputers": MEMBERS, "random_state": 0, **options}
    return StackingImputer(**options)


@pytest.fixture(autouse=True)
def forgotten():
    Spy.fits.clear()
    Spy.transforms.clear()


def planted_table(m=200, seed=0):
    """Return a complete frame of two factors, and the frame with 20 % missing."""
    rng = np.random.RandomState(seed)
    W = rng.standard_normal((m, 2))

    def column(*shape):
        noise = 0.3 * rng.standard_normal((m, *shape))
        return W @ rng.standard_normal((2, *shape)) + noise

    columns = {
        "first": column(),
        "colour": pd.Categorical.from_codes(column(4).argmax(axis=1), COLOURS),
        "second": 100 * column(),
        "grade": pd.cut(column(), [-np.inf, -1, 0, 1, np.inf], labels=GRADES),
        "answer": pd.Categorical(np.where(column() > 0, "yes", "no")),
    }
    complete = pd.DataFrame(columns, index=np.arange(m) + 1000)
    return complete, complete.mask(rng.uniform(size=complete.shape) < 0.2)


@pytest.fixture(scope="module")
def table():
    """A complete frame of mixed columns and the same with 20 % missing."""
    return planted_table()


@pytest.fixture(scope="module")
def X(table):
    return table[1]


@pytest.fixture(scope="module")
def fitted(X):
    return stack().fit(X)


# What is hidden


@pytest.mark.parametrize("cv", [None, 3])
def test_the_columns_of_a_category_are_hidden_where_the_first_one_alone_would_be(X, cv):
    encoded = Encoding.of(X).encode(X)
    firsts = [0, 1, 4, 5, 6]
    hidden = Hidden.of(encoded, FEATURES, 0.2, cv, np.random.RandomState(0))
    one_by_one = Hidden.of(
        encoded[:, firsts], np.arange(5), 0.2, cv, np.random.RandomState(0)
    )
    assert set(hidden.folds) == set(range(cv or hidden.folds.max() + 1))
    expected = {
        (fold, row, column)
        for row, feature, fold in zip(*one_by_one, strict=True)
        for column in np.flatnonzero(feature == FEATURES)
    }
    found = list(zip(hidden.folds, hidden.rows, hidden.columns, strict=True))
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_a_number_of_entries_to_hide_counts_a_category_once(X):
    encoded = Encoding.of(X).encode(X)
    hidden = Hidden.of(encoded, FEATURES, 50, None, np.random.RandomState(0))
    first = hidden.folds == 0
    is_first = np.isin(hidden.columns[first], [0, 1, 4, 5, 6])
    assert np.count_nonzero(is_first) == 50


@pytest.mark.parametrize("options", [{}, {"cv": 2}])
def test_members_see_columns_of_numbers_and_all_of_a_category_or_none(X, options):
    stack(**options).fit(X).score(X)
    assert len(Spy.transforms) > 5
    for seen in [*Spy.fits, *Spy.transforms]:
        assert seen.shape == (200, 7)
        of_colour = np.isnan(seen[:, COLOUR]).sum(axis=1)
        assert set(of_colour) == {0, 3}
    assert_array_equal(Spy.fits[-1], Encoding.of(X).encode(X))


# What is learned from that


def hidden_by_hand(X, imputer):
    """Return, for each entry of encoded columns that was hidden, what is known of it.

    A list with, for each fold, the mask of hidden entries and the values of members.
    """
    encoded, folds = Encoding.of(X).encode(X), []
    imputer.fit(X)
    for shown in Spy.fits[:-1]:
        hidden = np.isnan(shown) & ~np.isnan(encoded)
        filled = [member.fit(shown).transform(shown) for _, member in MEMBERS]
        folds.append((hidden, np.array(filled)))
    Spy.fits.clear()
    return encoded, folds


def test_errors_are_of_indicators_of_categories_and_of_steps_of_ordered_ones(X):
    imputer = stack(imputers=MEMBERS[:1])
    encoded, folds = hidden_by_hand(X, imputer)
    squares = {feature: [] for feature in range(5)}
    for hidden, filled in folds:
        for feature, found in squares.items():
            columns = np.flatnonzero(feature == FEATURES)
            rows = hidden[:, columns[0]]
            errors = (filled[0] - encoded)[np.ix_(rows, columns)]
            found.append(np.square(errors).sum(axis=1))
    means = [np.mean(np.concatenate(found)) for found in squares.values()]
    assert imputer.errors_.shape == (1, 5)
    assert_allclose(imputer.errors_[0], np.sqrt(means))
    assert_allclose(imputer.stacked_errors_, np.sqrt(means))


def test_the_squared_error_of_a_category_is_that_of_the_dummies_of_pandas(X):
    """The Brier score of frequencies, since the spy imputes means."""
    imputer = stack(imputers=MEMBERS[:1]).fit(X)
    dummies = pd.get_dummies(X["colour"].dropna(), dtype=float).to_numpy()
    brier = np.square(dummies - dummies.mean(axis=0)).sum(axis=1).mean()
    assert_allclose(imputer.errors_[0, 1], np.sqrt(brier), rtol=0.1)


def test_a_column_has_the_weighted_mean_of_what_members_say_of_it(X, fitted):
    assert fitted.weights_.shape == (3, 5)
    assert_allclose(fitted.weights_.sum(axis=0), 1)
    encoded = Encoding.of(X).encode(X)
    weights = fitted.weights_[:, FEATURES]
    of_members = [member.transform(encoded) for member in fitted.imputers_]
    expected = np.einsum("kj,kij->ij", weights, of_members)
    found = fitted.transform(X)
    assert_allclose(found[["first", "second"]], expected[:, [0, 4]])
    nearest = np.clip(np.rint(expected[:, 5]), 0, 3)
    assert_array_equal(found["grade"].cat.codes, nearest)


@pytest.mark.parametrize("name, span", [("colour", COLOUR), ("answer", slice(6, 7))])
def test_probabilities_are_learned_from_hidden_categories(X, name, span):
    # What depends on nothing is best imputed by another member than the others are.
    X = X.assign(first=np.random.RandomState(0).permutation(X["first"]))
    imputer = stack(shrinkage=0.0)
    encoded, folds = hidden_by_hand(X, imputer)
    weights = imputer.weights_[:, FEATURES]
    expected, classes = [], []
    for hidden, filled in folds:
        rows = hidden[:, span.start]
        stacked = np.einsum("kj,kij->ij", weights, filled)
        expected.append(stacked[rows][:, span])
        classes.append(X[name].cat.codes[rows])
    expected, classes = np.concatenate(expected), np.concatenate(classes)
    unit = expected.std(axis=0)
    model = LogisticRegression(tol=1e-8, max_iter=1000).fit(expected / unit, classes)
    of_members = [member.transform(encoded) for member in imputer.imputers_]
    of_stack = np.einsum("kj,kij->ij", weights, of_members)[:, span]
    missing = X[name].isna()
    found, proba = imputer.impute(X, return_proba=True)
    by_hand = model.predict_proba(of_stack / unit)
    assert_allclose(proba[name][missing], by_hand[missing], atol=1e-4)
    assert_array_equal(found[name].cat.codes, proba[name].to_numpy().argmax(axis=1))


def test_without_a_hidden_entry_of_a_category_its_probabilities_are_the_nearest():
    codes = np.arange(60) % 2
    codes[5] = 2
    rare = pd.Categorical.from_codes(codes, list("xyz"))
    X = pd.DataFrame({"n": codes + 0.1 * np.sin(np.arange(60.0)), "rare": rare})
    X.loc[[7, 8], "rare"] = np.nan
    X.loc[X.index > 50, "n"] = np.nan
    imputer = stack(imputers=MEMBERS[:1], test_size=10).fit(X)
    hidden = [np.isnan(seen[5, 1]) for seen in Spy.fits[:-1]]
    assert not any(hidden)
    proba = imputer.impute(X, return_proba=True)[1]["rare"]
    shares = X["rare"].value_counts(normalize=True)[list("xyz")]
    assert_allclose(proba.loc[[7, 8]], np.tile(shares, (2, 1)), atol=1e-12)


def test_what_a_regressor_adds_to_hidden_entries_comes_from_the_other_rows():
    rng = np.random.RandomState(0)
    X = rng.standard_normal((60, 3))
    X[:, 2] = X[:, 0] - X[:, 1]
    missing = rng.uniform(size=X.shape) < 0.1
    given = np.where(missing, np.nan, X)
    predicted = []
    for _ in range(2):  # an entry may be hidden twice
        hidden = ~missing & (rng.uniform(size=X.shape) < 0.4)
        every = missing | hidden
        values = 0.3 * rng.standard_normal(every.sum())
        predicted.append(residual.HoldOut(hidden, every, values))
    table, seed = residual.Table(given, missing), np.random.RandomState(1)
    model, corrected = residual.regress(
        table, predicted, LinearRegression(), "mean", seed
    )
    half = np.random.RandomState(1).permutation(60) % 2 == 0
    assert (model.weights > 0).any()
    filled = [one.fill(given) for one in predicted]
    expected = [table.copy() for table in filled]
    for j in range(3):
        for of in (half, ~half):
            A, y = [], []
            for one, table in zip(predicted, filled, strict=True):
                rows = one.hidden[:, j] & ~of
                A.append(model.features(table[rows]))
                y.append((given - table)[rows, j] / model.scale[j])
            regressor = LinearRegression().fit(np.concatenate(A), np.concatenate(y))
            for one, table, result in zip(predicted, filled, expected, strict=True):
                rows = one.hidden[:, j] & of
                added = regressor.predict(model.features(table[rows]))
                result[rows, j] += model.weights[j] * model.scale[j] * added
    for one, result in zip(corrected, expected, strict=True):
        assert_allclose(one.fill(given), result, atol=1e-5)


# What comes out


def error_rates(found, table):
    """Return the share of wrong categories per column, and that of the mode."""
    complete, X = table
    names, hidden = ["colour", "grade", "answer"], X.isna()
    ours = [np.mean((found[n] != complete[n])[hidden[n]]) for n in names]
    modes = [np.mean((X[n].mode()[0] != complete[n])[hidden[n]]) for n in names]
    return np.array(ours), np.array(modes)


def test_imputed_categories_beat_the_most_frequent_one(table, fitted):
    ours, modes = error_rates(fitted.transform(table[1]), table)
    assert (ours < 0.8 * modes).all()
    assert ours.mean() < 0.6 * modes.mean()


def test_new_rows_are_imputed_as_well(table):
    complete, X = table
    imputer = stack().fit(X[:100])
    ours, modes = error_rates(imputer.transform(X[100:]), (complete[100:], X[100:]))
    assert ours.mean() < 0.7 * modes.mean()


@pytest.mark.slow
def test_a_regressor_of_what_is_left_finds_categories_that_are_no_sums():
    """The colour says whether two numbers have the same sign."""
    rng = np.random.RandomState(0)
    numbers = rng.uniform(-1, 1, size=(600, 2))
    same = numbers.prod(axis=1) > 0
    X = pd.DataFrame(numbers, columns=["a", "b"])
    X["sign"] = pd.Categorical(np.where(same, "same", "other"))
    complete, X = X, X.mask(rng.uniform(size=X.shape) < [0.05, 0.05, 0.3])
    trees = ExtraTreesRegressor(20, random_state=0)
    members = [("mean", SimpleImputer())]
    imputer = stack(imputers=members, residual=trees).fit(X)
    assert imputer.stacked_errors_[2] < 0.8 * imputer.errors_[0, 2]
    found = imputer.transform(X)
    chosen = X["sign"].isna() & X["a"].notna() & X["b"].notna()
    assert np.mean((found["sign"] == complete["sign"])[chosen]) > 0.85


def test_what_is_observed_comes_back_in_its_type_and_nothing_is_missing(X, fitted):
    found = fitted.transform(X)
    assert not found.isna().any(axis=None)
    assert_frame_equal(found.mask(X.isna()), X)
    assert_frame_equal(stack().fit_transform(X), found)


def test_numbers_of_other_types_keep_them_if_what_is_imputed_fits(X):
    given = X[["colour", "first"]].astype({"first": "Float32"})
    given["constant"] = pd.Series([None, *[3] * 199], index=X.index, dtype="Int64")
    found = stack().fit_transform(given)
    assert found["first"].dtype == "Float32"
    assert found["constant"].dtype == "Int64"
    assert (found["constant"] == 3).all()


def test_deviations_and_quantiles_are_of_numbers_and_of_positions(X, fitted):
    found, std, quantiles, proba = fitted.impute(
        X, return_std=True, return_quantiles=(0.1, 0.5, 0.9), return_proba=True
    )
    assert_frame_equal(found, fitted.transform(X))
    assert std.shape == X.shape
    assert quantiles.shape == (3, *X.shape)
    missing = X.isna().to_numpy()
    for k in (0, 2, 3):
        assert_array_equal(std[:, k] > 0, missing[:, k])
        assert_array_equal(quantiles[2, :, k] > quantiles[0, :, k], missing[:, k])
    seen = X["grade"].notna()
    assert_array_equal(quantiles[1, seen, 3], X["grade"].cat.codes[seen])
    assert np.isnan(std[:, [1, 4]]).all()
    assert np.isnan(quantiles[..., [1, 4]]).all()
    assert list(proba) == ["colour", "answer"]


def test_intervals_of_positions_of_ordered_categories_cover_them(table, fitted):
    complete, X = table
    found = fitted.impute(X, return_quantiles=(0.05, 0.95))
    low, high = found[1][..., 3]
    codes, missing = complete["grade"].cat.codes, X["grade"].isna()
    covered = ((low - 0.5 <= codes) & (codes <= high + 0.5))[missing]
    assert covered.mean() > 0.85
    assert (high - low)[missing].mean() < 2.5


def test_probabilities_are_of_the_categories_that_occurred(X, fitted):
    colour = fitted.impute(X, return_proba=True)[1]["colour"]
    assert list(colour) == COLOURS
    assert_array_equal(colour.index, X.index)
    assert_allclose(colour.sum(axis=1), 1)
    seen = X["colour"].notna()
    for category in colour:
        assert_array_equal(colour[category][seen], X["colour"][seen] == category)


def test_there_are_no_probabilities_without_categories(X):
    numbers = X[["first", "second"]]
    found = stack().fit(numbers).impute(numbers, return_proba=True)
    assert found[1] == {}


def test_the_score_hides_a_column_at_a_time_of_the_frame(X, fitted):
    """Row by row, the k-th observed entry is in fold k modulo five."""
    encoded = Encoding.of(X).encode(X)
    scale, mean = np.nanstd(encoded, axis=0), np.nanmean(encoded, axis=0)
    weights = fitted.weights_[:, FEATURES]
    press = 0.0
    for fold in range(5):
        hidden = np.zeros(encoded.shape, bool)
        for i, row in enumerate(encoded):
            observed = [f for f in range(5) if not np.isnan(row[f == FEATURES][0])]
            hidden[i] = np.isin(FEATURES, observed[fold : fold + 1])
        shown = np.where(hidden, np.nan, encoded)
        of_members = [member.transform(shown) for member in fitted.imputers_]
        errors = np.einsum("kj,kij->ij", weights, of_members) - encoded
        press += np.square(errors / scale)[hidden].sum()
    total = np.nansum(np.square((encoded - mean) / scale))
    assert_allclose(fitted.score(X), 1 - press / total)


# Options and conventions


def test_limits_are_of_columns_and_leave_categories_alone(X, fitted):
    low = [-0.1, 0.05, -np.inf, 0.05, 0.05]
    imputer = stack(min_value=low, max_value=0.1).fit(X)
    found, expected = imputer.transform(X), fitted.transform(X)
    clipped = expected["first"].clip(-0.1, 0.1).where(X["first"].isna(), X["first"])
    missing = X["first"].isna()
    assert found["first"][missing].between(-0.1, 0.1).all()
    assert_array_equal(found["first"][~missing], clipped[~missing])
    grades = found["grade"][X["grade"].isna()]
    assert set(grades) == set(expected["grade"][X["grade"].isna()])
    with pytest.raises(ValueError, match=r"min_value .* shape \(5,\)"):
        stack(min_value=np.zeros(7)).fit(X)


def test_an_indicator_marks_columns_and_takes_back_what_was_imputed(X):
    imputer = stack(add_indicator=True).fit(X)
    found = imputer.transform(X)
    marks = [f"missingindicator_{name}" for name in X]
    assert list(found) == [*X, *marks]
    assert_array_equal(imputer.get_feature_names_out(), list(found))
    assert_array_equal(found[marks], X.isna())
    assert_frame_equal(imputer.inverse_transform(found), X)


@pytest.mark.filterwarnings("ignore:Skipping features")
def test_empty_columns_have_no_errors_and_are_dropped_or_kept(X):
    empty = pd.Categorical([None] * 200, COLOURS)
    given = X.assign(empty=empty)[["empty", *X]]
    imputer = stack().fit(given)
    assert list(imputer.transform(given)) == list(X)
    assert_array_equal(np.isnan(imputer.stacked_errors_), [True] + [False] * 5)
    assert imputer.weights_.shape == (3, 6)
    kept = stack(keep_empty_features=True).fit_transform(given)
    assert (kept["empty"] == "red").all()
    assert_frame_equal(kept[list(X)], imputer.transform(given))


def test_a_frame_with_few_entries_has_equal_weights(X):
    few = X[["colour", "first"]].dropna()[:4]
    few = few.assign(first=[np.nan, 1.0, 2.0, 4.0])
    imputer = stack().fit(few)
    assert_array_equal(imputer.weights_, np.full((3, 2), 1 / 3))
    assert not imputer.transform(few).isna().any(axis=None)


def test_the_container_is_the_one_that_is_set(X, fitted):
    expected = fitted.transform(X)
    imputer = stack().set_output(transform="pandas")
    assert_frame_equal(imputer.fit_transform(X), expected)
    found = imputer.set_output(transform="polars").transform(X)
    assert isinstance(found, pl.DataFrame)
    assert found["colour"].to_list() == expected["colour"].tolist()


def by_skops(imputer):
    data = skops.io.dumps(imputer)
    return skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))


@pytest.mark.parametrize("store", [by_skops, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_stored_stack_is_the_same(X, store):
    imputer = stack(imputers=MEMBERS[1:]).fit(X)
    stored = store(imputer)
    assert_frame_equal(stored.transform(X), imputer.transform(X))
    found = stored.impute(X, return_proba=True)[1]["colour"]
    assert_frame_equal(found, imputer.impute(X, return_proba=True)[1]["colour"])


ERRORS = {
    "new category": (
        lambda X: X.assign(colour=X["colour"].cat.rename_categories({"red": "pink"})),
        r"Column 'colour' of X holds the category 'pink' in row \d+, which did not",
    ),
    "text": (
        lambda X: X.assign(colour=X["colour"].astype(object)),
        "Column 'colour' of X held unordered categories in fit and is of type object",
    ),
    "array": (lambda X: np.zeros((3, 5)), "must be a pandas data frame.*ndarray"),
}


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("kind", ERRORS)
def test_other_frames_than_that_of_the_fit_are_refused(X, fitted, kind):
    change, message = ERRORS[kind]
    for call in (fitted.transform, fitted.impute, fitted.score):
        with pytest.raises(ValueError, match=message):
            call(change(X))


def test_categories_after_a_fit_without_any_are_refused(X):
    imputer = stack().fit(X[["first", "second"]])
    later = X[["first", "second"]].assign(second=X["colour"])
    with pytest.raises(ValueError, match="Column 'second' of X holds categories, and"):
        imputer.transform(later)


def test_an_error_leaves_the_last_fit(X, fitted):
    imputer = stack().fit(X)
    with pytest.raises(ValueError, match=r"Column 'word' .*{'word': 'category'}"):
        imputer.fit(X[["colour"]].assign(word="x"))
    assert_frame_equal(imputer.transform(X), fitted.transform(X))


def test_deviations_of_a_column_are_widened_by_the_factor_of_this_column(X):
    fitted = stack().fit(X)
    _, before = fitted.impute(X, return_std=True)
    fitted._widening = fitted._widening * [1, 1, 3, 1, 1]
    _, after = fitted.impute(X, return_std=True)
    assert (before[:, 2] > 0).any()
    assert_allclose(after[:, 2], 3 * before[:, 2])
    assert_array_equal(np.delete(after, 2, axis=1), np.delete(before, 2, axis=1))
