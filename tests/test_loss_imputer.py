"""MFImputer imputes zeros and ones, counts and outliers by the losses of columns."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special
from sklearn.base import clone
from sklearn.ensemble import ExtraTreesRegressor

from sklearn_mfgd import MFImputer

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("one_thread"),
]

NUMBERS, BITS, COUNTS = [f"n{k}" for k in range(4)], ["b0", "b1", "b2"], ["c0", "c1"]
LOSSES = dict.fromkeys(BITS, "logistic") | dict.fromkeys(COUNTS, "poisson")


class Planted:
    """A table of numbers, zeros and ones, and counts of two common factors."""

    def __init__(self, m=300, seed=0, share_missing=0.25):
        rng = np.random.RandomState(seed)
        eta = rng.standard_normal((m, 2)) @ rng.standard_normal((2, 9))
        chance, rate = special.expit(2 * eta[:, 4:7]), np.exp(0.7 * eta[:, 7:])
        numbers = eta[:, :4] + 0.3 * rng.standard_normal((m, 4))
        bits = rng.uniform(size=chance.shape) < chance
        self.means = np.hstack([eta[:, :4], chance, rate])
        self.complete = np.hstack([numbers, bits, rng.poisson(rate)])
        self.missing = rng.uniform(size=eta.shape) < share_missing
        X = np.where(self.missing, np.nan, self.complete)
        self.X = pd.DataFrame(X, columns=NUMBERS + BITS + COUNTS)

    def of(self, names):
        """Numbers of columns, and which of their entries are missing."""
        columns = self.X.columns.get_indexer(names)
        return columns, self.missing[:, columns]


@pytest.fixture(scope="module")
def table():
    return Planted()


@pytest.fixture(scope="module")
def fitted(table):
    return MFImputer(loss=LOSSES).fit(table.X)


@pytest.fixture(scope="module")
def imputed(table, fitted):
    """Values, deviations, quantiles of 2.5, 50 and 97.5 percent."""
    probabilities = [0.025, 0.5, 0.975]
    return fitted.impute(table.X, return_std=True, return_quantiles=probabilities)


@pytest.fixture(scope="module")
def small():
    """A table that takes little time, where what is found does not matter."""
    return Planted(m=40)


def few_sweeps(**parameters):
    return MFImputer(2, **({"loss": LOSSES, "max_iter": 4} | parameters))


# Values


@pytest.mark.parametrize("names", [NUMBERS, BITS, COUNTS], ids=["n", "b", "c"])
def test_a_mixed_table_is_recovered_better_than_by_squared_error(table, imputed, names):
    columns, hidden = table.of(names)
    squared = MFImputer().fit_transform(table.X)
    errors = [
        np.sqrt(np.mean((x[:, columns] - table.means[:, columns])[hidden] ** 2))
        for x in (imputed[0], squared)
    ]
    assert errors[0] < errors[1] * (1.0 if names == NUMBERS else 0.9)


def test_observed_values_stay_as_they_are(table, imputed):
    observed = ~table.missing
    assert_array_equal(imputed[0][observed], table.complete[observed])
    assert (imputed[1][observed] == 0).all()


def test_imputed_are_probabilities_and_rates(table, imputed):
    for names, limits in ((BITS, (0, 1)), (COUNTS, (0, np.inf))):
        columns, hidden = table.of(names)
        values = imputed[0][:, columns][hidden]
        assert ((values > limits[0]) & (values < limits[1])).all()
        assert (values != np.round(values)).all()


def test_imputed_are_what_the_factorization_predicts(table, fitted, imputed):
    """Columns of other losses are not standardized."""
    X = (table.X.to_numpy() - fitted.mean_) / fitted.scale_
    model, (rows, columns) = fitted.factorization_, np.nonzero(table.missing)
    Z, covariance = model.transform(X, return_cov=True)
    p = model.predict_entries(Z, rows, columns, covariance=covariance)
    p = p * fitted.scale_[columns] + fitted.mean_[columns]
    assert_allclose(imputed[0][table.missing], p, rtol=1e-9)
    assert_array_equal(fitted.transform(table.X), imputed[0])
    columns = table.of(BITS + COUNTS)[0]
    assert_array_equal(fitted.mean_[columns], 0)
    assert_array_equal(fitted.scale_[columns], 1)


@pytest.mark.parametrize("marker", [np.nan, -99.0])
def test_names_of_columns_are_the_same_as_their_numbers(small, marker):
    numbers = {list(small.X).index(name): loss for name, loss in LOSSES.items()}
    options = {"missing_values": marker}
    X = small.X.fillna(marker)
    expected = few_sweeps(loss=numbers, **options).fit_transform(X.to_numpy())
    assert_array_equal(few_sweeps(**options).fit_transform(X), expected)


def test_one_loss_is_that_of_all_columns(small):
    X = small.X[COUNTS + BITS]
    expected = few_sweeps(loss=dict.fromkeys(X, "poisson")).fit_transform(X)
    found = few_sweeps(loss="poisson", max_iter=4).fit_transform(X)
    # A mapping leaves to the biases what is the intercept of one loss of all.
    assert_allclose(found, expected, atol=0.05)


def test_a_mapping_of_squares_is_squared_error(small):
    X = small.X[NUMBERS]
    losses = dict.fromkeys(NUMBERS, "squared")
    found = few_sweeps(loss=losses, marginal="normal").fit_transform(X)
    assert_array_equal(
        found, MFImputer(2, max_iter=4, marginal="normal").fit_transform(X)
    )


@pytest.mark.parametrize(
    "options", [{"loss": "student_t"}, {"loss": "huber", "reg": 1.0}]
)
def test_outliers_do_little_harm_to_other_entries(planted, options):
    data = planted(m=200, n=12, noise=0.5, share_missing=0.2)
    gross, hidden, errors = data.X.copy(), ~data.mask, []
    gross[3, 4], gross[50, 4] = 1e4, -1e5
    hidden[[3, 50]] = False
    for X in (data.X, gross):
        x = MFImputer(6, **options).fit_transform(X)
        errors.append(np.sqrt(np.mean((x - data.complete)[hidden] ** 2)))
    assert errors[1] < 1.1 * errors[0]


def test_outliers_in_named_columns_do_little_harm(planted):
    data = planted(m=200, n=12, noise=0.5, share_missing=0.2)
    X = data.X.copy()
    X[3, 4], X[50, 4] = 1e4, -1e5
    errors = []
    for losses in ("squared", {4: "student_t"}):
        x = MFImputer(6, loss=losses).fit_transform(X)
        errors.append(np.median(np.abs(x - data.complete)[~data.mask[:, 4], 4]))
    assert errors[1] < 0.1 * errors[0]


def test_student_t_does_not_depend_on_units(planted):
    X = planted(share_missing=0.2).X
    units = 10.0 ** np.random.RandomState(0).randint(-6, 6, X.shape[1])
    expected = few_sweeps(loss="student_t").fit_transform(X)
    found = few_sweeps(loss="student_t").fit_transform(X * units + 3 * units)
    assert_allclose(found / units - 3, expected, rtol=1e-6, atol=1e-6)


# Uncertainty


@pytest.mark.parametrize("names", [NUMBERS, BITS, COUNTS], ids=["n", "b", "c"])
def test_quantiles_cover_the_true_values(table, imputed, names):
    columns, hidden = table.of(names)
    truth = table.complete[:, columns]
    low, median, high = imputed[2][:, :, columns]
    covered = ((low <= truth) & (truth <= high))[hidden].mean()
    assert 0.92 <= covered <= (0.99 if names == NUMBERS else 1.0)
    assert ((low <= median) & (median <= high)).all()


def test_quantiles_are_possible_values(table, imputed):
    for names in (BITS, COUNTS):
        columns, hidden = table.of(names)
        quantiles = imputed[2][:, :, columns][:, hidden]
        assert_array_equal(quantiles, np.round(quantiles))
        assert quantiles.min() >= 0
    columns, hidden = table.of(BITS)
    half = imputed[2][1][:, columns][hidden]
    assert_array_equal(half, imputed[0][:, columns][hidden] > 0.5)


def test_deviations_of_zeros_and_ones_are_those_of_one_toss(table, imputed):
    columns, hidden = table.of(BITS)
    p = imputed[0][:, columns][hidden]
    found = imputed[1][:, columns][hidden]
    assert_allclose(found, np.sqrt(p * (1 - p)), rtol=1e-9)


def test_deviations_of_counts_are_more_than_those_of_known_rates(table, imputed):
    columns, hidden = table.of(COUNTS)
    rate = imputed[0][:, columns][hidden]
    assert (imputed[1][:, columns][hidden] > np.sqrt(rate)).all()


@pytest.fixture(scope="module")
def samples(table):
    """Tables with samples, by the seeds 0 to 14."""
    imputer = MFImputer(loss=LOSSES, sample_posterior=True).fit(table.X)
    return [imputer.set_params(random_state=s).transform(table.X) for s in range(15)]


class TestSamples:
    def test_are_zeros_and_ones_and_whole_counts(self, table, samples):
        columns, hidden = table.of(BITS)
        assert set(samples[0][:, columns][hidden]) == {0, 1}
        columns, hidden = table.of(COUNTS)
        counts = samples[0][:, columns][hidden]
        assert_array_equal(counts, np.round(counts))
        assert counts.min() == 0

    def test_differ_by_seed_and_are_the_same_with_the_same(self, table, samples):
        imputer = MFImputer(loss=LOSSES, sample_posterior=True, random_state=1)
        assert_array_equal(imputer.fit_transform(table.X), samples[1])
        shares = np.mean(samples[0] != samples[1], axis=0) / table.missing.mean(axis=0)
        assert (shares[:4] == 1).all()
        assert (shares[4:] > 0.1).all()

    @pytest.mark.parametrize("names", [NUMBERS, BITS, COUNTS], ids=["n", "b", "c"])
    def test_have_the_imputed_means_and_deviations(
        self, table, samples, imputed, names
    ):
        columns, hidden = table.of(names)
        errors = np.stack([(s - imputed[0])[:, columns][hidden] for s in samples])
        scores = errors / imputed[1][:, columns][hidden]
        assert abs(scores.mean()) < 0.1
        assert_allclose(np.sqrt(np.mean(scores**2)), 1, atol=0.12)


# Tables as they come


def test_constant_columns_are_filled_with_their_value(small):
    X = small.X.assign(zero=0.0, one=1.0, seven=7.0)
    X = X[["zero", "one", "seven", *small.X]]
    X.loc[X.index[::3], ["zero", "one", "seven"]] = np.nan
    losses = LOSSES | {"zero": "logistic", "one": "logistic", "seven": "poisson"}
    imputer = few_sweeps(loss=losses).fit(X)
    x, std, quantiles = imputer.impute(X, return_std=True, return_quantiles=[0.1, 0.9])
    assert_array_equal(x[:, :3], np.tile([0, 1, 7], (len(X), 1)))
    assert_array_equal(std[:, :3], 0)
    assert_array_equal(quantiles[:, :, :3], np.stack([x[:, :3]] * 2))
    assert_array_equal(x[:, 3:], few_sweeps().fit_transform(small.X))


@pytest.mark.parametrize("loss", ["logistic", "poisson", "student_t"])
def test_a_table_of_constants_is_filled_with_their_values(loss):
    X = np.tile([0.0, 1.0], (10, 1))
    X[::3] = np.nan
    x = MFImputer(loss=loss).fit_transform(X)
    assert_array_equal(x, np.tile([0.0, 1.0], (10, 1)))


@pytest.mark.filterwarnings("ignore:Skipping features")
def test_empty_columns_are_left_out_or_kept_with_zeros(small):
    X = small.X.assign(empty=np.nan)
    losses = LOSSES | {"empty": "poisson"}
    expected = few_sweeps().fit_transform(small.X)
    assert_array_equal(few_sweeps(loss=losses).fit_transform(X), expected)
    kept = few_sweeps(loss=losses, keep_empty_features=True).fit_transform(X)
    assert_array_equal(kept, np.column_stack([expected, np.zeros(len(X))]))


def test_empty_rows_are_filled_with_plausible_values(small):
    X = small.X.copy()
    X.iloc[0] = np.nan
    x = few_sweeps().fit_transform(X)[0]
    assert ((x[4:7] > 0) & (x[4:7] < 1)).all()
    assert (x[7:] > 0).all()


def test_indicators_follow_the_columns(small):
    x = few_sweeps(add_indicator=True).fit_transform(small.X)
    assert_array_equal(x[:, :9], few_sweeps().fit_transform(small.X))
    assert_array_equal(x[:, 9:], small.missing)


def test_columns_of_categories_stand_beside_losses(table):
    colour = np.where(table.means[:, 0] > 0, "red", "blue").astype(object)
    hidden = np.arange(len(colour)) % 5 == 0
    X = table.X.assign(colour=pd.Categorical(np.where(hidden, None, colour)))
    x = MFImputer(loss=LOSSES).fit_transform(X)
    assert (x.colour[hidden] == colour[hidden]).mean() > 0.75
    columns, missing = table.of(BITS)
    chances = x[BITS].to_numpy()[missing]
    assert ((chances > 0) & (chances < 1)).all()
    error = np.abs(chances - table.means[:, columns][missing])
    assert error.mean() < 0.15


def test_one_loss_of_all_leaves_categories_alone(small):
    colour = pd.Categorical(np.where(small.means[:, 0] > 0, "red", "blue"))
    X = small.X[COUNTS].assign(colour=colour)
    names = few_sweeps(loss=dict.fromkeys(COUNTS, "poisson")).fit_transform(X)
    found = few_sweeps(loss="poisson").fit_transform(X)
    pd.testing.assert_frame_equal(found, names)


def test_limits_and_observed_values_bound_what_is_imputed(small):
    x = few_sweeps(min_value=0.3, max_value=0.6).fit_transform(small.X)
    imputed = x[small.missing]
    assert imputed.min() == 0.3
    assert imputed.max() == 0.6
    x = few_sweeps(discrete="nearest").fit_transform(small.X)
    columns, missing = small.of(BITS)
    assert set(x[:, columns][missing]) == {0, 1}


def test_a_regressor_of_residuals_learns_beside_losses(small):
    trees = ExtraTreesRegressor(3, random_state=0)
    imputer = few_sweeps(residual=trees, random_state=0).fit(small.X)
    x, std = imputer.impute(small.X, return_std=True)
    assert np.isfinite(x).all()
    assert (std[small.missing] > 0).all()


def test_rows_of_weight_zero_are_left_out(small):
    weights = np.ones(len(small.X))
    weights[::4] = 0
    kept = small.X[weights > 0]
    expected = few_sweeps().fit(kept).transform(small.X)
    found = few_sweeps().fit(small.X, sample_weight=weights).transform(small.X)
    assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_rows_of_more_weight_count_more(small):
    """Those with ones, for what an empty row is imputed."""
    weights = np.where(small.X["b0"] == 1, 4.0, 1.0)
    empty = np.full((1, 9), np.nan)
    empty = pd.DataFrame(empty, columns=list(small.X))
    plain = few_sweeps().fit(small.X).transform(empty)
    weighted = few_sweeps().fit(small.X, sample_weight=weights).transform(empty)
    assert weighted[0, 4] > plain[0, 4] + 0.1


def test_new_rows_are_imputed_one_by_one(table, fitted):
    new = Planted(m=6, seed=5).X
    together = fitted.transform(new)
    alone = np.vstack([fitted.transform(new[i : i + 1]) for i in range(len(new))])
    assert_allclose(alone, together, rtol=1e-9, atol=1e-12)


def test_the_score_tells_planted_structure_from_noise(table, fitted):
    rng = np.random.RandomState(0)
    noise = table.X.apply(rng.permutation)
    assert fitted.score(table.X) > 0.3
    assert abs(clone(fitted).fit(noise).score(noise)) < 0.1


def test_a_fitted_imputer_comes_back_from_a_file(table, fitted, imputed):
    loaded = pickle.loads(pickle.dumps(fitted))
    assert_array_equal(loaded.transform(table.X), imputed[0])
    assert clone(loaded).loss == LOSSES


# Bad input


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"loss": {"absent": "poisson"}}, "'absent', but X has no such column"),
        ({"loss": {9: "poisson"}}, "column 9; X has columns 0 to 8"),
        ({"loss": {"b0": "absolute"}}, r"loss\['b0'\] must be one of"),
        (
            {"loss": {"n0": "poisson"}},
            r"does not take: -[\d.]+ in row \d+, column 'n0'",
        ),
        ({"loss": {"c0": "logistic"}}, r"does not take: \d+ in row \d+, column 'c0'"),
        ({"marginal": "normal"}, "marginal='normal' .* use marginal='none'"),
        ({"marginal": "auto"}, "marginal='auto' .* use marginal='none'"),
        ({"loss": "huber"}, "loss='huber' needs a number for reg"),
        ({"loss": "student_t", "reg": 1.0}, "loss='student_t' needs reg='auto'"),
        ({"reg": 1.0, "sample_posterior": True}, "sample_posterior=True draws"),
    ],
)
def test_what_does_not_go_together_is_named(small, parameters, message):
    with pytest.raises(ValueError, match=message):
        few_sweeps(**parameters).fit(small.X)


def test_the_column_of_a_bad_value_is_named_as_the_user_knows_it(small):
    """Constant columns, and those of categories, do not count in its number."""
    X = small.X.assign(k=pd.Categorical(["u", "v"] * 20), one=1.0)
    X = X[["k", "one", *small.X]]
    X.loc[X.index[11], "c1"] = -3
    with pytest.raises(ValueError, match=r"-3 in row 11, column 'c1' of X"):
        few_sweeps().fit(X)
    numbers = X.drop(columns="k").to_numpy()
    with pytest.raises(ValueError, match=r"-3 in row 11, column 9 of X"):
        few_sweeps(loss={9: "poisson"}).fit(numbers)


def test_a_bad_value_in_new_rows_is_named(fitted):
    X = Planted(m=5).X
    X.loc[3, "b1"] = 2
    with pytest.raises(ValueError, match=r"'logistic' .* 2 in row 3, column 'b1'"):
        fitted.transform(X)


def test_the_loss_of_categories_is_refused(small):
    X = small.X.assign(k=pd.Categorical(["u", "v"] * 20))
    with pytest.raises(ValueError, match="column 9, which holds categories"):
        few_sweeps(loss={"k": "logistic"}).fit(X)


def test_times_are_refused(small):
    with pytest.raises(ValueError, match="times= needs loss='squared'"):
        few_sweeps().fit(small.X, times=np.arange(40))
