"""A column over time: its observed values, and how its gaps were filled."""

from numbers import Integral
from typing import Self

import numpy as np
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from .._data.timeline import Timeline
from .._data.times import read_times
from ..impute._filling import table_in_time
from ._display import BaseDisplay
from ._models import dense

# Half the width of a central interval of 95 %, in standard deviations.
HALF_WIDTH = 1.96

# Of ticks at years, months, days, hours, minutes and seconds. Days have their month.
DATE_FORMATS = {
    "formats": ["%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%S.%f"],
    "zero_formats": ["", "%Y", "%d %b", "%d %b", "%H:%M", "%H:%M"],
    "offset_formats": ["", "%Y", "%Y", "%Y", "%d %b %Y", "%d %b %Y %H:%M"],
}


class GapDisplay(BaseDisplay):
    """Picture of one column over time, with its gaps as they were filled.

    A line shows the imputed values, from the last observed value before a gap to the
    first one after it. The band around it is 1.96 standard deviations wide on either
    side: a well calibrated fit has 95 % of the true values in it.

    Parameters
    ----------
    times : ndarray of shape (n_times,)
        Increasing times: numbers, or datetime64 for an axis of dates.
    observed : ndarray of shape (n_times,)
        Values of the column, NaN where missing.
    imputed : ndarray of shape (n_times,)
        Imputed values. Only those of missing entries are drawn.
    std : ndarray of shape (n_times,), default=None
        Standard deviations of the imputed values. Without them there is no band.
    truth : ndarray of shape (n_times,), default=None
        True values. Only those of missing entries are drawn; NaN is unknown.
    name : str, default=None
        Name of the column, for the axis.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure.
    ax_ : matplotlib Axes
        The axes.
    points_ : matplotlib Line2D
        The observed values.
    line_ : matplotlib Line2D
        The imputed values, and the observed ones next to them.
    band_ : matplotlib FillBetweenPolyCollection or None
        The band.
    truth_ : matplotlib Line2D or None
        The true values of missing entries.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_mfgd import MFImputer
    >>> from sklearn_mfgd.plotting import GapDisplay
    >>> rng = np.random.default_rng(0)
    >>> times = np.arange(300)
    >>> waves = np.sin(times[:, None] / np.array([9, 14]))
    >>> X = waves @ rng.normal(size=(2, 8)) + 0.1 * rng.normal(size=(300, 8))
    >>> seen = X.copy()
    >>> seen[100:110] = np.nan
    >>> imputer = MFImputer().fit(seen, times=times)
    >>> display = GapDisplay.from_estimator(
    ...     imputer, seen, 2, times=times, start=80, stop=130, truth=X[:, 2]
    ... )
    >>> len(display.times), int(np.isnan(display.observed).sum())
    (50, 10)
    """

    def __init__(self, times, observed, imputed, *, std=None, truth=None, name=None):
        self.times = times
        self.observed = observed
        self.imputed = imputed
        self.std = std
        self.truth = truth
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        column: int | str,
        *,
        times=None,
        groups=None,
        group=None,
        start=None,
        stop=None,
        truth=None,
        name: str | None = None,
        ax=None,
    ) -> Self:
        """Draw how a fitted imputer fills the gaps of a column.

        This imputes all of X. To draw several pictures of one table, impute it once and
        use `from_predictions`.

        Parameters
        ----------
        estimator : MFImputer
            An imputer that was fitted with ``reg="auto"`` and
            ``sample_posterior=False``.
        X : array-like of shape (n_samples, n_features)
            Table with missing values.
        column : int or str
            Number or name of the feature.
        times : array-like of shape (n_samples,), default=None
            Times of the rows. Needed unless the imputer takes them from X, see its
            parameter `time`. An imputer that was fitted without times needs them only
            for the axis.
        groups : array-like of shape (n_samples,), default=None
            Label of the series of each row.
        group : object, default=None
            Label of the series to draw. Needed if there are several.
        start, stop : float or date, default=None
            Range of times to draw, without `stop` itself. By default all.
        truth : array-like of shape (n_samples,), default=None
            True values of the column. They are drawn where X is missing.
        name : str, default=None
            Name of the column, for the axis. By default the name in X.
        ax : matplotlib Axes, default=None
            Where to draw. By default in a new figure.

        Returns
        -------
        display : GapDisplay
            The picture.

        Raises
        ------
        ValueError
            If there are no times, or no such column, group or rows.
        """
        if not hasattr(estimator, "impute"):
            raise ValueError(
                "GapDisplay draws a fitted MFImputer; got "
                f"{type(estimator).__name__}. For other estimators, pass their values "
                "to from_predictions."
            )
        check_is_fitted(estimator)
        table, timeline = table_in_time(X, estimator.time, times, groups)
        if timeline is None:
            raise ValueError("times must be given, since this imputer has no time=.")
        number, names = _feature_number(estimator, column)
        filled = np.flatnonzero(~np.isnan(estimator.mean_))
        kept = filled
        if estimator.keep_empty_features:
            kept = np.arange(estimator.n_features_in_)
        elif number not in filled:
            raise ValueError(f"column={column!r} had no value in fit and is dropped.")
        place = np.searchsorted(kept, number)
        # An imputer that was fitted without times refuses them.
        in_time = {} if estimator.timescale_ is None else {"times": times}
        in_time |= {"groups": groups} if in_time else {}
        found = estimator.impute(X, return_std=True, **in_time)
        imputed, std = (np.asarray(each)[:, place] for each in found)
        observed = dense(estimator, table)[:, number]
        truth = None if truth is None else _vector(truth, "truth", len(observed))
        shown = _rows_of(groups, group, timeline)
        return cls.from_predictions(
            timeline.restore(_stamps(timeline))[shown],
            observed[shown],
            imputed[shown],
            std[shown],
            start=start,
            stop=stop,
            truth=None if truth is None else truth[shown],
            name=names if name is None else name,
            ax=ax,
        )

    @classmethod
    def from_predictions(
        cls,
        times,
        observed,
        imputed,
        std=None,
        *,
        start=None,
        stop=None,
        truth=None,
        name: str | None = None,
        ax=None,
    ) -> Self:
        """Draw the gaps of a column with values from any source.

        Parameters
        ----------
        times : array-like of shape (n_samples,)
            Times, in any order: numbers or dates.
        observed : array-like of shape (n_samples,)
            Values of the column, NaN where missing.
        imputed : array-like of shape (n_samples,)
            Imputed values.
        std : array-like of shape (n_samples,), default=None
            Standard deviations of the imputed values. Without them there is no band.
        start, stop : float or date, default=None
            Range of times to draw, without `stop` itself. By default all.
        truth : array-like of shape (n_samples,), default=None
            True values of the column. They are drawn where `observed` is missing.
        name : str, default=None
            Name of the column, for the axis.
        ax : matplotlib Axes, default=None
            Where to draw. By default in a new figure.

        Returns
        -------
        display : GapDisplay
            The picture.

        Raises
        ------
        ValueError
            If lengths differ, or if no row lies between `start` and `stop`.
        """
        observed = _vector(observed, "observed")
        timeline = Timeline.of(times, None, len(observed))
        if timeline is None:
            raise ValueError("times must be given.")
        given = {"imputed": imputed, "std": std, "truth": truth}
        columns = {
            what: _vector(values, what, len(observed))
            for what, values in given.items()
            if values is not None
        }
        shown = np.ones(len(observed), bool)
        if start is not None:
            shown &= timeline.times >= _moment(start, timeline.has_dates, "start")
        if stop is not None:
            shown &= timeline.times < _moment(stop, timeline.has_dates, "stop")
        if not shown.any():
            raise ValueError("There is nothing to draw between start and stop.")
        rows = timeline.order[shown]
        columns = {what: values[rows] for what, values in columns.items()}
        stamps = _stamps(timeline)[shown]
        return cls(stamps, observed[rows], **columns, name=name).plot(ax)

    def _draw(self, ax):
        (self.ax_,) = self._open_axes(ax, width=8.0, height=2.8)
        missing = np.isnan(self.observed)
        centre = np.where(missing, self.imputed, self.observed)
        # The line reaches the observed values on both sides of a gap.
        drawn = missing.copy()
        drawn[1:] |= missing[:-1]
        drawn[:-1] |= missing[1:]
        blue, ax = "#0072B2", self.ax_
        self.band_ = self.truth_ = None
        if self.std is not None:
            half = HALF_WIDTH * np.where(missing, self.std, 0.0)
            look = {"color": blue, "alpha": 0.25, "linewidth": 0, "label": "95 % band"}
            edges = centre - half, centre + half
            self.band_ = ax.fill_between(self.times, *edges, where=drawn, **look)
        values = np.where(drawn, centre, np.nan)
        look = {"color": blue, "linewidth": 1.3, "label": "imputed"}
        (self.line_,) = ax.plot(self.times, values, **look)
        if self.truth is not None:
            values = np.where(missing, self.truth, np.nan)
            look = {"color": "#D55E00", "markersize": 3.5, "mew": 0.9, "mfc": "none"}
            (self.truth_,) = ax.plot(self.times, values, "o", label="true", **look)
        look = {"color": "black", "markersize": 3.5, "label": "observed"}
        (self.points_,) = ax.plot(self.times, self.observed, ".", **look)
        self._label_axes()

    def _label_axes(self):
        """Label the axes, and place the legend above them."""
        ax = self.ax_
        ax.set_ylabel(self.name or "value")
        if self.times.dtype.kind == "M":
            from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

            locator = AutoDateLocator(minticks=4, maxticks=10)
            ax.xaxis.set_major_locator(locator)
            ax.xaxis.set_major_formatter(ConciseDateFormatter(locator, **DATE_FORMATS))
        else:
            ax.set_xlabel("time")
        ax.margins(x=0.01)
        drawn = self.points_, self.truth_, self.line_, self.band_
        handles = [artist for artist in drawn if artist is not None]
        above = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": 4}
        ax.legend(handles=handles, frameon=False, borderaxespad=0.2, **above)
        self._hide_frame(ax)


def _vector(values, name: str, length: int | None = None) -> np.ndarray:
    """Validate one value for each row, NaN and infinite ones included."""
    options = {"ensure_2d": False, "ensure_all_finite": False, "input_name": name}
    values = check_array(values, dtype=np.float64, **options)
    if values.ndim != 1 or length not in (None, len(values)):
        wanted = "one value for each row" if length is None else f"shape ({length},)"
        raise ValueError(f"{name} must have {wanted}; got the shape {values.shape}.")
    return values


def _feature_number(estimator, column) -> tuple[int, str]:
    """Number and name of a feature of an imputer."""
    names = getattr(estimator, "feature_names_in_", None)
    n = estimator.n_features_in_
    if isinstance(column, Integral) and -n <= column < n:
        number = int(column) % n
        return number, f"column {number}" if names is None else names[number]
    if isinstance(column, str) and names is not None and column in names:
        return list(names).index(column), column
    known = f"a number below {n}" + ("" if names is None else " or a name of a feature")
    raise ValueError(f"column must be {known}; got {column!r}.")


def _rows_of(groups, group, timeline) -> np.ndarray:
    """Rows, in the order of X, of the series to draw."""
    n_rows = len(timeline.order)
    if groups is None:
        if group is not None:
            raise ValueError(f"group={group!r} needs groups: pass groups= as well.")
        return np.arange(n_rows)
    if group is None:
        if timeline.series[-1] > 0:
            raise ValueError("groups has several series: say with group= which one.")
        return np.arange(n_rows)
    rows = np.flatnonzero([label == group for label in groups])
    if rows.size == 0:
        raise ValueError(f"group={group!r} is none of the labels in groups.")
    return rows


def _stamps(timeline) -> np.ndarray:
    """Sorted times for the axis: numbers, or dates in UTC."""
    if not timeline.has_dates:
        return timeline.times
    return np.rint(timeline.times * 1e6).astype(np.int64).astype("datetime64[us]")


def _moment(value, has_dates: bool, name: str) -> float:
    """Validate an end of the picture; dates are seconds since 1970."""
    try:
        ticks = read_times([value])
    except (TypeError, ValueError):
        ticks = None
    if ticks is None or ticks.has_dates != has_dates:
        wanted = "a date" if has_dates else "a number"
        raise ValueError(f"{name} must be {wanted}, as times are; got {value!r}.")
    return float(ticks.in_units(ticks.numbers)[0])
