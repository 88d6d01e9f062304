"""Units of the solvers: what enters them leaves them again."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sklearn_mfgd._data.units import Units


@pytest.mark.parametrize("exponent", [-200, -3, 0, 4, 35, 1.3, -40.7])
def test_each_quantity_counts_in_its_power_of_two(exponent):
    units, ones = Units(exponent), np.ones((3, 2))
    assert_allclose(units.leave(ones), 4.0**exponent)
    assert_allclose(units.leave_squares(ones), 16.0**exponent)
    assert_allclose(units.leave_precisions(ones), 4.0**-exponent)
    assert_allclose(units.enter_ridge(1.0), 4.0**-exponent)
    assert_allclose(units.of_factors(2, True), [2.0**exponent] * 2 + [4.0**exponent])
    assert_array_equal(units.of_factors(1, False), units.of_factors(1, True)[:1])
    factors = units.leave_factors(ones, biased=True)
    assert_allclose(factors[0], [2.0**exponent, 4.0**exponent])
    assert_allclose(units.leave_factors(ones, biased=False), 2.0**exponent)
    assert_allclose(units.enter_factors(factors, biased=True), ones)


@pytest.mark.parametrize("exponent", [-200, -3, 0, 4, 35])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_whole_exponents_round_nothing(exponent, dtype):
    rng = np.random.RandomState(0)
    values = np.ldexp(rng.uniform(1, 2, 50), 2 * min(max(exponent, -50), 50))
    values = values.astype(dtype)
    units = Units(min(max(exponent, -50), 50))
    entered = units.enter(values)
    assert entered.dtype == dtype
    assert 1 <= entered.min() and entered.max() <= 2
    assert_array_equal(units.leave(entered), values)


def test_what_leaves_the_range_of_floats_becomes_the_largest_float():
    largest = np.finfo(np.float64).max
    assert Units(300).leave_squares(1.0) == largest
    assert Units(-600).leave_precisions(1.0) == largest
    assert Units(600).leave_in_range(-1.0) == -largest
    assert Units(-600).enter_ridge(1.0) == np.inf
    assert Units(200).have_squares_of_factors(biased=True)
    assert not Units(300).have_squares_of_factors(biased=True)
    assert Units(300).have_squares_of_factors(biased=False)


def test_a_log_density_loses_the_logarithm_of_the_unit_of_each_entry():
    """The density of x is that of x / u, over u."""
    x, exponent = np.array([3.0, 5.0]), 1.5
    unit = 4.0**exponent
    in_units = -0.5 * np.sum((x / unit) ** 2)
    in_the_units_of_x = in_units - np.log(unit) * len(x)
    assert Units(exponent).leave_log_density(in_units, 2) == pytest.approx(
        in_the_units_of_x
    )


def test_a_step_of_descent_may_be_taken_in_either_unit():
    """The gradient of half the square of ``x - w h`` in w is ``(w h - x) h``."""
    x, w, h, eta, k = 50.0, 3.0, 7.0, 0.01, 3
    units = Units(k)
    inside_x, inside_w, inside_h = x / 4**k, w / 2**k, h / 2**k
    inside = inside_w - units.enter_step(eta) * (inside_w * inside_h - inside_x) * (
        inside_h
    )
    assert inside * 2**k == pytest.approx(w - eta * (w * h - x) * h)
    assert units.leave_step(units.enter_step(eta)) == pytest.approx(eta)
