"""Checkpoints of a fit of a collection, and columns that are many."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

import sklearn_mfgd

pytest.importorskip("distributed")
da = pytest.importorskip("dask.array")

from sklearn_mfgd._bayes import covariance  # noqa: E402
from sklearn_mfgd.dask import (  # noqa: E402
    Checkpoint,
    MaskedGradientMF,
    _matrix,
    _prepare,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def X(monkeypatch):
    """Four blocks of a table of rank 2, half of it missing."""
    monkeypatch.setattr(_prepare, "MIN_ENTRIES", 20)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 2)) @ rng.normal(size=(2, 30))
    X += 3 + 0.3 * rng.normal(size=X.shape)
    X[rng.random(X.shape) < 0.5] = np.nan
    return da.from_array(X, chunks=(20, 30))


def test_a_checkpoint_is_the_model_of_its_sweep(X, tmp_path):
    pytest.importorskip("sklearn.callback")
    path = tmp_path / "model.pickle"
    fit = {"rank": 3, "reg": 1.0, "tol": 0}
    model = MaskedGradientMF(max_iter=5, **fit)
    model.set_callbacks(Checkpoint(path, every=2)).fit(X)
    saved = pickle.loads(path.read_bytes())
    assert type(saved) is sklearn_mfgd.MaskedGradientMF
    expected = MaskedGradientMF(max_iter=4, **fit).fit(X)
    assert saved.n_iter_ == 4
    assert_allclose(saved.components_, expected.components_, rtol=1e-13)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pickle"]


@pytest.mark.parametrize("reg", [1.0, "auto"])
def test_a_fit_goes_on_from_a_checkpoint(X, tmp_path, reg):
    """It ends where the fit that was not interrupted ended, in fewer sweeps."""
    pytest.importorskip("sklearn.callback")
    path = tmp_path / "model.pickle"
    whole = MaskedGradientMF(4, reg=reg, tol=1e-6)
    whole.set_callbacks(Checkpoint(path, every=4)).fit(X)
    saved = pickle.loads(path.read_bytes())
    resumed = MaskedGradientMF.from_local(saved).set_params(warm_start=True).fit(X)
    assert resumed.n_iter_ < whole.n_iter_
    assert resumed.rank_ == whole.rank_
    found, expected = (m.inverse_transform(m.transform(X)) for m in (resumed, whole))
    assert_allclose(found.compute(), expected.compute(), atol=2e-3)


def test_a_checkpoint_is_made_after_some_sweeps():
    with pytest.raises(ValueError, match="every must be at least 1; got 0"):
        Checkpoint("model.pickle", every=0)


def test_sums_of_many_columns_are_added_up_in_ranges(X, monkeypatch):
    whole = MaskedGradientMF(4).fit(X)
    monkeypatch.setattr(_matrix, "MAX_SUMS", 150)  # some five columns
    in_ranges = MaskedGradientMF(4).fit(X)
    assert_allclose(in_ranges.components_, whole.components_, rtol=1e-12)
    assert in_ranges.loss_curve_ == pytest.approx(whole.loss_curve_, rel=1e-13)


def test_there_is_room_for_eight_times_the_covariances_of_one_process(X, monkeypatch):
    size = 21  # moments of four factors and a bias
    monkeypatch.setattr(covariance, "MAX_MOMENTS", 30 * size / 8)
    MaskedGradientMF(4).fit(X)
    with pytest.raises(ValueError, match="take too much memory; use a rank of at most"):
        MaskedGradientMF(5).fit(X)
