"""What ends a fit early leaves the estimator as it was, at every moment."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone

from sklearn_mfgd import GradientMF, MaskedGradientMF, MFImputer
from sklearn_mfgd._guard import all_or_nothing

ESTIMATORS = [GradientMF, MaskedGradientMF, MFImputer]


@pytest.fixture
def table(planted):
    return planted(share_missing=0.2).X


@pytest.fixture
def fail(monkeypatch):
    """Let the next fits fail with an error once their attributes are set."""

    def set_up(error):
        def fit(self, *found):
            self.components_ = self.mean_ = None
            raise error

        for Estimator in (GradientMF, MaskedGradientMF):
            monkeypatch.setattr(Estimator, "_set_fitted", fit)

    return set_up


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
@pytest.mark.parametrize("Estimator", ESTIMATORS)
class TestAFitThatFails:
    def test_leaves_an_unfitted_estimator_unfitted(self, Estimator, error, table, fail):
        model = Estimator(3, reg=0.1)
        fail(error)
        with pytest.raises(error):
            model.fit(table)
        assert vars(model) == vars(clone(model))

    def test_keeps_the_earlier_one(self, Estimator, error, table, fail):
        model = Estimator(3, reg=0.1).fit(table)
        before, transformed = vars(model).copy(), model.transform(table)
        fail(error)
        with pytest.raises(error):
            model.fit(table[:, :9])
        assert vars(model).keys() == before.keys()
        assert all(vars(model)[name] is value for name, value in before.items())
        assert_array_equal(model.transform(table), transformed)

    def test_never_takes_an_attribute_away(self, Estimator, error, table, fail):
        """A second Ctrl-C may come at any moment, and must not find half of it."""
        model = Estimator(3, reg=0.1).fit(table)
        names, lost = set(vars(model)), []

        def look(frame, event, arg):
            lost.extend(names - set(vars(model)))

        fail(error)
        sys.setprofile(look)
        try:
            with pytest.raises(error):
                model.fit(table[:, :9])
        finally:
            sys.setprofile(None)
        assert not lost


def test_a_fit_that_ends_well_keeps_what_it_has_set():
    model = MFImputer()

    def fit(value):
        model.mean_ = value
        return model

    assert all_or_nothing(model, fit, np.ones(3)) is model
    assert_array_equal(model.mean_, np.ones(3))
