"""Reference implementations by loops over entries, for tests to compare with."""

import numpy as np


def row_posterior(x, precisions, columns, prior, biases, prior_mean=0.0):
    """Gaussian posterior of the coefficients of one row given the columns.

    Parameters
    ----------
    x, precisions : ndarray of shape (n,)
        Values, and the precision of their noise: zero where nothing was observed.
    columns : pair of ndarray of shape (n, q) and (n, q, q)
        Means and covariances of [h, c].
    prior : ndarray of shape (q', q')
        Precision matrix of [w, b].
    biases : pair of bool
    prior_mean : ndarray of shape (q',)

    Returns
    -------
    mean, precision, right_hand_side
    """
    row_bias, column_bias = biases
    rank, (means, covariances) = len(prior) - row_bias, columns
    system, right = prior.copy(), prior @ (np.zeros(len(prior)) + prior_mean)
    for j in np.flatnonzero(precisions):
        g = np.append(means[j, :rank], np.ones(int(row_bias)))
        second, explained = np.outer(g, g), x[j] * g
        second[:rank, :rank] += covariances[j, :rank, :rank]
        if column_bias:
            explained -= means[j, rank] * g
            explained[:rank] -= covariances[j, rank, :rank]
        system += precisions[j] * second
        right += precisions[j] * explained
    return np.linalg.solve(system, right), system, right
