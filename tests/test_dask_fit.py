"""A fit of a collection finds what a fit in one process finds, and leaves no trace.

Blocks are tiny, and so is the number of entries from which on a block is a part of its
own. Fits run on threads of this process but for those that need workers.
"""

import os
import signal
import time
import weakref
from itertools import pairwise
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
from sklearn_mfgd._data.observed import observe, rows_of
from sklearn_mfgd._data.prepared import PreparedData
from sklearn_mfgd._data.row_blocks import blocks_of_rows
from sklearn_mfgd._kernels.linalg import column_norms, inner
from sklearn_mfgd._kernels.rows import Biases, Rows
from sklearn_mfgd._kernels.threads import n_threads
from sklearn_mfgd._optim.objective import objective_of

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

from sklearn_mfgd.dask import MaskedGradientMF, _engine, _prepare  # noqa: E402
from sklearn_mfgd.dask._blocks import blocks_of  # noqa: E402
from sklearn_mfgd.dask._engine import ALIGNMENT, Engine  # noqa: E402
from sklearn_mfgd.dask._matrix import PartedMatrix  # noqa: E402
from sklearn_mfgd.dask._objective import MovedColumns, SummedColumns  # noqa: E402
from sklearn_mfgd.dask._parted import Parts  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Port 8787 is already in use"),
    pytest.mark.usefixtures("one_thread"),
]

N_THREADS = 2

# Entries that a part has at least.
FEW_ENTRIES = 20

BOTH_BIASES = Biases(row=True, column=True)

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


@pytest.fixture
def engine():
    with Engine() as engine:
        yield engine


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


def fit_both(X, cuts=CUTS, *, weights=None, mask=None, **params):
    """Fit the blocks of X, and X in memory."""
    params = {"rank": 3, "max_iter": 4, **params}
    lazy = {
        name: None if array is None else cut(array, cuts)
        for name, array in (("entry_weight", weights), ("mask", mask))
    }
    found = MaskedGradientMF(**params).fit(cut(X, cuts), **lazy)
    local = sklearn_mfgd.MaskedGradientMF(**params)
    return found, local.fit(X, mask=mask, entry_weight=weights)


def assert_same_bits(found, expected):
    """Both have found the same, but for the rounding of sums by block."""
    for name in SAME_BITS:
        of_found, of_expected = getattr(found, name), getattr(expected, name)
        assert_array_equal(of_found, of_expected, err_msg=name, strict=True)
    errors = found.reconstruction_err_, expected.reconstruction_err_
    assert_allclose(*errors, rtol=1e-14)
    size = np.abs(expected.column_mean_).max()
    rtol = 1e-6 if found.column_mean_.dtype == np.float32 else 1e-12
    means = found.column_mean_, expected.column_mean_
    assert_allclose(*means, rtol=rtol, atol=rtol * size)


def assert_close(found, expected, rtol):
    """Both have learned the same up to rounding, over the size of each attribute."""
    assert (found.rank_, found.n_iter_) == (expected.rank_, expected.n_iter_)
    # The sign of a factor is that of an eigenvector, which rounding may decide.
    signs = np.sign((found.components_ * expected.components_).sum(axis=1))
    for name in SAME_BITS + OTHERS:
        of_found, of_expected = getattr(found, name), getattr(expected, name)
        if name == "components_":
            of_found = signs[:, None].astype(of_found.dtype) * of_found
        if of_expected is None:
            assert of_found is None
            continue
        size = np.abs(of_expected).max(initial=0)
        atol = rtol * size
        assert_allclose(of_found, of_expected, rtol=0, atol=atol, err_msg=name)
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
    # Neither empty nor constant nor complete, which has other solvers in memory.
    X[0, 0], X[-1, -1], X[0, -1] = 1.0, 2.0, np.nan
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    weights = None
    if draw(st.booleans()):
        weights = rng.randint(0, 3, size=X.shape).astype(dtype)
        weights[0, 0] = weights[-1, -1] = 1
    return X.astype(dtype), cuts, weights


# Numbers: given ridge


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
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


@pytest.mark.parametrize("init", ["svd", "random"])
def test_a_table_of_as_many_rows_as_columns_is_learned_alike(planted, init):
    X = planted(m=20, n=20, share_missing=0.4).X
    assert_close(*fit_both(X, (8,), init=init, random_state=0), 1e-8)


@pytest.mark.parametrize("reg", [0.5, "auto"])
def test_a_single_part_has_the_numbers_of_the_local_fit(X, reg):
    assert_close(*fit_both(X, (), reg=reg), 1e-12)


def test_entries_that_are_all_missing_are_refused(X):
    with pytest.raises(ValueError, match="nothing to fit: every entry of X is missing"):
        MaskedGradientMF().fit(cut(X * np.nan))


# Wherever it is computed


@pytest.mark.slow
@pytest.mark.parametrize("n_workers", [1, 3])
def test_any_number_of_workers_finds_the_same_bits(X, client_of, n_workers):
    params, cuts = {"rank": 2, "max_iter": 2}, (12, 25)
    on_threads = MaskedGradientMF(**params).fit(cut(X, cuts))
    client = client_of(n_workers)
    on_workers = MaskedGradientMF(**params, client=client).fit(cut(X, cuts))
    assert_same_bits(on_workers, on_threads)
    assert len(client.scheduler_info()["workers"]) == n_workers


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 3])
def test_any_number_of_threads_finds_the_same_bits(X, monkeypatch, num_workers):
    params = {"rank": 2, "max_iter": 2}
    expected = MaskedGradientMF(**params).fit(cut(X))
    monkeypatch.setenv("OMP_NUM_THREADS", str(num_workers))
    with dask.config.set(num_workers=num_workers):
        assert_same_bits(MaskedGradientMF(**params).fit(cut(X)), expected)


@pytest.mark.slow
def test_many_more_rows_than_columns_are_summed_alike_by_workers(planted, client_of):
    X, cuts = planted(m=80, n=4, share_missing=0.4).X, (20, 60)
    params = {"rank": 2, "reg": 0.5, "max_iter": 1}
    on_threads = MaskedGradientMF(**params).fit(cut(X, cuts))
    on_workers = MaskedGradientMF(**params, client=client_of(2)).fit(cut(X, cuts))
    assert_same_bits(on_workers, on_threads)


# Faults


@pytest.fixture
def during_sweep(monkeypatch):
    """Return ``during_sweep(number, action)``: it is called after a verbose sweep."""

    def call(number, action):
        def hook(line):
            if line.startswith(f"Sweep {number}:"):
                action()

        monkeypatch.setattr(_learning, "print", hook, raising=False)

    return call


def interrupt():
    raise KeyboardInterrupt


def soon(condition, seconds=20):
    """Whether something is true within some time."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@pytest.mark.slow
@pytest.mark.parametrize("reg", [0.5, "auto"])
def test_a_worker_that_is_killed_changes_no_bit(X, client, during_sweep, reg):
    params = {"rank": 2, "reg": reg, "max_iter": 2, "tol": 0, "verbose": 1}
    expected = MaskedGradientMF(**params).fit(cut(X, (21,)))
    pids = client.run(os.getpid)
    during_sweep(1, lambda: os.kill(next(iter(pids.values())), signal.SIGKILL))
    found = MaskedGradientMF(**params, client=client).fit(cut(X, (21,)))
    assert_same_bits(found, expected)
    client.wait_for_workers(2)
    assert len({*pids.values(), *client.run(os.getpid).values()}) == 3


@pytest.mark.parametrize("reg", [0.5, "auto"])
def test_an_interrupted_fit_leaves_the_estimator_as_it_was(
    X, folder, during_sweep, reg
):
    model = MaskedGradientMF(2, reg=reg, max_iter=2, verbose=1)
    during_sweep(1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(cut(X))
    with pytest.raises(NotFittedError):
        model.transform(X)
    during_sweep(3, interrupt)  # there is no such sweep
    components = model.fit(cut(X)).components_
    during_sweep(1, interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(cut(2 * X))
    assert_array_equal(model.components_, components)
    assert list(folder.iterdir()) == []


class Interruption(BaseException):
    """Neither an error nor Ctrl-C."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, Interruption])
def test_what_a_task_raises_ends_the_fit_and_leaves_no_file(X, folder, error):
    def read(block, number):
        if number == 2:
            raise error
        return block

    blocks = [dask.delayed(read)(*pair) for pair in zip(cut(X), range(5), strict=True)]
    with pytest.raises(error):
        MaskedGradientMF().fit(blocks)
    assert list(folder.iterdir()) == []


def test_ctrl_c_ends_a_fit_that_waits_for_its_threads(X, folder):
    n_read = []

    def read(block):
        n_read.append(1)
        if len(n_read) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        return block

    parts = [dask.delayed(read)(block) for block in [X] * 30]
    with pytest.raises(KeyboardInterrupt):
        MaskedGradientMF().fit(parts)
    assert len(n_read) < len(parts)
    assert list(folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("reg", [0.5, "auto"])
def test_workers_keep_nothing_after_a_fit(X, client_of, during_sweep, reg):
    client = client_of(2)
    model = MaskedGradientMF(2, reg=reg, max_iter=1, verbose=1, client=client)
    seen = []
    during_sweep(1, lambda: seen.append(len(client.futures)))
    model.fit(cut(X, (21,)))
    assert seen[0] > 0
    assert soon(lambda: not client.futures)
    during_sweep(1, interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        model.fit(cut(X, (21,)))
    # Although the traceback, which an interactive session keeps, has their names.
    assert caught.tb is not None
    assert soon(lambda: not client.futures)
    assert soon(lambda: not any(client.run(kept_by_worker).values()))


def kept_by_worker(dask_worker):
    return len(dask_worker.data)


@pytest.mark.slow
def test_an_error_on_a_worker_cancels_what_is_in_flight(X, client_of):
    client = client_of(2)
    n_read = []

    def read(block, number):
        n_read.append(1)
        if number == 0:
            raise OSError("the file is damaged")
        time.sleep(0.1)
        return block

    parts = [X[:3]] + [X[:3]] * 30
    blocks = [dask.delayed(read)(part, k) for k, part in enumerate(parts)]
    message = r"Block 0 of X .* cannot be read: OSError: the file is damaged"
    array = da.concatenate([da.from_delayed(b, (3, 8), float) for b in blocks])
    with pytest.raises(ValueError, match=message) as caught:
        MaskedGradientMF(client=client).fit(array)
    assert caught.tb is not None  # it has the names of futures
    assert soon(lambda: not client.futures)
    assert len(n_read) < len(parts)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change, message",
    [
        ("narrower", "Block 1 of X .*it has 7 columns, but block 0 has 8"),
        ("float32", "Block 1 of X .*it has values of type float32, but block 0 has"),
    ],
)
def test_a_block_unlike_the_first_is_named_by_a_worker(X, client_of, change, message):
    client, changed = client_of(1), X[:20, 1:]
    if change == "float32":
        changed = X[:20].astype(np.float32)
    model = MaskedGradientMF(client=client)
    with pytest.raises(ValueError, match=message):
        model.fit([dask.delayed(X[:20]), dask.delayed(changed)])
    assert soon(lambda: not client.futures)


# Out of core


class Opened:
    """Arrays as they come, and how many of them were alive at the same time."""

    def __init__(self):
        self.references, self.n_calls, self.most_alive = [], 0, 0

    def __call__(self, array):
        self.references.append(weakref.ref(array))
        self.references = [known for known in self.references if known() is not None]
        self.most_alive = max(self.most_alive, len(self.references))
        self.n_calls += 1
        return array


@pytest.mark.parametrize("reg", [0.5, "auto"])
def test_blocks_lie_in_one_folder_until_the_fit_ends(X, folder, during_sweep, reg):
    sizes = []

    def look():
        (of_fit,) = folder.iterdir()
        assert of_fit.name.startswith("sklearn-mfgd-")
        sizes.append(sum(file.stat().st_size for file in of_fit.iterdir()))

    during_sweep(1, look)
    model = MaskedGradientMF(2, reg=reg, max_iter=1, verbose=1).fit(cut(X))
    n_entries = np.count_nonzero(~np.isnan(X))
    assert sizes[0] >= 2 * n_entries * (4 + 8)  # by rows and columns: numbers, values
    assert list(folder.iterdir()) == []
    assert "temporary" not in repr(vars(model))
    assert str(folder) not in repr(vars(model))


def test_blocks_as_they_were_given_are_removed_once_they_are_prepared(X, folder):
    blocks = blocks_of(cut(X), caller="MaskedGradientMF")
    with Engine() as engine:
        data = _prepare.prepare(engine, blocks, BOTH_BIASES, unit_variance=False)
        n_files = len(list(engine.folder.iterdir()))
        assert n_files == len(data.matrix.parts.values) == 4  # the empty one is in one
    assert list(folder.iterdir()) == []


def test_no_more_than_two_blocks_per_thread_are_read_at_a_time(X, folder):
    opened, parts = Opened(), [X] * 12

    def read(number):
        return opened(parts[number].copy())

    blocks = [dask.delayed(read)(number) for number in range(len(parts))]
    MaskedGradientMF(2, reg=0.5, max_iter=1).fit(blocks)
    assert opened.n_calls == len(parts) + 1  # one more for the width of block 0
    assert opened.most_alive <= 2 * N_THREADS


@pytest.mark.parametrize("reg", [0.5, "auto"])
def test_a_sweep_maps_no_more_than_two_files_per_thread(
    X, folder, monkeypatch, during_sweep, reg
):
    opened = Opened()

    def map_file(*args, **options):
        return opened(np.memmap(*args, **options))

    def start():
        monkeypatch.setattr(_engine, "np", SimpleNamespace(memmap=map_file))

    during_sweep(1, start)
    model = MaskedGradientMF(2, reg=reg, max_iter=2, tol=0, verbose=1)
    model.fit([dask.delayed(block) for block in [X] * 9])
    assert opened.n_calls >= 9
    assert opened.most_alive <= 2 * N_THREADS


def test_blocks_may_be_read_only_files(X, tmp_path):
    paths = [tmp_path / f"{number}.npy" for number in range(5)]
    for path, block in zip(paths, np.split(X, CUTS), strict=True):
        np.save(path, block)
    load = dask.delayed(np.load)
    params = {"rank": 2, "max_iter": 2}
    found = MaskedGradientMF(**params).fit([load(p, mmap_mode="r") for p in paths])
    assert_same_bits(found, MaskedGradientMF(**params).fit(cut(X)))


# Preparation


@pytest.mark.parametrize(
    "sizes, groups",
    [
        ([20, 20], [(0, 1), (1, 2)]),
        ([19, 1, 20], [(0, 2), (2, 3)]),
        ([5, 5, 5], [(0, 3)]),
        ([30, 5], [(0, 2)]),
        ([30, 0, 25], [(0, 1), (1, 3)]),
        ([0, 0, 25, 3, 20], [(0, 3), (3, 5)]),
        ([5, 30, 0, 0], [(0, 2)]),  # nothing is in the last two
    ],
    ids=str,
)
def test_blocks_of_few_entries_are_put_together(sizes, groups):
    assert _prepare._groups(sizes) == groups


@pytest.mark.parametrize("unit_variance", [False, True])
@pytest.mark.parametrize("biases", [BOTH_BIASES, Biases(False, False)], ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_entries_are_prepared_as_they_are_in_memory(
    X, engine, unit_variance, biases, weighted
):
    X = 3 - 50 * X**2
    X[[0, 13, 39]], X[:, [0, 5]] = np.nan, np.nan
    weights = np.random.RandomState(1).randint(0, 3, size=X.shape) if weighted else None
    given = [None if weights is None else cut(weights)]
    blocks = blocks_of(cut(X), None, *given, caller="MaskedGradientMF")
    options = {"unit_variance": unit_variance}
    found = _prepare.prepare(engine, blocks, biases, **options)
    observed = observe(X, None, weights, unstored_is_zero=False)
    expected = PreparedData.of(observed, biases, **options)
    assert found.biases == expected.biases
    rtol = 1e-14 if unit_variance else 0
    assert_allclose(found.units.exponent, expected.units.exponent, rtol=rtol)
    assert_allclose(found.matrix.mean, expected.matrix.mean, rtol=rtol)
    assert_array_equal(found.occupied.columns, expected.occupied.columns)
    assert found.occupied.shape == expected.occupied.shape == X.shape
    rows = expected.matrix.rows
    assert found.matrix.shape == rows.shape
    in_order = engine.compute(*found.matrix.parts.values)
    assert found.matrix.sizes == tuple(part.indices.size for part in in_order)
    assert found.matrix.parts.lengths == tuple(part.shape[0] for part in in_order)
    assert {part.n_columns for part in in_order} == {rows.n_columns}
    counts = [np.diff(part.indptr) for part in in_order]
    assert_array_equal(np.concatenate(counts), np.diff(rows.indptr))
    indices = np.concatenate([part.indices for part in in_order])
    assert_array_equal(indices, rows.indices, strict=True)
    values = np.concatenate([part.values for part in in_order])
    assert_allclose(values, rows.values, rtol=rtol, atol=rtol)
    assert found.matrix.has_weights == weighted
    if weighted:
        weights = np.concatenate([part.weights for part in in_order])
        assert_array_equal(weights, rows.weights)


def test_entries_that_are_all_equal_are_warned_of(X):
    X = np.where(np.isnan(X), np.nan, 2.0)
    with pytest.warns(UserWarning) as of_blocks:
        MaskedGradientMF(2, reg=0.5).fit(cut(X))
    with pytest.warns(UserWarning) as of_memory:
        sklearn_mfgd.MaskedGradientMF(2, reg=0.5).fit(X)
    assert str(of_blocks[0].message) == str(of_memory[0].message)


# Pieces of a fit


def sparse_rows(m=30, n=7, dtype=np.float64, weighted=False, seed=0):
    """Rows of which half of the entries are observed; row 3 is empty."""
    rng = np.random.RandomState(seed)
    observed = rng.uniform(size=(m, n)) < 0.5
    observed[3] = False
    rows = rows_of(rng.standard_normal((m, n)).astype(dtype), observed)
    if weighted:
        weights = rng.randint(1, 4, size=rows.indices.size).astype(dtype)
        rows = rows._replace(weights=weights)
    return rows


def arrays_in(value):
    """All arrays within tuples and lists."""
    if isinstance(value, np.ndarray):
        return [value]
    if isinstance(value, tuple | list):
        return [array for item in value for array in arrays_in(item)]
    return []


def assert_equal_values(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, tuple | list):
        assert len(found) == len(expected)
        for of_found, of_expected in zip(found, expected, strict=True):
            assert_equal_values(of_found, of_expected)
    elif isinstance(expected, np.ndarray):
        assert_array_equal(found, expected, strict=True)
    else:
        assert found == expected


@pytest.mark.parametrize(
    "value",
    [
        sparse_rows(weighted=True),
        sparse_rows(dtype=np.float32),
        sparse_rows(m=4).between(3, 4),
        blocks_of_rows(sparse_rows(), 5),
        blocks_of_rows(rows_of(np.ones((9, 4)), np.eye(9, 4) < 1), 5),
        "no array",
        np.arange(24.0).reshape(4, 6).T,
    ],
    ids=["weights", "single", "empty", "blocks", "dense blocks", "text", "transposed"],
)
def test_what_is_stored_is_read_again(value, folder):
    with Engine() as engine:
        (stored,) = engine.store([dask.delayed(value, traverse=False)])
        (found,) = engine.compute(stored)
        assert_equal_values(found, value)
        for array in arrays_in(found):
            assert not array.flags.writeable
            assert array.size == 0 or array.ctypes.data % ALIGNMENT == 0


def test_what_is_dropped_is_no_longer_on_disk(folder):
    with Engine() as engine:
        stored = engine.store([dask.delayed(np.arange(k)) for k in range(3)])
        engine.drop(stored[:2])
        assert len(list(engine.folder.iterdir())) == 1
        assert_array_equal(engine.compute(stored[2])[0], [0, 1])
    assert list(folder.iterdir()) == []


def test_each_part_of_few_has_its_share_of_the_threads(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with Engine() as engine:
        for n_parts, share in ((1, 4), (2, 2), (3, 1), (9, 1)):
            calls = [engine.call(n_threads, n_parts=n_parts)]
            assert engine.compute(*calls) == (share,)


def names_of_parts(engine, n):
    return Parts(engine, list(map(dask.delayed, "abcdefghi"[:n])), (1,) * n)


@pytest.mark.parametrize(
    "n, tree",
    [
        (1, "a"),
        (2, "(ab)"),
        (3, "((ab)c)"),
        (4, "((ab)(cd))"),
        (5, "(((ab)(cd))e)"),
        (6, "(((ab)(cd))(ef))"),
        (7, "(((ab)(cd))((ef)g))"),
    ],
)
def test_parts_are_added_in_the_order_of_a_binary_tree(n, tree):
    def add(a, b):
        return f"({a}{b})"

    with Engine() as engine:
        assert names_of_parts(engine, n).total(str, add=add) == tree


def scaled_sum(value, rows, lazy_rows, factor):
    return f"{value}: {factor * (rows.sum() + lazy_rows.sum())}"


def test_a_map_gives_each_part_its_rows_of_what_lies_along():
    along = np.arange(12).reshape(6, 2)
    lazy = da.from_array(100 * along, chunks=(4, 1))
    with Engine() as engine:
        values = [dask.delayed(name) for name in "abc"]
        parts = Parts(engine, values, (1, 0, 5))
        mapped = parts.map(scaled_sum, 2, along=(along, lazy))
        assert parts.offsets.tolist() == [0, 1, 1, 6]
        found = engine.compute(*mapped.values)
    assert found == ("a: 202", "b: 0", f"c: {202 * 65}")


def test_rows_of_no_columns_are_split_as_any_others():
    with Engine() as engine:
        parts = Parts(engine, [dask.delayed("a"), dask.delayed("b")], (2, 3))
        lazy = parts.array(zeros_of, (0,), np.float32, 0)
        assert lazy.chunks == ((2, 3), (0,))
        for array in (lazy, lazy.compute(), da.zeros((5, 0))):
            shapes = parts.map(shape_of, along=(array,)).values
            assert engine.compute(*shapes) == ((2, 0), (3, 0))


def zeros_of(name, width):
    return np.zeros((2 if name == "a" else 3, width), np.float32)


def shape_of(name, rows):
    return rows.shape


@st.composite
def cut_arrays(draw):
    """An array whose sums depend on their order, and rows and columns to cut it at."""
    m, n = draw(st.integers(1, 20)), draw(st.integers(0, 4))
    rng = np.random.RandomState(draw(st.integers(0, 999)))
    A = rng.standard_normal((m, n)) * 10.0 ** rng.randint(-12, 12, size=(m, n))
    rows = sorted(draw(st.sets(st.integers(1, m - 1), max_size=4))) if m > 1 else []
    columns = draw(st.integers(1, n - 1)) if n > 1 else n
    chunks = (
        np.diff([0, *rows, m]).tolist(),
        [columns, n - columns][: max(1, min(n, 2))],
    )
    return A.astype(draw(st.sampled_from([np.float32, np.float64]))), chunks


@settings(max_examples=40, deadline=None)
@given(cut_arrays())
def test_inner_products_and_norms_are_the_same_for_any_chunks(case):
    A, chunks = case
    lazy = da.from_array(A, chunks=tuple(map(tuple, chunks)))
    with dask.config.set(scheduler="sync"):
        assert_array_equal(column_norms(lazy), column_norms(A), strict=True)
        weights = np.arange(1.0, A.shape[1] + 1)
        whole_rows = lazy.rechunk({1: -1})
        found = inner(whole_rows, 2 * whole_rows, weights)
        assert found == inner(A, 2 * A, weights)
        assert inner(whole_rows, whole_rows) == inner(A, A)


def parted(engine, rows: Rows, cuts=(5, 5, 14)):
    """The rows as parts that begin at these rows, the second one being empty."""
    bounds = [0, *cuts, rows.shape[0]]
    pieces = [rows.between(*pair) for pair in pairwise(bounds)]
    delayed = [dask.delayed(piece, traverse=False) for piece in pieces]
    parts = Parts(engine, delayed, tuple(np.diff(bounds).tolist()))
    about = rows.n_columns, rows.values.dtype, rows.weights is not None, 0.25
    return PartedMatrix(parts, tuple(piece.indices.size for piece in pieces), *about)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_matrix_in_parts_answers_as_the_one_in_memory(engine, weighted):
    rows = sparse_rows(weighted=weighted)
    found, expected = parted(engine, rows), ObservedMatrix(rows, 0.25)
    assert found.shape == expected.shape
    assert found.n_observed == expected.n_observed
    for axis in (0, 1):
        assert_array_equal(found.counts(axis), expected.counts(axis))
    for power in (0, 1, 2):
        sums = found.column_sums(power), expected.column_sums(power)
        assert_allclose(*sums, rtol=1e-13)
    assert_allclose(found.column_means(), expected.column_means(), rtol=1e-13)
    assert_allclose(found.mean_square(), expected.mean_square(), rtol=1e-13)
    assert found.weight() == expected.weight()
    assert found.largest_weight() == (3.0 if weighted else 1.0)
    (scaled, mean), (scaled_locally, local_mean) = (
        matrix.with_unit_weights() for matrix in (found, expected)
    )
    assert mean == local_mean
    assert scaled.has_weights == (scaled_locally.rows.weights is not None) == weighted
    if weighted:
        weights = np.concatenate([rows.weights for rows in values_of(scaled)])
        assert_array_equal(weights, scaled_locally.rows.weights)
    single = found.astype(np.float32)
    assert {rows.values.dtype for rows in values_of(single)} == {np.dtype("f4")}
    assert single.dtype == np.float32


def test_weights_that_are_all_equal_are_left_out(engine):
    rows = sparse_rows()
    rows = rows._replace(weights=np.full(rows.indices.size, 3.0))
    without, mean = parted(engine, rows).with_unit_weights()
    assert (without.has_weights, mean) == (False, 3.0)
    assert {part.weights for part in values_of(without)} == {None}


def values_of(matrix):
    return matrix.parts.engine.compute(*matrix.parts.values)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_same_entries_are_held_out_of_parts(engine, weighted):
    rows = sparse_rows(weighted=weighted)
    training, held_out = hold_out(parted(engine, rows), 0.6, 3)
    expected, hidden = hold_out(ObservedMatrix(rows, 0.25), 0.6, 3)
    # Entries on both sides of a cut are hidden.
    first = rows.indptr[14]
    positions = np.flatnonzero(np.isin(rows.values, hidden.values))
    assert {first - 1, first} <= {*positions}
    seen = values_of(training)
    assert training.sizes == tuple(rows.indices.size for rows in seen)
    for k in (1, 2, 3) if weighted else (1, 2):
        in_order = np.concatenate([rows[k] for rows in seen])
        assert_array_equal(in_order, expected.rows[k])
    of_parts = engine.compute(*held_out.parts.values)
    offsets = training.parts.offsets
    numbers = [
        part.rows + first for part, first in zip(of_parts, offsets, strict=False)
    ]
    assert_array_equal(np.concatenate(numbers), hidden.rows)
    for k in (1, 2, 3) if weighted else (1, 2):
        assert_array_equal(np.concatenate([part[k] for part in of_parts]), hidden[k])


@pytest.mark.parametrize("many_rows", [0, np.inf], ids=["summed", "moved"])
@pytest.mark.parametrize("cuts", [(5, 5, 14), ()])
@pytest.mark.parametrize(
    "shape, biases",
    [
        ((30, 7), (True, True)),
        ((30, 7), (False, True)),
        ((6, 9), (True, False)),
        ((8, 8), (True, True)),
    ],
)
def test_products_with_the_operators_are_those_in_memory(
    engine, monkeypatch, many_rows, cuts, shape, biases
):
    monkeypatch.setattr("sklearn_mfgd.dask._objective.MANY_ROWS", many_rows)
    cuts = tuple(np.minimum(cuts, shape[0]).astype(int).tolist())
    rows, rng = sparse_rows(*shape), np.random.RandomState(1)
    matrix = parted(engine, rows, cuts)
    found = objective_of(matrix, biases)
    expected = objective_of(ObservedMatrix(rows, 0.25), biases)
    b, c, U, V = (rng.standard_normal((k, w)) for w in (1, 2) for k in rows.shape)
    b, c = b[:, : biases[0]], c[:, : biases[1]]
    kind = SummedColumns if many_rows == 0 else MovedColumns
    lazy_b = found.row_zeros(b.shape[1]) + da.from_array(b, chunks=(3, -1))
    pairs = [
        (found.pattern, expected.pattern),
        (found.deflate(lazy_b, c), expected.deflate(b, c)),
    ]
    for lazy, local in pairs:
        assert lazy.shape == local.shape
        assert_allclose(lazy @ V, local @ V, rtol=1e-13, atol=1e-13)
        for factors in (U, da.from_array(U, chunks=4)):
            assert_allclose(lazy.T @ factors, local.T @ U, rtol=1e-13, atol=1e-13)
        assert isinstance(lazy.T @ U, np.ndarray)
        in_memory = not isinstance(lazy @ V, da.Array)
        assert in_memory == (shape[0] <= shape[1])
    assert type(found.columns) is kind
    lazy, local = found.pattern, expected.pattern
    for of_lazy, of_local in ((lazy, local), (lazy.T, local.T)):
        assert_array_equal(of_lazy.counts, of_local.counts)
        histograms = of_lazy.count_histogram(), of_local.count_histogram()
        for numbers, local_numbers in zip(*histograms, strict=True):
            assert_array_equal(numbers, local_numbers)


@pytest.mark.parametrize(
    "biases", [(True, True), (False, True), (False, False)], ids=str
)
@pytest.mark.parametrize("many_rows", [0, np.inf], ids=["summed", "moved"])
def test_the_objective_of_parts_is_that_of_memory(
    engine, monkeypatch, many_rows, biases
):
    monkeypatch.setattr("sklearn_mfgd.dask._objective.MANY_ROWS", many_rows)
    rows, rng = sparse_rows(weighted=True), np.random.RandomState(1)
    found = objective_of(parted(engine, rows), biases)
    expected = objective_of(ObservedMatrix(rows, 0.25), biases)
    W = rng.standard_normal((30, 2 + biases[0]))
    H = rng.standard_normal((7, 2 + biases[1]))
    lazy_W = da.from_array(W, chunks=(11, 2))
    assert found.value(lazy_W, H) == expected.value(W, H)
    assert found.total == pytest.approx(expected.total, rel=1e-13)
    value, gradient = found.value_and_gradient(lazy_W, H)
    assert value == expected.value(W, H)
    assert gradient.shape == W.shape
    assert_allclose(gradient, expected.value_and_gradient(W, H)[1], rtol=1e-12)
    curvatures = found.curvature(lazy_W, H), expected.curvature(W, H)
    assert_allclose(*curvatures, rtol=1e-12)
    ridge = np.array([0.5] * 2 + [0.7])
    of_rows = found.least_squares(H, ridge[: W.shape[1]])
    assert of_rows.shape == W.shape
    assert_allclose(of_rows, expected.least_squares(H, ridge[: W.shape[1]]), rtol=1e-9)
    of_columns = found.T.least_squares(lazy_W, ridge[: H.shape[1]])
    local = expected.T.least_squares(W, ridge[: H.shape[1]])
    assert_allclose(of_columns, local, rtol=1e-9)
    assert found.T.shape == (7, 30)
