"""A fitted estimator can be stored, and is the same when it is loaded."""

import copy
import io
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import InconsistentVersionWarning

import sklearn_mfgd
from sklearn_mfgd import GradientMF, MaskedGradientMF, MFImputer

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("one_thread"),
]

# All that a reader has to trust, under the names that skops gives them.
OURS = [
    f"{Estimator.__module__}.{Estimator.__name__}"
    for Estimator in (GradientMF, MaskedGradientMF, MFImputer)
]

FACTORIZATIONS = [
    GradientMF(3),
    GradientMF(3, fit_bias="columns", solver="scaled", init="random", random_state=0),
    GradientMF(3, reg="auto", early_stopping=True, random_state=0),
    MaskedGradientMF(4),
    MaskedGradientMF(4, noise="shared", pattern=False),
    MaskedGradientMF(3, n_draws=4, random_state=0),
    MaskedGradientMF(3, reg=0.1, solver="sgd", random_state=np.random.RandomState(0)),
]
IMPUTERS = [
    MFImputer(),
    MFImputer(add_indicator=True, keep_empty_features=True, min_value=0.0),
    MFImputer(3, reg=0.1, scale=False, max_value=list(range(1, 16))),
    MFImputer(3, sample_posterior=True, random_state=0),
]


def number(model):
    """Name an estimator by its class: of a generator, `str` is never the same."""
    return type(model).__name__


def fitted_to(model, X):
    """A fit of a few sweeps: what it finds does not matter here."""
    return clone(model).set_params(max_iter=5).fit(X)


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))


def by_joblib(model):
    file = io.BytesIO()
    joblib.dump(model, file)
    file.seek(0)
    return joblib.load(file)


def by_skops(model):
    return skops.io.loads(skops.io.dumps(model), trusted=OURS)


STORES = [by_pickle, by_joblib, by_skops, copy.copy, copy.deepcopy]


@pytest.fixture
def table(planted):
    X = planted(m=60, share_missing=0.3).X.astype(np.float32)
    X[:, 4] = np.nan
    return X


@pytest.mark.parametrize("store", STORES)
class TestALoadedModelIsTheSame:
    @pytest.mark.parametrize("model", FACTORIZATIONS, ids=number)
    def test_factorization(self, model, store, table):
        fitted = fitted_to(model, table)
        loaded = store(fitted)
        assert vars(loaded).keys() == vars(fitted).keys()
        Z = fitted.transform(table)
        assert_array_equal(loaded.transform(table), Z)
        assert_array_equal(loaded.inverse_transform(Z), fitted.inverse_transform(Z))
        assert loaded.score(table) == fitted.score(table)
        assert_array_equal(loaded.components_, fitted.components_)

    @pytest.mark.parametrize(
        "model", [FACTORIZATIONS[k] for k in (2, 3, 4)], ids=number
    )
    def test_uncertainty(self, model, store, table):
        fitted = fitted_to(model, table)
        loaded = store(fitted)
        Z, covariance = fitted.transform(table, return_cov=True)
        assert_array_equal(loaded.transform(table, return_cov=True)[1], covariance)
        entries = np.nonzero(np.isnan(table))
        options = {"covariance": covariance, "return_std": True}
        found = loaded.predict_entries(Z, *entries, **options)
        assert_array_equal(found, fitted.predict_entries(Z, *entries, **options))

    @pytest.mark.parametrize("model", IMPUTERS, ids=number)
    def test_imputer(self, model, store, table):
        frame = pd.DataFrame(table, columns=[f"c{j}" for j in range(15)])
        fitted = fitted_to(model, frame)
        loaded = store(fitted)
        assert vars(loaded).keys() == vars(fitted).keys()
        assert_array_equal(loaded.transform(frame), fitted.transform(frame))
        assert_array_equal(loaded.impute(frame), fitted.impute(frame))
        assert loaded.score(frame) == fitted.score(frame)
        names = fitted.get_feature_names_out()
        assert_array_equal(loaded.get_feature_names_out(), names)

    def test_deviations_of_imputed_values(self, store, table):
        fitted = fitted_to(MFImputer(), table)
        found = store(fitted).impute(table, return_std=True)
        assert_array_equal(found, fitted.impute(table, return_std=True))

    def test_a_fit_continues_from_it(self, store, table):
        fitted = MaskedGradientMF(3, warm_start=True, max_iter=5).fit(table)
        loaded = store(fitted).fit(table)
        assert_array_equal(loaded.components_, fitted.fit(table).components_)

    @pytest.mark.parametrize("Estimator", [GradientMF, MaskedGradientMF, MFImputer])
    def test_an_unfitted_one_too(self, Estimator, store):
        model = Estimator(rank=7, verbose=1)
        assert repr(vars(store(model))) == repr(vars(model))


@pytest.mark.parametrize("model", FACTORIZATIONS + IMPUTERS, ids=number)
def test_a_reader_trusts_the_estimators_and_nothing_else(model, table):
    file = skops.io.dumps(fitted_to(model, table))
    assert set(skops.io.get_untrusted_types(data=file)) <= set(OURS)


def test_a_file_that_lies_about_shapes_is_an_error_and_no_crash(table):
    for model in (MaskedGradientMF(3), MaskedGradientMF(3, n_draws=3)):
        fitted = model.fit(table)
        state = fitted.__getstate__()
        for record in (state["_learned"], *(state["_draws"] or {"draws": []})["draws"]):
            record["H"] = record["H"][:2]
        fitted.__setstate__(state)
        with pytest.raises((ValueError, IndexError)):
            fitted.transform(table)


def test_arrays_may_stay_in_a_file_of_joblib(table, tmp_path):
    for model in (MaskedGradientMF(3), MaskedGradientMF(3, n_draws=3), MFImputer(3)):
        fitted = model.fit(table)
        joblib.dump(fitted, tmp_path / "model")
        loaded = joblib.load(tmp_path / "model", mmap_mode="r")
        assert_array_equal(loaded.transform(table), fitted.transform(table))


# Versions


@pytest.fixture
def later(monkeypatch):
    """Let what comes after be a later version."""

    def install():
        monkeypatch.setattr(sklearn_mfgd, "__version__", "99.0")

    return install


@pytest.mark.parametrize("model", [GradientMF(3), MaskedGradientMF(3)], ids=str)
def test_a_file_of_another_version_is_loaded_with_a_warning(model, table, later):
    file = pickle.dumps(model.fit(table))
    later()
    message = f"sklearn_mfgd.{type(model).__name__} from version 0.*version 99.0"
    with pytest.warns(InconsistentVersionWarning, match=message):
        loaded = pickle.loads(file)
    assert_array_equal(loaded.transform(table), model.transform(table))


def test_an_imputer_of_another_version_warns_for_its_factorization_too(table, later):
    file = pickle.dumps(MFImputer(3).fit(table))
    later()
    with pytest.warns(InconsistentVersionWarning) as caught:
        pickle.loads(file)
    names = [warning.message.estimator_name for warning in caught]
    assert sorted(names) == ["sklearn_mfgd.MFImputer", "sklearn_mfgd.MaskedGradientMF"]


def test_a_file_of_this_version_is_loaded_without_a_warning(table):
    file = pickle.dumps(MFImputer(3).fit(table))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(file)


def test_the_version_is_no_attribute(table):
    model = MaskedGradientMF(3).fit(table)
    assert vars(by_pickle(model)).keys() == vars(model).keys()


@pytest.mark.parametrize("change", [{"_record": "Unknown"}, {"new": 1.0}], ids=str)
def test_a_record_that_this_version_does_not_know_is_an_error(change, table):
    state = MaskedGradientMF(3).fit(table).__getstate__()
    state["_learned"] = state["_learned"] | change
    with pytest.raises(ValueError, match="Load the file with the version that wrote"):
        MaskedGradientMF().__setstate__(state)


def test_the_state_is_of_plain_data(table):
    def look(value):
        if isinstance(value, dict):
            assert all(type(name) is str for name in value)
            value = list(value.values())
        if isinstance(value, list | tuple):
            assert type(value) in (list, tuple)
            for part in value:
                look(part)
            return
        assert value is None or isinstance(value, np.ndarray | float | int | str)

    look(MaskedGradientMF(3).fit(table).__getstate__())
    look(MaskedGradientMF(3, n_draws=2).fit(table).__getstate__())
