"""How uncertain factors and predictions are, as far as a fit knows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_mfgd import GradientMF, MaskedGradientMF
from sklearn_mfgd._bayes import diagonal_covariance
from sklearn_mfgd._bayes.moments import n_pairs, unpack
from sklearn_mfgd._bayes.posterior import student_over_normal
from sklearn_mfgd._data.observed import rows_of

FIT_BIAS = [True, "columns", False]


class Fitted:
    """A fit, what it says of its rows, and what it has learned in units of the data."""

    def __init__(self, data, **options):
        self.data, self.X = data, data.X
        self.model = MaskedGradientMF(5, tol=1e-2, **options).fit(data.X)
        self.Z, self.covariance = self.model.transform(data.X, return_cov=True)
        self.row_bias, self.column_bias = self.model._biases
        self.rank = self.model.rank_
        learned, unit = self.model._learned, 2.0**self.model._exponent
        self.row_units = np.append(np.full(self.rank, unit), self.row_bias * [unit**2])
        units = np.append(np.full(self.rank, unit), self.column_bias * [unit**2])
        self.H = learned.H * units
        covariances = [np.diag(part) for part in learned.covariances]
        if learned.covariances.shape[1] == n_pairs(len(units)):
            covariances = unpack(learned.covariances, len(units))
        self.H_cov = np.array(covariances) * np.outer(units, units)
        self.noise = np.broadcast_to(self.model.noise_variance_, data.X.shape[1])
        self.prior = np.diag(learned.row_precision / self.row_units**2)

    def row(self, x, weights=None):
        """Return mean and covariance of the coefficients of a row, by a loop."""
        observed = rows_of(np.nan_to_num(x)[None], ~np.isnan(x)[None])
        learned = self.model._learned
        mean = (learned.describe(observed) @ learned.slopes)[0] * self.row_units
        system, right = self.prior.copy(), self.prior @ mean
        for j in np.flatnonzero(~np.isnan(x)):
            h, spread = self.H[j, : self.rank], self.H_cov[j]
            g = np.append(h, np.ones(int(self.row_bias)))
            second = np.outer(g, g)
            second[: self.rank, : self.rank] += spread[: self.rank, : self.rank]
            explained = (x[j] - self.model.mean_) * g
            if self.column_bias:
                explained -= self.H[j, -1] * g
                explained[: self.rank] -= spread[-1, : self.rank]
            weight = (1 if weights is None else weights[j]) / self.noise[j]
            system += weight * second
            right += weight * explained
        covariance = np.linalg.inv(system)
        return covariance @ right, covariance

    def deviation(self, i, j):
        """Return the standard deviation of an entry, term by term."""
        rank, of_row, of_column = self.rank, self.covariance[i], self.H_cov[j]
        h = np.append(self.H[j, :rank], np.ones(int(self.row_bias)))
        w = np.append(self.Z[i, :rank], np.ones(int(self.column_bias)))
        learned = self.model._learned
        noise = self.noise[j] * learned.noise_precision[j] * learned.noise_variance[j]
        variance = noise + h @ of_row @ h + w @ of_column @ w
        variance += np.trace(of_row[:rank, :rank] @ of_column[:rank, :rank])
        wider = 1.0 if learned.dof is None else student_over_normal(learned.dof[j])
        return wider * np.sqrt(variance)

    def predict(self, i, j, **options):
        options = {"covariance": self.covariance, "return_std": True, **options}
        return self.model.predict_entries(self.Z, i, j, **options)


@pytest.fixture(scope="module", params=["column", "shared", "diagonal"])
def kind(request):
    """Return the kind of noise, or of covariances."""
    return request.param


@pytest.fixture(scope="module", params=FIT_BIAS)
def fitted(request, planted, kind):
    """Return a fit with each kind of biases, noise and covariances."""
    data = planted(30, 12, 3, noise=0.3, share_missing=0.4)
    data.X[4] = np.nan
    if kind != "diagonal":
        return Fitted(data, fit_bias=request.param, noise=kind)
    # Only for this fit: a fixture lives on while tests run that do not ask for it.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diagonal_covariance, "LARGEST", 0)
        return Fitted(data, fit_bias=request.param)


class TestRows:
    def test_have_their_posterior(self, fitted):
        for x, z, covariance in zip(fitted.X, fitted.Z, fitted.covariance, strict=True):
            mean, expected = fitted.row(x)
            if fitted.model._learned.covariances.shape[1] == len(fitted.H[0]):
                expected = np.diag(1 / np.diag(np.linalg.inv(expected)))
            assert_allclose(z, mean, rtol=1e-8, atol=1e-10)
            assert_allclose(covariance, expected, rtol=1e-8, atol=1e-12)

    def test_are_the_same_without_covariances(self, fitted):
        assert_array_equal(fitted.model.transform(fitted.X), fitted.Z)

    def test_know_more_with_more_weight(self, fitted):
        weights = np.full(fitted.X.shape, 2.0)
        Z, covariance = fitted.model.transform(
            fitted.X, entry_weight=weights, return_cov=True
        )
        mean, _ = fitted.row(fitted.X[0], weights[0])
        assert_allclose(Z[0], mean, rtol=1e-8, atol=1e-10)
        diagonal, before = np.diag(covariance[0]), np.diag(fitted.covariance[0])
        assert (diagonal < before).all()

    def test_of_which_nothing_is_observed_have_their_prior(self, fitted):
        assert_allclose(fitted.Z[4], 0, atol=1e-12)
        expected = np.linalg.inv(fitted.prior)
        assert_allclose(fitted.covariance[4], expected, rtol=1e-8, atol=1e-15)

    def test_have_covariances_that_are_definite(self, fitted):
        covariance = fitted.covariance
        assert covariance.shape == (30, fitted.Z.shape[1], fitted.Z.shape[1])
        assert_array_equal(covariance, covariance.transpose(0, 2, 1))
        assert (np.linalg.eigvalsh(covariance) > 0).all()

    def test_may_be_new_and_alone(self, fitted):
        chosen = np.array([7, 2, 7])
        Z, covariance = fitted.model.transform(fitted.X[chosen], return_cov=True)
        assert_allclose(Z, fitted.Z[chosen], rtol=1e-8, atol=1e-10)
        assert_allclose(covariance, fitted.covariance[chosen], rtol=1e-8, atol=1e-12)


class TestPredictions:
    def test_have_the_deviation_of_noise_row_and_column(self, fitted):
        i, j = (part.ravel() for part in np.indices(fitted.X.shape))
        x, deviations = fitted.predict(i, j)
        assert_array_equal(x, fitted.model.predict_entries(fitted.Z, i, j))
        expected = [fitted.deviation(*pair) for pair in zip(i, j, strict=True)]
        assert_allclose(deviations, expected, rtol=1e-8)

    def test_are_never_surer_than_the_noise(self, fitted):
        i, j = (part.ravel() for part in np.indices(fitted.X.shape))
        assert (fitted.predict(i, j)[1] ** 2 > fitted.noise[j]).all()

    def test_may_be_none(self, fitted):
        x, deviations = fitted.predict([], [])
        assert x.shape == deviations.shape == (0,)


@pytest.mark.parametrize("size", [1, 100])
def test_deviations_do_not_depend_on_the_size_of_blocks(monkeypatch, planted, size):
    fitted = Fitted(planted(share_missing=0.4))
    i, j = (part.ravel() for part in np.indices(fitted.X.shape))
    expected = fitted.predict(i, j)[1]
    monkeypatch.setattr("sklearn_mfgd._kernels.linalg.BLOCK", size)
    assert_allclose(fitted.predict(i, j)[1], expected, rtol=1e-12)
    monkeypatch.setattr("sklearn_mfgd._bayes.posterior.BLOCK", size)
    _, covariance = fitted.model.transform(fitted.X, return_cov=True)
    assert_allclose(covariance, fitted.covariance, rtol=1e-10)


@pytest.mark.parametrize("fit_bias", FIT_BIAS)
@pytest.mark.parametrize("unit", [4.0**3, 4.0**-5])
def test_units_are_those_of_the_data(planted, fit_bias, unit):
    """Factors are in roots of them, biases in them."""
    data = planted(share_missing=0.4)
    fitted = Fitted(data, fit_bias=fit_bias)
    scaled = Fitted(data._replace(X=unit * data.X), fit_bias=fit_bias)
    units = np.full(fitted.Z.shape[1], np.sqrt(unit))
    units[fitted.rank :] = unit
    assert_allclose(scaled.Z / units, fitted.Z, rtol=1e-8, atol=1e-10)
    covariance = scaled.covariance / np.outer(units, units)
    assert_allclose(covariance, fitted.covariance, rtol=1e-8, atol=1e-10)
    i, j = np.nonzero(np.isnan(data.X))
    assert_allclose(scaled.predict(i, j)[1] / unit, fitted.predict(i, j)[1], rtol=1e-8)


# What it is worth


def shares_within(data, **options):
    """Share of the hidden entries that lie within 1.96 standard deviations."""
    model = MaskedGradientMF(8, **options)
    Z, covariance = model.fit(data.X).transform(data.X, return_cov=True)
    i, j = np.nonzero(~data.mask)
    x, deviations = model.predict_entries(
        Z, i, j, covariance=covariance, return_std=True
    )
    return np.mean(np.abs(data.complete[i, j] - x) < 1.96 * deviations)


@pytest.mark.parametrize("fit_bias", [True, False])
@pytest.mark.parametrize(
    "m, n, rank, noise, share_missing, n_seeds",
    [(300, 12, 3, 0.1, 0.3, 5), (200, 150, 5, 0.5, 0.6, 2)],
    ids=["table", "matrix"],
)
def test_intervals_hold_what_they_promise(
    planted, m, n, rank, noise, share_missing, n_seeds, fit_bias
):
    """95 % of what was not seen."""
    shares = [
        shares_within(
            planted(m, n, rank, noise, share_missing, seed), fit_bias=fit_bias
        )
        for seed in range(n_seeds)
    ]
    assert 0.92 < np.mean(shares) < 0.97


def test_intervals_of_new_rows_hold_what_they_promise(planted):
    data = planted(600, 40, 3, 0.3, 0.5)
    model = MaskedGradientMF(6).fit(data.X[:300])
    Z, covariance = model.transform(data.X[300:], return_cov=True)
    i, j = np.nonzero(~data.mask[300:])
    x, deviations = model.predict_entries(
        Z, i, j, covariance=covariance, return_std=True
    )
    inside = np.abs(data.complete[300:][i, j] - x) < 1.96 * deviations
    assert 0.92 < inside.mean() < 0.97


def test_rows_with_fewer_entries_are_less_certain(planted):
    data = planted(100, 30, 3, 0.3, 0.3)
    model = MaskedGradientMF(6).fit(data.X)
    X, volumes = data.X[:20].copy(), []
    for _ in range(3):
        _, covariance = model.transform(X, return_cov=True)
        volumes.append(np.linalg.slogdet(covariance)[1])
        for x in X:
            seen = np.flatnonzero(~np.isnan(x))
            x[seen[: len(seen) // 2]] = np.nan
    assert (np.diff(volumes, axis=0) > 0).all()


# Types and containers


def test_single_precision_stays_single(planted):
    data = planted(60, 20, 3, 0.3, 0.4)
    double = Fitted(data)
    single = Fitted(data._replace(X=data.X.astype(np.float32)))
    i, j = np.nonzero(~data.mask)
    found, expected = single.predict(i, j), double.predict(i, j)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == np.float32
        assert theirs.dtype == np.float64
    assert single.covariance.dtype == np.float32
    assert_allclose(found[1], expected[1], rtol=0.02)
    Z, covariance = double.model.transform(single.X, return_cov=True)
    assert Z.dtype == covariance.dtype == np.float32
    assert_allclose(covariance, double.covariance, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("estimator", [MaskedGradientMF, GradientMF])
def test_complete_data_have_covariances_too(planted, estimator):
    """All rows have the same entries."""
    X = planted(noise=0.3).X
    model = estimator(4, reg="auto", tol=1e-2).fit(X)
    Z, covariance = model.transform(X, return_cov=True)
    assert_allclose(covariance, np.tile(covariance[0], (len(X), 1, 1)), rtol=1e-8)
    assert Z.shape == covariance.shape[:2]


@pytest.mark.parametrize("container", ["pandas", "polars"])
def test_frames_come_with_covariances(planted, container):
    pytest.importorskip(container)
    X = planted(share_missing=0.4).X
    model = MaskedGradientMF(4, tol=1e-2).fit(X)
    Z, expected = model.transform(X, return_cov=True)
    model.set_output(transform=container)
    frame, covariance = model.transform(X, return_cov=True)
    assert type(frame).__module__.startswith(container)
    assert list(frame.columns) == list(model.get_feature_names_out())
    assert_array_equal(frame, Z)
    assert_array_equal(covariance, expected)
    x, deviations = model.predict_entries(
        frame, [3, 1], [2, 0], covariance=covariance, return_std=True
    )
    again = model.predict_entries(
        Z, [3, 1], [2, 0], covariance=covariance, return_std=True
    )
    assert_array_equal((x, deviations), again)


def test_values_of_any_size_have_deviations(planted):
    data = planted(share_missing=0.4)
    for unit in (1e150, 1e-150):
        fitted = Fitted(data._replace(X=unit * data.X))
        deviations = fitted.predict([0, 1], [2, 3])[1] / unit
        assert (deviations > 0.03).all()
        assert (deviations < 3).all()


class TestRefusals:
    @pytest.fixture
    def fitted(self, planted):
        return Fitted(planted(share_missing=0.4))

    def test_of_a_number_for_the_ridge(self, planted):
        X = planted().X
        model = MaskedGradientMF(3, reg=1.0).fit(X)
        with pytest.raises(ValueError, match=r"return_cov=True needs .* reg='auto'"):
            model.transform(X, return_cov=True)
        Z = model.transform(X)
        with pytest.raises(ValueError, match=r"return_std=True needs .* reg='auto'"):
            model.predict_entries(
                Z, [0], [0], covariance=np.zeros((40, 4, 4)), return_std=True
            )

    def test_of_deviations_without_a_covariance(self, fitted):
        with pytest.raises(ValueError, match=r"shape \(40, 4, 4\) .* got None"):
            fitted.predict([0], [0], covariance=None)

    def test_of_covariances_of_other_rows(self, fitted):
        for wrong in (
            fitted.covariance[:-1],
            fitted.covariance[:, :-1],
            fitted.covariance[0],
        ):
            told = str(wrong.shape).replace("(", r"\(").replace(")", r"\)")
            with pytest.raises(ValueError, match=f"return_cov=True.* got {told}"):
                fitted.predict([0], [0], covariance=wrong)

    def test_of_covariances_that_are_not_numbers(self, fitted):
        for value in (np.nan, np.inf):
            wrong = fitted.covariance.copy()
            wrong[3, 1, 1] = value
            with pytest.raises(ValueError, match="covariance"):
                fitted.predict([0], [0], covariance=wrong)

    def test_of_nothing_where_no_deviation_is_wanted(self, fitted):
        """A covariance may be there all the same."""
        x = fitted.predict([0, 3], [1, 1], return_std=False)
        expected = fitted.model.predict_entries(fitted.Z, [0, 3], [1, 1])
        assert_array_equal(x, expected)
