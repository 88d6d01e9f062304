"""Kernels of processes in time against dense Gaussian algebra."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sklearn_mfgd._kernels import chains
from sklearn_mfgd._kernels.problems import ChainProblem, ProcessProblem
from sklearn_mfgd._kernels.rows import Biases

pytestmark = pytest.mark.filterwarnings("error")


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
