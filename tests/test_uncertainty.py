"""How uncertain factors and predictions are, as far as a fit knows."""

import re
from itertools import product

import numpy as np
import pytest
from naive import row_posterior
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_mfgd import GradientMF, MaskedGradientMF
from sklearn_mfgd._bayes import covariance
from sklearn_mfgd._bayes.covariance import posterior_of
from sklearn_mfgd._bayes.moments import unpack
from sklearn_mfgd._bayes.posterior import student_over_normal
from sklearn_mfgd._data import row_blocks
from sklearn_mfgd._data.observed import rows_of

FIT_BIAS = [True, "columns", False]


class Fitted:
    """A fit, what it says of its rows, and what it has learned in units of the data."""

    def __init__(self, data, **options):
        self.data, self.X = data, data.X
        self.model = MaskedGradientMF(5, tol=1e-2, **options).fit(data.X)
        self.Z, self.covariance = self.model.transform(data.X, return_cov=True)
        self.learned, unit = self.model._model, 2.0**self.model._units.exponent
        self.row_bias, self.column_bias = self.learned.biases
        self.rank = self.model.rank_
        self.row_units = np.append(np.full(self.rank, unit), self.row_bias * [unit**2])
        units = np.append(np.full(self.rank, unit), self.column_bias * [unit**2])
        self.H = self.learned.means * units
        given = self.learned.means, self.learned.covariances
        posterior = posterior_of(*given, self.column_bias)
        self.is_diagonal = not posterior.can_rotate
        covariances = unpack(posterior.as_full().covariances, len(units))
        self.H_cov = covariances * np.outer(units, units)
        self.noise = np.broadcast_to(self.model.noise_variance_, data.X.shape[1])
        self.prior = np.diag(self.learned.row_precision / self.row_units**2)

    def row(self, x, weights=None):
        """Return mean and covariance of the coefficients of a row, by a loop."""
        observed = rows_of(np.nan_to_num(x)[None], ~np.isnan(x)[None])
        features = self.learned.feature_map.transform(observed)
        mean = (features @ self.learned.slopes)[0] * self.row_units
        precisions = (np.ones_like(x) if weights is None else weights) / self.noise
        x, precisions = x - self.model.mean_, np.where(np.isnan(x), 0, precisions)
        given = (self.H, self.H_cov), self.prior, self.learned.biases, mean
        prior_mean, dof = mean, self.learned.row_dof
        mean, system, _ = row_posterior(np.nan_to_num(x), precisions, *given)
        system = np.diag(np.diag(system)) if self.is_diagonal else system
        if not dof:
            return mean, np.linalg.inv(system)
        # A row has a scale of its own, of a Gamma distribution.
        c, variance = self.H[:-1, -1], self.H_cov[:-1, -1, -1]
        squares = precisions @ (np.square(np.nan_to_num(x) - c) + variance)
        squares += prior_mean @ self.prior @ prior_mean - mean @ system @ mean
        shape, rate = (observed.indices.size + dof) / 2, (squares + dof) / 2
        return mean, np.linalg.inv(system) * rate / (shape - 1)

    @property
    def mean_variance(self):
        """Mean of one over the scale of a row of which nothing is known."""
        dof = self.learned.row_dof
        return dof / (dof - 2) if dof else 1.0

    def deviation(self, i, j):
        """Return the standard deviation of an entry, term by term."""
        rank, of_row, of_column = self.rank, self.covariance[i], self.H_cov[j]
        h = np.append(self.H[j, :rank], np.ones(int(self.row_bias)))
        w = np.append(self.Z[i, :rank], np.ones(int(self.column_bias)))
        learned = self.learned
        ratio = learned.noise_precision[j] * learned.predictive_noise[j]
        variance = (
            self.noise[j] * ratio * self.mean_variance
            + h @ of_row @ h
            + w @ of_column @ w
        )
        variance += np.trace(of_row[:rank, :rank] @ of_column[:rank, :rank])
        wider = 1.0 if learned.dof is None else student_over_normal(learned.dof[j])
        return wider * np.sqrt(variance)

    def predict(self, i, j, **options):
        options = {"covariance": self.covariance, "return_std": True, **options}
        return self.model.predict_entries(self.Z, i, j, **options)


@pytest.fixture(
    scope="module",
    params=[*product(FIT_BIAS, ("column", "diagonal")), (True, "shared")],
    ids=str,
)
def fitted(request, planted):
    """Return a fit with each kind of biases, noise and covariances; row 4 is empty."""
    fit_bias, kind = request.param
    data = planted(30, 12, 3, noise=0.3, share_missing=0.4)
    data.X[4] = np.nan
    if kind != "diagonal":
        return Fitted(data, fit_bias=fit_bias, noise=kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(covariance, "MAX_MOMENTS", 0)
        return Fitted(data, fit_bias=fit_bias)


def test_rows_have_their_posterior(fitted):
    """Which is the prior of those of which nothing is observed."""
    for x, z, ours in zip(fitted.X, fitted.Z, fitted.covariance, strict=True):
        mean, expected = fitted.row(x)
        assert_allclose(z, mean, rtol=1e-8, atol=1e-10)
        assert_allclose(ours, expected, rtol=1e-8, atol=1e-12)
    assert_allclose(fitted.Z[4], 0, atol=1e-12)
    prior = np.linalg.inv(fitted.prior) * fitted.mean_variance
    assert_allclose(fitted.covariance[4], prior, rtol=1e-8, atol=1e-15)
    assert_array_equal(fitted.covariance, fitted.covariance.transpose(0, 2, 1))
    assert (np.linalg.eigvalsh(fitted.covariance) > 0).all()
    assert_array_equal(fitted.model.transform(fitted.X), fitted.Z)


def test_rows_are_more_certain_with_more_weight(fitted):
    weights = np.full(fitted.X.shape, 2.0)
    Z, found = fitted.model.transform(fitted.X, entry_weight=weights, return_cov=True)
    mean, expected = fitted.row(fitted.X[0], weights[0])
    assert_allclose(Z[0], mean, rtol=1e-8, atol=1e-10)
    assert_allclose(found[0], expected, rtol=1e-8, atol=1e-12)
    if not fitted.learned.row_dof:  # or else its residuals look larger
        assert (np.diag(found[0]) < np.diag(fitted.covariance[0])).all()


def test_rows_do_not_depend_on_other_rows_or_blocks(monkeypatch, fitted):
    monkeypatch.setattr(row_blocks, "BLOCK", 1)
    chosen = np.array([7, 2, 7])
    Z, found = fitted.model.transform(fitted.X[chosen], return_cov=True)
    assert_allclose(Z, fitted.Z[chosen], rtol=1e-8, atol=1e-10)
    assert_allclose(found, fitted.covariance[chosen], rtol=1e-8, atol=1e-12)


def test_predictions_have_the_deviation_of_noise_row_and_column(fitted):
    i, j = (part.ravel() for part in np.indices(fitted.X.shape))
    x, deviations = fitted.predict(i, j)
    assert_array_equal(x, fitted.model.predict_entries(fitted.Z, i, j))
    assert_array_equal(x, fitted.predict(i, j, return_std=False))
    expected = [fitted.deviation(*pair) for pair in zip(i, j, strict=True)]
    assert_allclose(deviations, expected, rtol=1e-8)
    assert (deviations**2 > fitted.noise[j]).all()
    x, deviations = fitted.predict([], [])
    assert x.shape == deviations.shape == (0,)


@pytest.mark.pairwise(fit_bias=FIT_BIAS, unit=[4.0**3, 4.0**-5])
def test_units_are_those_of_the_data(planted, fit_bias, unit):
    data = planted(share_missing=0.4)
    fitted = Fitted(data, fit_bias=fit_bias)
    scaled = Fitted(data._replace(X=unit * data.X), fit_bias=fit_bias)
    units = np.full(fitted.Z.shape[1], np.sqrt(unit))
    units[fitted.rank :] = unit
    assert_allclose(scaled.Z / units, fitted.Z, rtol=1e-8, atol=1e-10)
    found = scaled.covariance / np.outer(units, units)
    assert_allclose(found, fitted.covariance, rtol=1e-8, atol=1e-10)
    i, j = np.nonzero(np.isnan(data.X))
    assert_allclose(scaled.predict(i, j)[1] / unit, fitted.predict(i, j)[1], rtol=1e-8)


def test_deviations_of_values_of_any_size_are_finite(planted):
    data = planted(share_missing=0.4)
    for unit in (1e150, 1e-150):
        fitted = Fitted(data._replace(X=unit * data.X))
        deviations = fitted.predict([0, 1], [2, 3])[1] / unit
        assert ((deviations > 0.03) & (deviations < 3)).all()


# What it is worth


def share_within(model, X, complete, mask):
    """Share of the hidden entries that lie within 1.96 standard deviations."""
    Z, covariances = model.transform(X, return_cov=True)
    i, j = np.nonzero(~mask)
    options = {"covariance": covariances, "return_std": True}
    x, deviations = model.predict_entries(Z, i, j, **options)
    return np.mean(np.abs(complete[i, j] - x) < 1.96 * deviations)


@pytest.mark.slow
@pytest.mark.accuracy
@pytest.mark.parametrize("fit_bias", [True, False])
@pytest.mark.parametrize(
    "shape, n_seeds",
    [((300, 12, 3, 0.1, 0.3), 5), ((200, 150, 5, 0.5, 0.6), 2)],
    ids=["table", "matrix"],
)
def test_intervals_hold_what_they_promise(planted, shape, n_seeds, fit_bias):
    shares = []
    for seed in range(n_seeds):
        data = planted(*shape, seed)
        model = MaskedGradientMF(8, fit_bias=fit_bias).fit(data.X)
        shares.append(share_within(model, data.X, data.complete, data.mask))
    assert 0.92 < np.mean(shares) < 0.97


@pytest.mark.accuracy
def test_intervals_of_new_rows_hold_what_they_promise(planted):
    data = planted(600, 40, 3, 0.3, 0.5)
    model = MaskedGradientMF(6).fit(data.X[:300])
    new = (array[300:] for array in (data.X, data.complete, data.mask))
    assert 0.92 < share_within(model, *new) < 0.97


def test_rows_with_fewer_entries_are_less_certain(planted):
    data = planted(100, 30, 3, 0.3, 0.3)
    model = MaskedGradientMF(6).fit(data.X)
    X, volumes = data.X[:20].copy(), []
    for _ in range(3):
        _, covariances = model.transform(X, return_cov=True)
        volumes.append(np.linalg.slogdet(covariances)[1])
        for x in X:
            seen = np.flatnonzero(~np.isnan(x))
            x[seen[: len(seen) // 2]] = np.nan
    assert (np.diff(volumes, axis=0) > 0).all()


# Types and containers


def test_single_precision_stays_single(planted):
    data = planted(60, 20, 3, 0.3, 0.4)
    double, single = Fitted(data), Fitted(data._replace(X=data.X.astype(np.float32)))
    i, j = np.nonzero(~data.mask)
    found, expected = single.predict(i, j), double.predict(i, j)
    assert {ours.dtype for ours in found} == {np.dtype(np.float32)}
    assert {theirs.dtype for theirs in expected} == {np.dtype(np.float64)}
    assert single.covariance.dtype == np.float32
    assert_allclose(found[1], expected[1], rtol=0.02)
    Z, covariances = double.model.transform(single.X, return_cov=True)
    assert Z.dtype == covariances.dtype == np.float32
    assert_allclose(covariances, double.covariance, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("estimator", [MaskedGradientMF, GradientMF])
def test_all_complete_rows_have_the_same_covariance(planted, estimator):
    X = planted(noise=0.3).X
    model = estimator(4, reg="auto", fit_bias="columns", tol=1e-2).fit(X)
    Z, covariances = model.transform(X, return_cov=True)
    assert_allclose(covariances, [covariances[0]] * len(X), rtol=1e-8)
    assert Z.shape == covariances.shape[:2]


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_frames_come_with_covariances(planted, container):
    pytest.importorskip(container)
    X = planted(share_missing=0.4).X
    model = MaskedGradientMF(4, tol=1e-2).fit(X)
    Z, expected = model.transform(X, return_cov=True)
    model.set_output(transform=container)
    frame, covariances = model.transform(X, return_cov=True)
    assert type(frame).__module__.startswith(container)
    assert list(frame.columns) == list(model.get_feature_names_out())
    assert_array_equal(frame, Z)
    assert_array_equal(covariances, expected)
    options = {"covariance": covariances, "return_std": True}
    found = model.predict_entries(frame, [3, 1], [2, 0], **options)
    assert_array_equal(found, model.predict_entries(Z, [3, 1], [2, 0], **options))


# Refusals


def test_a_fit_with_a_number_for_the_ridge_has_no_covariances(planted):
    X = planted().X
    model = MaskedGradientMF(3, reg=1.0).fit(X)
    with pytest.raises(ValueError, match=r"return_cov=True needs .* reg='auto'"):
        model.transform(X, return_cov=True)
    Z, options = model.transform(X), {"covariance": np.zeros((40, 4, 4))}
    with pytest.raises(ValueError, match=r"return_std=True needs .* reg='auto'"):
        model.predict_entries(Z, [0], [0], return_std=True, **options)


def test_covariances_of_another_shape_or_that_are_no_numbers_are_refused(planted):
    fitted = Fitted(planted(share_missing=0.4))
    right = fitted.covariance
    with pytest.raises(ValueError, match=r"shape \(40, 4, 4\) .* got None"):
        fitted.predict([0], [0], covariance=None)
    for wrong in (right[:-1], right[:, :-1], right[0]):
        told = re.escape(str(wrong.shape))
        with pytest.raises(ValueError, match=f"return_cov=True.* got {told}"):
            fitted.predict([0], [0], covariance=wrong)
    for value in (np.nan, np.inf):
        wrong = right.copy()
        wrong[3, 1, 1] = value
        with pytest.raises(ValueError, match="covariance"):
            fitted.predict([0], [0], covariance=wrong)
