"""What the displays draw, read off the artists."""

import builtins
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

from sklearn_mfgd import GradientMF, MaskedGradientMF, MFImputer
from sklearn_mfgd.model_selection import train_test_split_entries
from sklearn_mfgd.plotting import (
    CalibrationDisplay,
    FactorDisplay,
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


@pytest.fixture
def table(planted):
    return planted(m=30, n=12, rank=2, noise=0.2, share_missing=0.3)


@pytest.fixture
def model(table):
    return MaskedGradientMF(5).fit(table.X)


def array(image):
    """What an image shows, NaN where it shows nothing."""
    return np.ma.filled(np.ma.asarray(image.get_array(), dtype=float), np.nan)


# Matrices


def test_the_panels_hold_the_matrices(model, table):
    display = MatrixDisplay.from_estimator(model, table.X, truth=table.signal)
    filled = model.inverse_transform(model.transform(table.X))
    shown = {name: array(image) for name, image in display.images_.items()}
    assert_array_equal(shown["mask"], ~np.isnan(table.X))
    assert_array_equal(shown["observed"], table.X)
    assert_allclose(shown["reconstruction"], filled)
    assert_allclose(shown["residual"], table.X - filled)
    assert_array_equal(shown["truth"], table.signal)
    titles = [ax.get_title() for ax in display.axes_]
    assert titles == ["mask", "observed", "reconstruction", "truth", "residual"]


def test_data_share_a_scale_and_the_residual_is_symmetric(model, table):
    display = MatrixDisplay.from_estimator(model, table.X, truth=table.signal)
    images = display.images_
    limits = {
        images[name].get_clim() for name in ("observed", "reconstruction", "truth")
    }
    assert len(limits) == 1
    shown = np.concatenate(
        [array(images[k]).ravel() for k in ("observed", "reconstruction", "truth")]
    )
    (low, high) = limits.pop()
    # A share of 0.005 may lie beyond either end.
    assert 0 < np.mean(shown[~np.isnan(shown)] < low) <= 0.005
    assert 0 < np.mean(shown[~np.isnan(shown)] > high) <= 0.005
    low, high = images["residual"].get_clim()
    assert low == -high


def test_outliers_leave_colours_to_the_rest_and_the_scale_says_so(table):
    X = table.complete.copy()
    X[0, 0] = 1e6
    display = MatrixDisplay(X, table.signal).plot()
    assert display.images_["observed"].get_clim()[1] <= np.sort(X.ravel())[-2]
    bars = [image.colorbar for image in display.images_.values() if image.colorbar]
    assert [bar.extend for bar in bars] == ["both", "max"]


def test_no_entry_of_a_small_matrix_is_an_outlier():
    X = np.array([[0.0, 1.0], [2.0, 1000.0]])
    display = MatrixDisplay(X, X).plot(panels=["observed"])
    image = display.images_["observed"]
    assert image.get_clim() == (0.0, 1000.0)
    assert image.colorbar.extend == "neither"


@pytest.mark.parametrize("X", [np.ones((3, 2)), np.full((3, 2), np.nan)])
def test_nothing_to_tell_apart_is_drawn(X):
    display = MatrixDisplay(X, np.ones((3, 2))).plot()
    for image in display.images_.values():
        low, high = image.get_clim()
        assert low < high


def test_signs_can_be_told_apart_in_greyscale(model, table):
    images = [
        MatrixDisplay.from_estimator(model, table.X).images_["residual"],
        FactorDisplay.from_estimator(model, table.X).image_,
    ]
    for image in images:
        red, green, blue, _ = image.cmap(np.linspace(0, 1, 64)).T
        grey = 0.299 * red + 0.587 * green + 0.114 * blue
        assert (np.diff(grey) > 0).all()
        assert grey[-1] < 0.95  # a hole is white


def test_holes_are_hatched_and_complete_panels_are_not(model, table):
    display = MatrixDisplay.from_estimator(model, table.X)
    hatched = [bool(ax.patch.get_hatch()) for ax in display.axes_]
    assert hatched == [False, True, False, True]


def test_containers_and_imputers_draw_the_same(model, table):
    rows, columns = np.nonzero(table.mask)
    values = table.complete[rows, columns]
    S = sparse.csr_array((values, (rows, columns)), table.X.shape)
    options = {"mask": table.mask}
    found = [
        MatrixDisplay.from_estimator(model, S),
        MatrixDisplay.from_estimator(model, table.complete, **options),
        MatrixDisplay.from_estimator(MFImputer().fit(table.X), table.X),
    ]
    for display in found:
        assert_array_equal(array(display.images_["observed"]), table.X)


def test_what_a_sparse_matrix_does_not_store_is_what_the_estimator_takes_it_for(table):
    S = sparse.csr_array(np.where(table.mask, table.complete, 0))
    for model, missing in (
        (GradientMF(2), np.zeros(S.shape, dtype=bool)),
        (make_pipeline(MaxAbsScaler(), GradientMF(2)), np.zeros(S.shape, dtype=bool)),
        (MaskedGradientMF(2), ~table.mask),
    ):
        display = MatrixDisplay.from_estimator(model.fit(S), S)
        assert_array_equal(np.isnan(array(display.images_["observed"])), missing)
        filled = model.inverse_transform(model.transform(S))
        if sparse.issparse(filled):
            filled = filled.toarray()
        assert_allclose(array(display.images_["reconstruction"]), filled)


def test_factors_as_many_as_columns_are_not_taken_for_a_filled_table(table):
    n = table.X.shape[1]
    pipeline = make_pipeline(StandardScaler(), MaskedGradientMF(n - 1, reg=1.0))
    Z = pipeline.fit_transform(table.X)
    assert Z.shape == table.X.shape
    display = MatrixDisplay.from_estimator(pipeline, table.X)
    shown = array(display.images_["reconstruction"])
    assert_allclose(shown, pipeline.inverse_transform(Z))


@pytest.mark.parametrize("add_indicator", [False, True])
@pytest.mark.parametrize("missing_values", [np.nan, -99.0])
def test_of_an_imputer_the_model_is_drawn(table, missing_values, add_indicator):
    X = np.where(table.mask, table.complete, missing_values)
    X[:, 3] = missing_values
    imputer = MFImputer(
        missing_values=missing_values,
        add_indicator=add_indicator,
        keep_empty_features=True,
    ).fit(X)
    display = MatrixDisplay.from_estimator(imputer, X)
    shown = {name: array(image) for name, image in display.images_.items()}
    missing = (X == -99) | np.isnan(X)
    assert_array_equal(shown["mask"], ~missing)
    # Holes as it fills them; what is observed has a residual that it does not return.
    rows, columns = np.nonzero(missing & (np.arange(X.shape[1]) != 3))
    filled = imputer.impute(X)
    assert_allclose(shown["reconstruction"][rows, columns], filled[rows, columns])
    assert np.nanstd(shown["residual"]) > 0.05
    assert np.isnan(shown["reconstruction"][:, 3]).all()


def test_other_imputers_are_drawn_as_they_fill(table):
    imputer = SimpleImputer().fit(table.X)
    display = MatrixDisplay.from_estimator(imputer, table.X)
    shown = array(display.images_["reconstruction"])
    assert_array_equal(shown, imputer.transform(table.X))


@pytest.mark.filterwarnings("error::UserWarning")
def test_data_frames_are_drawn(table):
    X = pd.DataFrame(table.X, columns=[f"c{j}" for j in range(table.X.shape[1])])
    X = X.convert_dtypes()  # pd.NA
    model = MaskedGradientMF(5).set_output(transform="pandas").fit(X)
    display = MatrixDisplay.from_estimator(model, X)
    assert_array_equal(array(display.images_["observed"]), table.X)
    names = FactorDisplay.from_estimator(model, X).axes_[1].get_xticklabels()
    assert [name.get_text() for name in names] == list(X)


def test_given_axes_are_used_for_chosen_panels(model, table):
    figure, axes = plt.subplots(1, 2)
    display = MatrixDisplay.from_estimator(
        model,
        table.X,
        panels=["observed", "reconstruction"],
        ax=axes,
        name="speed (km/h)",
    )
    assert display.figure_ is figure
    assert list(display.axes_) == list(axes)
    labels = [ax.get_xlabel() + ax.get_ylabel() for ax in figure.axes]
    assert "speed (km/h)" in labels


@pytest.mark.parametrize(
    "options, message",
    [
        ({"panels": ["mosk"]}, "panels must be some of"),
        ({"panels": ["truth"]}, "'truth' needs truth"),
        ({"panels": []}, "panels must be some of"),
        ({"truth": np.zeros((3, 3))}, r"must have one shape; .* truth: \(3, 3\)"),
        ({"ax": [None, None]}, "ax must hold 4 axes"),
    ],
    ids=str,
)
def test_matrices_that_are_refused(model, table, options, message):
    with pytest.raises(ValueError, match=message):
        MatrixDisplay.from_estimator(model, table.X, **options)


def test_a_matrix_too_large_to_see_is_refused(model):
    X = sparse.csr_array((100_000, 1000))
    with pytest.raises(ValueError, match="too large for a picture"):
        MatrixDisplay.from_estimator(model, X)


# Curves


def test_curves_are_those_of_the_fits(table):
    fits = [GradientMF(2, solver=name, reg=1.0).fit(table.X) for name in ("gd", "als")]
    display = LossCurveDisplay.from_estimator(fits)
    assert list(display.lines_) == ["gd", "als"]
    for line, fit in zip(display.lines_.values(), fits, strict=True):
        assert_array_equal(line.get_ydata(), fit.loss_curve_)
        assert_array_equal(line.get_xdata(), np.arange(1, fit.n_iter_ + 1))
    (ax,) = display.axes_
    assert (ax.get_xlabel(), ax.get_ylabel()) == (
        "sweep",
        "objective (squared units of X)",
    )
    styles = {(line.get_linestyle(), line.get_marker()) for line in ax.lines}
    assert len(styles) == 2


def test_objectives_of_very_different_size_are_on_a_logarithmic_scale():
    display = LossCurveDisplay({"one": [100.0, 1.0], "two": [50.0, 2.0]}).plot()
    assert display.axes_[0].get_yscale() == "log"


def test_evidence_is_called_so_and_held_out_errors_have_their_own_axes(table):
    model = MaskedGradientMF(4, early_stopping=True, random_state=0).fit(table.X)
    display = LossCurveDisplay.from_estimator(model)
    labels = [ax.get_ylabel() for ax in display.axes_]
    assert labels == [
        "log evidence, lower bound (nats)",
        "RMSE of held-out entries (units of X)",
    ]
    assert_array_equal(display.axes_[1].lines[0].get_ydata(), model.validation_curve_)
    assert list(display.validation_lines_) == list(display.lines_)
    assert display.axes_[0].get_yscale() == "linear"


def test_a_fit_looks_the_same_on_both_axes():
    curves = {"one": [3.0, 2.0], "two": [2.0, 1.0]}
    display = LossCurveDisplay(curves, validation={"two": [1.0, 1.0]}).plot()
    left, right = display.lines_["two"], display.validation_lines_["two"]
    for look in ("color", "linestyle", "marker"):
        assert plt.getp(left, look) == plt.getp(right, look)
    assert plt.getp(left, "color") != plt.getp(display.lines_["one"], "color")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"names": ["one"]}, "names must hold one for each of the 2 fits; got 1"),
        ({"names": ["one", "one"]}, "names must differ"),
        ({"seconds": [[1, 2]]}, "seconds must hold one for each of the 2 fits; got 1"),
    ],
    ids=str,
)
def test_names_and_seconds_that_are_refused(model, options, message):
    with pytest.raises(ValueError, match=message):
        LossCurveDisplay.from_estimator([model, model], **options)


def test_no_fit_is_refused():
    with pytest.raises(ValueError, match="nothing to draw"):
        LossCurveDisplay.from_estimator([])


def test_seconds_and_names_may_be_given(table):
    fits = [GradientMF(2, reg=1.0, max_iter=3, tol=0).fit(table.X) for _ in range(2)]
    seconds = [[0.1, 0.2, 0.3], [1, 2, 3]]
    display = LossCurveDisplay.from_estimator(
        fits, names=["one", "two"], seconds=seconds, ax=plt.figure().gca()
    )
    assert_array_equal(display.lines_["two"].get_xdata(), seconds[1])
    assert display.axes_[0].get_xlabel() == "time (s)"


def test_fits_of_one_solver_are_numbered_and_imputers_have_curves(table):
    fits = [MFImputer(rank).fit(table.X) for rank in (2, 4)]
    assert list(LossCurveDisplay.from_estimator(fits).lines_) == [
        "learned 1",
        "learned 2",
    ]


def test_objective_and_evidence_do_not_mix(model, table):
    other = GradientMF(2, reg=1.0).fit(table.X)
    with pytest.raises(ValueError, match="on axes of their own"):
        LossCurveDisplay.from_estimator([model, other])


# Factors


def test_factors_are_sorted_by_the_size_of_their_part(model, table):
    display = FactorDisplay.from_estimator(model, table.X)
    W = model.transform(table.X)
    sizes = [
        np.sqrt(np.mean(np.outer(W[:, k], model.components_[k]) ** 2))
        for k in range(model.rank_)
    ]
    heights = [bar.get_height() for bar in display.bars_]
    assert_allclose(heights, np.sort(sizes)[::-1])
    assert display.axes_[0].get_title() == f"{model.rank_} of 5 factors left"
    strongest = model.components_[np.argmax(sizes)]
    assert_allclose(array(display.image_)[0], strongest / np.abs(strongest).max())
    assert "dropped" in [text.get_text() for text in display.axes_[0].texts]


def test_where_none_was_dropped_none_is_drawn(table):
    model = GradientMF(3, reg=0.1).fit(table.X)
    display = FactorDisplay.from_estimator(model, table.X)
    assert display.axes_[0].get_title() == "3 factors"
    assert not display.axes_[0].texts


def test_factors_of_an_imputer_are_those_of_its_columns(table):
    X = pd.DataFrame(table.X, columns=[f"c{j}" for j in range(table.X.shape[1])])
    X["c3"] = np.nan
    imputer = MFImputer(6).fit(X)
    display = FactorDisplay.from_estimator(imputer, X)
    assert display.axes_[0].get_title() == f"{imputer.rank_} of 6 factors left"
    assert "standard deviations" in display.axes_[0].get_ylabel()
    assert list(display.feature_names) == [name for name in X if name != "c3"]
    model, kept = imputer.factorization_, table.X[:, np.arange(table.X.shape[1]) != 3]
    Z = (kept - np.nanmean(kept, axis=0)) / np.nanstd(kept, axis=0)
    same = FactorDisplay.from_estimator(model, Z)
    assert_allclose(display.sizes, same.sizes)


def test_factors_of_draws_are_refused(table):
    model = MaskedGradientMF(3, n_draws=2, random_state=0).fit(table.X)
    with pytest.raises(ValueError, match="differ from draw to draw"):
        FactorDisplay.from_estimator(model, table.X)


# Calibration


def test_the_share_covered_is_counted():
    rng = np.random.RandomState(0)
    truth, std = rng.standard_normal(400), rng.uniform(0.5, 2, 400)
    display = CalibrationDisplay.from_predictions(
        truth, np.zeros(400), std, levels=[0.5, 0.9], name="normal"
    )
    for level, covered in zip(display.nominal, display.covered, strict=True):
        low, high = norm.interval(level, scale=std)
        assert covered == np.mean((low <= truth) & (truth <= high))
    assert_array_equal(display.line_.get_ydata(), display.covered)
    assert display.line_.get_label() == "normal"


@pytest.mark.parametrize("estimator", [MaskedGradientMF(6), MFImputer()])
def test_fits_are_calibrated(planted, estimator):
    X = planted(m=200, n=15, rank=2, noise=0.5).X
    seen, hidden = train_test_split_entries(X, random_state=0)
    display = CalibrationDisplay.from_estimator(estimator.fit(seen), seen, hidden)
    assert np.abs(display.covered - display.nominal).max() < 0.06


def test_entries_that_are_shown_are_left_out(planted):
    X = planted(m=60, n=10, rank=2).X
    seen, hidden = train_test_split_entries(X, random_state=0)
    for model in (MaskedGradientMF(4).fit(seen), MFImputer().fit(seen)):
        found = [
            CalibrationDisplay.from_estimator(model, seen, test) for test in (hidden, X)
        ]
        assert_array_equal(found[0].covered, found[1].covered)
        with pytest.raises(ValueError, match="no entry that is hidden in X"):
            CalibrationDisplay.from_estimator(model, X, hidden)
        with pytest.raises(ValueError, match="must have the shape of X"):
            CalibrationDisplay.from_estimator(model, seen, hidden[:5])


def test_sparse_and_dense_are_covered_alike(planted):
    X = planted(m=60, n=10, rank=2).X
    seen, hidden = train_test_split_entries(X, random_state=0)
    model = MaskedGradientMF(4).fit(seen)
    stored = []
    for part in (seen, hidden):
        rows, columns = np.nonzero(~np.isnan(part))
        values = part[rows, columns]
        stored.append(sparse.coo_array((values, (rows, columns)), part.shape))
    found = CalibrationDisplay.from_estimator(model, *stored).covered
    assert_allclose(
        found, CalibrationDisplay.from_estimator(model, seen, hidden).covered
    )


@pytest.mark.parametrize("keep_empty_features", [False, True])
def test_columns_that_an_imputer_never_saw_move_no_others(planted, keep_empty_features):
    X = planted(m=60, n=10, rank=2).X
    seen, hidden = train_test_split_entries(X, random_state=0)
    empty, test = np.insert(seen, 3, np.nan, axis=1), np.insert(hidden, 3, 1.0, axis=1)
    found = [
        CalibrationDisplay.from_estimator(
            MFImputer(keep_empty_features=keep_empty_features).fit(a), a, b
        ).covered
        for a, b in ((seen, hidden), (empty, test))
    ]
    assert_allclose(*found)


def test_a_value_that_is_certain_and_right_is_covered():
    display = CalibrationDisplay.from_predictions([1, 2], [1, 0], [0, 0], levels=[0.5])
    assert_array_equal(display.covered, [0.5])


def test_several_curves_share_one_diagonal():
    _, ax = plt.subplots()
    for name in ("one", "two"):
        CalibrationDisplay.from_predictions([0, 1], [0, 0], [1, 1], name=name, ax=ax)
    assert [line.get_label() for line in ax.lines] == ["exact", "one", "two"]


def test_levels_outside_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        CalibrationDisplay.from_predictions([0], [0], [1], levels=[0.5, 1.0])


def test_negative_deviations_are_refused():
    with pytest.raises(ValueError, match="std must not be negative; got -1"):
        CalibrationDisplay.from_predictions([0], [0], [-1])


# matplotlib


def test_importing_the_package_does_not_import_it():
    code = "import sys, sklearn_mfgd.plotting; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_it_the_error_names_the_extra(monkeypatch, model, table):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "sklearn_mfgd\[plot\]"'):
        MatrixDisplay.from_estimator(model, table.X)


def test_constant_columns_have_no_part_in_pictures_of_factors(planted):
    data = planted(m=60, share_missing=0.3)
    columns = [f"x{k}" for k in range(15)]
    X = pd.DataFrame(data.X, columns=columns)
    X["x4"] = np.where(np.isnan(X["x4"]), np.nan, 3.0)
    display = FactorDisplay.from_estimator(MFImputer(3).fit(X), X)
    assert "x4" not in display.feature_names
    assert len(display.feature_names) == display.components.shape[1] == 14
