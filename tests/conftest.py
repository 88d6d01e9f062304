"""Data and reference solutions that several specifications share.

Fixtures return functions, so that a test says which data it wants; they hold no state
and can be used together with hypothesis.
"""

import importlib
import os
import re
import sys
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator
from threadpoolctl import threadpool_limits

from sklearn_mfgd._data import hidden
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._kernels import backend, numpy_kernels
from sklearn_mfgd._optim.objective import ObservedObjective


@pytest.fixture
def one_hold_out(monkeypatch):
    """Hide entries once; how often that is done is specified elsewhere."""
    monkeypatch.setattr(hidden, "MOST_TABLES", 1)


@pytest.fixture(scope="module")
def cluster(request):
    """Two worker processes, which find the functions of the tests.

    Those are pickled by the name of their module, ``tests.test_...``: the folder of the
    tests' folder comes last on the path, so that the package is the installed one.
    """
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": "2GiB"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(request.config.rootpath)])
        with distributed.LocalCluster(**options, dashboard_address=None) as cluster:
            yield cluster


@pytest.fixture
def client(cluster):
    """A client of two processes; it is not the current one."""
    distributed = pytest.importorskip("distributed")
    with distributed.Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2)
        yield client


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "pairwise(name=values, ...): parametrize by as few combinations as it takes "
        "for every value to meet every value of every other name; the test gets names "
        "that are none of its arguments as a dict, `params`",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc):
    """Replace the mark by one that comes before the parameters of fixtures."""
    for mark in metafunc.definition.iter_markers("pairwise"):
        names = [name for name in mark.kwargs if name in metafunc.fixturenames]
        params = [name for name in mark.kwargs if name not in names]
        cases = []
        for values in pairwise(*mark.kwargs.values()):
            choice = dict(zip(mark.kwargs, values, strict=True))
            case = [choice[name] for name in names]
            case += [{name: choice[name] for name in params}] if params else []
            cases.append(pytest.param(*case, id="-".join(map(name_of, values))))
        names += ["params"] if params else []
        metafunc.definition.add_marker(pytest.mark.parametrize(names, cases))


def name_of(value):
    """Name a value in the id of a test, the same in every process."""
    return getattr(value, "__name__", str(value))


def pairwise(*options):
    """Return combinations of values in which each pair of values occurs.

    This is all-pairs testing, as the package allpairspy does it: what no two values
    cause together, three rarely do.
    """

    def together(choice, n):
        return set(combinations(enumerate(choice), n))

    def count_new(choice):
        """Count the pairs that are new; of as many, prefer what has new triples."""
        pairs, triples = together(choice, 2), together(choice, 3)
        return len(pairs & missing), len(triples - seen)

    choices = list(product(*(range(len(values)) for values in options)))
    missing = set().union(*(together(choice, 2) for choice in choices))
    chosen, seen = [], set()
    while missing:
        best = max(choices, key=count_new)
        missing -= together(best, 2)
        seen |= together(best, 3)
        chosen.append([values[k] for values, k in zip(options, best, strict=True)])
    return chosen


class Planted(NamedTuple):
    """A low-rank matrix, and what is observed of it."""

    X: np.ndarray  # with noise, NaN where missing
    complete: np.ndarray  # with noise, nothing missing
    signal: np.ndarray  # W @ H.T
    mask: np.ndarray  # True where observed
    W: np.ndarray
    H: np.ndarray


@pytest.fixture
def one_thread():
    """Keep BLAS from starting threads for small matrices."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def planted():
    """Return ``planted(m, n, rank, noise, share_missing, seed)``."""

    def make(m=40, n=15, rank=3, noise=0.1, share_missing=0.0, seed=0):
        rng = np.random.RandomState(seed)
        W, H = rng.standard_normal((m, rank)), rng.standard_normal((n, rank))
        signal = W @ H.T
        complete = signal + noise * rng.standard_normal((m, n))
        mask = rng.uniform(size=(m, n)) >= share_missing
        return Planted(np.where(mask, complete, np.nan), complete, signal, mask, W, H)

    return make


@pytest.fixture
def incomplete(planted):
    """A table of 40 x 15 with 20 % missing."""
    return planted(share_missing=0.2).X


@pytest.fixture(scope="session")
def assert_same_model():
    """Return ``assert_same_model(found, expected, X)``: all that they tell is equal."""

    def attributes(model):
        names = [name for name in dir(model) if re.fullmatch(r"[a-z]\w*_", name)]
        return {name: getattr(model, name) for name in names if hasattr(model, name)}

    def check(found, expected, X=None):
        expected_attributes = attributes(expected)
        assert attributes(found).keys() == expected_attributes.keys()
        for name, value in expected_attributes.items():
            if isinstance(value, BaseEstimator):
                check(getattr(found, name), value)
            else:
                assert_array_equal(getattr(found, name), value, err_msg=name)
        if X is not None:
            assert_array_equal(found.transform(X), expected.transform(X))
            assert found.score(X) == expected.score(X)
            names = expected.get_feature_names_out()
            assert_array_equal(found.get_feature_names_out(), names)

    return check


@pytest.fixture(scope="session")
def compiled_kernels():
    """Return the compiled kernels, which a build may lack unless they are required."""
    name = "sklearn_mfgd._kernels.compiled"
    if os.environ.get("SKLEARN_MFGD_REQUIRE_COMPILED", "") not in ("", "0"):
        kernels = importlib.import_module(name)
    else:
        kernels = pytest.importorskip(name, exc_type=ModuleNotFoundError)
    wanted = os.environ.get("SKLEARN_MFGD_KERNELS", "")
    kernels.choose("" if wanted == "numpy" else wanted)
    return kernels


@pytest.fixture(scope="module", params=["NumPy", "compiled"])
def kernels(request):
    """Let either backend run: the reference implementation or the compiled kernels."""
    chosen = numpy_kernels
    if request.param == "compiled":
        chosen = request.getfixturevalue("compiled_kernels")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "kernels", chosen)
        yield chosen


@pytest.fixture(scope="module")
def observed_objective():
    """Return ``observed_objective(X, mask, **flags)`` of X where the mask is True."""

    def objective(X, mask, weights=None, **flags):
        rows = rows_of(np.where(mask, X, 0), mask)
        if weights is not None:
            rows = rows._replace(weights=weights[mask])
        return ObservedObjective(rows, **flags)

    return objective


@pytest.fixture(scope="module")
def naive_objective():
    """Return ``F(model, X, Z)``, summed entry by entry from the public attributes."""

    def objective(model, X, Z):
        W, H, c = Z[:, : model.rank], model.components_.T, model.column_bias_
        b = Z[:, -1] if model.fit_bias is True else np.zeros(len(Z))
        total = 0.0
        for i, j in zip(*np.nonzero(~np.isnan(X)), strict=True):
            total += (X[i, j] - model.mean_ - b[i] - c[j] - W[i] @ H[j]) ** 2
        total += model.reg * ((W**2).sum() + (H**2).sum())
        return 0.5 * (total + model.reg * (b @ b + c @ c))

    return objective


@pytest.fixture(scope="module")
def ridge_row():
    """Return ``ridge_row(design, target, ridge)``: least squares, of minimum norm."""

    def solve(design, target, ridge):
        design = np.vstack([design, np.diag(np.sqrt(ridge))])
        target = np.concatenate([target, np.zeros(len(ridge))])
        return np.linalg.lstsq(design, target, rcond=1e-12)[0]

    return solve


@pytest.fixture(scope="module")
def ratings():
    """Ratings as notebook 3 prints them; zero means missing."""
    rows = (
        "3134334310 4141124030 1243424300 4320101044 3334302401 "
        "1332342302 0014140431 3004040422 4433212342 1231443444"
    )
    return np.array([list(row) for row in rows.split()], dtype=float)


@pytest.fixture(scope="module")
def three_by_three():
    """Matrix of notebook 4."""
    return np.array(
        [[0.3374, 0.6005, 0.1735], [3.3359, 0.0492, 1.8374], [2.9407, 0.5301, 2.2620]]
    )


@pytest.fixture(scope="module")
def three_by_four():
    """Matrix of notebook 5: of rank 2 but for the rounding of its print."""
    return np.array(
        [
            [0.0456, 0.1537, 0.0830, 0.0980],
            [0.2683, 0.4260, 0.4277, 0.4913],
            [0.4779, 0.7156, 0.7563, 0.8673],
        ]
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what uses worker processes.

    These end when the pipe to their parent does, which what other tests leave to be
    collected can close: they are run in a process of their own.
    """
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker("cluster")
            item.add_marker("slow")
