"""Weights of rows and of entries in an imputation: how much each of them counts."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from sklearn_mfgd import MFImputer

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture
def table(planted):
    """A table of 60 x 8 in units of their own, 30 % missing."""
    X = planted(m=60, n=8, rank=2, noise=0.3, share_missing=0.3).X
    units = 10.0 ** np.linspace(-2, 2, 8)
    return units * X + 3 * units


@pytest.fixture
def counts():
    """How often each row is to count, some of them not at all."""
    return np.random.RandomState(1).randint(0, 4, size=60)


@pytest.fixture
def weights():
    rng = np.random.RandomState(2)
    weights = rng.uniform(0.2, 4, size=(60, 8))
    return np.where(rng.uniform(size=weights.shape) < 0.1, 0, weights)


OPTIONS = [{}, {"reg": 0.5}, {"scale": False}, {"sample_posterior": True}]


def imputer(**options):
    return MFImputer(3, max_iter=30, random_state=0, **options)


# What weights mean


def test_means_and_scales_are_those_of_the_table_with_rows_repeated(table, counts):
    for scale in (True, False):
        weighted = imputer(scale=scale).fit(table, sample_weight=counts)
        repeated = imputer(scale=scale).fit(table.repeat(counts, axis=0))
        assert_allclose(weighted.mean_, repeated.mean_, rtol=1e-13)
        assert_allclose(weighted.scale_, repeated.scale_, rtol=1e-13)


def test_means_and_scales_are_weighted_by_entry(table, weights):
    fitted = imputer().fit(table, entry_weight=weights)
    for j in range(8):
        seen = ~np.isnan(table[:, j])
        mean = np.average(table[seen, j], weights=weights[seen, j])
        assert fitted.mean_[j] == pytest.approx(mean)
        variance = np.average((table[seen, j] - mean) ** 2, weights=weights[seen, j])
        assert fitted.scale_[j] == pytest.approx(np.sqrt(variance))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_row_of_weight_zero_is_left_out(table, counts, options):
    seen = counts > 0
    expected = imputer(**options).fit(table[seen]).transform(table)
    fitted = imputer(**options).fit(table, sample_weight=seen.astype(float))
    assert_allclose(fitted.transform(table), expected, rtol=1e-8)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_an_entry_of_weight_zero_is_missing_for_the_fit(table, weights, options):
    hidden = np.where(weights == 0, np.nan, table)
    expected = imputer(**options).fit(hidden)
    fitted = imputer(**options).fit(table, entry_weight=weights > 0)
    assert_allclose(fitted.mean_, expected.mean_)
    assert_allclose(fitted.transform(hidden), expected.transform(hidden), rtol=1e-8)
    kept = ~np.isnan(table)
    assert_array_equal(fitted.transform(table)[kept], table[kept])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.slow
def test_weights_of_one_are_no_weights(table, options):
    expected = imputer(**options).fit_transform(table)
    rows, entries = np.ones(60, int), np.ones((60, 8), bool)
    for more in ({}, {"entry_weight": entries}):
        found = imputer(**options).fit_transform(table, sample_weight=rows, **more)
        assert_allclose(found, expected, rtol=1e-8)


@pytest.mark.parametrize(
    "options, factor", list(zip(OPTIONS, [1e-300, 0.01, 1e300, 3.0], strict=True))
)
def test_a_factor_on_all_weights_changes_nothing(table, counts, options, factor):
    expected = imputer(**options).fit(table, sample_weight=counts).transform(table)
    fitted = imputer(**options).fit(table, sample_weight=factor * counts)
    assert_allclose(fitted.transform(table), expected, rtol=1e-7)


def test_weights_of_rows_and_of_entries_are_multiplied(table, counts, weights):
    one = imputer().fit(table, entry_weight=weights * counts[:, None]).transform(table)
    for factor in (1.0, 1e300):
        given = {"sample_weight": factor * counts, "entry_weight": factor * weights}
        both = imputer().fit(table, **given).transform(table)
        assert_allclose(both, one, rtol=1e-7)


@pytest.mark.accuracy
def test_what_is_measured_well_is_worth_more_when_it_weighs_more(planted):
    data = planted(m=200, n=10, rank=2, noise=0.0, share_missing=0.3)
    rng = np.random.RandomState(0)
    deviations = np.where(rng.uniform(size=200) < 0.5, 0.1, 2.0)
    X = data.X + deviations[:, None] * rng.standard_normal(data.X.shape)
    errors = []
    for sample_weight in (None, 1 / deviations**2):
        fitted = MFImputer().fit(X, sample_weight=sample_weight)
        squares = (fitted.transform(data.X) - data.signal)[~data.mask] ** 2
        errors.append(np.sqrt(np.mean(squares)))
    assert errors[1] < 0.7 * errors[0]


# The rest of an imputer


@pytest.mark.filterwarnings("ignore:Skipping features")
def test_a_column_without_weight_is_empty(table, weights):
    weights[:, 2] = 0
    fitted = imputer().fit(table, entry_weight=weights)
    assert np.isnan(fitted.mean_[2])
    assert fitted.transform(table).shape == (60, 7)


def test_the_indicator_marks_what_is_missing_and_not_what_has_no_weight(weights):
    complete = np.random.RandomState(0).standard_normal((60, 8))
    complete[3, 5] = np.nan
    fitted = imputer(add_indicator=True).fit(complete, entry_weight=weights)
    assert_array_equal(fitted.indicator_.features_, [5])


def test_large_tables_take_weights(planted):
    X = planted(m=30_000, n=10, rank=2, share_missing=0.3).X
    counts = np.random.RandomState(0).randint(0, 3, size=len(X))
    fitted = imputer().set_params(max_iter=3).fit(X, sample_weight=counts)
    assert_allclose(fitted.mean_, np.nanmean(X.repeat(counts, axis=0), axis=0))
    assert np.isfinite(fitted.transform(X)).all()


def test_weights_may_be_read_only_lists_series_and_frames(table, counts, weights):
    for array in (table, counts, weights):
        array.flags.writeable = False
    forms = [(counts, weights), (counts.tolist(), weights.tolist())]
    expected, *others = (
        imputer().fit_transform(table, sample_weight=rows, entry_weight=entries)
        for rows, entries in [*forms, (pd.Series(counts), pd.DataFrame(weights))]
    )
    for found in others:
        assert_array_equal(found, expected)


# Weights that are wrong


@pytest.mark.parametrize(
    "sample_weight, message",
    [
        (np.ones(59), r"sample_weight.shape == \(59,\)"),
        (np.ones((60, 1)), "Sample weights must be 1D"),
        (np.full(60, -1.0), "Negative values in data passed to `sample_weight`"),
        (np.full(60, np.nan), "sample_weight contains NaN"),
        (["much"] * 60, "could not convert string to float"),
        (np.zeros(60), "weight.*zero"),
    ],
)
def test_a_wrong_sample_weight_is_an_error(table, sample_weight, message):
    model = imputer()
    with pytest.raises(ValueError, match=message):
        model.fit(table, sample_weight=sample_weight)
    assert repr(vars(model)) == repr(vars(clone(model)))


@pytest.mark.parametrize(
    "entry_weight, message",
    [
        (np.ones((60, 7)), r"entry_weight has shape \(60, 7\)"),
        (np.full((60, 8), -1.0), "entry_weight must be finite and not negative"),
        (np.zeros((60, 8)), "entry_weight is zero for every entry"),
        ("of missing entries alone", "is missing, or of weight zero"),
    ],
)
def test_a_wrong_entry_weight_is_an_error(table, entry_weight, message):
    if isinstance(entry_weight, str):
        entry_weight = np.isnan(table)
    with pytest.raises(ValueError, match=message):
        imputer().fit(table, entry_weight=entry_weight)


# Metadata routing


def test_weights_are_routed_through_a_pipeline(table, counts, weights):
    y = np.arange(60) % 2
    given = {"sample_weight": counts, "entry_weight": weights}
    filled = imputer().fit_transform(table, **given)
    expected = LogisticRegression().fit(filled, y).predict_proba(filled)
    with config_context(enable_metadata_routing=True):
        step = imputer().set_fit_request(sample_weight=True, entry_weight=True)
        last = LogisticRegression().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(step, last).fit(table, y, **given)
        assert_allclose(pipeline.predict_proba(table), expected, rtol=1e-7)


def test_callbacks_get_the_weights(table, counts):
    class Watch:
        def setup(self, estimator, context):
            pass

        teardown = on_fit_task_begin = setup

        def on_fit_task_end(self, estimator, context, *, metadata):
            self.metadata = metadata

    pytest.importorskip("sklearn.callback")
    watch = Watch()
    imputer().set_callbacks(watch).fit(table, sample_weight=counts)
    assert watch.metadata == {"sample_weight": counts}
