"""When the ELBO has settled: when factors are rotated and dropped, when a fit ends."""

import numpy as np

# With missingness features a fit ends after FINAL_PATIENCE sweeps in which the ELBO
# rises by less than this share of the tolerance: with few factors sweeps are cheap.
FINAL_TOL_RATIO = 0.25
FINAL_PATIENCE = 3

# But not below this rise, which is nothing whatever the number of entries.
MIN_TOL = 0.2

# With missingness features some of the factors that the ELBO is better without are
# dropped after each of the first sweeps, the most expensive ones: after sweep n the
# share n / (n + HALF_THINNED_AFTER). The longer a factor had to show what it explains,
# the surer it is. Without features, weak factors emerge too late for that.
HALF_THINNED_AFTER = 4

# A rise of this share of the tolerance may be rounding: whether it grows is no matter.
ROUNDING_RATIO = 0.001

# Gains that shrink like a geometric series of this ratio or more count as one of it.
MAX_RATIO = 0.99


def ratio_of(gain: float, last_gain: float) -> float:
    """Ratio of the last two gains, as if they were part of a geometric series."""
    return float(np.clip(gain / last_gain, 0.0, MAX_RATIO)) if last_gain > 0 else 0.0


def remaining_rise(gain: float, last_gain: float, min_ratio: float = 0.0) -> float:
    """Sum of the gains from the last one on, extrapolated geometrically."""
    return gain / (1 - max(ratio_of(gain, last_gain), min_ratio))


class StoppingRule:
    """When factors are rotated to be separated, and when the fit ends.

    If it `thins`, factors are dropped from the first sweep on, a few each time, until
    there is a sweep in which none is.

    The ELBO has settled when it rises by less than `tol` and no more than before: slow
    rises that grow are the way out of a saddle. If it `extrapolates`, as sweeps cost
    little, less than `tol` has to be still to come: a plateau may be long.
    """

    def __init__(self, tol, has_features, extrapolates, thins=False):
        self.tol, self.has_features, self.extrapolates = tol, has_features, extrapolates
        self.gain, self.ratio, self.n_settled, self.patience = np.inf, 0.0, 0, 1
        self.rotates = self.has_rotated = False
        self.thins, self.n_sweeps = thins, 0

    @property
    def dropped_share(self) -> float:
        """Share to drop of the factors that the ELBO is better without."""
        if self.rotates:
            return 1.0
        n = self.n_sweeps + 1
        return n / (n + HALF_THINNED_AFTER) if self.thins else 0.0

    def add(self, gain, same_rank):
        """Take note of the ELBO's rise by a sweep; return whether that was the last.

        It is not where a factor was dropped.
        """
        self.thins, self.n_sweeps = self.thins and not same_rank, self.n_sweeps + 1
        last_gain, to_come = max(self.gain, 0), gain
        if self.extrapolates:
            # One gain that is small by chance is not the end of a plateau.
            to_come = remaining_rise(gain, last_gain, self.ratio)
            self.ratio = ratio_of(gain, last_gain)
        grows = gain > max(last_gain, ROUNDING_RATIO * self.tol)
        settled = to_come < self.tol and not grows
        self.gain, self.n_settled = gain, self.n_settled + 1 if settled else 0
        if self.rotates and same_rank and self.n_settled >= self.patience:
            return True
        if same_rank and self.has_features:  # many sweeps are to come
            self.rotates = False
        self.rotates |= self.n_settled >= max(1, self.patience - 1)
        if self.rotates and not self.has_rotated:
            self.has_rotated = True
            if self.has_features:
                self.n_settled, self.patience = 0, FINAL_PATIENCE
                self.tol = min(self.tol, max(FINAL_TOL_RATIO * self.tol, MIN_TOL))
        return False
