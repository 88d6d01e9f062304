"""What the displays draw, read off the artists."""

import builtins
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.stats import norm

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
    (low, high) = limits.pop()
    assert low <= np.nanmin(table.X)
    assert high >= np.nanmax(table.X)
    low, high = images["residual"].get_clim()
    assert low == -high


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
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("sweep", "objective")
    styles = {(line.get_linestyle(), line.get_marker()) for line in ax.lines}
    assert len(styles) == 2


def test_objectives_of_very_different_size_are_on_a_logarithmic_scale():
    display = LossCurveDisplay({"one": [100.0, 1.0], "two": [50.0, 2.0]}).plot()
    assert display.axes_[0].get_yscale() == "log"


def test_evidence_is_called_so_and_held_out_errors_have_their_own_axes(table):
    model = MaskedGradientMF(4, early_stopping=True, random_state=0).fit(table.X)
    display = LossCurveDisplay.from_estimator(model)
    labels = [ax.get_ylabel() for ax in display.axes_]
    assert labels == ["evidence (lower bound)", "RMSE of held-out entries"]
    assert_array_equal(display.axes_[1].lines[0].get_ydata(), model.validation_curve_)
    assert display.axes_[0].get_yscale() == "linear"


def test_seconds_and_names_may_be_given(table):
    fits = [GradientMF(2, reg=1.0, max_iter=3, tol=0).fit(table.X) for _ in range(2)]
    seconds = [[0.1, 0.2, 0.3], [1, 2, 3]]
    display = LossCurveDisplay.from_estimator(
        fits, names=["one", "two"], seconds=seconds, ax=plt.figure().gca()
    )
    assert_array_equal(display.lines_["two"].get_xdata(), seconds[1])
    assert display.axes_[0].get_xlabel() == "second"


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
    assert display.axes_[0].get_title() == f"{model.rank_} of 5 factors are left"
    strongest = model.components_[np.argmax(sizes)]
    assert_allclose(array(display.image_)[0], strongest / np.abs(strongest).max())
    assert "dropped" in [text.get_text() for text in display.axes_[0].texts]


def test_where_none_was_dropped_none_is_drawn(table):
    model = GradientMF(3, reg=0.1).fit(table.X)
    display = FactorDisplay.from_estimator(model, table.X)
    assert display.axes_[0].get_title() == "3 factors"
    assert not display.axes_[0].texts


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


def test_several_curves_share_one_diagonal():
    _, ax = plt.subplots()
    for name in ("one", "two"):
        CalibrationDisplay.from_predictions([0, 1], [0, 0], [1, 1], name=name, ax=ax)
    assert [line.get_label() for line in ax.lines] == ["exact", "one", "two"]


def test_levels_outside_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        CalibrationDisplay.from_predictions([0], [0], [1], levels=[0.5, 1.0])


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
