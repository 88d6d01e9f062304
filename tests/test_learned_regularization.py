"""The ridge that reg="auto" chooses."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from sklearn_mfgd import GradientMF, MaskedGradientMF

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

GRID = 2.0 ** np.arange(-2, 8)


def hidden_error(data, X, reg, fit_bias):
    model = MaskedGradientMF(10, reg=reg, fit_bias=fit_bias)
    filled = model.inverse_transform(
        model.fit_transform(np.where(data.mask, X, np.nan))
    )
    return np.sqrt(np.mean((filled - X)[~data.mask] ** 2))


@pytest.mark.parametrize("noise", [1.0, 3.0])
@pytest.mark.parametrize("fit_bias", [True, False])
@pytest.mark.parametrize("share_missing", [0.2, 0.5, 0.7])
def test_it_is_near_the_best_of_a_grid(planted, share_missing, fit_bias, noise):
    data = planted(120, 40, 3, noise, share_missing)
    X = data.complete + np.linspace(0, 5, 40) * fit_bias
    best = min(hidden_error(data, X, reg, fit_bias) for reg in GRID)
    assert hidden_error(data, X, "auto", fit_bias) <= 1.04 * best


def test_more_noise_asks_for_more_ridge(planted):
    found = [
        MaskedGradientMF(10).fit(planted(120, 40, 3, noise, share_missing=0.3).X).reg_
        for noise in (0.05, 3.0)
    ]
    assert found[0] < 0.3 * found[1]


def test_noise_alone_is_shrunk_to_almost_nothing(planted):
    X = planted(120, 40, 1, noise=1.0, share_missing=0.3)
    noise = X.X - np.where(X.mask, X.signal, np.nan)
    model = GradientMF(10, reg="auto")
    fitted = model.inverse_transform(model.fit_transform(noise))
    assert np.mean(fitted**2) < 0.2


def test_it_is_part_of_the_model_and_not_of_its_random_state(planted):
    X = planted(share_missing=0.3).X
    models = [MaskedGradientMF(3, random_state=seed).fit(X) for seed in (0, 1)]
    assert models[0].reg_ == models[1].reg_
    assert_array_equal(models[0].components_, models[1].components_)


def test_a_number_is_taken_as_it_is(planted):
    model = MaskedGradientMF(3, reg=0.7, max_iter=2).fit(100 * planted().X)
    assert model.reg_ == model.bias_reg_ == 0.7


def test_it_is_in_units_of_the_data(planted):
    X = planted(share_missing=0.3).X
    one, large = (MaskedGradientMF(3).fit(X * unit) for unit in (1, 4**6))
    assert large.reg_ == one.reg_ * 4**6
    assert large.bias_reg_ == one.bias_reg_


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (3, 3)], ids=str)
@pytest.mark.parametrize("Estimator", [GradientMF, MaskedGradientMF])
def test_few_entries_are_enough(Estimator, shape):
    X = np.random.RandomState(0).standard_normal(shape)
    model = Estimator(2, reg="auto").fit(X)
    assert 0 <= model.reg_ < np.inf
    assert np.isfinite(model.transform(X)).all()


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_constant_data_are_fitted_to_the_constant(value):
    model = MaskedGradientMF(2)
    Z = model.fit_transform(np.full((6, 5), value))
    assert model.inverse_transform(Z) == pytest.approx(value)
