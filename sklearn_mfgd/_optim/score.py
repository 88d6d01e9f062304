"""The honest score: predict entries that were hidden, not entries that were seen."""

import numpy as np

from .._data.holdout import folds
from .loss_model import LossModelMixin
from .objective import objective_of


def score_sums(entries, model, column_means: np.ndarray) -> tuple[float, float]:
    """Squared error of hidden entries (PRESS), and around the column means, centred."""
    press = sum(model.press(*fold) for fold in folds(entries))
    if isinstance(model, LossModelMixin):
        return float(press), model.null_deviance(entries)
    around_means = objective_of(entries, (False, True))
    no_factors = np.zeros((entries.shape[0], 0), entries.dtype)
    total = 2 * around_means.value(
        no_factors, column_means[:, None].astype(entries.dtype)
    )
    return float(press), float(total)


def explained_share(press: float, total: float) -> float:
    """Share of the variance of hidden entries that folding in the others explains.

    Q² = 1 - PRESS / total sum of squares around the column means.
    """
    if total == 0:  # as sklearn.metrics.r2_score does
        return 1.0 if press == 0 else 0.0
    return 1.0 - press / total
