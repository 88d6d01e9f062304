r"""Gaussian Markov chains in NumPy: the reference implementation of `compiled`.

Rows follow one another in time. Each coefficient k of their states z is a stationary
process of the precision :math:`\lambda_k` with the persistence :math:`\phi_{tk}` from
the row before, so that z has a block tridiagonal precision. With
:math:`U = \lambda / (1 - \phi^2)` of the step from row t to the next, elimination from
the first row on gives

.. math::

    C_t = (F_t + S_t + \phi^2 U)^{-1}, \quad
    F_{t+1} = U - \phi U \, C_t \, \phi U, \quad
    f_{t+1} = \phi U \, C_t \, (f_t + b_t)

for rows of which the entries say :math:`-z'S_t z / 2 + b_t'z`; given the next row, z
has the mean :math:`C_t (f_t + b_t + \phi U z_{t+1})` and the covariance :math:`C_t`.

The residual of each column is a process of its own. A scalar Kalman filter runs through
its entries; all is in units of the noise of an entry of weight one.
"""

import numpy as np


def filter_states(problem, message, conditionals, filtered, start, stop) -> float:
    """Eliminate the rows start .. stop; return the log determinants of C, summed.

    `message` is F and f of row `start`, and in the end of row `stop`.
    """
    q, log_det = len(problem.precision), 0.0
    lower, F, f = np.tril_indices(q), *message
    for t in range(start, stop):
        inward, outward, step = _step(problem, t + 1)
        system = np.empty((q, q))
        system[lower] = problem.systems[t, : len(lower[0])]
        system[lower[::-1]] = system[lower]
        C = np.linalg.inv(F + system + np.diag(inward))
        filtered[t] = f + problem.targets[t]
        conditionals[t] = C[lower]
        log_det += np.linalg.slogdet(C)[1]
        F[...] = np.diag(outward) - step[:, None] * C * step
        f[...] = step * (C @ filtered[t])
    return float(log_det)


def smooth_states(problem, after, conditionals, filtered, out, start, stop):
    """Means, covariances and lagged covariances of the rows start .. stop, backwards.

    `after` is the mean and the covariance of row `stop`, and in the end of row `start`.
    The covariances, (m, q (q + 1) / 2), may be None if only means are wanted.
    """
    (mean, V), q = after, len(problem.precision)
    lower = np.tril_indices(q)
    for t in range(stop - 1, start - 1, -1):
        step = _step(problem, t + 1)[2]
        C = np.empty((q, q))
        C[lower] = conditionals[t]
        C[lower[::-1]] = C[lower]
        mean[...] = C @ (filtered[t] + step * mean)
        out.means[t] = mean
        if out.covariances is not None:
            with_next = (C * step) @ V
            out.lagged[t] = np.diag(with_next)
            V[...] = C + (with_next * step) @ C
            out.covariances[t] = V[lower]


def filter_means(problem, f, conditionals, filtered, start, stop):
    """Update what `filter_states` filtered to other targets; f is of row `start`."""
    q = len(problem.precision)
    lower = np.tril_indices(q)
    for t in range(start, stop):
        C = np.empty((q, q))
        C[lower] = conditionals[t]
        C[lower[::-1]] = C[lower]
        filtered[t] = f + problem.targets[t]
        f[...] = _step(problem, t + 1)[2] * (C @ filtered[t])


def _step(problem, t):
    """Return phi^2 U, U and phi U of the step to row t."""
    phi = problem.persistence[t]
    outward = problem.precision / (1 - phi**2)
    return phi**2 * outward, outward, phi * outward


def process_likelihoods(problem, timescales, ratios, log_dets, squares, start, stop):
    """Log determinant and squared whitened errors of the columns start .. stop.

    Timescales and ratios have one column for each candidate.
    """
    values, weights, gaps = _padded(problem, start, stop)
    timescales, ratios = timescales[start:stop], ratios[start:stop]
    variance, mean = ratios.copy(), np.zeros_like(ratios)
    log_det, square = np.zeros_like(ratios), np.zeros_like(ratios)
    for k in range(values.shape[1]):
        phi = correlation(gaps[:, k, None], timescales)
        variance = phi**2 * variance + ratios * (1 - phi**2)
        mean = phi * mean
        weight = weights[:, k, None]
        # One plus the variance of the process over that of the noise of the entry.
        spread = 1 + weight * variance
        error = values[:, k, None] - mean
        log_det += np.log(spread)
        square += weight * error**2 / spread
        variance = variance / spread
        mean = mean + weight * variance * error
    log_dets[start:stop], squares[start:stop] = log_det, square


def process_means(problem, timescales, ratios, means, variances, start, stop):
    """Posterior mean and variance of the process at the entries of the columns."""
    values, weights, gaps = _padded(problem, start, stop)
    timescales, ratios = timescales[start:stop], ratios[start:stop]
    phis = correlation(gaps, timescales[:, None])
    n_steps = values.shape[1]
    predicted, filtered = np.empty_like(values), np.empty_like(values)
    mean, variance = np.empty_like(values), np.empty_like(values)
    last_mean, last = np.zeros_like(ratios), ratios.copy()
    for k in range(n_steps):
        phi = phis[:, k]
        predicted[:, k] = phi**2 * last + ratios * (1 - phi**2)
        last_mean = phi * last_mean
        weight = weights[:, k]
        last = predicted[:, k] / (1 + weight * predicted[:, k])
        last_mean = last_mean + weight * last * (values[:, k] - last_mean)
        mean[:, k], filtered[:, k] = last_mean, last
    variance[:, -1:] = filtered[:, -1:]
    for k in range(n_steps - 2, -1, -1):
        ahead = predicted[:, k + 1]
        gain = phis[:, k + 1] * filtered[:, k] / np.where(ahead > 0, ahead, 1)
        mean[:, k] += gain * (mean[:, k + 1] - phis[:, k + 1] * mean[:, k])
        variance[:, k] = filtered[:, k] + gain**2 * (variance[:, k + 1] - ahead)
    first, last = problem.indptr[start], problem.indptr[stop]
    is_entry = _is_entry(problem, start, stop)
    means[first:last] = mean[is_entry]
    variances[first:last] = variance[is_entry]


def whitened_products(problem, W, biases, timescales, ratios, products, start, stop):
    """Packed products of [g, y], whitened, summed over the entries of each column.

    For a row with the state [w, b] and an entry x, g is [w, 1], without the 1 if
    columns have no bias, and y is x - b.
    """
    values, weights, gaps = _padded(problem, start, stop)
    timescales, ratios = timescales[start:stop], ratios[start:stop]
    row_bias, column_bias = biases
    rank = W.shape[1] - row_bias
    width = rank + column_bias + 1
    rows = np.zeros(values.shape, np.intp)
    first, last = problem.indptr[start], problem.indptr[stop]
    rows[_is_entry(problem, start, stop)] = problem.indices[first:last]
    variance, mean = ratios.copy(), np.zeros((len(rows), width))
    sums = np.zeros((len(rows), width, width))
    for k in range(values.shape[1]):
        g = np.ones((len(rows), width))
        g[:, :rank] = W[rows[:, k], :rank]
        g[:, -1] = values[:, k]
        if row_bias:
            g[:, -1] -= W[rows[:, k], rank]
        phi, weight = correlation(gaps[:, k], timescales), weights[:, k]
        variance = phi**2 * variance + ratios * (1 - phi**2)
        mean = phi[:, None] * mean
        spread = 1 + weight * variance
        error = g - mean
        share = (weight / spread)[:, None]
        sums += (share * error)[:, :, None] * error[:, None, :]
        mean = mean + (variance[:, None] * share) * error
        variance = variance / spread
    lower = np.tril_indices(width)
    products[start:stop] = sums[:, lower[0], lower[1]]


def correlation(gaps, timescales):
    """Correlation over gaps: zero over infinite ones, and without a timescale."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(timescales > 0, np.exp(-gaps / timescales), 0.0)


def _padded(problem, start, stop):
    """Values, weights and gaps of columns of the same length; padding has no weight."""
    is_entry = _is_entry(problem, start, stop)
    entries = slice(problem.indptr[start], problem.indptr[stop])
    values, weights, gaps = np.zeros((3, *is_entry.shape))
    values[is_entry] = problem.values[entries]
    weights[is_entry] = 1 if problem.weights is None else problem.weights[entries]
    gaps[is_entry] = problem.gaps[entries]
    return values, weights, gaps


def _is_entry(problem, start, stop):
    counts = np.diff(problem.indptr[start : stop + 1])
    return np.arange(counts.max(initial=0)) < counts[:, None]
