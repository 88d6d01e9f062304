"""Batches of rows and new columns: what is kept of rows, and what is learned of it."""

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from naive import row_posterior
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone

from sklearn_mfgd import GradientMF, MaskedGradientMF
from sklearn_mfgd._bayes import online
from sklearn_mfgd._bayes.column_fold_in import N_ROUNDS
from sklearn_mfgd._bayes.covariance import regressors_of_rows, update_rows
from sklearn_mfgd._bayes.missingness import N_OTHERS, TAU, fit_features, no_features
from sklearn_mfgd._bayes.model import first_state, model_of
from sklearn_mfgd._bayes.moments import pack, unpack
from sklearn_mfgd._bayes.past import RememberingCovariance, faded, given_up
from sklearn_mfgd._bayes.pattern_sums import PatternSums
from sklearn_mfgd._data.matrix import ObservedMatrix
from sklearn_mfgd._data.observed import rows_of
from sklearn_mfgd._kernels.rows import Biases
from sklearn_mfgd._optim.objective import ObservedObjective

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("one_thread"),
]

BIASES = [Biases(row, column) for row in (False, True) for column in (False, True)]
ANY_BIASES = pytest.mark.parametrize("biases", BIASES, ids=str)
CLOSE = {"rtol": 1e-9, "atol": 1e-10}


def make_table(m=120, n=12, rank=2, seed=0, share_missing=0.4):
    """Return rows of low rank with noise, NaN where missing, and the complete rows."""
    rng = np.random.RandomState(seed)
    truth = 3 + rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n))
    X = truth + 0.3 * rng.standard_normal((m, n))
    return np.where(rng.uniform(size=(m, n)) < share_missing, np.nan, X), truth


def learn(batches, model=None, **given):
    model = MaskedGradientMF(4) if model is None else model
    for batch in batches:
        model.partial_fit(batch, **given)
    return model


def reconstruction(model, X):
    return model.inverse_transform(model.transform(X))


def make_state(biases, m=30, n=7, rank=2, seed=0):
    """Return values, mask, and a model and state with covariances of all kinds."""
    rng = np.random.RandomState(seed)
    x, mask = rng.standard_normal((m, n)), rng.uniform(size=(m, n)) < 0.6
    model, state = model_and_state(x, mask, biases, rank)
    q = rank + biases.column
    roots = rng.standard_normal((n, q, q)) / 4
    columns = replace(
        state.columns,
        means=rng.standard_normal((n, q)),
        covariances=pack(roots @ np.swapaxes(roots, 1, 2)),
    )
    alpha = rng.uniform(0.5, 2, n)
    noise = state.noise._replace(alpha=alpha)
    return x, mask, model, replace(state, columns=columns, noise=noise)


def model_and_state(x, mask, biases, rank):
    matrix = ObservedMatrix(rows_of(x, mask), 0.0)
    m, n = mask.shape
    features = no_features(m, n, float)[:2]
    model = model_of(matrix, rank, biases, "column", features)
    rng = np.random.RandomState(1)
    F = [
        rng.standard_normal((k, rank + b)) for k, b in zip((m, n), biases, strict=True)
    ]
    return model, first_state(model, *F, matrix)


# Rows that are given up


@ANY_BIASES
def test_sums_that_are_kept_integrate_rows_out(biases):
    """By loops: curvature of means only, and targets less what variances took."""
    x, mask, model, state = make_state(biases)
    found, squares = given_up(model, state)
    rank, n = state.rank, mask.shape[1]
    covariances = unpack(state.columns.covariances, rank + biases.column)
    length = rank + 1 + biases.row
    systems, targets = np.zeros((n, length, length)), np.zeros((n, length))
    expected_squares = np.zeros(n)
    for i in range(len(x)):
        columns = state.columns.means, covariances
        given = columns, state.row_prior.precision_matrix, biases
        mean, precision, _ = row_posterior(x[i], state.alpha * mask[i], *given)
        S = np.linalg.inv(precision)
        v = np.insert(mean, rank, 1)
        for j in np.flatnonzero(mask[i]):
            h = state.columns.means[j, :rank]
            spread = S[:rank, :rank] @ h
            if biases.row:
                spread = spread + S[:rank, rank]
            systems[j] += np.outer(v, v)
            targets[j] += x[i, j] * v
            targets[j, :rank] -= spread
            if biases.row:
                systems[j, -1, -1] += S[-1, -1]
            expected_squares[j] -= h @ S[:rank, :rank] @ h
    assert_allclose(unpack(found.systems, length), systems, **CLOSE)
    assert_allclose(found.targets, targets, **CLOSE)
    assert_allclose(squares, expected_squares, **CLOSE)


def expected_error(systems, targets, H, biases, rank):
    """Expected squared error of columns that are known, but for squares of the data."""
    H = np.insert(H, rank, 0, axis=1) if not biases.column else H
    u = H[:, : rank + 1]
    if biases.row:
        u = np.column_stack([u, np.ones(len(H))])
    systems = unpack(systems, u.shape[1])
    return np.einsum("ja,jab,jb->j", u, systems, u) - 2 * (targets * u).sum(axis=1)


@ANY_BIASES
def test_rows_that_are_given_up_leave_the_error_where_it_is(biases):
    """The expected squared error at the columns as they are, and its gradient."""
    _, _, model, state = make_state(biases)
    found, squares = given_up(model, state)
    sums = model.data.total(update_rows, *regressors_of_rows(model, state))
    H, step = state.H, 1e-6
    for k in range(state.rank + biases.column):
        moved = [H + sign * step * (np.arange(H.shape[1]) == k) for sign in (1, -1)]
        kept, all_of_them = (
            [
                expected_error(s.systems, s.targets, at, biases, state.rank)
                for at in moved
            ]
            for s in (found, sums)
        )
        slopes = [(pair[0] - pair[1]) / (2 * step) for pair in (kept, all_of_them)]
        assert_allclose(*slopes, rtol=1e-6, atol=1e-6)
    kept, all_of_them = (
        expected_error(s.systems, s.targets, H, biases, state.rank)
        for s in (found, sums)
    )
    assert_allclose(kept + squares, all_of_them, **CLOSE)


def test_sums_of_two_batches_are_those_of_all_rows():
    x, mask, model, state = make_state(Biases(row=True, column=True))
    whole, squares = given_up(model, state)
    parts = []
    for rows in (slice(0, 11), slice(11, None)):
        part, _ = model_and_state(x[rows], mask[rows], model.biases, state.rank)
        parts.append(given_up(part, state))
    total = parts[0][0] + parts[1][0]
    for name, value in vars(whole).items():
        if value is not None:  # sums of rows with scales
            assert_allclose(getattr(total, name), value, **CLOSE, err_msg=name)
    assert_allclose(parts[0][1] + parts[1][1], squares, **CLOSE)


@ANY_BIASES
def test_what_is_kept_moves_with_the_factors(biases):
    """Other axes and, with column biases, another centre: v becomes A v, for all v."""
    _, _, model, state = make_state(biases)
    past = model.data.total(update_rows, *regressors_of_rows(model, state))
    rank, q = state.rank, state.H.shape[1]
    rng = np.random.RandomState(2)
    T = np.eye(q)
    T[:rank, :rank] = rng.standard_normal((rank, rank))
    if biases.column:
        T[-1, :rank] = rng.standard_normal(rank)
    columns = RememberingCovariance(
        state.columns.means, state.columns.covariances, biases.column, past, biases.row
    ).transformed(T)
    assert_allclose(columns.means, state.H @ T.T, **CLOSE)
    A = np.eye(rank + 1 + biases.row)
    A[:q, :q] = np.linalg.inv(T).T
    length = len(A)
    systems = A @ unpack(past.systems, length) @ A.T
    assert_allclose(unpack(columns.past.systems, length), systems, **CLOSE)
    assert_allclose(columns.past.targets, past.targets @ A.T, **CLOSE)
    moments = A @ past.second_moments @ A.T
    assert_allclose(columns.past.second_moments, moments, **CLOSE)
    of_z = np.delete(np.arange(length), rank)
    log_det = np.linalg.slogdet(A[np.ix_(of_z, of_z)])[1]
    assert_allclose(columns.past.log_det, past.log_det + 2 * past.count * log_det)


def test_a_past_of_no_weight_changes_nothing():
    """A sweep with a faded past is one over the rows of the batch alone."""
    _, _, model, state = make_state(Biases(row=True, column=True))
    past, _ = given_up(model, state)
    alone = state.columns.update_sides(model, state)
    columns = RememberingCovariance(
        state.columns.means, state.columns.covariances, True, faded(past, 0, 0), True
    )
    found = columns.update_sides(model, replace(state, columns=columns))
    assert_allclose(found.columns.means, alone.columns.means, **CLOSE)
    assert_allclose(found.of_rows.second_moments, alone.of_rows.second_moments, **CLOSE)


def test_a_past_counts_as_the_rows_that_it_is_of():
    """A column is updated by the sums of the past and of the batch together."""
    x, mask, model, state = make_state(Biases(row=True, column=True))
    parts = [
        model_and_state(x[rows], mask[rows], model.biases, state.rank)[0]
        for rows in (slice(0, 11), slice(11, None))
    ]
    past = parts[0].data.total(update_rows, *regressors_of_rows(parts[0], state))
    columns = RememberingCovariance(
        state.columns.means, state.columns.covariances, True, past, True
    )
    found = columns.update_sides(parts[1], replace(state, columns=columns))
    whole = state.columns.update_sides(model, state)
    assert_allclose(found.columns.means, whole.columns.means, **CLOSE)
    assert_allclose(found.columns.covariances, whole.columns.covariances, **CLOSE)
    assert found.of_rows.count == len(x)


# The pattern of all batches


def pattern_of(mask):
    return ObservedObjective(rows_of(mask.astype(float), mask)).pattern


def make_pattern(m=90, n=50):
    rng = np.random.RandomState(0)
    chance = 1 / (1 + np.exp(-2 * rng.standard_normal((m, 1)) * rng.standard_normal(n)))
    return rng.uniform(size=(m, n)) < chance * rng.uniform(0.3, 0.9, (m, 1))


def learned_patterns(mask, n_first, forget_factor=1.0, fade=1.0):
    first, second = pattern_of(mask[:n_first]), pattern_of(mask[n_first:])
    row_features, column_features, feature_map = fit_features(first, float)
    sums = PatternSums.of(feature_map, row_features, column_features, first)
    counts = forget_factor * mask[:n_first].sum(axis=0) + mask[n_first:].sum(axis=0)
    return sums, sums.with_batch(second, counts, float, forget_factor, fade)


def test_features_of_all_rows_are_orthonormal():
    """With the weight that earlier rows have."""
    mask = make_pattern()
    before, (after, features, triangle) = learned_patterns(mask, 60, fade=0.3)
    old, new = (
        after.feature_map.of(pattern_of(mask[r]), float)
        for r in (slice(0, 60), slice(60, None))
    )
    assert_allclose(new, features.values, **CLOSE)
    gram = 0.3 * old.T @ old + new.T @ new
    assert_allclose(gram, np.eye(len(gram)), rtol=0, atol=1e-9)
    first = before.feature_map.of(pattern_of(mask[:60]), float)
    assert_allclose(old @ triangle, first, **CLOSE)


def test_features_of_columns_are_those_of_all_rows():
    """Sums over the rows of what the first batch has found, by dense products."""
    mask = make_pattern()
    before, (after, *_) = learned_patterns(mask, 60)
    counts = mask.sum(axis=1)
    raw = mask @ before.feature_map.loadings / np.sqrt(counts + TAU)[:, None]
    loadings = raw / np.sqrt(counts + TAU)[:, None]
    of_columns = mask.sum(axis=0)
    sums = mask.T @ loadings - np.outer(of_columns, counts @ loadings / counts.sum())
    raw = np.column_stack(
        [
            np.ones(mask.shape[1]),
            np.log1p(of_columns),
            sums / np.sqrt(of_columns + TAU)[:, None],
        ]
    )
    low, high = np.quantile(raw[:, 1], [0.01, 0.99])
    raw[:, 1] = np.clip(raw[:, 1], low, high)
    basis = np.linalg.qr(raw)[0]
    found = after.column_features
    assert found.shape == basis.shape
    assert_allclose(basis @ (basis.T @ found), found, rtol=0, atol=1e-9)
    assert_allclose(found.T @ found, np.eye(found.shape[1]), rtol=0, atol=1e-9)


def test_the_first_batch_has_the_features_of_its_columns():
    mask = make_pattern()
    sums = learned_patterns(mask, 60)[0]
    found = sums._features_of_columns(mask[:60].sum(axis=0), float).values
    expected = sums.column_features
    assert_allclose(found @ (found.T @ expected), expected, rtol=0, atol=1e-8)
    assert sums.loading_sums.shape == (50, len(sums.feature_map.basis) - N_OTHERS)


def test_a_batch_begins_with_the_prior_means_that_rows_had():
    mask = make_pattern()
    rng = np.random.RandomState(0)
    x = rng.standard_normal((90, 1)) * rng.standard_normal(50) + mask.mean(axis=0)
    x += mask.sum(axis=1)[:, None] / 10
    fitted = MaskedGradientMF(3).partial_fit(np.where(mask, x, np.nan)[:60])._model
    matrix = ObservedMatrix(rows_of(x[60:], mask[60:]), 0.0)
    memory, biases = fitted.memory, fitted.biases
    given = memory, memory.state(biases), matrix, biases, 1.0
    model, state, pattern = online._begin(*given)
    of_rows = pattern_of(mask[60:])
    before = memory.pattern.feature_map.of(of_rows, float) @ memory.row_prior["slopes"]
    found = pattern.feature_map.of(of_rows, float) @ state.row_prior.slopes
    assert np.abs(before).max() > 0.01
    assert_allclose(found, before, **CLOSE)
    # Of columns, whose features change, what the new ones can tell.
    G, before = model.column_features.values, memory.pattern.column_features
    before = before @ memory.column_prior["slopes"]
    assert np.abs(before).max() > 0.01
    assert_allclose(G.T @ (G @ state.column_prior.slopes), G.T @ before, **CLOSE)


# Batches


def test_a_first_batch_is_a_fit():
    X, _ = make_table()
    one, fitted = learn([X]), MaskedGradientMF(4).fit(X)
    assert_array_equal(one.components_, fitted.components_)
    assert_array_equal(one.column_mean_, fitted.column_mean_)
    assert_array_equal(one.transform(X), fitted.transform(X))
    assert (one.n_iter_, one.loss_curve_) == (fitted.n_iter_, fitted.loss_curve_)


@pytest.mark.slow
@pytest.mark.parametrize("fit_bias", [True, False, "columns"])
@pytest.mark.parametrize("noise", ["column", "shared"])
def test_batches_predict_as_well_as_a_fit_to_all_rows(fit_bias, noise):
    X, truth = make_table(300, 20, 3)
    X, truth = X - 3 * (fit_bias is False), truth - 3 * (fit_bias is False)
    params = {"rank": 6, "fit_bias": fit_bias, "noise": noise}
    model = learn(np.split(X, 5), MaskedGradientMF(**params))
    full = MaskedGradientMF(**params).fit(X)
    hidden = np.isnan(X)
    errors = [
        np.sqrt(np.mean((reconstruction(each, X) - truth)[hidden] ** 2))
        for each in (model, full)
    ]
    assert errors[0] < 1.03 * errors[1]
    assert model.rank_ == full.rank_ == 3


def test_dense_batches_of_complete_rows_are_learned():
    X, truth = make_table(200, 10, share_missing=0)
    model = learn(np.split(X, 4), GradientMF(3, reg="auto", fit_bias=True))
    assert np.sqrt(np.mean((reconstruction(model, X) - truth) ** 2)) < 0.2


@pytest.mark.slow
def test_later_rows_improve_the_columns():
    X, truth = make_table(600, 15)
    model, errors = MaskedGradientMF(4), []
    for batch in np.split(X[:500], 10):
        model.partial_fit(batch)
        error = reconstruction(model, X[500:]) - truth[500:]
        errors.append(np.sqrt(np.mean(error**2)))
    assert errors[-1] < errors[1] < errors[0]


def test_a_factor_that_the_first_batch_does_not_show_is_found_later():
    rng = np.random.RandomState(0)
    W, H = rng.standard_normal((400, 3)), rng.standard_normal((3, 20))
    W[:80, 2] = 0
    X = W @ H + 0.3 * rng.standard_normal((400, 20))
    X[rng.uniform(size=X.shape) < 0.3] = np.nan
    model = MaskedGradientMF(5).partial_fit(X[:80])
    assert model.rank_ == 2
    assert learn(np.split(X[80:], 4), model).rank_ == 3


def test_the_order_of_rows_in_a_batch_does_not_matter():
    X, _ = make_table()
    order = np.random.RandomState(0).permutation(60)
    models = [learn([X[:60], X[60:][rows]]) for rows in (slice(None), order)]
    predictions = [reconstruction(model, X) for model in models]
    assert_allclose(*predictions, rtol=1e-6, atol=1e-6)


def test_sparse_batches_are_dense_ones():
    X, _ = make_table()
    present = np.nonzero(~np.isnan(X))
    S = sparse.csr_array((X[present], present), shape=X.shape)
    from_sparse, from_dense = learn([S[:60], S[60:]]), learn([X[:60], X[60:]])
    predictions = reconstruction(from_sparse, S), reconstruction(from_dense, X)
    assert_allclose(*predictions, rtol=1e-6, atol=1e-8)


def test_columns_that_are_empty_at_first_are_learned_when_they_have_entries():
    """In any order, and among the others."""
    X, truth = make_table(400, 12)
    batches = np.split(X.copy(), 4)
    batches[0][:, [0, 3, 7, 11]] = np.nan
    batches[1][:, [0, 3, 7]] = np.nan
    batches[2][:, [1, 7]] = np.nan  # a batch may also lack what others have
    model = learn(batches[:1])
    assert_array_equal(model.components_[:, [0, 3, 7, 11]], 0)
    learn(batches[1:], model)
    error, of_full = (
        np.sqrt(np.mean((reconstruction(each, X) - truth) ** 2, axis=0))
        for each in (model, MaskedGradientMF(4).fit(X))
    )
    assert (error < 1.3 * of_full + 0.06).all()


@pytest.mark.parametrize("noise", ["column", "shared"])
def test_forgotten_rows_do_not_count_for_the_noise(noise):
    X, _ = make_table(400, 12)
    model = learn([X[:200]], MaskedGradientMF(4, noise=noise))
    model.partial_fit(X[200:], forget_factor=1e-3)
    expected = MaskedGradientMF(4, noise=noise).fit(X[200:]).noise_variance_
    assert_allclose(model.noise_variance_, expected, rtol=0.3)
    if noise == "shared":  # by a column without entries, too
        assert np.ptp(model._model.noise_precision) == 0


@pytest.mark.parametrize("forget_factor", [1.0, 0.5, 1e-6])
def test_column_means_are_those_of_all_rows_with_their_weights(forget_factor):
    X, _ = make_table()
    model = MaskedGradientMF(4).partial_fit(X[:60])
    weight = np.ones((60, 12))
    weight[:, :5] = 3
    model.partial_fit(X[60:], entry_weight=weight, forget_factor=forget_factor)
    weights = np.concatenate([np.full((60, 12), forget_factor), weight])
    weights[np.isnan(X)] = 0
    expected = (weights * np.nan_to_num(X)).sum(axis=0) / weights.sum(axis=0)
    assert_allclose(model.column_mean_, expected, rtol=1e-6)


@pytest.mark.slow
def test_forgotten_rows_say_nothing_of_columns_that_have_changed():
    X, truth = make_table(400, 12)
    changed = X[100:] * np.where(np.arange(12) < 6, -1, 1)
    models = []
    for forget_factor in (1.0, 0.01):
        model = MaskedGradientMF(4).partial_fit(X[:100])
        models.append(model.partial_fit(changed, forget_factor=forget_factor))
    expected = truth[100:] * np.where(np.arange(12) < 6, -1, 1)
    errors = [np.mean((reconstruction(m, changed) - expected) ** 2) for m in models]
    assert errors[1] < 0.9 * errors[0]


def test_the_same_weight_of_all_entries_is_no_weight():
    X, _ = make_table()
    weighted = learn(np.split(X, 3), entry_weight=np.full((40, 12), 4.0))
    model = learn(np.split(X, 3))
    assert_allclose(weighted.components_, model.components_, rtol=1e-5, atol=1e-7)
    assert_allclose(weighted.noise_variance_ / 4, model.noise_variance_, rtol=1e-5)


def test_rows_are_counted_and_those_without_entries_are_not():
    X, _ = make_table()
    X[70] = np.nan
    model = learn([X[:60], X[60:]])
    assert model.n_samples_seen_ == 119
    before = model.components_
    model.partial_fit(np.full((3, 12), np.nan))
    assert_array_equal(model.components_, before)
    assert MaskedGradientMF(2).fit(X).n_samples_seen_ is None


def test_fit_begins_anew():
    X, _ = make_table()
    model = learn([X[:60], X[60:]]).fit(X)
    assert_array_equal(model.components_, MaskedGradientMF(4).fit(X).components_)


def test_a_file_and_a_copy_go_on_as_the_estimator_does():
    X, _ = make_table()
    model = learn([X[:40], X[40:80]])
    loaded = pickle.loads(pickle.dumps(model))
    learn([X[80:]], loaded)
    learn([X[80:]], model)
    assert_array_equal(loaded.components_, model.components_)
    assert not hasattr(clone(model), "components_")


def test_single_precision_stays_single():
    X, _ = make_table()
    model = learn(np.split(X.astype(np.float32), 3))
    assert model.transform(X.astype(np.float32)).dtype == np.float32
    assert model.components_.dtype == model.column_mean_.dtype == np.float32
    double = learn(np.split(X, 3))
    errors = reconstruction(model, X) - reconstruction(double, X)
    assert np.abs(errors).max() < 0.05


def test_values_beyond_the_noise_of_single_precision_are_learned_in_double():
    X, truth = make_table(m=200, share_missing=0.2)
    X = np.where(np.isnan(X), np.nan, truth + 1e-4 * (X - truth)).astype(np.float32)
    model = learn(np.split(X, 4))
    error = reconstruction(model, X) - truth
    assert np.sqrt(np.mean(error**2)) < 1e-3


@pytest.mark.parametrize(
    "n_before, place",
    [(0, "given_up"), (0, "sweep"), (1, "_begin"), (1, "given_up"), (1, "sweep")],
)
def test_a_batch_that_is_interrupted_leaves_the_estimator_as_it_was(
    n_before, place, monkeypatch
):
    X, _ = make_table()
    model = learn([X[:60]][:n_before])
    before = dict(vars(model))

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(online, place, interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.partial_fit(X[60:])
    assert vars(model) == before


def test_a_batch_of_few_rows_may_come_later_but_not_first():
    X, _ = make_table()
    model = MaskedGradientMF(4)
    with pytest.raises(ValueError, match=r"first batch has 3 rows .* rank=4"):
        model.partial_fit(X[:3])
    learn([X[:60], X[60:61], X[61:63]], model)
    assert model.n_samples_seen_ == 63


def test_a_first_batch_may_have_fewer_rows_than_the_rank_if_columns_are_fewer():
    X, _ = make_table(n=5)
    assert MaskedGradientMF(32).partial_fit(X[:20]).rank_ >= 1


@pytest.mark.parametrize(
    "params", [{"reg": 0.1}, {"n_draws": 2}, {"early_stopping": True}], ids=str
)
def test_partial_fit_is_there_only_for_what_sums_tell(params):
    model = MaskedGradientMF(**params)
    assert not hasattr(model, "partial_fit")
    [name] = params
    with pytest.raises(AttributeError, match="partial_fit") as caught:
        _ = model.partial_fit
    assert f"partial_fit needs {name}=" in str(caught.value.__cause__)


def test_batches_are_in_memory():
    pytest.importorskip("distributed")
    from sklearn_mfgd.dask import MaskedGradientMF as DaskMF

    assert not hasattr(DaskMF(), "partial_fit")


def test_what_cannot_be_continued_is_refused():
    X, _ = make_table()
    model = learn([X])
    with pytest.raises(ValueError, match="11 features"):
        model.partial_fit(X[:, :11])
    for value in (0, -1, 1.5, np.nan):
        with pytest.raises(ValueError, match="forget_factor must be above 0"):
            model.partial_fit(X, forget_factor=value)
    with pytest.raises(ValueError, match="mask="):
        model.partial_fit(X, ~np.isnan(X))


@pytest.mark.parametrize("n_before", [0, 1])
def test_columns_too_many_for_their_sums_are_refused(n_before, monkeypatch):
    X, _ = make_table()
    model = learn([X[:60]][:n_before])
    monkeypatch.setattr("sklearn_mfgd._bayes.covariance.MAX_MOMENTS", 100)
    with pytest.raises(ValueError, match="smaller rank"):
        model.partial_fit(X[60:])


def test_sparse_batches_with_zeros_that_are_not_stored_are_refused():
    X = sparse.csr_array(np.nan_to_num(make_table()[0]))
    with pytest.raises(ValueError, match="sparse"):
        GradientMF(2, reg="auto").partial_fit(X)
    model = GradientMF(2, reg="auto").partial_fit(X.toarray())
    with pytest.raises(ValueError, match="sparse"):
        model.partial_fit(X)


# New columns


def fold_in_case(**params):
    """Return a fit to all columns but three, and what to fold these in by."""
    X, _ = make_table(80, 14)
    model = MaskedGradientMF(3, **params).fit(X[:, :11])
    Z = model.transform(X[:, :11])
    return model, X[:, 11:], Z


@pytest.mark.parametrize("fit_bias", [True, False, "columns"])
@pytest.mark.parametrize("noise", ["column", "shared"])
@pytest.mark.parametrize("with_covariance", [False, True])
def test_new_columns_are_rows_of_the_transpose(fit_bias, noise, with_covariance):
    """Posterior by loops over entries, in units of X; its noise is a fixed point."""
    model, new, Z = fold_in_case(fit_bias=fit_bias, noise=noise)
    X = make_table(80, 14)[0]
    covariance = model.transform(X[:, :11], return_cov=True)[1]
    scale = 1 / model._model.noise_precision[-1] * 16**model._units.exponent
    dof, given = model._model.noise_dof, covariance if with_covariance else None
    size = model._units.of_factors(model.rank_, model._model.biases.column)
    prior = np.diag(model._model.column_precision / size**2)
    before = model.components_
    model.fold_in_columns(new, Z, covariance=given)
    if not with_covariance:
        covariance = np.zeros_like(covariance)
    rank, biases = model.rank_, model._model.biases
    assert_array_equal(model.components_[:, :11], before)
    assert model.components_.shape == (rank, 14)
    for j in range(3):
        seen = ~np.isnan(new[:, j])
        alpha = 1 / scale
        for _ in range(N_ROUNDS if dof else 1):
            x = np.nan_to_num(new[:, j]) - model.mean_
            given = alpha * seen, (Z, covariance), prior, biases[::-1]
            mean, precision, _ = row_posterior(x, *given)
            S = np.linalg.inv(precision)
            alpha = 1 / scale
            if dof:
                squares = sum(
                    error_of(x[i], Z[i], covariance[i], mean, S, biases)
                    for i in np.flatnonzero(seen)
                )
                alpha = (seen.sum() + dof) / (squares + dof * scale)
        assert_allclose(model.components_[:, 11 + j], mean[:rank], rtol=1e-6)
        if biases.column:
            assert_allclose(model.column_bias_[11 + j], mean[-1], rtol=1e-6)
        if noise == "column":
            assert_allclose(model.noise_variance_[11 + j], 1 / alpha, rtol=1e-6)


def error_of(x, z, covariance, mean, S, biases):
    """Squared error of one entry less what the row is uncertain by, in expectation."""
    rank = len(z) - biases.row
    u, v = [mean[:rank]], [z[:rank]]
    U, V = np.zeros((2, rank + 2, rank + 2))
    places = [np.arange(rank), np.arange(rank)]
    if biases.column:
        places[0] = np.append(places[0], rank)
    if biases.row:
        places[1] = np.append(places[1], rank + 1)
    U[np.ix_(places[0], places[0])] = S
    V[np.ix_(places[1], places[1])] = covariance
    u = np.concatenate([mean[:rank], mean[rank:] if biases.column else [0.0], [1.0]])
    v = np.concatenate([z[:rank], [1.0], z[rank:] if biases.row else [0.0]])
    second = (np.outer(u, u) + U) * (np.outer(v, v) + V)
    return x**2 - 2 * x * (u @ v) + second.sum() - 2 * u @ V @ u


@pytest.mark.parametrize("fit_bias", [True, False, "columns"])
@pytest.mark.parametrize("missing", [False, True])
def test_new_columns_of_a_given_ridge_are_least_squares(fit_bias, missing):
    reg = 0.7
    model, new, Z = fold_in_case(reg=reg, fit_bias=fit_bias)
    if not missing:
        new = np.nan_to_num(new, nan=2.0)
    model.fold_in_columns(new, Z)
    rank, biases = model.rank_, model._model.biases
    for j in range(3):
        seen = ~np.isnan(new[:, j])
        A, y = Z[seen, :rank], new[seen, j] - model.mean_
        if biases.row:
            y = y - Z[seen, -1]
        if biases.column:
            A = np.column_stack([A, np.ones(len(A))])
        expected = np.linalg.solve(A.T @ A + reg * np.eye(A.shape[1]), A.T @ y)
        assert_allclose(model.components_[:, 11 + j], expected[:rank], rtol=1e-6)
        if biases.column:
            assert_allclose(model.column_bias_[11 + j], expected[-1], rtol=1e-6)


@pytest.mark.parametrize("fit_bias", [True, False])
def test_new_sparse_columns_have_zeros_where_nothing_is_stored(fit_bias):
    X = np.where(make_table(80, 14)[0] > 3, 1.0, 0.0)
    models = []
    for convert in (np.asarray, sparse.csr_array):
        model = GradientMF(3, reg=0.5, fit_bias=fit_bias).fit(convert(X[:, :11]))
        Z = model.transform(X[:, :11])
        models.append(model.fold_in_columns(convert(X[:, 11:]), Z))
    assert_allclose(models[0].components_, models[1].components_, rtol=1e-6)
    learned = GradientMF(3, reg="auto").fit(X[:, :11])
    with pytest.raises(ValueError, match="sparse"):
        learned.fold_in_columns(
            sparse.csr_array(X[:, 11:]), learned.transform(X[:, :11])
        )


@pytest.mark.parametrize("params", [{}, {"reg": 0.5}], ids=str)
def test_new_columns_take_part_in_everything(params):
    X, truth = make_table(200, 14)
    X[:, 4] = np.nan  # what has no entries stays so
    model = MaskedGradientMF(3, **params).fit(X[:, :11])
    model.fold_in_columns(X[:, 11:], model.transform(X[:, :11]))
    error = (reconstruction(model, X) - truth)[:, 11:]
    assert np.sqrt(np.mean(error**2)) < 0.3 * truth[:, 11:].std()
    assert_array_equal(model.components_[:, 4], 0)
    assert_allclose(model.column_mean_[11:], np.nanmean(X[:, 11:], axis=0))
    assert model.n_features_in_ == 14
    assert 0 < model.score(X) < 1


def test_new_columns_leave_what_the_pattern_of_the_others_says():
    X, truth = make_table(300, 40)
    X[:, 4] = np.nan  # an empty column has no place in the pattern
    X[::2, 36:] = np.nan
    model = MaskedGradientMF(3, fit_bias="columns").fit(X[:, :36])
    assert model._model.feature_map.loadings.shape[1] > 0
    Z = model.transform(X[:, :36])
    model.fold_in_columns(X[:, 36:], Z)
    assert_allclose(model.transform(X[::2]), Z[::2], rtol=1e-10, atol=1e-12)
    error = (reconstruction(model, X) - truth)[:, 36:]
    assert np.sqrt(np.mean(error**2)) < 0.3 * truth[:, 36:].std()
    assert 0 < model.score(X) < 1


def test_intervals_of_new_columns_cover():
    X, _ = make_table(400, 14)
    hidden = np.random.RandomState(3).uniform(size=X.shape) < 0.2
    seen = np.where(hidden, np.nan, X)
    model = MaskedGradientMF(3).fit(seen[:, :11])
    Z, covariance = model.transform(seen[:, :11], return_cov=True)
    model.fold_in_columns(seen[:, 11:], Z, covariance=covariance)
    Z, covariance = model.transform(seen, return_cov=True)
    places = np.nonzero(hidden & ~np.isnan(X) & (np.arange(14) > 10))
    given = {"covariance": covariance, "return_std": True}
    x, std = model.predict_entries(Z, *places, **given)
    assert np.mean(np.abs(X[places] - x) < 1.96 * std) > 0.9
    assert 0.6 < np.mean(((X[places] - x) / std) ** 2) < 1.2


def test_names_of_new_columns_are_appended():
    model, new, Z = fold_in_case()
    X = make_table(80, 14)[0]
    frame = pd.DataFrame(X, columns=list("abcdefghijklmn"))
    model = MaskedGradientMF(3).fit(frame.iloc[:, :11])
    with pytest.raises(ValueError, match="columns of this fit have names"):
        model.fold_in_columns(new, Z)
    with pytest.raises(ValueError, match="'c' already"):
        model.fold_in_columns(frame[["l", "c"]], Z)
    model.fold_in_columns(frame.iloc[:, 11:], Z)
    assert list(model.feature_names_in_) == list(frame.columns)
    assert model.transform(frame).shape == Z.shape
    unnamed, *_ = fold_in_case()
    with pytest.warns(UserWarning, match="fitted without feature names"):
        unnamed.fold_in_columns(frame.iloc[:, 11:], Z)
    assert not hasattr(unnamed, "feature_names_in_")


def test_new_columns_that_do_not_fit_are_refused_and_change_nothing():
    model, new, Z = fold_in_case()
    before = dict(vars(model))
    for given, message in [
        ((new[:70], Z), "X has 70 rows and Z has 80"),
        ((new, Z[:, :-1]), f"Z must have {Z.shape[1]} columns"),
        ((np.where(np.isnan(new), np.inf, new), Z), "infinity"),
    ]:
        with pytest.raises(ValueError, match=message):
            model.fold_in_columns(*given)
    with pytest.raises(ValueError, match="covariance of shape"):
        model.fold_in_columns(new, Z, covariance=np.eye(4))
    assert vars(model) == before
    draws = MaskedGradientMF(2, n_draws=2, max_iter=5).fit(make_table()[0])
    with pytest.raises(ValueError, match="without n_draws"):
        draws.fold_in_columns(new, Z)
    ridge, new, Z = fold_in_case(reg=0.5)
    with pytest.raises(ValueError, match="covariance="):
        ridge.fold_in_columns(new, Z, covariance=np.zeros((*Z.shape, 4)))


def test_after_new_columns_there_are_no_sums_to_go_on_from():
    X, _ = make_table(100, 14)
    model = learn([X[:50, :11], X[50:, :11]])
    model.fold_in_columns(X[:, 11:], model.transform(X[:, :11]))
    with pytest.raises(ValueError, match="cannot go on after fold_in_columns"):
        model.partial_fit(X)


def test_after_fit_there_are_no_sums_so_a_batch_begins_a_new_model():
    X, _ = make_table()
    model = MaskedGradientMF(4).fit(X[:60, :11])
    with pytest.warns(UserWarning, match="what fit has learned is lost"):
        model.partial_fit(X[60:])
    assert_array_equal(model.components_, learn([X[60:]]).components_)
    assert model.n_samples_seen_ == 60
