"""Harmonics of the day, the week and the year, for the prior mean of rows."""

from typing import NamedTuple

import numpy as np

DAY = 86400.0  # seconds
WEEK, YEAR = 7 * DAY, 365.2425 * DAY

# A cycle has to be seen this often: one that spans the whole table could stand for any
# trend, and would be extrapolated wildly.
MIN_TURNS = 3
MIN_YEARS = 2

MAX_DAY_HARMONICS, WEEK_HARMONICS, YEAR_HARMONICS = 8, 3, 2

# How far the profile of a day may change over the week: harmonics k +- 1/7 and k +- 2/7
# of the day, with this share of the deviation of harmonic k.
SIDEBANDS, SIDEBAND_SCALE = (1, 2), 0.5


class Seasons(NamedTuple):
    """A sine and a cosine for each frequency, less their means in the fit."""

    frequencies: np.ndarray  # (d / 2,), cycles per second
    scales: np.ndarray  # (d,), prior deviation of each slope, all times one factor
    means: np.ndarray  # (d,)

    @classmethod
    def none(cls) -> "Seasons":
        """No seasons, as numbers do not say what a day is."""
        return cls(*np.zeros((3, 0)))

    @classmethod
    def of(cls, timeline) -> "Seasons":
        """Choose harmonics that the times tell apart and have seen often enough."""
        if not timeline.has_dates:
            return cls.none()
        chosen = _harmonics(timeline.span, timeline.step)
        if not chosen:
            return cls.none()
        frequencies, scales = np.array(chosen).T
        seasons = cls(frequencies, np.tile(scales, 2), np.zeros(2 * len(scales)))
        return seasons._replace(means=seasons.features(timeline.times).mean(axis=0))

    def features(self, times) -> np.ndarray:
        """Cosines, then sines, (m, d)."""
        angles = 2 * np.pi * times[:, None] * self.frequencies
        return np.hstack([np.cos(angles), np.sin(angles)]) - self.means


def _harmonics(span: float, step: float) -> list[tuple[float, float]]:
    """Frequencies and scales: harmonic k of a cycle has the scale 1 / k."""
    chosen = []
    sees_week = span >= MIN_TURNS * WEEK
    if span >= MIN_TURNS * DAY:
        for k in range(1, min(MAX_DAY_HARMONICS, int(DAY / (2.01 * step))) + 1):
            chosen.append((k / DAY, 1 / k))
            if sees_week:
                for side in SIDEBANDS:
                    for sign in (-1, 1):
                        frequency = k / DAY + sign * side / WEEK
                        chosen.append((frequency, SIDEBAND_SCALE / k))
    if sees_week:
        chosen += [(k / WEEK, 1 / k) for k in range(1, WEEK_HARMONICS + 1)]
    if span >= MIN_YEARS * YEAR:
        chosen += [(k / YEAR, 1 / k) for k in range(1, YEAR_HARMONICS + 1)]
    return [(f, scale) for f, scale in chosen if 1 / f >= 2.01 * step]
