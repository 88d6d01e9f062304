"""A fitted estimator can be stored, and is the same when it is loaded."""

import copy
import io
import pickle
import re
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.linear_model import Ridge

import sklearn_mfgd
from sklearn_mfgd import GradientMF, MaskedGradientMF, MFImputer

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("one_thread"),
]

# All that a reader has to trust, under the names that skops gives them.
TRUSTED = [
    f"{Estimator.__module__}.{Estimator.__name__}"
    for Estimator in (GradientMF, MaskedGradientMF, MFImputer)
]
SEED = np.random.RandomState(0)
MODELS = {
    "ridge": GradientMF(3),
    "column biases": GradientMF(3, fit_bias="columns", solver="scaled", init="random"),
    "early stopping": GradientMF(3, reg="auto", early_stopping=True, random_state=0),
    "variational": MaskedGradientMF(4),
    "shared noise": MaskedGradientMF(4, noise="shared", pattern=False),
    "draws": MaskedGradientMF(3, n_draws=4, random_state=0),
    "sgd": MaskedGradientMF(3, reg=0.1, solver="sgd", random_state=SEED),
    "imputer": MFImputer(),
    "indicator": MFImputer(add_indicator=True, keep_empty_features=True, min_value=0),
    "ridge imputer": MFImputer(3, reg=0.1, scale=False, max_value=list(range(1, 16))),
    "sampling imputer": MFImputer(3, sample_posterior=True, random_state=0),
    "scores": MFImputer(marginal="normal", discrete="nearest", statistic="median"),
    "residual": MFImputer(marginal="auto", residual=Ridge(), random_state=0),
    "in time": MFImputer(time="index"),
    "sampling in time": MFImputer(
        3, time="index", sample_posterior=True, random_state=0
    ),
}


@pytest.fixture
def table(planted):
    X = planted(m=60, share_missing=0.3).X.astype(np.float32)
    X[:, 4] = np.nan
    return pd.DataFrame(X).add_prefix("c")


@pytest.fixture
def fit(table):
    """Fit one of the models by a few sweeps: what it finds does not matter here."""
    return lambda name: clone(MODELS[name]).set_params(max_iter=5).fit(table)


@pytest.fixture(params=list(MODELS))
def fitted(request, fit):
    return fit(request.param)


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))


def by_joblib(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


def by_skops(model):
    return skops.io.loads(skops.io.dumps(model), trusted=TRUSTED)


@pytest.fixture(params=[by_pickle, by_joblib, by_skops, copy.copy, copy.deepcopy])
def store(request):
    return request.param


def test_a_loaded_model_is_the_same(fitted, store, table, assert_same_model):
    loaded = store(fitted)
    assert vars(loaded).keys() == vars(fitted).keys()
    assert_same_model(loaded, fitted, table)
    if isinstance(fitted, MFImputer):
        known = fitted.reg == "auto" and not fitted.sample_posterior
        found, expected = (m.impute(table, return_std=known) for m in (loaded, fitted))
        assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["early stopping", "variational", "shared noise"])
def test_a_loaded_model_knows_its_uncertainty(name, store, fit, table):
    fitted = fit(name)
    loaded = store(fitted)
    Z, covariance = fitted.transform(table, return_cov=True)
    assert_array_equal(loaded.transform(table, return_cov=True)[1], covariance)
    places = np.nonzero(table.isna())
    options = {"covariance": covariance, "return_std": True}
    found, expected = (
        m.predict_entries(Z, *places, **options) for m in (loaded, fitted)
    )
    assert_array_equal(found, expected)


def test_a_fit_continues_from_a_loaded_model(store, table):
    fitted = MaskedGradientMF(3, warm_start=True, max_iter=5).fit(table)
    loaded = store(fitted).fit(table)
    assert_array_equal(loaded.components_, fitted.fit(table).components_)


@pytest.mark.parametrize("Estimator", [GradientMF, MaskedGradientMF, MFImputer])
def test_an_unfitted_estimator_can_be_stored(Estimator, store):
    model = Estimator(rank=7, verbose=1)
    assert repr(vars(store(model))) == repr(vars(model))


@pytest.mark.parametrize("name", ["variational", "draws"])
def test_the_arrays_of_a_file_may_stay_on_disk(name, fit, table, tmp_path):
    fitted = fit(name)
    joblib.dump(fitted, tmp_path / "model")
    loaded = joblib.load(tmp_path / "model", mmap_mode="r")
    assert_array_equal(loaded.transform(table), fitted.transform(table))


# The state, of plain data, and what it can be made to be


def containers_of(value):
    """Yield a value and all dictionaries, lists and tuples within it."""
    yield value
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from containers_of(part)


def test_the_state_is_of_plain_data_and_only_the_estimators_ask_for_trust(fitted):
    untrusted = skops.io.get_untrusted_types(data=skops.io.dumps(fitted))
    assert set(untrusted) <= set(TRUSTED)
    plain = dict, list, tuple, float, int, str, bool, np.float64, np.ndarray
    state = fitted.__getstate__()
    state.pop("random_state")
    values = [v for v in containers_of(state) if not isinstance(v, BaseEstimator)]
    assert all(value is None or type(value) in plain for value in values)


@pytest.mark.parametrize("name", ["variational", "draws"])
def test_a_file_that_lies_about_shapes_is_an_error_and_no_crash(name, fit, table):
    fitted = fit(name)
    state = copy.deepcopy(fitted.__getstate__())
    for record in containers_of(state):
        if isinstance(record, dict):
            for name in {"H", "means"} & record.keys():  # column factors
                record[name] = record[name][:2]
    fitted.__setstate__(state)
    with pytest.raises((ValueError, IndexError)):
        fitted.transform(table)


@pytest.mark.parametrize("change", [{"_record": "Unknown"}, {"new": 1.0}], ids=str)
def test_a_record_that_this_version_does_not_know_is_an_error(change, table):
    state = MaskedGradientMF(3).fit(table).__getstate__()
    records = [name for name, value in state.items() if type(value) is dict]
    state[records[0]] = state[records[0]] | change
    with pytest.raises(ValueError, match="Load the file with the version that wrote"):
        MaskedGradientMF().__setstate__(state)


@pytest.mark.parametrize("Estimator", [GradientMF, MaskedGradientMF, MFImputer])
def test_loading_a_file_of_another_version_warns(Estimator, table, monkeypatch):
    fitted = Estimator(3).fit(table)
    file = pickle.dumps(fitted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(file)
    monkeypatch.setattr(sklearn_mfgd, "__version__", "99.0")
    with pytest.warns(InconsistentVersionWarning) as caught:
        loaded = pickle.loads(file)
    # An imputer warns for its factorization, too.
    assert len(caught) == (2 if Estimator is MFImputer else 1)
    message = rf"sklearn_mfgd.{Estimator.__name__} from version 0.*version 99.0"
    assert any(re.search(message, str(warning.message)) for warning in caught)
    assert_array_equal(loaded.transform(table), fitted.transform(table))
