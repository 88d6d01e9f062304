"""A fit of a collection finds what a fit in one process finds, and leaves no trace.

Blocks are tiny, and so is the number of entries from which on a block is a part of its
own. Fits run on threads of this process but for those that need workers.
"""

import os
import signal
import threading
import time
import weakref
from functools import reduce
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import NotFittedError

import sklearn_mfgd
from sklearn_mfgd import _learning
from sklearn_mfgd._data.holdout import hold_out
from sklearn_mfgd._data.matrix import ObservedMatrix
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._data.row_blocks import blocks_of_rows
from sklearn_mfgd._kernels.linalg import column_norms, inner
from sklearn_mfgd._kernels.rows import Rows
from sklearn_mfgd._optim.objective import objective_of

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

from sklearn_mfgd.dask import MaskedGradientMF, _engine, _prepare  # noqa: E402
from sklearn_mfgd.dask._engine import ALIGNMENT, Engine  # noqa: E402
from sklearn_mfgd.dask._matrix import PartedMatrix  # noqa: E402
from sklearn_mfgd.dask._objective import MovedColumns, SummedColumns  # noqa: E402
from sklearn_mfgd.dask._parted import Parts  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("one_thread"),
]

N_THREADS = 2

# Entries that a part has at least.
FEW_ENTRIES = 20

# What a fit with a given ridge finds has the same bits for any blocks.
SAME_BITS = [
    "components_",
    "column_bias_",
    "mean_",
    "rank_",
    "n_iter_",
    "loss_curve_",
    "validation_curve_",
]
OTHERS = [
    "reconstruction_err_",
    "noise_variance_",
    "row_precision_",
    "column_precision_",
]


@pytest.fixture(scope="module", autouse=True)
def several_parts():
    """Each block is a part unless it has very few entries; no client is current."""
    threads = {"scheduler": "threads", "num_workers": N_THREADS}
    with pytest.MonkeyPatch.context() as patch, dask.config.set(threads):
        patch.setattr(_prepare, "MIN_ENTRIES", FEW_ENTRIES)
        yield


@pytest.fixture
def folder(tmp_path):
    """Where Dask keeps what is temporary."""
    with dask.config.set({"temporary-directory": tmp_path}):
        yield tmp_path


@pytest.fixture(scope="module")
def cluster():
    options = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": "2GiB"}
    with distributed.LocalCluster(**options, dashboard_address=None) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    """A client of two processes; it is not the current one."""
    with distributed.Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2)
        yield client


@pytest.fixture
def client_of():
    """Return ``client_of(n)``: a client of n workers in this process."""
    opened = []

    def open_client(n_workers):
        options = {"n_workers": n_workers, "threads_per_worker": 1}
        silent = {"dashboard_address": None, "silence_logs": "ERROR"}
        cluster = distributed.LocalCluster(processes=False, **options, **silent)
        opened.append(cluster)
        opened.append(distributed.Client(cluster, set_as_default=False))
        return opened[-1]

    yield open_client
    for one in reversed(opened):
        one.close()


@pytest.fixture(scope="module")
def X(planted):
    """A table of 40 x 8 of which 60 % is missing."""
    return planted(m=40, n=8, share_missing=0.6).X


CUTS = (12, 21, 21, 30)  # the third block is empty


def cut(X, cuts=CUTS):
    """Delayed blocks that begin at these rows, and one before them."""
    return [dask.delayed(block) for block in np.split(X, cuts)]


def fit_both(X, cuts=CUTS, *, weights=None, mask=None, client=None, **params):
    """Fit the blocks of X, and X in memory; both have converged or stop early."""
    params = {"rank": 3, "max_iter": 4, **params}
    lazy = {
        name: None if array is None else cut(array, cuts)
        for name, array in (("entry_weight", weights), ("mask", mask))
    }
    found = MaskedGradientMF(**params, client=client).fit(cut(X, cuts), **lazy)
    local = sklearn_mfgd.MaskedGradientMF(**params)
    return found, local.fit(X, mask=mask, entry_weight=weights)


def assert_same_bits(found, expected):
    for name in SAME_BITS:
        of_found, of_expected = getattr(found, name), getattr(expected, name)
        assert_array_equal(of_found, of_expected, err_msg=name, strict=True)
    # Sums of parts, rounded in between.
    errors = found.reconstruction_err_, expected.reconstruction_err_
    assert_allclose(*errors, rtol=1e-14)
    means = found.column_mean_, expected.column_mean_
    assert_allclose(*means, rtol=1e-6 if means[0].dtype == np.float32 else 1e-12)


def assert_close(found, expected, rtol):
    """Both have learned the same up to rounding, over the size of each attribute."""
    assert (found.rank_, found.n_iter_) == (expected.rank_, expected.n_iter_)
    for name in SAME_BITS + OTHERS:
        of_found, of_expected = getattr(found, name), getattr(expected, name)
        if of_expected is None:
            assert of_found is None
            continue
        size = np.abs(of_expected).max(initial=0)
        assert_allclose(of_found, of_expected, atol=rtol * size, err_msg=name)
        assert np.asarray(of_found).dtype == np.asarray(of_expected).dtype


@st.composite
def collections(draw):
    """A small table, where to cut it, and weights or None.

    Of the parts some are empty, and some lack columns; so does the whole table.
    """
    m, n = draw(st.integers(3, 30)), draw(st.integers(2, 10))
    cuts = sorted(draw(st.lists(st.integers(0, m), max_size=4)))
    rng = np.random.RandomState(draw(st.integers(0, 999)))
    X = rng.standard_normal((m, 2)) @ rng.standard_normal((2, n))
    X[rng.uniform(size=X.shape) < draw(st.sampled_from([0.1, 0.5, 0.8]))] = np.nan
    rows, columns = st.integers(0, m - 1), st.integers(0, n - 1)
    X[draw(st.lists(rows, max_size=m // 3))] = np.nan
    X[:, draw(st.lists(columns, max_size=n // 3))] = np.nan
    X[0, 0], X[-1, -1] = 1.0, 2.0  # neither empty nor constant
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    weights = None
    if draw(st.booleans()):
        weights = rng.randint(0, 3, size=X.shape).astype(dtype)
        weights[0, 0] = weights[-1, -1] = 1
    return X.astype(dtype), cuts, weights


# Numbers: given ridge


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(collection=collections(), fit_bias=st.sampled_from([True, "columns"]))
def test_with_a_given_ridge_no_division_of_the_rows_changes_a_bit(collection, fit_bias):
    X, cuts, weights = collection
    params = {"reg": 0.5, "fit_bias": fit_bias, "max_iter": 2, "tol": 0}
    # Sums of columns in place of moved rows are for the test that follows.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sklearn_mfgd.dask._objective.MANY_ROWS", np.inf)
        assert_same_bits(*fit_both(X, cuts, weights=weights, **params))


@pytest.mark.parametrize("dtype, rtol", [(np.float32, 1e-4), (np.float64, 1e-9)])
def test_sums_over_many_more_rows_than_columns_differ_by_rounding(planted, dtype, rtol):
    X = planted(m=80, n=4, share_missing=0.4).X.astype(dtype)
    assert_close(*fit_both(X, (20, 40, 60), rank=2, reg=0.5), rtol)


def test_without_biases_a_fit_differs_by_rounding(X):
    assert_close(*fit_both(X + 5, reg=0.5, fit_bias=False), 1e-9)


@pytest.mark.parametrize(
    "params",
    [
        {"init": "random", "random_state": 3},
        {"rank": 6, "max_iter": 40, "tol": 1e-3},
        {"early_stopping": True, "random_state": 0, "max_iter": 30},
    ],
    ids=["random start", "until it has converged", "early stopping"],
)
def test_a_fit_with_a_given_ridge_has_the_bits_of_the_local_one(X, params):
    found, local = fit_both(X, reg=0.5, **params)
    assert_same_bits(found, local)
    assert local.n_iter_ < 30 or "tol" not in params


def test_a_wide_table_has_the_bits_of_the_local_fit(planted):
    X = planted(m=12, n=30, share_missing=0.5).X
    assert_same_bits(*fit_both(X, (5, 9), reg=0.5))


def test_mask_and_weights_hide_and_weigh_the_entries_that_they_do_locally(X):
    rng = np.random.RandomState(1)
    mask, weights = rng.uniform(size=X.shape) < 0.8, rng.uniform(size=X.shape)
    assert_same_bits(*fit_both(X, mask=mask, weights=weights, reg=0.5))


def test_weights_of_one_are_no_weights(X):
    params = {"rank": 2, "reg": 0.5, "max_iter": 3}
    ones = cut(np.ones_like(X))
    found = MaskedGradientMF(**params).fit(cut(X), entry_weight=ones)
    assert_same_bits(found, MaskedGradientMF(**params).fit(cut(X)))


def test_a_second_fit_starts_from_the_first(X):
    params = {"rank": 2, "reg": 0.5, "max_iter": 2, "warm_start": True}
    found, local = fit_both(X, **params)
    before = found.loss_curve_[-1]
    assert_same_bits(found.fit(cut(X)), local.fit(X))
    assert found.loss_curve_[0] < before


# Numbers: learned regularization


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(collection=collections(), fit_bias=st.sampled_from([True, "columns", False]))
def test_what_is_learned_differs_by_rounding(collection, fit_bias):
    X, cuts, weights = collection
    X = X.astype(np.float64)
    weights = None if weights is None else weights.astype(np.float64)
    params = {"fit_bias": fit_bias, "max_iter": 3}
    assert_close(*fit_both(X, cuts, weights=weights, **params), 1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"noise": "shared", "pattern": False},
        {"early_stopping": True, "random_state": 0},
        {"init": "random", "random_state": 0},
        {"fit_bias": False},
    ],
    ids=str,
)
def test_a_converged_fit_has_learned_the_same_up_to_rounding(planted, params):
    X = planted(m=50, n=33, rank=2, share_missing=0.5).X
    X[:, :17] = np.where(X[:, :17] > -1, X[:, :17], np.nan)  # missing not at random
    found, local = fit_both(X, (20, 30), rank=4, max_iter=60, **params)
    assert local.n_iter_ < 60
    assert_close(found, local, 1e-8)


def test_in_single_precision_what_is_learned_is_close(X):
    assert_close(*fit_both(X.astype(np.float32), max_iter=6), 1e-3)


def test_a_second_fit_learns_on_from_the_first(X):
    found, local = fit_both(X, max_iter=3, warm_start=True)
    assert_close(found.fit(cut(X)), local.fit(X), 1e-8)


def test_the_score_of_a_fit_is_that_of_the_local_fit(X):
    found, local = fit_both(X)
    assert_allclose(found.score(cut(X)), local.score(X), rtol=1e-8)


@pytest.mark.parametrize("reg", [0.5, "auto"])
def test_a_single_part_has_the_numbers_of_the_local_fit(X, reg):
    assert_close(*fit_both(X, (), reg=reg), 1e-12)


def test_entries_that_are_all_missing_are_refused(X):
    with pytest.raises(ValueError, match="nothing to fit: every entry of X is missing"):
        MaskedGradientMF().fit(cut(X * np.nan))
