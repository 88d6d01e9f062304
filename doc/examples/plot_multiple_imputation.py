"""
Multiple imputation
===================

If you fill a table once and then fit a regression, its confidence intervals are too
narrow. This page fills the same table ten times with samples from the posterior, fits
ten regressions, and combines them by Rubin's rules. Then the intervals are wide enough.
"""

# %%
# Tables from a factor model
# --------------------------
#
# We simulate tables of 100 rows and six columns, which share two factors. A regression
# estimates the slope of the last column on the first. We know the true slope, since we
# chose the loadings of the factors. In each table 30 % of the values are missing at
# random.

import warnings

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats
from sklearn.exceptions import ConvergenceWarning

from sklearn_mfgd import MFImputer

warnings.simplefilter("ignore", ConvergenceWarning)

LOADINGS = np.array([[1.0, 0.9, 0.8, 0.2, 0.1, 0.9], [0.1, -0.3, 0.4, 1.0, 0.9, 0.6]])
NOISE = 0.6
N_ROWS, N_TABLES, N_DRAWS = 100, 40, 10
covariance = LOADINGS.T @ LOADINGS + NOISE**2 * np.eye(6)
truth = covariance[0, 5] / covariance[0, 0]


def simulate(rng):
    """A table with missing values."""
    X = rng.standard_normal((N_ROWS, 2)) @ LOADINGS
    X += NOISE * rng.standard_normal(X.shape)
    return np.where(rng.uniform(size=X.shape) < 0.3, np.nan, X)


# %%
# Rubin's rules
# -------------
#
# Rubin's rules combine the regressions on several filled tables [1]_:
#
# - The estimate is the mean of the estimates.
# - The variance has two parts. The first is the mean of the variances that the
#   regressions report. The second is the variance of the estimates between the tables:
#   it measures how much the missing values matter.
# - The interval comes from a t distribution. The t distribution has fewer degrees of
#   freedom, and the interval is wider, if the second part of the variance is large or
#   there are few tables.


def slope(X):
    """Slope of the last column on the first, its variance, degrees of freedom."""
    x, y = X[:, 0] - X[:, 0].mean(), X[:, 5] - X[:, 5].mean()
    estimate = (x @ y) / (x @ x)
    residual = y - estimate * x
    freedom = len(x) - 2
    return estimate, (residual @ residual) / freedom / (x @ x), freedom


def interval(estimate, variance, freedom):
    """The 95 % confidence interval of the slope."""
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    return estimate - half, estimate + half


def combine(estimates, variances, complete):
    """Rubin's rules, with the degrees of freedom of Barnard and Rubin (1999)."""
    m = len(estimates)
    within, between = np.mean(variances), np.var(estimates, ddof=1)
    total = within + (1 + 1 / m) * between
    share = (1 + 1 / m) * between / total
    freedom = (m - 1) / share**2
    observed = (complete + 1) / (complete + 3) * complete * (1 - share)
    return np.mean(estimates), total, 1 / (1 / freedom + 1 / observed)


# %%
# Forty tables
# ------------
#
# Each table is filled once with expected values, and ten times with samples. If
# ``random_state`` is a ``RandomState``, every call of ``transform`` returns a new
# sample, so one fit is enough. To save time, the fits end early, with ``tol=0.01``.
# That is accurate enough for such small tables.


def study(seed):
    """The intervals of one table, filled once and filled ten times."""
    rng = np.random.RandomState(seed)
    X = simulate(rng)
    single = interval(*slope(MFImputer(tol=0.01).fit_transform(X)))
    sampler = MFImputer(tol=0.01, sample_posterior=True, random_state=rng).fit(X)
    found = np.array([slope(sampler.transform(X)) for _ in range(N_DRAWS)])
    return single, interval(*combine(found[:, 0], found[:, 1], N_ROWS - 2))


single, multiple = zip(*map(study, range(N_TABLES)), strict=True)
intervals = {"filled once": np.array(single), "filled ten times": np.array(multiple)}
covered = {
    name: (ends[:, 0] <= truth) & (truth <= ends[:, 1])
    for name, ends in intervals.items()
}
for name, hit in covered.items():
    print(f"{name}: {hit.sum()} of {N_TABLES} intervals contain the true slope")

# %%
# Do the intervals contain the true slope?
# ----------------------------------------
#
# Each vertical line is the 95 % interval of one table. About 19 of 20 should contain
# the true slope, which is the horizontal line. Red intervals with a cross miss it.
#
# Filled ten times, the tables give intervals that are wide enough, because the factor
# model describes the relation that the regression estimates. The factor model has no
# interactions and no squares. If your analysis uses these, or a column that was not in
# the table, the intervals may be wrong.

figure, axes = plt.subplots(2, 1, figsize=(8, 5), sharex=True, sharey=True)
for ax, (name, ends) in zip(axes, intervals.items(), strict=True):
    hit = covered[name]
    for k, (low, high) in enumerate(ends):
        style = {"color": "0.6", "linewidth": 2}
        if not hit[k]:
            style = {"color": "C3", "linewidth": 3}
            ax.plot(k, (low + high) / 2, "x", color="black", markersize=6, zorder=3)
        ax.plot([k, k], [low, high], **style)
    ax.axhline(truth, color="black", linewidth=1)
    title = f"Each table {name}: {hit.mean():.0%} of the intervals contain the truth"
    ax.set_title(title, loc="left")
    ax.set_ylabel("slope")
    ax.spines[["top", "right"]].set_visible(False)
axes[1].set_xlabel("table")
figure.tight_layout()
plt.show()

# %%
# .. [1] J. Barnard, D. B. Rubin, "Small-Sample Degrees of Freedom with Multiple
#    Imputation", Biometrika 86 (1999).
