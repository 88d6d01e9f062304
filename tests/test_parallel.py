"""Several fits at once: in threads, in processes; and fits that are interrupted."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from threadpoolctl import threadpool_info, threadpool_limits

from sklearn_mfgd import DivergenceError, GradientMF, MaskedGradientMF

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# What a process may take that does not hang; each takes a few seconds.
PATIENCE = 120


@pytest.fixture
def run(tmp_path):
    """Return ``run(script, ...)``: its output lines, from a process of its own."""

    def run(script, **environment):
        path = tmp_path / "script.py"
        path.write_text(script)
        unset = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "JOBLIB_START_METHOD"}
        kept = {name: os.environ[name] for name in os.environ.keys() - unset}
        command, environment = (
            [sys.executable, "-W", "ignore", path],
            kept | environment,
        )
        options = {"env": environment, "timeout": PATIENCE, "check": False}
        done = subprocess.run(command, capture_output=True, text=True, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


# Threads


@pytest.fixture
def tasks(planted):
    """Fits of every solver to complete and incomplete data, none like another."""
    tasks, options = [], {"reg": 0.5, "max_iter": 10, "random_state": 0}
    for seed, solver in enumerate(["als", "scaled", "gd", "sgd"]):
        model = MaskedGradientMF(4 + seed, solver=solver, **options)
        for share_missing in (0.0, 0.3):
            X = planted(m=90, n=40, share_missing=share_missing, seed=seed).X
            tasks += [(model, X), (model, sparse.csr_array(np.nan_to_num(X)))]
    large = planted(m=1000, n=800, rank=20).X  # products for several threads of BLAS
    tasks.append((GradientMF(64, init="random", max_iter=2, random_state=0), large))
    tasks.append((MaskedGradientMF(5), planted(m=90, n=40, share_missing=0.3).X))
    return tasks


def fit(task):
    model, X = task
    model = clone(model)
    Z = model.fit_transform(X)
    return Z, model.components_, model.transform(X), np.array(model.score(X))


def assert_same(task, array, other):
    """To the last bit, but for products that BLAS may share out.

    Its sums depend on how many threads it gets, and a smaller fit next door leaves one.
    """
    model, X = task
    shared_out = isinstance(model, GradientMF) and X.size > 1e5
    tolerance = 1e-6 if shared_out else 0
    assert_allclose(array, other, rtol=tolerance, atol=tolerance)


def blas_threads():
    libraries = threadpool_info()
    return [one["num_threads"] for one in libraries if one["user_api"] == "blas"]


@pytest.mark.slow
@pytest.mark.parametrize("n_blas", [1, 2])
def test_fits_in_threads_equal_fits_one_after_the_other(tasks, n_blas):
    with threadpool_limits(n_blas, user_api="blas"):
        before = blas_threads()
        serial = [fit(task) for task in tasks]
        assert blas_threads() == before
        with ThreadPoolExecutor(4) as pool:
            parallel = list(pool.map(fit, tasks + tasks[::-1]))
        assert blas_threads() == before
    fits = tasks + tasks[::-1], parallel, serial + serial[::-1]
    for task, found, expected in zip(*fits, strict=True):
        for array, other in zip(found, expected, strict=True):
            assert_same(task, array, other)


def test_one_model_transforms_in_several_threads(planted):
    X = planted(m=400, n=60, share_missing=0.5).X
    model = MaskedGradientMF(5, reg=0.5, max_iter=5).fit(X)
    parts = [X[k::8] for k in range(8)]
    serial = [model.transform(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(model.transform, parts))
    for found, expected in zip(parallel, serial, strict=True):
        assert_array_equal(found, expected)


@pytest.mark.slow
def test_fits_that_fail_in_threads_give_the_threads_of_blas_back(tasks):
    def fail(task):
        model = GradientMF(3, solver="gd", eta=1e6, init="random", random_state=0)
        with pytest.raises(DivergenceError):
            model.fit(task[1])
        return fit(task)[0]

    tasks = [task for task in tasks if not sparse.issparse(task[1])]
    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(fail, tasks))
        assert blas_threads() == before
    for Z, task in zip(found, tasks, strict=True):
        assert_same(task, Z, fit(task)[0])


# Processes

DATA = """
import numpy as np
from scipy import sparse
from sklearn_mfgd import MaskedGradientMF
from sklearn_mfgd._kernels import backend, dispatch, threads

rng = np.random.RandomState(0)
X = rng.standard_normal((300, 4)) @ rng.standard_normal((4, 80))
X += 0.1 * rng.standard_normal(X.shape)
X[rng.uniform(size=X.shape) < 0.5] = np.nan
model = MaskedGradientMF(4, reg=0.5, max_iter=10, random_state=0)
dispatch.OPERATIONS = 1e4  # small ranges, so many of them


def fit(solver):
    fitted = MaskedGradientMF(**model.get_params()).set_params(solver=solver)
    return fitted.fit_transform(X)
"""

GRID_SEARCH = f"""{DATA}
import joblib
from sklearn.model_selection import GridSearchCV

if __name__ == "__main__":
    grid = dict(rank=[1, 4], solver=["als", "sgd"])
    fit("als")  # threads were used before the workers began
    serial = GridSearchCV(model, grid, cv=3).fit(X)
    for backend in BACKENDS:
        with joblib.parallel_config(backend, n_jobs=2):
            parallel = GridSearchCV(model, grid, cv=3).fit(X)
        scores = [each.cv_results_["mean_test_score"] for each in (serial, parallel)]
        print(backend, np.array_equal(*scores))
        print(backend, np.array_equal(serial.transform(X), parallel.transform(X)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_grid_search_in_workers_equals_one_without(run, start):
    script = GRID_SEARCH.replace("BACKENDS", "['multiprocessing', 'threading']")
    lines = run(script, JOBLIB_START_METHOD=start, OMP_NUM_THREADS="2")
    assert lines == 2 * ["multiprocessing True"] + 2 * ["threading True"]


CHILDREN = f"""{DATA}
import multiprocessing
import threading


def fits():
    return np.hstack([fit("als"), fit("sgd")])


def send(connection):
    connection.send((fits(), threading.active_count()))


if __name__ == "__main__":
    context = multiprocessing.get_context(CONTEXT)
    expected = fits()
    print(threading.active_count())
    here, there = context.Pipe()
    child = context.Process(target=send, args=(there,))
    child.start()
    found, n_threads = here.recv()
    child.join()
    print(np.array_equal(found, expected), n_threads, child.exitcode)
    print(np.array_equal(fits(), expected))
"""


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_child_fits_after_its_parent_did(run, context):
    """And neither keeps a thread when it is done."""
    script = CHILDREN.replace("CONTEXT", repr(context))
    lines = run(script, OMP_NUM_THREADS="3", OPENBLAS_NUM_THREADS="2")
    assert lines == ["1", "True 1 0", "True"]


FORK_DURING_A_FIT = f"""{DATA}
import multiprocessing
import threading
import time

from sklearn_mfgd._kernels import blas

controller = blas._blas()


class Slow:
    def limit(self, **options):
        time.sleep(0.05)  # so that it is likely to be at this when the child is forked
        return controller.limit(**options)


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    expected, done = fit("als"), threading.Event()
    blas._blas = Slow

    def keep_fitting():
        while not done.is_set():
            fit("als")

    def check(connection):
        connection.send(np.array_equal(fit("als"), expected))

    busy = threading.Thread(target=keep_fitting)
    busy.start()
    for _ in range(4):
        here, there = context.Pipe()
        child = context.Process(target=check, args=(there,))
        child.start()
        print(here.poll(5) and here.recv(), flush=True)
        child.kill()
        child.join()
    done.set()
    busy.join()
"""


@pytest.mark.slow
def test_a_child_forked_while_another_thread_fits_does_not_hang(run):
    lines = run(FORK_DURING_A_FIT, OMP_NUM_THREADS="2", OPENBLAS_NUM_THREADS="1")
    assert lines == 4 * ["True"]


SHARES = f"""{GRID_SEARCH}
    from sklearn_mfgd._kernels.threads import n_threads

    print(n_threads() == joblib.cpu_count())
    shares = joblib.Parallel(2)(joblib.delayed(n_threads)() for _ in range(4))
    print(set(shares) == set([max(1, joblib.cpu_count() // 2)]))
    with joblib.parallel_config("loky", inner_max_num_threads=5):
        print(joblib.Parallel(2)(joblib.delayed(n_threads)() for _ in range(4)))
"""


@pytest.mark.slow
def test_workers_of_loky_find_the_same_and_use_their_share_of_the_processors(run):
    lines = run(SHARES.replace("BACKENDS", "['loky']"))
    assert lines == ["loky True", "loky True", "True", "True", "[5, 5, 5, 5]"]


# Ctrl-C

LARGE_FIT = """
import time

import numpy as np
from scipy import sparse
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from sklearn_mfgd import MaskedGradientMF

m, n, n_entries = 25_000, 10_000, 600_000
k = np.arange(n_entries)
values = np.random.RandomState(0).uniform(1, 5, n_entries)
X = sparse.csr_array((values, (k % m, (7919 * k + 13 * (k // m)) % n)), shape=(m, n))
model = MaskedGradientMF(
    **PARAMETERS, init="random", max_iter=1000, tol=0, verbose=1, random_state=0
)
try:
    model.fit(X)
except KeyboardInterrupt:
    noticed = time.monotonic()
    try:
        check_is_fitted(model)
    except NotFittedError:
        print("unfitted", noticed)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGINT for one process")
@pytest.mark.slow
@pytest.mark.parametrize(
    "parameters",
    [{"rank": 64, "reg": 1.0, "solver": solver} for solver in ("als", "scaled", "sgd")]
    + [{"rank": 16, "reg": "auto"}],
    ids=str,
)
def test_ctrl_c_ends_a_large_fit_soon_and_leaves_the_model_unfitted(parameters):
    script = LARGE_FIT.replace("PARAMETERS", repr(parameters))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-u", "-c", script]
    fitting = subprocess.Popen(command, env=environment, **pipes)
    try:
        line = fitting.stdout.readline()
        assert line.startswith("Sweep 1"), fitting.stderr.read()
        time.sleep(0.5)  # into the second one
        pressed = time.monotonic()
        fitting.send_signal(signal.SIGINT)
        output, errors = fitting.communicate(timeout=PATIENCE)
    finally:
        fitting.kill()
    last = output.splitlines()[-1].split()
    assert last[0] == "unfitted", errors
    assert float(last[1]) - pressed < 3
    assert fitting.returncode == 0
