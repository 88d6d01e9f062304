"""What is refused, and what the message says."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils._param_validation import InvalidParameterError

from sklearn_mfgd import GradientMF, MaskedGradientMF, MFImputer

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ESTIMATORS = [GradientMF, MaskedGradientMF]
METHODS = ["fit", "fit_transform", "transform", "score"]


@pytest.fixture(params=ESTIMATORS)
def model(request):
    return request.param(2, reg=0.1, max_iter=3)


@pytest.fixture
def X():
    return np.random.RandomState(0).standard_normal((8, 5))


def call(model, method, X, **options):
    """Call a method of an estimator that was fitted to something harmless."""
    model.fit(np.random.RandomState(1).standard_normal((8, 5)))
    return getattr(model, method)(X, **options)


# Values


@pytest.mark.parametrize("method", METHODS)
def test_infinity(model, X, method):
    X[3, 2] = -np.inf
    with pytest.raises(ValueError, match="contains infinity"):
        call(model, method, X)


@pytest.mark.parametrize("method", ["fit", "fit_transform", "score"])
def test_nothing_observed(model, X, method):
    mask = np.zeros(X.shape, bool)
    X[:, 0], mask[:, 0] = np.nan, True
    for nothing, options in ((np.full_like(X, np.nan), {}), (X, {"mask": mask})):
        with pytest.raises(ValueError, match="every entry of X is missing"):
            call(model, method, nothing, **options)


def test_no_matrix_of_numbers(model):
    for bad, message in (
        (np.ones(5), "Expected 2D array, got 1D array"),
        (np.zeros((0, 5)), "0 sample"),
        (np.ones((8, 5)) + 1j, "Complex data not supported"),
        (sparse.csr_array(np.ones((8, 5)) + 1j), "Complex data not supported"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(bad)


# Mask


@pytest.mark.parametrize("method", METHODS)
def test_a_mask_of_another_shape_or_type(model, X, method):
    for shape in ((8, 4), (5,), (5, 8), (1, 5)):
        message = re.escape(f"mask has shape {shape}, but X has shape (8, 5)")
        with pytest.raises(ValueError, match=message):
            call(model, method, X, mask=np.ones(shape, bool))
    for mask in (np.ones(X.shape, int), np.ones(X.shape, object)):
        message = f"mask must be boolean, True where X is observed; got {mask.dtype}"
        with pytest.raises(ValueError, match=message):
            call(model, method, X, mask=mask)


# y, which is ignored


@pytest.fixture(params=[*ESTIMATORS, MFImputer])
def taker(request):
    return request.param(2, max_iter=3)


def nullable(y):
    return pd.DataFrame(y).convert_dtypes()


@pytest.mark.pairwise(
    form=[np.asarray, np.ndarray.tolist, sparse.csr_array, pd.DataFrame, nullable],
    shape=[(8, 5), (5, 5), (1, 5), (8, 2)],
    method=["fit", "fit_transform", "score"],
)
def test_a_mask_in_the_place_of_y_is_refused(taker, method, form, shape):
    X = np.random.RandomState(0).standard_normal(shape)
    remedy = r"np\.where\(mask" if isinstance(taker, MFImputer) else r"X, mask=mask"
    message = f"y is boolean and has the shape.*{remedy}"
    taker.fit(X)
    for given in (X, X.tolist(), pd.DataFrame(X)):
        with pytest.raises(ValueError, match=message):
            getattr(taker, method)(given, form(X > 0))


@pytest.mark.parametrize("method", ["fit", "fit_transform", "score"])
def test_numbers_of_the_shape_of_X_are_ignored_with_a_warning(taker, X, method):
    expected = clone(taker).fit(X).transform(X)
    taker.fit(X)
    message = r"y has the shape of X, \(8, 5\), and is ig"
    for y in (np.ones(X.shape, int), pd.DataFrame(X), sparse.csr_array(X)):
        with pytest.warns(UserWarning, match=message):
            getattr(taker, method)(X, y)
    np.testing.assert_array_equal(taker.transform(X), expected)


FLAGS = np.arange(8) % 2 == 0
TARGETS = [FLAGS, FLAGS[:, None], np.ones((8, 2), bool), list("abababab"), None]
TARGETS += [np.arange(8.0), np.ones((8, 4)), np.ones((5, 8), bool)]
TARGETS += [[[1], [2, 3]] * 4, {"a": 1}]  # ragged, and no array


@pytest.fixture
def only_convergence_warnings():
    """Make an error of every warning of this package but one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


@pytest.mark.usefixtures("only_convergence_warnings")
def test_a_target_is_ignored_without_a_word(taker, X):
    Z = clone(taker).fit_transform(X)
    for y in TARGETS:
        taker.fit(X, y)
        taker.score(X, y)
        np.testing.assert_array_equal(taker.transform(X), Z)


@pytest.mark.usefixtures("only_convergence_warnings")
@pytest.mark.parametrize("n_rows", [8, 1])
def test_one_column_of_flags_is_a_target_of_one_column_of_data(taker, n_rows):
    X = np.arange(1.0, 1 + n_rows)[:, None]
    taker.set_params(rank=1).fit(X, X > 2)
    taker.score(X, X > 2)


@pytest.mark.usefixtures("only_convergence_warnings")
def test_targets_reach_the_model_behind_in_pipelines_and_searches(taker):
    X = np.random.RandomState(0).standard_normal((30, 5))
    one, several = X[:, 0] > 0, X[:, :3] > 0
    classifier = make_pipeline(taker, LogisticRegression())
    cross_val_score(classifier, X, one, cv=2, error_score="raise")
    grid = {f"{classifier.steps[0][0]}__rank": [1, 2]}
    GridSearchCV(classifier, grid, cv=2, error_score="raise").fit(X, one)
    make_pipeline(taker, MultiOutputClassifier(LogisticRegression())).fit(X, several)
    make_pipeline(taker, LinearRegression()).fit(X, X[:, :4])


# Nothing to learn


def ones(value=1.0):
    seen = np.random.RandomState(0).uniform(size=(20, 8)) < 0.5
    seen[0], seen[:, 0] = True, True
    return np.where(seen, value, np.nan)


@pytest.mark.parametrize("value", [1.0, -3.0, 1e6])
def test_equal_values_and_missing_ones_are_told_what_to_do(taker, value):
    X = ones(value)
    with pytest.warns(UserWarning) as caught:
        taker.fit(X)
    (text,) = (str(one.message) for one in caught if one.category is UserWarning)
    assert f"All {np.isfinite(X).sum()} observed values are {value:g}" in text
    assert "GradientMF, which takes what is not stored for zero" in text


def test_equal_values_in_a_sparse_matrix_too_and_either_advice_avoids_the_warning():
    X = np.nan_to_num(ones())
    with pytest.warns(UserWarning, match="observed values are 1: there is nothing to"):
        MaskedGradientMF(2).fit(sparse.csr_array(X))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GradientMF(2, max_iter=500).fit(sparse.csr_array(X))
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = MaskedGradientMF(2).fit(X, entry_weight=np.where(X > 0, 1.0, 0.2))
    assert np.ptp(model.inverse_transform(model.transform(X))) > 0.1


@pytest.mark.usefixtures("only_convergence_warnings")
def test_other_tables_of_equal_values_are_fitted_without_a_word(taker):
    complete, one_value = np.ones((6, 4)), [[1.0, np.nan], [np.nan, np.nan]]
    one_column, one_row = [[1.0], [np.nan], [1.0]], [[1.0, np.nan, 1.0]]
    zeros, of_columns = [[0.0, np.nan], [0.0, 0.0]], [[0.1, np.nan], [0.1, 0.3]]
    if isinstance(taker, MFImputer):
        taker.set_params(keep_empty_features=True)
    for X in (
        complete,
        one_value,
        one_column,
        one_row,
        zeros,
        [*of_columns, [0.1, 0.3]],
    ):
        filled = taker.set_params(rank=1).fit_transform(X)
        assert np.isfinite(filled).all()


# Parameters


BAD_VALUES = {"rank": [0, 2.5, "auto"], "eta": [0, np.nan, "fast"], "tol": [-1e-3]}
BAD_VALUES |= {"solver": ["sgdd", None], "reg": [-0.1, np.nan, "none"]}
BAD_VALUES |= {"noise": ["rows"], "n_draws": [-1, 2.5], "fit_bias": ["rows", 2]}
BAD_VALUES |= {"init": ["nndsvd", 3], "max_iter": [0, 2.5], "random_state": ["seed"]}
BAD_VALUES |= {"warm_start": ["yes"], "early_stopping": ["yes"]}
BAD_VALUES |= {"validation_fraction": [0.0, 1.0], "n_iter_no_change": [0]}


@pytest.mark.parametrize("name", BAD_VALUES)
def test_parameters_out_of_range_are_named(model, X, name):
    message = f"The '{name}' parameter of {type(model).__name__} must be"
    for value in BAD_VALUES[name]:
        with pytest.raises(InvalidParameterError, match=message):
            clone(model).set_params(**{name: value}).fit(X)


AUTO, FEW = {"reg": "auto"}, {"early_stopping": True, "validation_fraction": 0.01}


@pytest.mark.parametrize(
    "params, message",
    [
        (AUTO | {"solver": "gd"}, "solver='gd' needs a number"),
        (AUTO | {"solver": "scaled"}, "solver='scaled' needs a number"),
        (AUTO | {"solver": "sgd"}, "solver='sgd' needs a number"),
        (AUTO | {"eta": 0.5}, r"eta=0\.5 needs a number for reg.* no steps to ch"),
        ({"n_draws": 3}, r"reg=0\.1 use n_draws=0"),
        (AUTO | {"n_draws": 3, "warm_start": True}, "continues one fit, not draws"),
        (FEW, r"validation_fraction=0\.01 of 40 observed entries leaves 0"),
    ],
    ids=str,
)
def test_parameters_that_do_not_suit_each_other_or_the_data(model, X, params, message):
    with pytest.raises(ValueError, match=message):
        model.set_params(**params).fit(X)


W0, H0 = np.ones((8, 2)), np.ones((5, 2))


@pytest.mark.parametrize(
    "init, message",
    [
        ((np.ones((8, 3)), H0), r"W0 must have shape \(8, 2\), one row per sample"),
        ((W0, np.ones((2, 5))), r"H0 must have shape \(5, 2\), one row per feature"),
        ((W0,), r"a pair \(W0, H0\); got 1 arrays"),
        ((W0, H0, np.ones(5)), r"a pair \(W0, H0\); got 3 arrays"),
        ((W0, np.inf * H0), "H0 must be finite"),
        ((W0, 1e77 * H0), r"init: H0 .* 1e\+77"),
        ((W0, 1e300 * H0), r"init: H0 .* 1e\+300"),
        ((W0, 1e-100 * H0), "init: H0 .* 1e-100"),
    ],
)
def test_a_start_of_another_shape_or_out_of_all_proportion(model, X, init, message):
    with pytest.raises(ValueError, match=message):
        model.set_params(init=init).fit(X)


def test_a_start_of_zeros_is_in_proportion(model, X):
    model.set_params(init=(0 * W0, 0 * H0)).fit(X)
    assert np.isfinite(model.components_).all()


def test_weights_whose_sum_and_factors_whose_product_overflows(model, X):
    with pytest.raises(ValueError, match="entry_weight is too large"):
        model.fit(X, entry_weight=np.full(X.shape, 1e306))
    Z = model.fit_transform(X)
    with pytest.raises(ValueError, match="beyond the range of float64"):
        model.inverse_transform(np.full_like(Z, 1e308) * np.sign(Z[:1]))
    with pytest.raises(ValueError, match="beyond the range of float64"):
        model.predict_entries(np.full_like(Z, 1.7e308), [0] * 5, range(5))


# Methods


def test_methods_before_fit(model, X):
    calls = [(model.transform, [X]), (model.score, [X]), (model.inverse_transform, [X])]
    calls += [(model.predict_entries, [X, [0], [0]]), (model.get_feature_names_out, [])]
    for method, arguments in calls:
        with pytest.raises(NotFittedError, match="is not fitted yet"):
            method(*arguments)


@pytest.mark.parametrize("method", ["transform", "score"])
def test_other_features_than_those_of_fit(model, X, method):
    message = f"X has 4 features, but {type(model).__name__} is expecting 5 features"
    with pytest.raises(ValueError, match=message):
        call(model, method, X[:, :4])
    frame = pd.DataFrame(X, columns=list("abcde"))
    method = getattr(model.fit(frame), method)
    with pytest.raises(ValueError, match="must be in the same order"):
        method(frame[list("edcba")])
    with pytest.raises(ValueError, match="Feature names unseen at fit time:\n- z"):
        method(frame.rename(columns={"a": "z"}))


def test_factors_of_another_width_or_with_nan(model, X):
    Z = model.fit_transform(X)
    width = Z.shape[1]
    message = f"Z must have {width} columns, as transform returns them; got"
    for wrong in (np.ones((8, width - 1)), np.ones((8, width + 1))):
        with pytest.raises(ValueError, match=message):
            model.inverse_transform(wrong)
        with pytest.raises(ValueError, match=message):
            model.predict_entries(wrong, [0], [0])
    Z[0, 0] = np.nan
    with pytest.raises(ValueError, match="Input Z contains NaN"):
        model.inverse_transform(Z)


def test_entries_that_do_not_exist(model, X):
    Z = model.fit_transform(X)
    for rows, columns, message in (
        ([0, 1], [0], "the same length; got 2 and 1"),
        ([0, 8], [0, 0], "rows[1] is 8; it must lie in [0, 8)"),
        ([-1], [0], "rows[0] is -1; it must lie in [0, 8)"),
        ([0], [5], "columns[0] is 5; it must lie in [0, 5)"),
        ([0], [-2], "columns[0] is -2; it must lie in [0, 5)"),
        ([0.0], [0], "rows must be a one-dimensional array of integers"),
        ([0], [[0]], "columns must be a one-dimensional array of integers"),
        ([True], [0], "rows must be a one-dimensional array of integers"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            model.predict_entries(Z, rows, columns)
