"""Recommendations, similar rows and columns, and the range of predictions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from sklearn_mfgd import GradientMF, MaskedGradientMF, _recommending

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

CSR = sparse.csr_array


@pytest.fixture
def ratings():
    """Ratings from 1 to 5 of 30 x 20, half of them missing."""
    rng = np.random.RandomState(0)
    X = 3 + rng.normal(size=(30, 2)) @ rng.normal(size=(2, 20))
    X = np.clip(np.round(X), 1, 5)
    X[rng.uniform(size=X.shape) < 0.5] = np.nan
    return X


@pytest.fixture
def model(ratings):
    return MaskedGradientMF(3, reg=0.1, max_iter=20).fit(ratings)


def with_factors(H, dtype=float):
    """A fit of which the column factors are these."""
    H = np.asarray(H, dtype)
    model = GradientMF(H.shape[1], reg=1.0, max_iter=1).fit(
        np.ones(H.shape[::-1], dtype)
    )
    factors = np.vstack([H, np.zeros_like(H[:1])])
    model._model = model._model._replace(factors=factors)
    model._units = model._units._replace(exponent=0)
    model.column_mean_ = np.zeros(len(H), dtype)
    model.n_features_in_ = len(H)
    return model


def ranked(scores, n):
    """The n best of each row by a stable sort; minus infinity is left out."""
    columns = np.full((len(scores), n), -1)
    best = np.full((len(scores), n), np.nan)
    for i, row in enumerate(scores):
        order = sorted(range(len(row)), key=lambda j: (-row[j], j))
        order = [j for j in order if row[j] > -np.inf][:n]
        columns[i, : len(order)], best[i, : len(order)] = order, row[order]
    return columns, best


# Recommendations


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_columns=st.integers(1, 600),
    n=st.integers(1, 6),
    share=st.sampled_from([0.0, 0.3, 0.99]),
    rank=st.integers(1, 2),
)
def test_recommendations_are_the_first_of_a_stable_sort(
    seed, n_columns, n, share, rank
):
    # Small integers, so that products are exact and many scores are equal.
    rng = np.random.RandomState(seed)
    H, Z = (rng.randint(-3, 4, (k, rank)).astype(float) for k in (n_columns, 5))
    excluded = rng.uniform(size=(5, n_columns)) < share
    columns, scores = with_factors(H).recommend(Z, n, exclude=excluded)
    expected = ranked(np.where(excluded, -np.inf, Z @ H.T), n)
    assert_array_equal(columns, expected[0])
    assert_array_equal(scores, expected[1])


def test_the_scores_are_the_predictions_with_biases(model, ratings):
    Z = model.transform(ratings)
    columns, scores = model.recommend(Z, 4)
    X = model.inverse_transform(Z)
    assert_allclose(scores, np.take_along_axis(X, columns, axis=1))
    assert_array_equal(columns, ranked(X, 4)[0])


@pytest.mark.parametrize("size", [1, 45, 1000])
def test_the_size_of_blocks_changes_no_recommendation(
    model, ratings, size, monkeypatch
):
    Z = model.transform(ratings)
    expected, _ = model.recommend(Z, 4, exclude=ratings)
    monkeypatch.setattr(_recommending, "BLOCK_SCORES", size)
    assert_array_equal(model.recommend(Z, 4, exclude=ratings)[0], expected)


def test_all_forms_of_what_to_leave_out_say_the_same(model, ratings):
    Z, seen = model.transform(ratings), ~np.isnan(ratings)
    expected = ranked(np.where(seen, -np.inf, model.inverse_transform(Z)), 5)[0]
    zeros = sparse.coo_array((np.zeros(seen.sum()), np.nonzero(seen)), seen.shape)
    for exclude in (ratings, seen, zeros, zeros.tocsc(), sparse.csr_matrix(seen)):
        assert_array_equal(model.recommend(Z, 5, exclude=exclude)[0], expected)


def test_places_without_a_column_are_minus_one_and_nan(model, ratings):
    exclude = np.ones(ratings.shape, bool)
    exclude[0, 7] = False
    columns, scores = model.recommend(model.transform(ratings), 2, exclude=exclude)
    assert_array_equal(columns[0], [7, -1])
    assert np.isfinite(scores[0, 0])
    assert (columns[1:] == -1).all()
    assert np.isnan(scores[0, 1])
    assert np.isnan(scores[1:]).all()


def test_more_recommendations_than_columns_are_padded(model, ratings):
    columns, scores = model.recommend(model.transform(ratings[:1]), 25)
    assert_array_equal(np.sort(columns[0])[5:], np.arange(20))
    assert_array_equal(columns[0, 20:], np.full(5, -1))
    assert np.isnan(scores[0, 20:]).all()


def test_scores_have_the_precision_of_the_factors(ratings):
    X = ratings.astype(np.float32)
    model = MaskedGradientMF(2, reg=0.1).fit(X)
    assert model.recommend(model.transform(X), 3)[1].dtype == np.float32


@pytest.mark.parametrize("n", [0, -1, 1.5, "3"])
def test_a_count_that_is_none_is_refused(model, ratings, n):
    with pytest.raises(ValueError, match="n must be a positive integer"):
        model.recommend(model.transform(ratings), n)


def test_what_to_leave_out_of_another_shape_is_refused(model, ratings):
    Z = model.transform(ratings)
    for exclude in (ratings[1:], CSR(np.ones((30, 21)))):
        with pytest.raises(ValueError, match=r"exclude must have shape \(30, 20\)"):
            model.recommend(Z, exclude=exclude)


@pytest.mark.parametrize("container", [sparse.dia_array, sparse.bsr_array])
def test_formats_that_pad_are_refused(model, ratings, container):
    exclude = container(np.nan_to_num(ratings))
    with pytest.raises(TypeError, match="exclude is sparse in"):
        model.recommend(model.transform(ratings), exclude=exclude)


def test_factors_of_another_width_are_refused(model):
    with pytest.raises(ValueError, match="Z must have 4 columns"):
        model.recommend(np.zeros((2, 3)))


# Similar rows and columns


def cosines(factors):
    norms = np.linalg.norm(factors, axis=1)
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(factors @ factors.T / np.outer(norms, norms))


def test_similar_columns_have_the_largest_cosines(model):
    expected = cosines(model.components_.T)
    similar, similarities = model.similar_columns([3, 11], n=6)
    assert_array_equal(similar, ranked(expected[[3, 11]], 6)[0])
    assert_allclose(similarities, np.take_along_axis(expected[[3, 11]], similar, 1))
    assert_array_equal(similar[:, 0], [3, 11])


def test_similar_rows_have_the_largest_cosines_of_factors_without_biases(
    model, ratings
):
    Z = model.transform(ratings)
    Z[:, -1] += 100
    expected = cosines(Z[:, :3])
    similar, similarities = model.similar_rows(Z, [0, 29, 4], n=5)
    assert_array_equal(similar, ranked(expected[[0, 29, 4]], 5)[0])
    assert_allclose(similarities[:, 0], 1)


def test_a_single_number_gives_a_single_row(model, ratings):
    similar, similarities = model.similar_columns(3, n=4)
    assert similar.shape == similarities.shape == (4,)
    assert_array_equal(similar, model.similar_columns([3], n=4)[0][0])
    Z = model.transform(ratings)
    assert_array_equal(
        model.similar_rows(Z, np.int64(3))[0], model.similar_rows(Z, [3])[0][0]
    )


def test_columns_without_factors_are_similar_to_none():
    model = with_factors([[0, 0], [1, 2], [2, 4]])
    similar, similarities = model.similar_columns(0, n=4)
    assert_array_equal(similar, [0, 1, 2, -1])
    assert_array_equal(similarities, [0, 0, 0, np.nan])


def test_the_size_of_factors_does_not_matter_to_similarity():
    H = np.array([[3.0, 4], [4, 3], [-1, 2]])
    expected = with_factors(H).similar_columns([0, 1, 2], 3)
    found = with_factors(H * [[1e-200], [1e200], [1.0]]).similar_columns([0, 1, 2], 3)
    assert_array_equal(found[0], expected[0])
    assert_allclose(found[1], expected[1])


def test_numbers_of_no_column_or_row_are_refused(model, ratings):
    with pytest.raises(ValueError, match=r"columns\[1\] is 20"):
        model.similar_columns([0, 20])
    with pytest.raises(ValueError, match=r"rows\[0\] is -1"):
        model.similar_rows(model.transform(ratings), -1)
    with pytest.raises(ValueError, match="columns must be a one-dimensional array"):
        model.similar_columns([[1, 2]])


# The range of predictions


@pytest.mark.parametrize("Estimator", [GradientMF, MaskedGradientMF])
@pytest.mark.parametrize("clip", [(2, 3.5), [2.5, np.inf], "observed"], ids=str)
def test_predictions_outside_of_the_range_become_its_ends(Estimator, clip, ratings):
    params = {"rank": 3, "reg": 0.1, "max_iter": 20}
    model = Estimator(**params).fit(ratings)
    clipped = Estimator(**params, clip=clip).fit(ratings)
    Z = 3 * model.transform(ratings)
    X = model.inverse_transform(Z)
    limits = (1, 5) if clip == "observed" else clip
    assert X.min() < limits[0]
    expected = np.clip(X, *limits)
    assert_array_equal(clipped.inverse_transform(Z), expected)
    places = np.arange(30), np.arange(30) % 20
    assert_allclose(clipped.predict_entries(Z, *places), expected[places], rtol=1e-12)
    columns, scores = clipped.recommend(Z, 20)
    assert_array_equal(scores, np.take_along_axis(expected, columns, axis=1))


def test_columns_are_ranked_before_predictions_are_clipped(model, ratings):
    Z = 5 * model.transform(ratings)
    columns, _ = model.recommend(Z)
    clipped, scores = model.set_params(clip=(1, 1.5)).recommend(Z)
    assert_array_equal(clipped, columns)
    assert (scores == 1.5).any()


def test_deviations_and_the_score_do_not_depend_on_the_range(ratings):
    models = [MaskedGradientMF(3, clip=clip).fit(ratings) for clip in (None, (2, 3))]
    assert models[0].score(ratings) == models[1].score(ratings)
    Z, covariance = models[0].transform(ratings, return_cov=True)
    deviations = [
        model.predict_entries(Z, [0, 1], [2, 3], covariance=covariance, return_std=True)
        for model in models
    ]
    assert_array_equal(deviations[0][1], deviations[1][1])


@pytest.mark.parametrize("stored", [[2.0, 3.0], [-2.0, -3.0]])
@pytest.mark.parametrize("weighted", [False, True])
def test_zeros_that_are_not_stored_are_in_the_observed_range(stored, weighted):
    X = CSR((stored, ([0, 1], [0, 1])), (4, 3))
    model = GradientMF(1, reg=0.1, clip="observed")
    model.fit(X, entry_weight=abs(X) if weighted else None)
    found = model.inverse_transform([[-100.0], [100.0]])
    assert (found.min(), found.max()) == (min(*stored, 0), max(*stored, 0))


def test_missing_entries_are_not_in_the_observed_range():
    X = np.array([[1.0, 2, 3], [2, 3, 100], [2, 2, 2]])
    weights = np.where(X == 100, 0, 2.0)
    for beside in ({"mask": X < 50}, {"entry_weight": weights}):
        model = GradientMF(1, reg=0.1, clip="observed").fit(X, **beside)
        assert model.inverse_transform([[1e3]]).max() == 3
    model.fit(CSR(X), entry_weight=CSR((weights.ravel(), np.nonzero(X)), (3, 3)))
    found = model.inverse_transform([[-1e3], [1e3]])
    assert (found.min(), found.max()) == (1, 3)


def test_batches_extend_the_observed_range(ratings):
    model = MaskedGradientMF(2, clip="observed")
    batches = np.clip(ratings, 2, 4), ratings, np.clip(ratings, 3, 4)
    for batch, limits in zip(batches, [(2, 4), (1, 5), (1, 5)], strict=True):
        model.partial_fit(batch)
        X = model.inverse_transform(100 * model.transform(ratings))
        assert (X.min(), X.max()) == limits


def test_a_later_fit_has_an_observed_range_of_its_own(ratings):
    model = MaskedGradientMF(2, reg=0.1, clip="observed").fit(ratings)
    model.fit(np.clip(ratings, 2, 3))
    X = model.inverse_transform(100 * model.transform(ratings))
    assert (X.min(), X.max()) == (2, 3)


@pytest.mark.parametrize(
    "clip", [(1,), (1, 2, 3), (5, 1), (1, 1), (np.nan, 2), ("a", "b")], ids=str
)
def test_a_range_that_is_none_is_refused(ratings, clip):
    with pytest.raises(ValueError, match="clip"):
        MaskedGradientMF(2, clip=clip).fit(ratings)


def test_collections_are_predicted_in_a_given_range(ratings):
    dask = pytest.importorskip("sklearn_mfgd.dask")
    X = pytest.importorskip("dask.array").from_array(ratings, chunks=(10, 20))
    model = dask.MaskedGradientMF(3, reg=0.1, clip=(2, 3)).fit(X)
    predicted = model.inverse_transform(model.transform(X)).compute()
    assert (predicted.min(), predicted.max()) == (2, 3)
    with pytest.raises(ValueError, match=r"clip='observed'.*use \(low, high\)"):
        model.set_params(clip="observed").fit(X)
    with pytest.raises(ValueError, match="did not look for"):
        model.to_local().inverse_transform(np.zeros((1, 4)))
