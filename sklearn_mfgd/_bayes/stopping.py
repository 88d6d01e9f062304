"""When an ascent has settled, when factors are dropped, and when all is done."""

import numpy as np

# With features a fit goes on until the bound rises by less than this share of what is
# asked for, for so many sweeps: they cost little once most factors are dropped.
LAST = 0.15
PATIENCE = 3

# But not below this rise, which is nothing whatever the number of entries.
LEAST_RISE = 0.2

# A rise of this share of what counts may be rounding, and says nothing if it grows.
NOTHING = 0.001

# Gains that shrink like a geometric series of this ratio or more count as one of it.
LONGEST = 0.99


def ratio_of(gain, last):
    """Ratio of the last two gains, as that of a geometric series."""
    return float(np.clip(gain / last, 0.0, LONGEST)) if last > 0 else 0.0


def still_to_rise(gain, last, least_ratio=0.0):
    """Sum of the gains from the last one on, if they go on to shrink as they do."""
    return gain / (1 - max(ratio_of(gain, last), least_ratio))


class StoppingRule:
    """When factors are told apart, and when all is done.

    The bound has settled when it rises by less than `least` and no more than before:
    slow rises that grow are the way out of a saddle. Where sweeps cost little, it has
    settled when less than `least` is still to come, if its rises go on to shrink as
    they do: a plateau may be long.
    """

    def __init__(self, least, *, has_features, extrapolates):
        self.least, self.has_features = least, has_features
        self.extrapolates = extrapolates
        self.gain, self.ratio, self.n_settled, self.patience = np.inf, 0.0, 0, 1
        self.rotates = self.has_rotated = False

    def add(self, gain, same_rank):
        """Take note of a sweep; return whether it was the last.

        Parameters
        ----------
        gain : float
            Rise of the bound.
        same_rank : bool
            Whether no factor was dropped.
        """
        last, left = max(self.gain, 0), gain
        if self.extrapolates:
            # One gain that is small by chance is not the end of a plateau.
            left = still_to_rise(gain, last, self.ratio)
            self.ratio = ratio_of(gain, last)
        settled = left < self.least and gain <= max(last, NOTHING * self.least)
        self.gain, self.n_settled = gain, self.n_settled + 1 if settled else 0
        if self.rotates and same_rank and self.n_settled >= self.patience:
            return True
        if same_rank and self.has_features:  # many sweeps are to come
            self.rotates = False
        self.rotates |= self.n_settled >= max(1, self.patience - 1)
        if self.rotates and not self.has_rotated:
            self.has_rotated = True
            if self.has_features:
                self.n_settled, self.patience = 0, PATIENCE
                self.least = min(self.least, max(LAST * self.least, LEAST_RISE))
        return False
