"""What the displays draw, read off the artists."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.stats import norm
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler
from sklearn.utils import Bunch

from sklearn_mfgd import GradientMF, MaskedGradientMF, MFImputer, StackingImputer
from sklearn_mfgd.model_selection import train_test_split_entries
from sklearn_mfgd.plotting import (
    CalibrationDisplay,
    FactorDisplay,
    GapDisplay,
    LossCurveDisplay,
    MatrixDisplay,
)

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.usefixtures("one_thread", "closed"),
]


@pytest.fixture
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def table(planted):
    return planted(m=30, n=12, rank=2, noise=0.2, share_missing=0.3)


@pytest.fixture(scope="module")
def model(table):
    return MaskedGradientMF(5).fit(table.X)


@pytest.fixture(scope="module")
def split(planted):
    """Return what a fit may see of a matrix, and the hidden entries."""
    return train_test_split_entries(planted(m=60, n=10, rank=2).X, random_state=0)


def values(image):
    """Return what an image shows, NaN where it shows nothing."""
    return np.ma.filled(np.ma.asarray(image.get_array(), dtype=float), np.nan)


def panels(display):
    return {name: values(image) for name, image in display.images_.items()}


def stored(X):
    """Store the observed entries of X."""
    rows, columns = np.nonzero(~np.isnan(X))
    return sparse.coo_array((X[rows, columns], (rows, columns)), X.shape)


# Matrices


def test_the_panels_show_the_matrices_in_shared_colours_on_a_grid(model, table):
    display = MatrixDisplay.from_estimator(model, table.X, truth=table.signal)
    names = ["mask", "observed", "reconstruction", "truth", "residual"]
    filled = model.inverse_transform(model.transform(table.X))
    expected = ~np.isnan(table.X), table.X, filled, table.signal, table.X - filled
    assert [ax.get_title() for ax in display.axes_] == names
    for name, matrix in zip(names, expected, strict=True):
        assert_allclose(panels(display)[name], matrix, err_msg=name)
    hatched = [bool(ax.patch.get_hatch()) for ax in display.axes_]
    assert hatched == [False, True, False, False, True]
    # Data share a scale, and that of the residual is symmetric.
    of_data = ["observed", "reconstruction", "truth"]
    ((low, high),) = {display.images_[name].get_clim() for name in of_data}
    shown = np.concatenate([panels(display)[name].ravel() for name in of_data])
    shown = shown[~np.isnan(shown)]
    # A share of 0.005 may lie beyond either end.
    assert 0 < np.mean(shown < low) <= 0.005
    assert 0 < np.mean(shown > high) <= 0.005
    low, high = display.images_["residual"].get_clim()
    assert low == -high < 0
    # Five panels take two rows, with the colours below the last.
    assert [ax.get_ylabel() for ax in display.axes_] == ["row", "", "", "row", ""]
    assert len(display.figure_.axes) == 5 + 2
    display.figure_.canvas.draw()
    bar, truth = display.images_["truth"].colorbar.ax, display.images_["truth"].axes
    width = truth.get_position().width
    assert bar.get_position().width == pytest.approx(width, rel=0.1)


def test_outliers_leave_the_colours_to_the_rest_and_the_scale_has_an_arrow(table):
    X = table.complete.copy()
    X[0, 0] = 1e6
    display = MatrixDisplay(X, table.signal).plot()
    assert display.images_["observed"].get_clim()[1] <= np.sort(X.ravel())[-2]
    bars = [image.colorbar for image in display.images_.values() if image.colorbar]
    assert [bar.extend for bar in bars] == ["both", "max"]


@pytest.mark.parametrize("shape", [(1, 4), (40, 50)], ids=["small", "of zeros"])
def test_the_only_values_that_differ_are_no_outliers(shape):
    X = np.zeros(shape)
    X[0, :2] = 1.0, 1000.0
    image = MatrixDisplay(X, X).plot(panels=["observed"]).images_["observed"]
    assert (image.get_clim(), image.colorbar.extend) == ((0.0, 1000.0), "neither")


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_a_matrix_of_one_value_has_a_scale(value):
    display = MatrixDisplay(np.full((3, 2), value), np.ones((3, 2))).plot()
    limits = [image.get_clim() for image in display.images_.values()]
    assert all(low < high for low, high in limits)


def test_signs_differ_in_greyscale_and_no_value_is_white(model, table):
    residual = MatrixDisplay.from_estimator(model, table.X).images_["residual"]
    for image in (residual, FactorDisplay.from_estimator(model, table.X).image_):
        red, green, blue, _ = image.cmap(np.linspace(0, 1, 64)).T
        grey = 0.299 * red + 0.587 * green + 0.114 * blue
        assert (np.diff(grey) > 0).all()
        assert grey[-1] < 0.95


@pytest.mark.filterwarnings("error::UserWarning")
def test_every_container_shows_the_same(model, table):
    with_na = pd.DataFrame(table.X).add_prefix("c").convert_dtypes()  # pd.NA
    of_frames = MaskedGradientMF(5).set_output(transform="pandas").fit(with_na)
    expected = panels(MatrixDisplay.from_estimator(model, table.X))
    for display in (
        MatrixDisplay.from_estimator(model, stored(table.X)),
        MatrixDisplay.from_estimator(model, table.complete, mask=table.mask),
        MatrixDisplay.from_estimator(of_frames, with_na),
    ):
        for name, shown in panels(display).items():
            assert_allclose(shown, expected[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "estimator",
    [GradientMF(2), make_pipeline(MaxAbsScaler(), GradientMF(2)), MaskedGradientMF(2)],
    ids=["complete", "pipeline", "masked"],
)
def test_the_estimator_decides_what_is_not_stored(table, estimator):
    S = sparse.csr_array(np.where(table.mask, table.complete, 0))
    shown = panels(MatrixDisplay.from_estimator(estimator.fit(S), S))
    missing = ~table.mask & isinstance(estimator, MaskedGradientMF)
    assert_array_equal(np.isnan(shown["observed"]), missing)
    filled = estimator.inverse_transform(estimator.transform(S))
    filled = filled.toarray() if sparse.issparse(filled) else filled
    assert_allclose(shown["reconstruction"], filled)


def test_factors_as_many_as_columns_are_not_taken_for_a_filled_table(table):
    pipeline = make_pipeline(StandardScaler(), MaskedGradientMF(11, reg=1.0))
    Z = pipeline.fit_transform(table.X)
    assert Z.shape == table.X.shape
    shown = panels(MatrixDisplay.from_estimator(pipeline, table.X))
    assert_allclose(shown["reconstruction"], pipeline.inverse_transform(Z))


@pytest.mark.parametrize(
    "missing_values, add_indicator, low", [(np.nan, True, -np.inf), (-99.0, False, 0)]
)
def test_of_mfimputer_the_model_is_drawn(table, missing_values, add_indicator, low):
    X = np.where(table.mask, table.complete, missing_values)
    X[:, 3] = missing_values
    imputer = MFImputer(missing_values=missing_values, add_indicator=add_indicator)
    imputer.set_params(keep_empty_features=True, min_value=low).fit(X)
    shown = panels(MatrixDisplay.from_estimator(imputer, X))
    missing = (X == -99) | np.isnan(X)
    assert_array_equal(shown["mask"], ~missing)
    # Missing entries are as it fills them; the observed ones, which it returns
    # unchanged, have a residual.
    places = np.nonzero(missing & (np.arange(X.shape[1]) != 3))
    assert_allclose(shown["reconstruction"][places], imputer.impute(X)[places])
    assert np.nanstd(shown["residual"]) > 0.05
    assert np.isnan(shown["reconstruction"][:, 3]).all()


def test_other_imputers_are_drawn_as_they_fill(table):
    imputer = SimpleImputer().fit(table.X)
    for X, mask in ((table.X, None), (table.complete, table.mask)):
        shown = panels(MatrixDisplay.from_estimator(imputer, X, mask=mask))
        assert_array_equal(shown["observed"], table.X)
        assert_array_equal(shown["reconstruction"], imputer.transform(table.X))


def test_chosen_panels_are_drawn_on_given_axes(model, table):
    figure, axes = plt.subplots(1, 2)
    chosen = ["residual", "reconstruction"]
    options = {"panels": chosen, "ax": axes, "name": "speed (km/h)"}
    display = MatrixDisplay.from_estimator(model, table.X, **options)
    assert display.figure_ is figure
    assert list(display.axes_) == list(axes)
    assert [ax.get_title() for ax in axes] == chosen
    labels = {ax.get_xlabel() for ax in figure.axes}
    assert labels == {"column", "speed (km/h)", "residual: speed (km/h)"}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"panels": ["mosk"]}, "panels must be some of"),
        ({"panels": ["truth"]}, "'truth' needs truth"),
        ({"panels": []}, "panels must be some of"),
        ({"truth": np.zeros((3, 3))}, r"must have one shape; .* \(3, 3\)"),
        ({"ax": [None, None]}, "ax must hold 4 axes"),
        ({"X": sparse.csr_array((100_000, 1000))}, "too large for a picture"),
    ],
    ids=["unknown", "without truth", "no panel", "shape", "few axes", "large"],
)
def test_matrices_that_are_refused(model, table, options, message):
    with pytest.raises(ValueError, match=message):
        MatrixDisplay.from_estimator(model, **{"X": table.X} | options)


# Curves


def test_curves_are_those_of_the_fits(table):
    fits = [GradientMF(2, solver=name, reg=1.0).fit(table.X) for name in ("gd", "als")]
    display = LossCurveDisplay.from_estimator(fits)
    assert list(display.lines_) == ["gd", "als"]
    for line, fit in zip(display.lines_.values(), fits, strict=True):
        assert_array_equal(line.get_ydata(), fit.loss_curve_)
        assert_array_equal(line.get_xdata(), np.arange(1, fit.n_iter_ + 1))
    (ax,) = display.axes_
    assert ax.get_xlabel() == "sweep"
    assert ax.get_ylabel() == "objective (squared units of X)"
    assert display.validation_lines_ == {}


def test_the_elbo_is_called_so_and_held_out_errors_have_their_own_axes(table):
    model = MaskedGradientMF(4, early_stopping=True, random_state=0).fit(table.X)
    display = LossCurveDisplay.from_estimator(model)
    labels = ["ELBO (nats)", "RMSE of held-out entries (units of X)"]
    assert [ax.get_ylabel() for ax in display.axes_] == labels
    (line,) = display.validation_lines_.values()
    assert_array_equal(line.get_ydata(), model.validation_curve_)
    assert line.axes is display.axes_[1]
    assert list(display.validation_lines_) == list(display.lines_)
    assert display.axes_[0].get_yscale() == "linear"


def test_a_fit_looks_the_same_on_both_axes_and_unlike_other_fits():
    curves = {"one": [100.0, 1.0], "two": [50.0, 2.0]}
    display = LossCurveDisplay(curves, validation={"two": [1.0, 1.0]}).plot()
    assert [ax.get_yscale() for ax in display.axes_] == ["log", "linear"]
    loss, error = display.lines_["two"], display.validation_lines_["two"]
    for look in ("color", "linestyle", "marker"):
        assert plt.getp(loss, look) == plt.getp(error, look)
        assert plt.getp(loss, look) != plt.getp(display.lines_["one"], look)


def test_seconds_and_names_may_be_given(table):
    fits = [GradientMF(2, reg=1.0, max_iter=3, tol=0).fit(table.X) for _ in range(2)]
    seconds, ax = [[0.1, 0.2, 0.3], [1, 2, 3]], plt.figure().gca()
    options = {"names": ["one", "two"], "seconds": seconds, "ax": ax}
    display = LossCurveDisplay.from_estimator(fits, **options)
    assert_array_equal(display.lines_["two"].get_xdata(), seconds[1])
    assert ax.get_xlabel() == "time (s)"


def test_fits_of_one_solver_are_numbered_and_imputers_have_curves(table):
    fits = [MFImputer(rank).fit(table.X) for rank in (2, 4)]
    lines = LossCurveDisplay.from_estimator(fits).lines_
    assert list(lines) == ["learned 1", "learned 2"]


@pytest.mark.parametrize(
    "regs, options, message",
    [
        ([], {}, "nothing to draw"),
        (["auto", 1.0], {}, "on axes of their own"),
        ([1.0, 1.0], {"names": ["one"]}, "names must hold .* of the 2 fits; got 1"),
        ([1.0, 1.0], {"names": ["one", "one"]}, "names must differ"),
        ([1.0, 1.0], {"seconds": [[1]]}, "seconds must hold .* of the 2 fits; got 1"),
    ],
    ids=["none", "objective and ELBO", "few names", "equal names", "few seconds"],
)
def test_curves_that_are_refused(table, regs, options, message):
    fits = [MaskedGradientMF(2, reg=reg, max_iter=2).fit(table.X) for reg in regs]
    with pytest.raises(ValueError, match=message):
        LossCurveDisplay.from_estimator(fits, **options)


# Factors


def test_factors_are_sorted_by_the_size_of_their_part(model, table):
    display = FactorDisplay.from_estimator(model, table.X)
    factors = zip(model.transform(table.X).T, model.components_, strict=False)
    sizes = [np.sqrt(np.mean(np.outer(w, h) ** 2)) for w, h in factors]
    heights = [bar.get_height() for bar in display.bars_]
    assert_allclose(heights, np.sort(sizes)[::-1])
    assert display.axes_[0].get_title() == f"{model.rank_} of 5 factors left"
    assert display.axes_[0].get_ylabel() == "RMS of its part (units of X)"
    strongest = model.components_[np.argmax(sizes)]
    assert_allclose(values(display.image_)[0], strongest / np.abs(strongest).max())
    assert [text.get_text() for text in display.axes_[0].texts] == ["dropped"]
    all_left = GradientMF(3, reg=0.1).fit(table.X)
    display = FactorDisplay.from_estimator(all_left, table.X)
    assert display.axes_[0].get_title() == "3 factors"
    assert not display.axes_[0].texts


@pytest.mark.parametrize("scale", [True, False])
def test_factors_of_an_imputer_are_those_of_its_standardized_columns(table, scale):
    X = pd.DataFrame(table.X).add_prefix("c")
    X["c3"] = np.nan
    X["c4"] = np.where(table.mask[:, 4], 3.0, np.nan)
    imputer = MFImputer(6, scale=scale).fit(X)
    display = FactorDisplay.from_estimator(imputer, X)
    assert display.axes_[0].get_title() == f"{imputer.rank_} of 6 factors left"
    unit = "standard deviations" if scale else "pooled standard deviations"
    assert display.axes_[0].get_ylabel() == f"RMS of its part ({unit})"
    kept = [name for name in X if name not in ("c3", "c4")]
    names = display.axes_[1].get_xticklabels()
    assert [name.get_text() for name in names] == kept
    centred = (X[kept] - X[kept].mean()).to_numpy()
    # Those of the columns without values, or with one value only, are 0 in the pool.
    n_observed = X.count() if scale else X.count().sum()
    std = np.sqrt(np.nansum(centred**2, axis=0 if scale else None))
    std /= np.sqrt(n_observed[kept] if scale else n_observed)
    standardized = centred / np.asarray(std)
    same = FactorDisplay.from_estimator(imputer.factorization_, standardized)
    assert_allclose(display.sizes, same.sizes)


def test_factors_of_draws_are_refused(table):
    model = MaskedGradientMF(3, n_draws=2, random_state=0).fit(table.X)
    with pytest.raises(ValueError, match="differ from draw to draw"):
        FactorDisplay.from_estimator(model, table.X)


# Calibration


def test_the_share_covered_is_counted():
    rng = np.random.RandomState(0)
    truth, std = rng.standard_normal(400), rng.uniform(0.5, 2, 400)
    options = {"levels": [0.5, 0.9], "name": "normal"}
    display = CalibrationDisplay.from_predictions(truth, 0 * truth, std, **options)
    for level, covered in zip([0.5, 0.9], display.covered, strict=True):
        low, high = norm.interval(level, scale=std)
        assert covered == np.mean((low <= truth) & (truth <= high))
    assert_array_equal(display.line_.get_ydata(), display.covered)
    assert display.line_.get_label() == "normal"
    # What is certain and right is covered.
    display = CalibrationDisplay.from_predictions([1, 2], [1, 0], [0, 0], levels=[0.5])
    assert_array_equal(display.covered, [0.5])


@pytest.mark.accuracy
@pytest.mark.parametrize(
    "estimator",
    [
        MaskedGradientMF(6),
        MFImputer(),
        StackingImputer([("m", SimpleImputer()), ("f", MFImputer())], random_state=0),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_fits_are_calibrated(planted, estimator):
    X = planted(m=200, n=15, rank=2, noise=0.5).X
    seen, hidden = train_test_split_entries(X, random_state=0)
    display = CalibrationDisplay.from_estimator(estimator.fit(seen), seen, hidden)
    assert np.abs(display.covered - display.nominal).max() < 0.06


@pytest.mark.parametrize(
    "estimator", [MaskedGradientMF(4), MFImputer(missing_values=-99.0)], ids=str
)
def test_only_entries_that_x_hides_count(split, estimator):
    marker = getattr(estimator, "missing_values", np.nan)
    seen, hidden = (np.where(np.isnan(X), marker, X) for X in split)
    everything = np.where(np.isnan(split[0]), split[1], split[0])
    estimator.fit(seen)
    one, two = (
        CalibrationDisplay.from_estimator(estimator, seen, test)
        for test in (split[1], everything)
    )
    assert 0 < one.covered[-1] <= 1
    assert_array_equal(one.covered, two.covered)
    if isinstance(estimator, MaskedGradientMF):
        same = CalibrationDisplay.from_estimator(estimator, *map(stored, split))
        assert_allclose(same.covered, one.covered)
    with pytest.raises(ValueError, match="no entry that is hidden in X"):
        CalibrationDisplay.from_estimator(estimator, everything, hidden)
    with pytest.raises(ValueError, match="must have the shape of X"):
        CalibrationDisplay.from_estimator(estimator, seen, hidden[:5])


@pytest.mark.parametrize("keep", [False, True])
def test_columns_that_an_imputer_never_saw_move_no_others(split, keep):
    seen, hidden = split
    empty, test = np.insert(seen, 3, np.nan, axis=1), np.insert(hidden, 3, 1.0, axis=1)
    imputer = MFImputer(keep_empty_features=keep)
    one, two = (
        CalibrationDisplay.from_estimator(imputer.fit(X), X, X_test).covered
        for X, X_test in ((seen, hidden), (empty, test))
    )
    assert_allclose(one, two)


def test_several_curves_share_one_diagonal():
    _, ax = plt.subplots()
    for name in ("one", "two"):
        CalibrationDisplay.from_predictions([0, 1], [0, 0], [1, 1], name=name, ax=ax)
    assert [line.get_label() for line in ax.lines] == ["exact", "one", "two"]
    assert len({line.get_marker() for line in ax.lines}) == 3


@pytest.mark.parametrize(
    "std, levels, message",
    [
        ([1], [0.5, 1.0], "levels must lie between 0 and 1"),
        ([1], [0.0], "levels must lie between 0 and 1"),
        ([-1], None, "std must not be negative; got -1"),
        ([1, 1], None, "inconsistent numbers of samples"),
    ],
)
def test_predictions_that_are_refused(std, levels, message):
    with pytest.raises(ValueError, match=message):
        CalibrationDisplay.from_predictions([0], [0], std, levels=levels)


# Gaps


@pytest.fixture(scope="module")
def series():
    """Return hourly rows in random order, with a gap of six hours in all columns."""
    rng = np.random.RandomState(0)
    hours = rng.permutation(120)
    waves = np.sin(hours[:, None] / np.array([5.0, 9.0]))
    truth = waves @ rng.standard_normal((2, 6)) + 0.1 * rng.standard_normal((120, 6))
    X = np.where(((hours >= 40) & (hours < 46))[:, None], np.nan, truth)
    return Bunch(X=X, truth=truth, times=np.datetime64("2024-03-01T00") + hours)


@pytest.fixture(scope="module")
def imputer(series):
    return MFImputer(3).fit(series.X, times=series.times)


def hours_of(line):
    """Return hours since the first of March at which an artist has values."""
    x, y = line.get_data()
    hours = (x - np.datetime64("2024-03-01")) / np.timedelta64(1, "h")
    return hours[~np.isnan(y)]


def test_a_gap_shows_dots_beside_it_and_a_line_with_its_band_through_it(
    imputer, series
):
    given = {"times": series.times, "truth": series.truth[:, 1]}
    display = GapDisplay.from_estimator(imputer, series.X, 1, **given)
    by_time = np.argsort(series.times)
    gap = slice(40, 46)
    hours = np.arange(120.0)
    assert_array_equal(hours_of(display.points_), np.delete(hours, gap))
    assert_array_equal(hours_of(display.truth_), hours[gap])
    assert_array_equal(hours_of(display.line_), np.arange(39, 47))
    sorted_truth = series.truth[by_time, 1]
    assert_array_equal(display.points_.get_ydata()[:40], sorted_truth[:40])
    assert_array_equal(display.truth_.get_ydata()[gap], sorted_truth[gap])
    filled, std = (
        each[by_time, 1]
        for each in imputer.impute(series.X, times=series.times, return_std=True)
    )
    assert_array_equal(display.line_.get_ydata()[39:47], filled[39:47])
    # The band has a width in the gap only, and ends at the observed values.
    (outline,) = display.band_.get_paths()
    edges = np.concatenate([filled - 1.96 * std, filled + 1.96 * std]).reshape(2, -1)
    assert (std[gap] > 0).all()
    assert_allclose(np.unique(outline.vertices[:, 1]), np.unique(edges[:, 39:47]))


@pytest.mark.parametrize("reach", ["array", "index", "column"])
def test_times_may_be_in_the_table_itself(imputer, series, reach):
    frame = pd.DataFrame(series.X).add_prefix("c")
    if reach == "array":
        options, given = {}, {"times": series.times}
    elif reach == "index":
        options, given = {"time": "index"}, {}
        frame.index = pd.DatetimeIndex(series.times)
    else:
        options, given = {"time": "when"}, {}
        frame.insert(0, "when", series.times)
    fitted = MFImputer(3, **options).fit(frame, **given)
    display = GapDisplay.from_estimator(fitted, frame, "c1", **given)
    expected = GapDisplay.from_estimator(imputer, series.X, 1, times=series.times)
    assert_array_equal(display.times, expected.times)
    assert_array_equal(display.observed, expected.observed)
    assert_allclose(display.imputed, expected.imputed)
    assert_allclose(display.std, expected.std)
    assert display.ax_.get_ylabel() == "c1"
    assert expected.ax_.get_ylabel() == "column 1"


def test_start_is_shown_and_stop_is_not(imputer, series):
    given = {"start": "2024-03-02T12:00", "stop": np.datetime64("2024-03-03")}
    given["times"] = series.times
    display = GapDisplay.from_estimator(imputer, series.X, 0, **given)
    expected = np.arange("2024-03-02T12", "2024-03-03T00", dtype="datetime64[h]")
    assert_array_equal(display.times, expected)


def test_one_of_several_series_is_drawn():
    times, groups = np.tile(np.arange(40.0), 2), np.repeat(["a", "b"], 40)
    rng = np.random.RandomState(0)
    wave = np.sin(times / 5) * np.where(groups == "a", 1, -1)
    truth = np.outer(wave, [1, 2, 3]) + 0.1 * rng.standard_normal((80, 3))
    X = truth.copy()
    X[48] = np.nan
    given = {"times": times, "groups": groups}
    imputer = MFImputer(1).fit(X, **given)
    display = GapDisplay.from_estimator(
        imputer, X, 2, group="b", truth=truth[:, 2], **given
    )
    assert_array_equal(display.times, np.arange(40.0))
    assert_array_equal(display.observed, X[40:, 2])
    assert_array_equal(display.truth, truth[40:, 2])
    # Series "a" has another value at that time, and does not count.
    assert display.imputed[8] == imputer.impute(X, **given)[48, 2]
    assert abs(display.imputed[8] - truth[48, 2]) < 0.5


def test_a_fit_without_times_is_drawn_over_the_times_that_are_given(series):
    fitted = MFImputer(3).fit(series.X)
    display = GapDisplay.from_estimator(fitted, series.X, 0, times=series.times)
    by_time = np.argsort(series.times)
    assert_array_equal(display.imputed, fitted.transform(series.X)[by_time, 0])


@pytest.mark.parametrize("keep", [False, True])
def test_columns_after_an_empty_one_are_drawn_by_their_own_numbers(series, keep):
    X = np.insert(series.X, 1, np.nan, axis=1)
    fitted = MFImputer(3, keep_empty_features=keep).fit(X, times=series.times)
    given = {"times": series.times}
    display = GapDisplay.from_estimator(fitted, X, 2, **given)
    filled = fitted.impute(X, **given)[:, 2 if keep else 1]
    assert_array_equal(display.imputed, filled[np.argsort(series.times)])
    if keep:  # nothing is known of it: no band, and no error
        empty = GapDisplay.from_estimator(fitted, X, 1, **given)
        assert np.isinf(empty.std).all()
        assert not empty.band_.get_paths()
    else:
        with pytest.raises(ValueError, match="column=1 had no value in fit"):
            GapDisplay.from_estimator(fitted, X, 1, **given)


def test_a_gap_at_either_end_has_no_line_beyond_it():
    observed = [np.nan, 1.0, 2.0, 3.0, np.nan]
    display = GapDisplay.from_predictions(range(5), observed, [5.0, 0, 0, 0, 6.0])
    assert_array_equal(display.line_.get_ydata(), [5, 1, np.nan, 3, 6])
    assert display.band_ is None
    assert display.truth_ is None


def test_markers_of_missing_values_are_not_drawn_as_values(series):
    X = np.where(np.isnan(series.X), -99.0, series.X)
    fitted = MFImputer(3, missing_values=-99.0).fit(X, times=series.times)
    display = GapDisplay.from_estimator(fitted, X, 0, times=series.times)
    assert np.isnan(display.observed).sum() == 6


@pytest.mark.parametrize(
    "options, message",
    [
        ({"column": 6}, "column must be a number below 6; got 6"),
        ({"column": "c1"}, "column must be a number below 6; got 'c1'"),
        ({"times": None}, "times must be given"),
        ({"group": "a"}, "group='a' needs groups"),
        ({"groups": np.arange(120) % 2}, "several series: say with group= which"),
        ({"groups": np.zeros(120), "group": 1}, "group=1 is none of the labels"),
        ({"start": 3.0}, "start must be a date, as times are; got 3.0"),
        ({"stop": "noon"}, "stop must be a date, as times are; got 'noon'"),
        ({"start": "2025-01-01"}, "nothing to draw between start and stop"),
        ({"truth": [1.0, 2.0]}, r"truth must have shape \(120,\); got the shape \(2,"),
        ({"estimator": SimpleImputer()}, "draws a fitted MFImputer; got SimpleImputer"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_gaps_that_are_refused(imputer, series, options, message):
    given = {"estimator": imputer, "X": series.X, "column": 0, "times": series.times}
    with pytest.raises(ValueError, match=message):
        GapDisplay.from_estimator(**given | options)


@pytest.mark.slow
def test_importing_the_package_does_not_import_matplotlib():
    code = "import sys, sklearn_mfgd.plotting; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_matplotlib_the_error_names_the_extra(monkeypatch, model, table):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'pip install "sklearn_mfgd\[plot\]"'):
        MatrixDisplay.from_estimator(model, table.X)
