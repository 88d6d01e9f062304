"""What `bench_sparse` compares, and on which data: fits of ours and of its peers."""

import contextlib
import importlib
import io
import os
from functools import partial

import numpy as np
from scipy import sparse
from threadpoolctl import threadpool_limits

from sklearn_mfgd import MaskedGradientMF

N_THREADS = 2

# The best of each kind on the test entries, with its RMSE; of settings within .0003 of
# it one with few sweeps. Found by hand, rank 8 to 64; `search` tries a grid around it.
CMFREC_BEST = {
    "cmfrec, rank 32 or 64": dict(k=64, lambda_=22, niter=5),  # .8500
    "cmfrec, any rank": dict(k=14, lambda_=12, niter=30),  # .8438
    # What our model does not have: a ridge that grows with the number of entries of a
    # row, and factors of which entries are observed at all.
    "cmfrec, scale_lam": dict(k=64, lambda_=0.07, niter=8, scale_lam=True),  # .8475
    "cmfrec, implicit": dict(  # .8407, and .8395 at rank 96
        k=64, lambda_=20, niter=5, add_implicit_features=True
    ),
}

# The fastest and the most accurate of the few settings that were tried.
LIBMF = {
    "LIBMF, rank 32": dict(k=32, nr_iters=20, lambda_p2=0.05, lambda_q2=0.05),  # .844
    "LIBMF, rank 64": dict(k=64, nr_iters=30, lambda_p2=0.06, lambda_q2=0.06),  # .843
}


def peer(module):
    """A module, or None after saying that it is not installed."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # libmf announces its file
            return importlib.import_module(module)
    except ImportError as error:
        print(f"  without {module.split('.')[0]}: {error}")
        return None


@contextlib.contextmanager
def threads(number):
    """Let our kernels, which read the environment at each call, use so many threads."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(number)
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before


def ours(X, rank, reg, n_sweeps, n_threads=N_THREADS, init="random"):
    """Factorize by exactly so many sweeps of alternating least squares."""
    model = MaskedGradientMF(
        rank, solver="als", reg=reg, init=init, max_iter=n_sweeps, tol=0, random_state=0
    )
    with threads(n_threads):
        return model, model.fit_transform(X)


def cmfrec_fit(X, n_sweeps, **settings):
    """Fit cmfrec with user and item biases to a COO matrix, which it wants."""
    settings = dict(niter=n_sweeps, nthreads=N_THREADS, verbose=False) | settings
    with threadpool_limits(1, "blas"):  # it calls BLAS on threads of its own
        model = peer("cmfrec").CMF(precompute_for_predictions=False, **settings)
        return model.fit(X)


def implicit_fit(X, rank, n_sweeps):
    """Fit implicit, which minimizes over all entries, the unstored ones as zeros."""
    settings = dict(num_threads=N_THREADS, use_gpu=False, random_state=0)
    with threadpool_limits(1, "blas"):  # as it asks for in a warning
        model = peer("implicit.als").AlternatingLeastSquares(
            rank, iterations=n_sweeps, **settings
        )
        model.fit(X, show_progress=False)


def peer_fits(data):
    """Functions that fit and return the test error, of the peers that are installed."""
    fits = {}
    if peer("cmfrec"):
        for name, setting in CMFREC_BEST.items():
            fits[name] = partial(cmfrec_error, data, **setting)
    if peer("libmf.mf"):
        for name, setting in LIBMF.items():
            fits[name] = partial(libmf_error, data, **setting)
    if peer("surprise") and peer("pandas"):
        fits["Surprise SVD, default"] = partial(surprise_error, data)
    return fits


def cmfrec_error(data, niter, **setting):
    """Test error of cmfrec."""
    _, triples, (rows, columns, ratings) = data
    return rmse(cmfrec_fit(triples, niter, **setting).predict(rows, columns), ratings)


def libmf_error(data, **setting):
    """Test error of stochastic gradient descent; no two runs are quite the same."""
    _, X, (rows, columns, ratings) = data
    triples = np.ascontiguousarray(np.stack([*X.coords, X.data], axis=1), np.float32)
    options = dict(lambda_p1=0, lambda_q1=0, nr_threads=N_THREADS, quiet=True)
    model = peer("libmf.mf").MF(**options, **setting)
    model.fit(triples)
    # Its own predict() reads what it is given in another memory order.
    W, H = model.p_factors(), model.q_factors()
    known = np.minimum(columns, len(H) - 1)
    found = np.einsum("ij,ij->i", W[rows], H[known])
    found[np.isnan(found) | (known < columns)] = model.model.b
    return rmse(found, ratings)


def surprise_error(data):
    """Test error of the defaults of Surprise."""
    _, X, (rows, columns, ratings) = data
    surprise = peer("surprise")
    table = peer("pandas").DataFrame({"u": X.coords[0], "i": X.coords[1], "r": X.data})
    reader = surprise.Reader(rating_scale=(1, 5))
    triples = surprise.Dataset.load_from_df(table, reader).build_full_trainset()
    model = surprise.SVD(random_state=0).fit(triples)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return rmse(np.array([model.predict(*pair).est for pair in pairs]), ratings)


def rmse(predicted, truth):
    """Root mean squared error of ratings."""
    return float(np.sqrt(np.mean((np.clip(predicted, 1, 5) - truth) ** 2)))


def movielens(shared):
    """MovieLens 1M 90/10: the train matrix, CSR and COO, and test entries; or None."""
    file = shared / "ml-1m" / "ratings.npz"
    if not file.exists():
        print(f"  without MovieLens 1M: there is no {file}")
        return None
    table = np.load(file)
    users, items = (table[name].astype(np.int32) - 1 for name in ("user", "item"))
    ratings = table["rating"].astype(np.float32)
    order = np.random.RandomState(0).permutation(1_000_209)
    test, train = order[:100_021], order[100_021:]
    entries = (ratings[train], (users[train], items[train]))
    X = sparse.coo_array(entries, shape=(6040, 3952))
    return X.tocsr(), X, (users[test], items[test], ratings[test])


def synthetic(n_entries, n_columns=10_700, seed=0):
    """Ratings by power laws: 7 rows to 1000 entries, as in MovieLens 10M; CSR."""
    rng = np.random.default_rng(seed)
    n_rows = 7 * n_entries // 1000
    row_law = _popularity(n_rows, 0.7, rng)
    column_law = np.cumsum(_popularity(n_columns, 1.2, rng))
    keys, n_draws = np.empty(0, np.int64), n_entries
    while len(keys) < n_entries:
        n_draws = 5 * n_draws // 4
        i = np.repeat(np.arange(n_rows), rng.multinomial(n_draws, row_law))
        j = np.searchsorted(column_law, column_law[-1] * rng.random(n_draws))
        keys = np.sort(i * n_columns + j)
        keys = keys[np.append(True, np.diff(keys) > 0)]  # each entry once
    # Thinned evenly: rng.choice takes longer than all the rest.
    keys = keys[np.linspace(0, len(keys) - 1, n_entries).astype(np.int64)]
    i, j = (part.astype(np.int32) for part in np.divmod(keys, n_columns))
    x = _planted_ratings(i, j, n_rows, n_columns, rng)
    pointers = np.append(0, np.cumsum(np.bincount(i, minlength=n_rows)))
    return sparse.csr_array((x, j, pointers.astype(np.int32)), (n_rows, n_columns))


def _popularity(length, exponent, rng):
    weights = (np.arange(length) + 0.01 * length) ** -exponent
    return rng.permutation(weights / weights.sum())


def _planted_ratings(i, j, n_rows, n_columns, rng, rank=8):
    """Biases, `rank` factors and noise, rounded to halves in 1..5."""
    W, H = (rng.standard_normal((rank + 1, n), np.float32) for n in (n_rows, n_columns))
    x = 3.5 + 0.4 * (W[-1, i] + H[-1, j])
    for k in range(rank):
        x += 0.5 * np.float32(rank**-0.5) * W[k, i] * H[k, j]
    x += 0.8 * rng.standard_normal(len(x), np.float32)
    return (np.round(2 * np.clip(x, 1, 5)) / 2).astype(np.float32)
