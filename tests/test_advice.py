"""What errors advise: each says what is wrong, where, and code that mends it."""

import inspect
import re
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from sklearn.compose import make_column_transformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import OneHotEncoder

from sklearn_mfgd import GradientMF, MaskedGradientMF, MFImputer, StackingImputer

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N_ROWS = 24
NAMES = ["age", "height", "weight", "dose"]
FACTORIZERS = [GradientMF, MaskedGradientMF]


def small_stack():
    members = [("mean", SimpleImputer()), ("factors", MFImputer(1, max_iter=3))]
    return StackingImputer(members, cv=2)


MODELS = {
    "MFImputer": lambda: MFImputer(2, max_iter=3),
    "StackingImputer": small_stack,
    "GradientMF": lambda: GradientMF(2, max_iter=3),
    "MaskedGradientMF": lambda: MaskedGradientMF(2, max_iter=3),
}
IMPUTERS, FACTORIZING = list(MODELS)[:2], list(MODELS)[2:]


@pytest.fixture
def numbers():
    values = np.random.RandomState(0).standard_normal((N_ROWS, 4))
    values[2, 1] = np.nan
    return values


@pytest.fixture
def frame(numbers):
    return pd.DataFrame(numbers, columns=NAMES)


def message_of(call, *arguments, **keywords):
    """What the error says that a call ends with."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call(*arguments, **keywords)
    return str(caught.value)


def assert_says(message, *words):
    for word in words:
        assert word in message


def after_running(code, X, **names):
    """Run code of a message that changes X, or a part of X, and return X."""
    scope = {"X": X, "np": np, "pd": pd, "pl": pl, **names}
    exec(code, scope)
    return scope["X"]


def as_polars(frame):
    columns = {name: list(frame[name]) for name in frame}
    for name, values in columns.items():
        columns[name] = [None if value != value else value for value in values]
    return pl.DataFrame(columns)


def as_objects(frame):
    return frame.to_numpy(dtype=object)


def as_lists(frame):
    return as_objects(frame).tolist()


# Text


def with_mark(frame, mark):
    column = frame["age"].astype(object)
    column[7] = mark
    return frame.assign(age=column)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mark", ["?", "NA", "-", "", "n/a", "unknown"])
def test_a_mark_in_a_column_of_numbers(frame, name, mark):
    X = with_mark(frame, mark)
    message = message_of(MODELS[name]().fit, X)
    replace = f"X = X.replace({mark!r}, np.nan)"
    convert = "X['age'] = pd.to_numeric(X['age'], errors='coerce')"
    assert_says(message, f"Column 'age' of X holds {mark!r} in row 7", replace, convert)
    for code in (replace, convert):
        MODELS[name]().fit(after_running(code, X.copy()))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("form", [as_objects, as_lists])
def test_a_mark_in_an_array(frame, name, form):
    X = form(with_mark(frame, "?"))
    message = message_of(MODELS[name]().fit, X)
    code = "X = pd.DataFrame(X).apply(pd.to_numeric, errors='coerce')"
    assert_says(message, "Column 0 of X holds '?' in row 7", code)
    MODELS[name]().fit(after_running(code, X))


@pytest.mark.parametrize("name", MODELS)
def test_a_mark_in_a_frame_of_polars(frame, name):
    X = as_polars(frame.assign(age=["1.5", "?"] + ["2"] * (N_ROWS - 2)))
    message = message_of(MODELS[name]().fit, X)
    code = "X = X.with_columns(pl.col('age').cast(pl.Float64, strict=False))"
    assert_says(message, "Column 'age' of X holds '?' in row 1", code)
    MODELS[name]().fit(after_running(code, X))


@pytest.fixture(params=[["red", "green", "blue"], ["red", None, "?"]], ids=str)
def with_text(request, frame):
    return frame.assign(age=request.param * (N_ROWS // 3))


TEXT_FORMS = {
    "pandas": (lambda frame: frame, "'age'", "X.astype({'age': 'category'})"),
    "polars": (as_polars, "'age'", "X.to_pandas().astype({'age': 'category'})"),
    "array": (as_objects, "0", "pd.DataFrame(X).astype({0: 'category'})"),
}


@pytest.mark.parametrize("form", TEXT_FORMS)
@pytest.mark.parametrize("name", IMPUTERS)
def test_text_given_to_an_imputer(with_text, name, form):
    make, column, code = TEXT_FORMS[form]
    X = make(with_text)
    message = message_of(MODELS[name]().fit, X)
    assert_says(message, f"Column {column} of X holds 'red' in row 0", f"X = {code}")
    MODELS[name]().fit(after_running(f"X = {code}", X))


@pytest.mark.parametrize("form", TEXT_FORMS)
@pytest.mark.parametrize("name", FACTORIZING)
def test_text_given_to_a_factorizer(with_text, name, form):
    make, column, _ = TEXT_FORMS[form]
    X = make(with_text)
    message = message_of(MODELS[name]().fit, X)
    code = f"make_column_transformer((OneHotEncoder(sparse_output=False), [{column}]), "
    code += "remainder='passthrough')"
    assert_says(message, f"Column {column} of X holds 'red' in row 0", code)
    scope = {"make_column_transformer": make_column_transformer}
    encoder = eval(code, scope | {"OneHotEncoder": OneHotEncoder})
    MODELS[name]().fit(encoder.fit_transform(X))


def test_categories_given_to_what_takes_none(frame):
    text = frame.assign(age=["2", "1"] * (N_ROWS // 2))
    X = text.astype({"age": "category"})
    message = message_of(MaskedGradientMF(2).fit, X)
    code = "X['age'] = X['age'].astype(float)"
    assert_says(message, "Column 'age' of X holds categories", "OneHotEncoder", code)
    MaskedGradientMF(2, max_iter=3).fit(after_running(code, X.copy()))
    X = as_polars(text).with_columns(pl.col("age").cast(pl.Categorical))
    message = message_of(MFImputer(2).fit, X)
    code = "X = X.to_pandas().astype({'age': 'category'})"
    assert_says(message, "Column 'age' of X holds categories", code)
    MFImputer(2, max_iter=3).fit(after_running(code, X))


@pytest.mark.parametrize("name", MODELS)
def test_code_that_leaves_a_column_out(with_text, name):
    for form, code in (
        (lambda frame: frame, "X.drop(columns='age')"),
        (as_polars, "X.drop('age')"),
        (as_objects, "np.delete(X, 0, axis=1)"),
    ):
        X = form(with_text)
        assert f"leave the column out, use {code}" in message_of(MODELS[name]().fit, X)
        MODELS[name]().fit(after_running(f"X = {code}", X))


# Times


TIMES = {
    "dates": pd.date_range("2020-01-01", periods=N_ROWS, freq="h"),
    "durations": pd.to_timedelta(range(N_ROWS), unit="h"),
}
HOURS = {
    "dates": "X['age'] = (X['age'] - X['age'].min()) / pd.Timedelta('1h')",
    "durations": "X['age'] = X['age'] / pd.Timedelta('1h')",
}
POLARS_NUMBERS = {
    "dates": "X = X.with_columns(pl.col('age').dt.epoch('s'))",
    "durations": "X = X.with_columns(pl.col('age').dt.total_seconds())",
}


@pytest.mark.parametrize("kind", TIMES)
@pytest.mark.parametrize("name", MODELS)
def test_a_column_of_times(frame, name, kind):
    given = frame.assign(age=TIMES[kind])
    polars = as_polars(frame).with_columns(pl.Series("age", TIMES[kind].to_numpy()))
    for X, code in ((given, HOURS[kind]), (polars, POLARS_NUMBERS[kind])):
        message = message_of(MODELS[name]().fit, X)
        assert_says(message, "Column 'age' of X holds dates or times", code)
        changed = after_running(code, X.clone() if X is polars else X.copy())
        np.testing.assert_allclose(np.ptp(changed["age"].to_numpy()) % 23, 0)
        MODELS[name]().fit(changed)


def test_a_column_that_is_the_time_of_each_row(frame):
    X = frame.assign(age=TIMES["dates"])
    code = "MFImputer(time='age')"
    assert f"time of each row, use {code}" in message_of(MFImputer().fit, X)
    eval(code, {"MFImputer": MFImputer}).fit(X)
    code = "fit(X.drop(columns='age'), times=X['age'])"
    for model in (GradientMF(2, reg="auto"), MaskedGradientMF(2)):
        message = message_of(model.fit, X)
        assert f"time of each row, use {code}, which needs reg='auto'" in message
        eval(f"model.{code}", {"model": model, "X": X})
    assert "time of each row" not in message_of(small_stack().fit, X)
    code = "fit(np.delete(X, 0, axis=1), times=X[:, 0])"
    objects = as_objects(X)
    message = message_of(MFImputer().fit, objects)
    assert_says(message, "Column 0 of X holds", f"time of each row, use {code}.")
    eval(f"model.{code}", {"model": MFImputer(), "X": objects, "np": np})


@pytest.mark.parametrize("name", MODELS)
def test_arrays_of_times(name):
    rng = np.random.RandomState(0)
    for X, code in (
        (rng.randint(9, size=(9, 3)).astype("M8[D]"), "(X - X.min()) / np.timedelta64"),
        (rng.randint(9, size=(9, 3)).astype("m8[D]"), "X = X / np.timedelta64(1, 'h')"),
    ):
        assert_says(message_of(MODELS[name]().fit, X), "X holds dates or times", code)


# Numbers that are refused


@pytest.mark.parametrize("name", MODELS)
def test_complex_numbers_are_named_and_not_printed(numbers, frame, name):
    for X, where, code in (
        (numbers + 1j, "X is of type complex128", "np.real(X)"),
        (frame.assign(dose=1j), "Column 'dose' of X is of type", "np.real(X['dose'])"),
    ):
        message = message_of(MODELS[name]().fit, X)
        assert_says(message, "Complex data not supported. ", where, code)
        assert "\n" not in message


@pytest.mark.parametrize("name", FACTORIZING)
def test_complex_numbers_of_a_sparse_matrix(numbers, name):
    X = sparse.csr_array(np.nan_to_num(numbers) + 1j)
    assert "np.real(X.data)" in message_of(MODELS[name]().fit, X)


@pytest.mark.parametrize("kind", TIMES)
def test_dates_and_durations_among_objects(frame, kind):
    X = frame.assign(age=pd.Series(list(TIMES[kind]), dtype=object))
    words = "Column 'age' of X holds", "in row 0", "Turn it into numbers, such as hours"
    assert_says(message_of(MFImputer().fit, X), *words)


def test_objects_that_are_neither_text_nor_times(frame):
    X = frame.assign(age=pd.Series([{}] * N_ROWS, dtype=object))
    words = "Column 'age' of X holds {} in row 0", "Turn it into numbers"
    assert_says(message_of(MFImputer().fit, X), *words)


@pytest.mark.parametrize("name", MODELS)
def test_infinity_is_located(numbers, frame, name):
    numbers[5, 3] = frame.loc[5, "dose"] = -np.inf
    for X, where, code in (
        (numbers, "column 3, row 5", "X = np.where(np.isinf(X), np.nan, X)"),
        (frame, "column 'dose', row 5", "X = X.replace([np.inf, -np.inf], np.nan)"),
        (
            as_polars(frame),
            "column 'dose', row 5",
            "X = X.with_columns(pl.all().replace([np.inf, -np.inf], None))",
        ),
    ):
        message = message_of(MODELS[name]().fit, X)
        assert_says(message, f"first is in {where}", code)
        MODELS[name]().fit(after_running(code, X))


def test_infinity_in_a_sparse_matrix_is_located(numbers):
    numbers[5, 3] = np.inf
    X = sparse.csr_array(np.nan_to_num(numbers, posinf=np.inf))
    message = message_of(MaskedGradientMF(2).fit, X)
    code = "X.data[np.isinf(X.data)] = np.nan"
    assert_says(message, "column 3, row 5", code)
    MaskedGradientMF(2, max_iter=3).fit(after_running(code, X))


@pytest.mark.parametrize("model", [MFImputer, StackingImputer])
def test_nan_beside_another_mark_of_missing_values(frame, model):
    message = message_of(model(missing_values=-1).fit, frame)
    assert_says(
        message, "NaN, first in column 'height', row 2", "missing_values=np.nan"
    )


@pytest.mark.parametrize("name", MODELS)
def test_booleans_are_numbers(frame, name):
    for values in (frame["age"] > 0, pd.array([True, None] * (N_ROWS // 2))):
        MODELS[name]().fit(frame.assign(age=values))


# Shapes and names


@pytest.mark.parametrize("name", MODELS)
def test_shapes_that_are_no_table(numbers, name):
    for X, *words in (
        (numbers[0], "1D array", "reshape(-1, 1)"),
        (numbers[:0], "0 sample", "X has no rows: look at X.shape"),
        (numbers[:, :0], "0 feature", "X has no columns: look at X.shape"),
        (numbers[None], "dim 3", "X.reshape(len(X), -1)"),
    ):
        assert_says(message_of(MODELS[name]().fit, X), *words)


OTHER_COLUMNS = {
    "order": (lambda X: X[NAMES[::-1]], "X[model.feature_names_in_]"),
    "more": (lambda X: X.assign(z=1.0), "X[model.feature_names_in_]"),
    "fewer": (lambda X: X[NAMES[:3]], "X.reindex(columns=model.feature_names_in_)"),
    "renamed": (lambda X: X.rename(columns={"age": "Age"}), None),
}
POLARS_COLUMNS = {
    "order": "X.select(list(model.feature_names_in_))",
    "more": "X.select(list(model.feature_names_in_))",
    "fewer": "X.with_columns(pl.lit(None).alias('dose'))",
    "renamed": "X.rename({'Age': 'age'})",
}


@pytest.mark.parametrize("kind", OTHER_COLUMNS)
@pytest.mark.parametrize("name", MODELS)
def test_other_columns_than_those_of_the_fit(frame, name, kind):
    change, code = OTHER_COLUMNS[kind]
    X, code = change(frame), code or "X.rename(columns={'Age': 'age'})"
    polars = as_polars(X)
    for fitted_to, given, remedy in (
        (frame, X, code),
        (as_polars(frame), polars, POLARS_COLUMNS[kind]),
    ):
        model = MODELS[name]().fit(fitted_to)
        message = message_of(model.transform, given)
        assert_says(message, "The feature names should match", remedy)
        model.transform(after_running(f"X = {remedy}", given, model=model))


@pytest.mark.parametrize("name", MODELS)
def test_another_number_of_columns_than_in_the_fit(numbers, name):
    message = message_of(MODELS[name]().fit(numbers).transform, numbers[:, :3])
    assert_says(message, "X has 3 features", "4 features", "Pass all columns of fit")
    assert "with NaN for values that are not known" in message


def test_a_sparse_matrix_is_no_table(numbers):
    X = sparse.csr_array(np.nan_to_num(numbers))
    for model in (MFImputer(), StackingImputer()):
        assert_says(message_of(model.fit, X), "X.toarray()", "MaskedGradientMF")


@pytest.mark.parametrize("name", FACTORIZING)
def test_factors_of_another_fit(numbers, name):
    model = MODELS[name]().fit(numbers)
    for call in (model.inverse_transform, lambda Z: model.predict_entries(Z, [0], [0])):
        assert "Use Z = model.transform(X)" in message_of(call, np.ones((3, 9)))


# Columns without values


@pytest.mark.parametrize("name", IMPUTERS)
def test_a_column_without_values_is_dropped_with_a_warning(numbers, frame, name):
    numbers[:, 2] = frame["weight"] = np.nan
    for X, features in ((numbers, "[2]"), (frame, "['weight']")):
        with pytest.warns(UserWarning, match="Skipping features") as caught:
            filled = MODELS[name]().fit_transform(X)
        assert filled.shape == (N_ROWS, 3)
        (text,) = [str(one.message) for one in caught if one.category is UserWarning]
        words = f"without any observed values: {features}. {name} leaves"
        assert_says(text, words, "Use keep_empty_features=True")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = MODELS[name]().set_params(keep_empty_features=True)
        assert model.fit_transform(frame).shape == (N_ROWS, 4)


def test_the_warning_points_at_the_line_that_fits(numbers):
    numbers[:, 2] = np.nan
    for model in (MODELS[name]() for name in IMPUTERS):
        with pytest.warns(UserWarning, match="Skipping features") as caught:
            model.fit(numbers)
        assert caught[0].filename == __file__


def test_nothing_is_observed(numbers):
    nothing = np.full_like(numbers, np.nan)
    for name, word in (
        ("MFImputer", "missing_values"),
        ("StackingImputer", "missing_values"),
        ("GradientMF", "~mask inverts it"),
        ("MaskedGradientMF", "~mask inverts it"),
    ):
        message = message_of(MODELS[name]().fit, nothing)
        assert_says(message, "every entry of X is missing", word)


# Masks and weights


@pytest.mark.parametrize("name", FACTORIZING)
def test_a_mask_that_is_refused(numbers, name):
    mask = np.isfinite(numbers)
    for given, *words in (
        (mask.astype(int), "must be boolean", "int64", "Use mask.astype(bool)"),
        (mask.astype(float), "must be boolean", "float64", "Use mask.astype(bool)"),
        (mask.T, "shape (4, 24), but X has shape (24, 4)", "Use mask.T"),
        (mask[0], "shape (4,)", "Use np.broadcast_to(mask, X.shape)"),
        (mask[:, 0], "np.broadcast_to(np.reshape(mask, (-1, 1)), X.shape)"),
        (mask[:5], "shape (5, 4)", "mask[rows]"),
    ):
        assert_says(message_of(MODELS[name]().fit, numbers, mask=given), *words)


LABELLED = {
    "columns": (
        lambda mask: mask[NAMES[::-1]],
        "column 0 is 'dose' in mask and 'age' in X",
        "mask[list(X.columns)]",
    ),
    "rows": (
        lambda mask: mask[::-1],
        "row 0 is 23 in mask and 0 in X",
        "mask.loc[X.index]",
    ),
    "other columns": (
        lambda mask: mask.set_axis(list("abcd"), axis=1),
        "column 0 is 'a' in mask and 'age' in X",
        "mask.to_numpy()",
    ),
}


@pytest.mark.parametrize("kind", LABELLED)
@pytest.mark.parametrize("name", FACTORIZING)
def test_a_mask_with_other_labels(frame, name, kind):
    change, where, code = LABELLED[kind]
    mask = frame.notna() & (frame > -1)
    expected = MODELS[name]().fit(frame, mask=mask)
    changed = change(mask)
    assert_says(message_of(MODELS[name]().fit, frame, mask=changed), where, code)
    assert_says(message_of(expected.transform, frame, mask=changed), where, code)
    assert_says(message_of(expected.score, frame, mask=changed), where, code)
    given = eval(code, {"mask": changed, "X": frame})
    Z = expected.transform(frame, mask=mask)
    np.testing.assert_array_equal(expected.transform(frame, mask=given), Z)


def test_weights_with_other_labels(frame):
    weights = pd.DataFrame(1.0, frame.index, NAMES[::-1])
    for model in (MFImputer(), MaskedGradientMF(2)):
        message = message_of(model.fit, frame, entry_weight=weights)
        assert "entry_weight[list(X.columns)]" in message


def test_a_mask_of_new_columns_with_other_labels(frame):
    model = MaskedGradientMF(2, max_iter=3).fit(frame[NAMES[:2]])
    Z, new = model.transform(frame[NAMES[:2]]), frame[NAMES[2:]]
    message = message_of(model.fold_in_columns, new, Z, mask=new[::-1].notna())
    assert "mask.loc[X.index]" in message


@pytest.mark.parametrize("name", FACTORIZING)
def test_labels_that_say_nothing_are_positions(frame, name):
    mask = (frame > 0).to_numpy()
    X = frame.set_axis(range(100, 100 + N_ROWS))
    expected = MODELS[name]().fit(X, mask=mask)
    for given in (pd.DataFrame(mask), pl.DataFrame(mask)):
        found = MODELS[name]().fit(X, mask=given)
        np.testing.assert_array_equal(found.components_, expected.components_)
    shuffled = frame.sample(frac=1, random_state=0)
    message = message_of(MODELS[name]().fit, shuffled, mask=frame > 0)
    assert "mask.loc[X.index]" in message


@pytest.mark.parametrize("name", IMPUTERS)
def test_a_mask_given_to_an_imputer(numbers, frame, name):
    mask = np.isfinite(numbers)
    words = f"{name} has no mask; set the missing values to NaN: "
    words += "X = np.where(mask, X, np.nan), or X = X.where(mask)"
    fitted = MODELS[name]().fit(numbers)
    for method in ("fit", "fit_transform", "transform", "impute", "score"):
        call = getattr(fitted, method)
        assert words in message_of(call, numbers, mask=mask)
        if "y" in inspect.signature(call).parameters:
            assert words in message_of(call, numbers, mask)
    with pytest.warns(UserWarning, match=re.escape(words)) as caught:
        fitted.fit(numbers, mask.astype(int))
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", FACTORIZING)
def test_a_mask_in_place_of_y(numbers, name):
    model = MODELS[name]().fit(numbers)
    for call in (model.fit, model.fit_transform, model.score):
        message = message_of(call, numbers, np.isfinite(numbers))
        assert_says(message, "y is boolean", "fit(X, mask=mask)")


# Places of entries


@pytest.mark.parametrize("name", FACTORIZING)
def test_places_of_entries(frame, name):
    model = MODELS[name]().fit(frame)
    Z = model.transform(frame)
    for rows, columns, *words in (
        (1, 2, "rows must be", "use rows=[i], columns=[j]"),
        (np.int64(1), np.int64(2), "rows must be", "use rows=[i], columns=[j]"),
        ([1], 2, "columns must be", "use rows=[i], columns=[j]"),
        ([0, 24], [0, 0], "rows[1] is 24", "numbered from 0 to 23"),
        ([0], [4], "columns[0] is 4", "numbered from 0 to 3"),
        ([-1], [0], "rows[0] is -1", "use 23, which is 24 - 1"),
        ([0], [-2], "columns[0] is -2", "use 2, which is 4 - 2"),
        ([0], [-9], "columns[0] is -9", "numbered from 0 to 3"),
        ([1.0], [0], "Got float64", "np.asarray(rows).astype(int)"),
        (1.0, 0.0, "Got float64", "np.asarray(rows).astype(int)"),
        ([[1]], [[0]], "shape (1, 1)", "np.ravel(rows)"),
        ([True], [0], "rows = np.flatnonzero(rows)"),
        (frame > 0, [0], "rows, columns = np.nonzero(mask)"),
        ([0], ["age"], "Got labels", "list(model.feature_names_in_).index(name)"),
        (["a"], [0], "Got labels", "X.index.get_indexer(labels)"),
        ([1, 2], [0], "got 2 and 1", "columns=np.full(len(rows), j)"),
    ):
        assert_says(message_of(model.predict_entries, Z, rows, columns), *words)


# Parameters


@pytest.mark.parametrize("rank", ["auto", "Auto", None, 0, "0"])
def test_a_rank_that_is_no_number_of_factors(numbers, rank):
    message = message_of(MaskedGradientMF(rank).fit, numbers)
    assert_says(message, "'rank' parameter of MaskedGradientMF", f"Got {rank!r}")
    assert_says(message, "by itself, up to rank", "MFImputer takes rank='auto'")
    message = message_of(GradientMF(rank).fit, numbers)
    assert_says(message, "such as rank=10", "MaskedGradientMF() finds it by itself")
    assert "MFImputer takes rank='auto'" in message


@pytest.mark.parametrize("rank", [3.0, "3"])
def test_a_rank_of_another_type(numbers, rank):
    for model in FACTORIZERS:
        assert message_of(model(rank).fit, numbers).endswith("Use rank=3.")
    assert "by itself" not in message_of(MaskedGradientMF(eta="0.1").fit, numbers)


EXCLUDE = [
    ({"eta": [0.1]}, "eta=0.1 needs a number for reg"),
    ({"solver": ["sgd"]}, "solver='sgd' needs a number for reg"),
    ({"reg": [0.1], "n_draws": [3]}, "with reg=0.1 use n_draws=0"),
    ({"loss": ["huber"]}, "loss='huber' needs a number for reg"),
    ({"loss": ["student_t"], "reg": [0.2]}, "loss='student_t' needs reg='auto'"),
    ({"loss": ["logistic"], "early_stopping": [True]}, "early_stopping=True with reg"),
    ({"non_negative": [True]}, "non_negative=True needs a number for reg"),
]


@pytest.mark.parametrize("grid, message", EXCLUDE)
def test_values_of_a_grid_that_exclude_each_other(numbers, grid, message):
    X = (numbers > 0).astype(float)
    search = GridSearchCV(MaskedGradientMF(2, max_iter=3), grid, cv=2)
    text = message_of(search.fit, X)
    assert_says(text, message, "In GridSearchCV, list them apart: param_grid=[{")
    grids = eval(re.search(r"param_grid=(\[.*\])\.", text)[1])
    assert len(grids) == 2
    for name, values in grid.items():
        assert any(one.get(name) == values for one in grids)
    search.set_params(param_grid=grids, error_score="raise").fit(X)


def test_draws_and_a_warm_start(numbers):
    model = MaskedGradientMF(2, n_draws=3, warm_start=True)
    assert_says(message_of(model.fit, numbers), "n_draws=0", "warm_start=False")


def test_times_and_a_number_for_reg(numbers):
    message = message_of(GradientMF(2).fit, numbers, times=np.arange(N_ROWS))
    assert_says(message, "reg=0.0", "Use reg='auto', or leave out times")
