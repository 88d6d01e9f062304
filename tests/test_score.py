"""The score predicts what it does not see, and equals its definition by loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sklearn_mfgd import GradientMF, MaskedGradientMF

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def naive_score(ridge_row):
    """Return ``score(model, X)``, one row, one fold and one entry at a time."""

    def score(model, X):
        c, ones = model.column_bias_, np.ones((X.shape[1], int(model.fit_bias is True)))
        H = np.column_stack([model.components_.T, ones])
        ridge = np.full(H.shape[1], model.reg)
        press = total = 0.0
        for x in X:
            observed = np.flatnonzero(~np.isnan(x))
            fold = np.arange(len(observed)) % 5
            for k in range(5):
                seen, hidden = observed[fold != k], observed[fold == k]
                w = ridge_row(H[seen], x[seen] - model.mean_ - c[seen], ridge)
                for j in hidden:
                    press += (x[j] - model.mean_ - c[j] - H[j] @ w) ** 2
                    total += (x[j] - model.column_mean_[j]) ** 2
        return 1 - press / total if total else float(press == 0)

    return score


@pytest.mark.pairwise(
    share_missing=[0.0, 0.3], fit_bias=[False, True, "columns"], reg=[0.0, 0.5]
)
def test_score_is_its_definition(planted, naive_score, share_missing, fit_bias, reg):
    X = planted(m=60, share_missing=share_missing).X + 2
    model = GradientMF(2, fit_bias=fit_bias, reg=reg).fit(X[:40])
    for rows in (X[:40], X[40:]):
        assert model.score(rows) == pytest.approx(naive_score(model, rows), rel=1e-6)


@pytest.mark.slow
@given(
    shape=st.tuples(st.integers(2, 10), st.integers(1, 12)),
    rank=st.integers(1, 4),
    share=st.sampled_from([0.0, 0.2, 0.6]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_score_is_its_definition_for_any_shape(
    planted, naive_score, shape, rank, share, seed
):
    X = planted(*shape, 2, share_missing=share, seed=seed).X
    X[0, 0] = 1.0
    model = MaskedGradientMF(rank, reg=0.3, max_iter=5).fit(X)
    assert model.score(X) == pytest.approx(naive_score(model, X), rel=1e-6, abs=1e-9)


@pytest.mark.pairwise(
    noise_or_draws=[{"noise": "column"}, {"noise": "shared"}, {"n_draws": 3}],
    fit_bias=[False, True, "columns"],
    share_missing=[0.0, 0.3],
)
def test_score_with_learned_regularization_folds_every_fold_in(
    planted, noise_or_draws, share_missing, params
):
    X = planted(share_missing=share_missing).X + 2
    params |= noise_or_draws
    model = GradientMF(3, reg="auto", random_state=0, **params).fit(X)
    fold = np.where(np.isnan(X), -1, (np.cumsum(~np.isnan(X), axis=1) - 1) % 5)
    press = 0.0
    for k in range(5):
        found = model.inverse_transform(model.transform(X, mask=fold != k))
        press += np.sum((found - X)[fold == k] ** 2)
    total = np.nansum((X - model.column_mean_) ** 2)
    assert model.score(X) == pytest.approx(1 - press / total, rel=1e-6)


@pytest.mark.parametrize("fit_bias", [False, True, "columns"])
def test_sparse_rows_score_like_dense_ones(fit_bias):
    X = np.random.RandomState(0).poisson(0.4, size=(50, 23)).astype(float)
    model = GradientMF(3, fit_bias=fit_bias, reg=1.0).fit(X)
    assert model.score(sparse.csr_array(X)) == pytest.approx(model.score(X), rel=1e-9)


def test_complete_rows_score_as_with_a_mask_that_hides_nothing_but_one_entry(planted):
    X = planted(m=2000, n=20).X
    mask = np.arange(X.size).reshape(X.shape) < X.size - 1
    model = GradientMF(3).fit(X)
    assert model.score(X, mask=mask) == pytest.approx(model.score(X), abs=1e-3)


def test_score_is_near_one_for_a_right_model_and_below_zero_for_noise(planted):
    X = planted(m=200, n=40, noise=0.05, share_missing=0.2).X
    assert GradientMF(3, tol=1e-8).fit(X[:150]).score(X[150:]) > 0.99
    noise = np.random.RandomState(0).standard_normal((200, 20))
    assert GradientMF(5).fit(noise[:150]).score(noise[150:]) < 0


def test_score_is_highest_at_the_planted_rank_though_the_error_still_falls(planted):
    X = planted(m=200, n=40, rank=3, noise=0.5).X
    models = [GradientMF(rank).fit(X[:150]) for rank in range(1, 9)]
    errors = [model.reconstruction_err_ for model in models]
    assert errors == sorted(errors, reverse=True)
    assert np.argmax([model.score(X[150:]) for model in models]) + 1 == 3


def test_score_is_relative_to_the_column_means_of_fit(planted):
    """A shift of columns, once known, neither helps nor harms."""
    X, model = (
        planted(100, 20, noise=0.5).X,
        GradientMF(3, fit_bias="columns", tol=1e-9),
    )
    shifted = X + np.linspace(-50, 50, 20)
    scores = [model.fit(x[:60]).score(x[60:]) for x in (X, shifted)]
    assert scores[1] == pytest.approx(scores[0], abs=0.02)


def test_score_depends_on_neither_unit_nor_labels(planted):
    X = planted(share_missing=0.2).X
    one = GradientMF(3).fit(X, np.arange(40)).score(X)
    assert GradientMF(3).fit(4**8 * X).score(4**8 * X, np.arange(40)) == one


def test_without_variance_the_score_is_one_if_all_is_right_else_zero(planted):
    assert GradientMF(2).fit(np.zeros((4, 6))).score(np.zeros((4, 6))) == 1.0
    model = GradientMF(2, reg=1.0).fit(planted().X)
    assert model.score(np.tile(model.column_mean_, (3, 1))) == 0.0


def test_a_column_never_observed_in_fit_is_compared_with_the_mean(planted):
    X = planted().X + 3
    model = GradientMF(3, reg=0.1).fit(np.where(np.arange(15) == 4, np.nan, X))
    assert model.column_mean_[4] == pytest.approx(model.mean_)
    assert np.isfinite(model.score(X))
