"""Kernels of processes in time against dense Gaussian algebra."""

from itertools import pairwise, product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_mfgd._kernels import backend, chains, dispatch, numpy_chains, numpy_kernels
from sklearn_mfgd._kernels.problems import ChainProblem, ProcessProblem, SmoothedStates
from sklearn_mfgd._kernels.rows import Biases

pytestmark = pytest.mark.filterwarnings("error")
either_backend = pytest.mark.usefixtures("kernels")


def packed(matrices):
    lower = np.tril_indices(matrices.shape[-1])
    return np.ascontiguousarray(matrices[..., lower[0], lower[1]])


def chain(m=7, q=3, seed=0):
    """A chain with one break, one tie in time and one row without entries."""
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(m, q, q))
    systems = roots @ roots.transpose(0, 2, 1)
    systems[2] = 0
    persistence = rng.uniform(0, 0.99, size=(m + 1, q))
    persistence[[0, 4, m]] = 0
    persistence[5] = 1 - 1e-9
    problem = ChainProblem(
        packed(systems),
        rng.normal(size=(m, q)),
        persistence,
        rng.uniform(0.5, 2, size=q),
    )
    return problem, systems


def prior_precision(problem):
    """Dense precision of all states, (m q, m q), from their covariances."""
    m, q = problem.targets.shape
    covariance = np.zeros((m, q, m, q))
    for s in range(m):
        for t in range(m):
            first, last = min(s, t), max(s, t)
            phi = problem.persistence[first + 1 : last + 1].prod(axis=0)
            covariance[s, range(q), t, range(q)] = phi / problem.precision
    return np.linalg.inv(covariance.reshape(m * q, m * q))


def dense_posterior(problem, systems):
    """Mean (m, q), covariance (m, q, m, q) and its log determinant."""
    m, q = problem.targets.shape
    precision = prior_precision(problem)
    for t in range(m):
        precision[t * q : t * q + q, t * q : t * q + q] += systems[t]
    covariance = np.linalg.inv(precision)
    mean = covariance @ problem.targets.ravel()
    log_det = np.linalg.slogdet(covariance)[1]
    return mean.reshape(m, q), covariance.reshape(m, q, m, q), log_det


def cut(problem, start, stop):
    return ChainProblem(
        problem.systems[start:stop],
        problem.targets[start:stop],
        problem.persistence[start : stop + 1],
        problem.precision,
    )


def smoothed_in_blocks(problem, cuts):
    """Filter block after block and go back; return the states and log determinant."""
    message = chains.first_message(problem.precision)
    blocks = [cut(problem, *bounds) for bounds in pairwise(cuts)]
    filtered = [chains.filter_states(block, message) for block in blocks]
    after = chains.nothing_after(len(problem.precision))
    states = [
        chains.smooth_states(block, of_block, after)
        for block, of_block in zip(blocks[::-1], filtered[::-1], strict=True)
    ]
    return states[::-1], sum(each.log_det for each in filtered)


@either_backend
@pytest.mark.parametrize("cuts", [(0, 7), (0, 1, 5, 7)])
def test_states_have_their_dense_posterior_whatever_the_blocks(cuts):
    problem, systems = chain()
    mean, covariance, log_det = dense_posterior(problem, systems)
    blocks, found = smoothed_in_blocks(problem, cuts)
    m = len(mean)
    assert_allclose(np.vstack([b.means for b in blocks]), mean, atol=1e-6)
    of_rows = covariance[range(m), :, range(m)]
    found_covariances = np.vstack([b.covariances for b in blocks])
    assert_allclose(found_covariances, packed(of_rows), atol=1e-6)
    lagged = np.vstack([b.lagged for b in blocks])
    for t in range(m - 1):
        assert_allclose(lagged[t], np.diag(covariance[t, :, t + 1]), atol=1e-6)
    assert_allclose(lagged[-1], 0)
    assert_allclose(found, log_det, rtol=1e-6)


@either_backend
def test_means_for_other_targets_need_no_new_covariances():
    problem, systems = chain()
    filtered = chains.filter_states(problem, chains.first_message(problem.precision))
    other = problem._replace(targets=problem.targets[::-1].copy())
    message = chains.first_message(problem.precision)
    again = chains.filter_means(other, filtered, message)
    after = chains.nothing_after(3)
    states = chains.smooth_states(other, again, after, with_covariances=False)
    assert states.covariances is None
    assert_allclose(states.means, dense_posterior(other, systems)[0], atol=1e-6)


@either_backend
def test_states_do_not_depend_on_the_order_of_arrays_in_memory():
    problem, _ = chain()
    turned = ChainProblem(*[np.asfortranarray(array) for array in problem])
    expected, log_det = smoothed_in_blocks(problem, (0, 7))
    found, found_log_det = smoothed_in_blocks(turned, (0, 7))
    assert found_log_det == log_det
    for ours, theirs in zip(found[0], expected[0], strict=True):
        assert_array_equal(ours, theirs)


@either_backend
def test_only_elimination_needs_systems():
    problem, _ = chain()
    message = chains.first_message(problem.precision)
    filtered = chains.filter_states(problem, message)
    expected = chains.smooth_states(problem, filtered, chains.nothing_after(3))
    without = problem._replace(systems=None)
    message = chains.first_message(problem.precision)
    again = chains.filter_means(without, filtered, message)
    found = chains.smooth_states(without, again, chains.nothing_after(3))
    for ours, theirs in zip(found, expected, strict=True):
        assert_allclose(ours, theirs, atol=1e-6)


def test_elimination_without_systems_is_refused(compiled_kernels):
    with pytest.raises(ValueError, match="systems must be given"):
        filtered_by(compiled_kernels, wide_chain(3)._replace(systems=None))


def entries(n=4, m=30, seed=1, weighted=True):
    """Entries of columns of unequal lengths; a tie, a break, values without weight."""
    rng = np.random.default_rng(seed)
    counts = [0, 5, 12, 30][:n]
    rows = [np.sort(rng.choice(m, count, replace=False)) for count in counts]
    indptr = np.append(0, np.cumsum(counts)).astype(np.int64)
    gaps = rng.exponential(size=indptr[-1])
    gaps[indptr[:-1][np.diff(indptr) > 0]] = np.inf
    gaps[[8, 20]] = 0, np.inf
    weights = rng.uniform(0.3, 3, size=indptr[-1]) if weighted else None
    if weighted:
        weights[[2, 25]] = 0
    return ProcessProblem(
        indptr,
        np.concatenate(rows).astype(np.int32),
        rng.normal(size=indptr[-1]),
        weights,
        gaps,
    )


def covariance_of(gaps, timescale, ratio):
    """Dense covariance of a process at entries that are `gaps` apart."""
    k = len(gaps)
    covariance = np.full((k, k), float(ratio))
    for s in range(k):
        for t in range(k):
            apart = gaps[min(s, t) + 1 : max(s, t) + 1].sum()
            if s != t:
                covariance[s, t] *= np.exp(-apart / timescale) if timescale else 0
    return covariance


def of_column(problem, j):
    """Numbers, weights and gaps of the entries of a column that have a weight."""
    k = np.arange(problem.indptr[j], problem.indptr[j + 1])
    weights = np.ones(k.size) if problem.weights is None else problem.weights[k]
    return k, weights


@either_backend
@pytest.mark.parametrize("weighted", [True, False])
def test_likelihoods_are_those_of_dense_covariances(weighted):
    problem = entries(weighted=weighted)
    timescales = np.tile([0.0, 0.5, 3.0], (4, 1))
    ratios = np.tile([0.0, 2.0, 0.7], (4, 1))
    log_dets, squares = chains.process_likelihoods(problem, timescales, ratios)
    for j in range(4):
        k, weights = of_column(problem, j)
        known = weights > 0
        for c in range(3):
            K = covariance_of(problem.gaps[k], timescales[j, c], ratios[j, c])
            K = K[np.ix_(known, known)] + np.diag(1 / weights[known])
            x = problem.values[k][known]
            expected = np.linalg.slogdet(K)[1] + np.log(weights[known]).sum()
            assert_allclose(log_dets[j, c], expected, atol=1e-9)
            assert_allclose(squares[j, c], x @ np.linalg.solve(K, x), atol=1e-9)


@either_backend
@pytest.mark.parametrize("weighted", [True, False])
def test_process_has_its_dense_posterior_at_missing_entries_too(weighted):
    problem = entries(weighted=weighted)
    timescales, ratios = np.array([1, 0.5, 0.0, 3]), np.array([1, 2, 1.5, 0.7])
    means, variances = chains.process_means(problem, timescales, ratios)
    for j in range(4):
        k, weights = of_column(problem, j)
        known = weights > 0
        K = covariance_of(problem.gaps[k], timescales[j], ratios[j])
        gain = np.linalg.solve(
            K[np.ix_(known, known)] + np.diag(1 / weights[known]), K[known]
        )
        assert_allclose(means[k], gain.T @ problem.values[k][known], atol=1e-9)
        expected = np.diag(K) - np.einsum("kt,kt->t", gain, K[known])
        assert_allclose(variances[k], expected, atol=1e-9)


@either_backend
@pytest.mark.parametrize("row", [True, False])
@pytest.mark.parametrize("column", [True, False])
def test_products_are_whitened_by_dense_covariances(row, column):
    problem = entries()
    W = np.random.default_rng(2).normal(size=(30, 2 + row))
    timescales, ratios = np.array([1, 0.5, 0.0, 3]), np.array([1, 2, 1.5, 0.7])
    given = problem, W, Biases(row, column), timescales, ratios
    products = chains.whitened_products(*given)
    for j in range(4):
        k, weights = of_column(problem, j)
        k, known = k[weights > 0], weights > 0
        K = covariance_of(
            problem.gaps[of_column(problem, j)[0]], timescales[j], ratios[j]
        )
        K = K[np.ix_(known, known)] + np.diag(1 / weights[known])
        rows = problem.indices[k]
        y = problem.values[k] - (W[rows, 2] if row else 0)
        g = np.column_stack([W[rows, :2], *[np.ones(len(k))] * column, y])
        assert_allclose(products[j], packed(g.T @ np.linalg.solve(K, g)), atol=1e-9)


# The compiled kernels against those in NumPy.

GUARD = 77.0  # value of what no kernel may write to
MARGIN = 33  # numbers on either side of an array: no multiple of a register
# Around the widths of registers (2 to 8 numbers), of tiles (4, 8) and of three tiles.
WIDTHS = [1, 2, 3, 4, 5, 8, 9, 16, 17, 25, 33, 50]


@pytest.fixture
def each_width(compiled_kernels):
    """Return a generator that has the compiled kernels use one width after another."""
    before = compiled_kernels.instructions()

    def choose():
        for name in ("base", "avx2", "avx512", "emulated"):
            try:
                compiled_kernels.choose(name)
            except ImportError:  # not of this processor or build
                continue
            yield compiled_kernels

    yield choose
    compiled_kernels.choose(before)


def guarded(*shape):
    size = int(np.prod(shape))
    whole = np.full(size + 2 * MARGIN, GUARD)
    return whole[MARGIN : size + MARGIN].reshape(shape)


def assert_same(found, expected, tolerance=1e-9):
    """Compare lists of arrays, and what lies beside those found."""
    for ours, theirs in zip(found, expected, strict=True):
        atol = tolerance * max(1, np.abs(theirs).max(initial=0))
        assert_allclose(ours, theirs, rtol=0, atol=atol)
        whole = ours.base
        assert whole.size == ours.size + 2 * MARGIN
        assert_array_equal(whole[:MARGIN], GUARD)
        assert_array_equal(whole[-MARGIN:], GUARD)


def wide_chain(q, m=9):
    """A chain of which the systems are the first columns of a wider table."""
    rng = np.random.default_rng(q)
    roots = rng.normal(size=(m, q, q)) / np.sqrt(q)
    systems = packed(roots @ roots.transpose(0, 2, 1))
    persistence = rng.uniform(0, 0.99, size=(m + 1, q))
    persistence[[0, 4, m]] = 0
    return ChainProblem(
        np.hstack([systems, rng.normal(size=(m, 3))]),
        rng.normal(size=(m, q)),
        persistence,
        rng.uniform(0.5, 2, size=q),
    )


def message_of(problem):
    """What is known of the first row: not only its prior."""
    q = len(problem.precision)
    F, f = guarded(q, q), guarded(q)
    F[...] = np.diag(problem.precision) + 0.1
    f[...] = np.linspace(-1, 1, q)
    return F, f


def filtered_by(kernels, problem, start=0, stop=None):
    m, q = problem.targets.shape
    stop = m if stop is None else stop
    message = message_of(problem)
    conditionals, filtered = guarded(m, q * (q + 1) // 2), guarded(m, q)
    given = problem, message, conditionals, filtered
    log_det = kernels.filter_states(*given, start, stop)
    return [conditionals, filtered, *message], log_det


def smoothed_by(kernels, problem, known, *, covariances=True, start=0, stop=None):
    """Go back from a state after the last row; `known` is what elimination left."""
    m, q = problem.targets.shape
    stop = m if stop is None else stop
    mean, V = guarded(q), guarded(q, q)
    mean[...], V[...] = 1, 0.1 + np.eye(q)
    size = q * (q + 1) // 2
    out = SmoothedStates(guarded(m, q), guarded(m, size), guarded(m, q))
    if not covariances:
        out = out._replace(covariances=None, lagged=None)
    kernels.smooth_states(problem, (mean, V), *known[:2], out, start, stop)
    return [array for array in (mean, V, *out) if array is not None]


@pytest.mark.parametrize("q", WIDTHS)
def test_states_are_filtered_alike_at_every_width(each_width, q):
    problem = wide_chain(q)
    # A state follows the last row.
    problem.persistence[-1] = 0.7
    expected, log_det = filtered_by(numpy_chains, problem)
    for kernels in each_width():
        found, found_log_det = filtered_by(kernels, problem)
        assert_same(found, expected)
        assert_allclose(found_log_det, log_det, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("q", WIDTHS)
@pytest.mark.parametrize("covariances", [True, False])
def test_states_are_smoothed_alike_at_every_width(each_width, q, covariances):
    problem = wide_chain(q)
    problem.persistence[-1] = 0.7
    known, _ = filtered_by(numpy_chains, problem)
    given, options = (problem, known), {"covariances": covariances}
    expected = smoothed_by(numpy_chains, *given, **options)
    for kernels in each_width():
        assert_same(smoothed_by(kernels, *given, **options), expected)


@pytest.mark.parametrize("q", WIDTHS)
def test_means_are_filtered_alike_at_every_width(each_width, q):
    problem = wide_chain(q)
    problem.persistence[-1] = 0.7
    known, _ = filtered_by(numpy_chains, problem)

    def means_by(kernels):
        f, filtered = message_of(problem)[1], guarded(*problem.targets.shape)
        kernels.filter_means(problem, f, known[0], filtered, 0, len(filtered))
        return f, filtered

    for kernels in each_width():
        assert_same(means_by(kernels), means_by(numpy_chains))


def test_rows_outside_of_a_stretch_are_left_alone(each_width):
    problem = wide_chain(9)
    known, _ = filtered_by(numpy_chains, problem)
    for kernels, (start, stop) in product(each_width(), [(0, 4), (3, 7), (9, 9)]):
        stretch = {"start": start, "stop": stop}
        filtered = filtered_by(kernels, problem, **stretch)[0][:2]
        smoothed = smoothed_by(kernels, problem, known, **stretch)[2:]
        assert_same(filtered, filtered_by(numpy_chains, problem, **stretch)[0][:2])
        expected = smoothed_by(numpy_chains, problem, known, **stretch)[2:]
        assert_same(smoothed, expected)
        for array in [*filtered, *smoothed]:
            assert_array_equal(np.delete(array, slice(start, stop), axis=0), GUARD)


def test_log_determinants_beyond_the_range_of_a_product_are_summed(each_width):
    problem = wide_chain(17, m=60)
    problem = problem._replace(precision=1e9 * problem.precision)
    expected = filtered_by(numpy_chains, problem)[1]
    assert expected < -2000 * np.log(10)
    for kernels in each_width():
        assert_allclose(filtered_by(kernels, problem)[1], expected, rtol=1e-12)


def test_rows_without_a_positive_definite_matrix_are_left_to_numpy(
    each_width, monkeypatch
):
    """The compiled kernel says so and leaves the message as it was."""
    problem = wide_chain(5)
    problem.systems[6, :15] = packed(-5 * np.eye(5))
    expected, log_det = filtered_by(numpy_chains, problem)
    for kernels in each_width():
        found, nothing = filtered_by(kernels, problem)
        assert nothing is None
        assert_same(found[2:], message_of(problem), 0)
        monkeypatch.setattr(backend, "kernels", kernels)
        message = message_of(problem)
        filtered = chains.filter_states(problem, message)
        assert_array_equal(filtered.conditionals, expected[0])
        assert_array_equal(filtered.targets, expected[1])
        assert_array_equal(message[0], expected[2])
        assert filtered.log_det == log_det


COUNTS = [0, 1, 5, 700, 0, 90]


def columns(kind, weighted=True, counts=COUNTS, m=40):
    """Columns some of which fill more than one panel, with gaps of a kind."""
    rng = np.random.default_rng(len(kind))
    indptr = np.cumsum([0, *counts])
    gaps = rng.exponential(size=indptr[-1])
    if kind == "regular":
        gaps = rng.choice([1.0, 2.0, 3.0, 7.0], size=indptr[-1])
    gaps[rng.random(indptr[-1]) < 0.05] = 0
    gaps[rng.random(indptr[-1]) < 0.05] = np.inf
    weights = rng.choice([0, 0.3, 1, 2.5], size=indptr[-1]) if weighted else None
    indices = rng.integers(m, size=indptr[-1]).astype(np.int32)
    values = rng.normal(size=indptr[-1])
    return ProcessProblem(indptr, indices, values, weights, gaps)


def candidates(n, n_candidates, seed=0):
    """Timescales and ratios, some of them zero."""
    rng = np.random.default_rng(seed)
    timescales = rng.exponential(5, size=(n, n_candidates))
    ratios = rng.exponential(size=(n, n_candidates))
    timescales[rng.random(timescales.shape) < 0.1] = 0
    ratios[rng.random(ratios.shape) < 0.1] = 0
    ratios[-1, 0] = 0
    return timescales, ratios


kinds_of_columns = pytest.mark.parametrize(
    "kind, weighted", [*product(["regular", "irregular"], [True, False])]
)


def likelihoods_by(kernels, problem, given, bounds=(0, 6)):
    out = guarded(*given[1].shape), guarded(*given[1].shape)
    kernels.process_likelihoods(problem, *given, *out, *bounds)
    return out


def means_by(kernels, problem, given, bounds=(0, 6)):
    out = guarded(len(problem.values)), guarded(len(problem.values))
    kernels.process_means(problem, *given, *out, *bounds)
    return out


def products_by(kernels, problem, given, bounds=(0, 6)):
    W, (row, column) = given[:2]
    width = W.shape[1] - row + column + 1
    out = guarded(len(problem.indptr) - 1, width * (width + 1) // 2)
    kernels.whitened_products(problem, *given, out, *bounds)
    return [out]


@kinds_of_columns
def test_likelihoods_are_alike_at_every_width(each_width, kind, weighted):
    problem = columns(kind, weighted)
    for n_candidates in (1, 2, 3, 4, 5, 8, 9, 17):
        given = problem, candidates(len(COUNTS), n_candidates)
        expected = likelihoods_by(numpy_chains, *given)
        for kernels in each_width():
            assert_same(likelihoods_by(kernels, *given), expected)


def test_likelihoods_are_found_where_a_product_of_spreads_is_not(each_width):
    """The spread of each entry is far above one, and 700 of them overflow."""
    problem = columns("regular", weighted=False)
    given = problem, (np.full((6, 3), 2.0), np.full((6, 3), 1e30))
    expected = likelihoods_by(numpy_chains, *given)
    assert expected[0].max() > 1000 * np.log(10)
    for kernels in each_width():
        assert_same(likelihoods_by(kernels, *given), expected)


@kinds_of_columns
def test_means_of_processes_are_alike_at_every_width(each_width, kind, weighted):
    problem = columns(kind, weighted)
    timescales, ratios = candidates(len(COUNTS), 1)
    given = problem, (timescales[:, 0], ratios[:, 0])
    expected = means_by(numpy_chains, *given)
    for kernels in each_width():
        assert_same(means_by(kernels, *given), expected)


@pytest.mark.parametrize("row, column", [*product([False, True], repeat=2)])
@kinds_of_columns
def test_whitened_products_are_alike_at_every_width(
    each_width, kind, weighted, row, column
):
    counts = [0, 1, 5, 60, 0, 90]
    timescales, ratios = (given[:, 0] for given in candidates(6, 1))
    for rank in [0, *WIDTHS]:
        # Columns of 700 entries fill several panels; at one rank they tell.
        problem = columns(kind, weighted, COUNTS if rank in (3, 9) else counts)
        W = np.random.default_rng(rank).normal(size=(40, rank + row))
        given = problem, (W, (row, column), timescales, ratios)
        expected = products_by(numpy_chains, *given)
        for kernels in each_width():
            assert_same(products_by(kernels, *given), expected)


def process_calls():
    """Each kernel of columns with a call of it and what is given to it."""
    timescales, ratios = candidates(len(COUNTS), 3)
    one = timescales[:, 1].copy(), ratios[:, 1].copy()
    W = np.random.default_rng(3).normal(size=(40, 4))
    return {
        "likelihoods": (likelihoods_by, (timescales, ratios)),
        "means": (means_by, one),
        "products": (products_by, (W, (True, True), *one)),
    }


PROCESS_CALLS = ["likelihoods", "means", "products"]
every_process_call = pytest.mark.parametrize("call", PROCESS_CALLS)


@every_process_call
def test_columns_outside_of_a_range_are_left_alone(each_width, call):
    run, given = process_calls()[call]
    problem = columns("regular")
    for kernels, (start, stop) in product(each_width(), [(0, 3), (2, 4), (6, 6)]):
        filled = slice(start, stop)
        if call == "means":
            filled = slice(problem.indptr[start], problem.indptr[stop])
        whole = run(kernels, problem, given)
        for array, all_of_it in zip(
            run(kernels, problem, given, (start, stop)), whole, strict=True
        ):
            assert_array_equal(array[filled], all_of_it[filled])
            assert_array_equal(np.delete(array, filled, axis=0), GUARD)


@pytest.mark.parametrize("n_threads", ["1", "3"])
def test_no_bit_depends_on_threads_or_stretches(
    compiled_kernels, monkeypatch, n_threads
):
    monkeypatch.setattr(backend, "kernels", compiled_kernels)
    problem, chain_problem = columns("irregular"), wide_chain(9)
    (timescales, ratios), W = candidates(len(COUNTS), 3), np.ones((40, 4))
    of_one = timescales[:, 1], ratios[:, 1]

    def answers():
        states, _ = smoothed_in_blocks(chain_problem, (0, 9))
        return [
            *states[0],
            *chains.process_likelihoods(problem, timescales, ratios),
            *chains.process_means(problem, *of_one),
            chains.whitened_products(problem, W, Biases(True, True), *of_one),
        ]

    expected = answers()
    monkeypatch.setattr(dispatch, "OPERATIONS", 3000)
    monkeypatch.setenv("OMP_NUM_THREADS", n_threads)
    for found, whole in zip(answers(), expected, strict=True):
        assert_array_equal(found, whole)


MALFORMED = [("indptr", 3, 0), ("indptr", 0, -1), ("indptr", -1, 797)]
MALFORMED += [("indptr", -1, 2**62), ("indptr", 2, -(2**62))]
MALFORMED_ROWS = [("indices", 20, 40), ("indices", 20, -1), ("indices", 20, 2**31 - 1)]


def broken(name, index, value):
    problem = columns("regular")
    array = getattr(problem, name).copy()
    array[index] = value
    return problem._replace(**{name: array})


@every_process_call
@pytest.mark.parametrize("fault", MALFORMED, ids=str)
def test_columns_that_lead_outside_of_the_entries_are_refused(
    compiled_kernels, call, fault
):
    run, given = process_calls()[call]
    with pytest.raises(ValueError, match=r"Column \d of the entries is malformed"):
        run(compiled_kernels, broken(*fault), given)


@pytest.mark.parametrize("fault", MALFORMED_ROWS, ids=str)
def test_products_are_refused_where_a_row_has_no_state(compiled_kernels, fault):
    run, given = process_calls()["products"]
    with pytest.raises(ValueError, match=r"Column 3 of the entries is malformed"):
        run(compiled_kernels, broken(*fault), given)
    run(compiled_kernels, broken(*fault), given, (4, 6))  # no harm to others


@every_process_call
@pytest.mark.parametrize("bounds", [(-1, 2), (3, 2), (0, 7), (2**40, 2**41)])
def test_columns_that_do_not_exist_are_refused(compiled_kernels, call, bounds):
    run, given = process_calls()[call]
    with pytest.raises(ValueError, match="There are 6 columns, not"):
        run(compiled_kernels, columns("regular"), given, bounds)


@pytest.mark.parametrize("bounds", [(-1, 2), (3, 2), (0, 10), (2**40, 2**41)])
def test_rows_that_do_not_exist_are_refused(compiled_kernels, bounds):
    problem = wide_chain(3)
    known, _ = filtered_by(numpy_chains, problem)
    start, stop = bounds
    with pytest.raises(ValueError, match="There are 9 rows, not"):
        filtered_by(compiled_kernels, problem, start, stop)
    with pytest.raises(ValueError, match="There are 9 rows, not"):
        smoothed_by(compiled_kernels, problem, known, start=start, stop=stop)
    with pytest.raises(ValueError, match="There are 9 rows, not"):
        given = problem, known[3], known[0], known[1]
        compiled_kernels.filter_means(*given, start, stop)


def wrong_shapes(array):
    """Yield arrays that are shorter and longer along one axis."""
    for axis, change in product(range(array.ndim), (-1, 1)):
        shape = list(array.shape)
        shape[axis] += change
        yield np.zeros(shape, array.dtype)


@pytest.mark.parametrize("name", ["systems", "targets", "persistence", "precision"])
def test_chains_of_arrays_that_do_not_fit_are_refused(compiled_kernels, name):
    problem = wide_chain(3)
    problem = problem._replace(systems=problem.systems[:, :6].copy())
    for wrong in wrong_shapes(getattr(problem, name)):
        if name == "systems" and wrong.shape == (9, 7):
            continue  # there may be more columns
        bad = problem._replace(**{name: wrong})
        arrays = [np.zeros((3, 3)), np.zeros(3)], np.zeros((9, 6)), np.zeros((9, 3))
        with pytest.raises(ValueError, match="must have"):
            compiled_kernels.filter_states(bad, *arrays, 0, 9)


def test_arrays_for_columns_of_a_wrong_shape_are_refused(compiled_kernels):
    problem, calls = columns("regular"), process_calls()
    kernels_and_results = {
        "process_likelihoods": ("likelihoods", ["log_dets", "squares"], (6, 3)),
        "process_means": ("means", ["means", "variances"], (796,)),
        "whitened_products": ("products", ["products"], (6, 15)),
    }
    for kernel, (call, names, shape) in kernels_and_results.items():
        given, run = calls[call][1], getattr(compiled_kernels, kernel)
        for k, name in enumerate(names):
            for wrong in wrong_shapes(np.zeros(shape)):
                results = [np.zeros(shape) for _ in names]
                results[k] = wrong
                with pytest.raises(ValueError, match=f"{name} must have shape"):
                    run(problem, *given, *results, 0, 6)


def test_arrays_for_states_of_a_wrong_shape_are_refused(compiled_kernels):
    problem = wide_chain(3)
    right = {
        "matrix": np.zeros((3, 3)),
        "vector": np.zeros(3),
        "conditionals": np.zeros((9, 6)),
        "filtered": np.zeros((9, 3)),
        "means": np.zeros((9, 3)),
        "covariances": np.zeros((9, 6)),
        "lagged": np.zeros((9, 3)),
    }

    def run(matrix, vector, conditionals, filtered, **out):
        given = conditionals, filtered
        if all(out[key] is right[key] for key in out):
            compiled_kernels.filter_states(problem, (matrix, vector), *given, 0, 9)
        out = SmoothedStates(**out)
        compiled_kernels.smooth_states(problem, (vector, matrix), *given, out, 0, 9)

    run(**right)
    for name, array in right.items():
        for wrong in wrong_shapes(array):
            with pytest.raises(ValueError, match=f"{name} must have shape"):
                run(**{**right, name: wrong})


@every_process_call
def test_columns_of_arrays_that_do_not_fit_are_refused(compiled_kernels, call):
    run, given = process_calls()[call]
    problem = columns("regular")
    for name in ("indices", "weights", "gaps"):
        for wrong in wrong_shapes(getattr(problem, name)):
            with pytest.raises(ValueError, match=f"{name} must have shape"):
                run(compiled_kernels, problem._replace(**{name: wrong}), given)
    with pytest.raises(ValueError, match="indptr must not be empty"):
        run(compiled_kernels, problem._replace(indptr=np.zeros(0, int)), given)
    for k in (-2, -1):  # timescales and ratios
        for wrong in wrong_shapes(given[k]):
            changed = [*given]
            changed[k] = wrong
            with pytest.raises(ValueError, match="must have shape"):
                run(compiled_kernels, problem, changed)


def test_kernels_of_numpy_go_together(monkeypatch, compiled_kernels):
    for kernels, of_chains in (
        (numpy_kernels, numpy_chains),
        (compiled_kernels, compiled_kernels),
    ):
        monkeypatch.setattr(backend, "kernels", kernels)
        assert backend.chain_kernels() is of_chains
