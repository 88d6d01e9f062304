"""Axes to draw on: given ones, or a new figure."""

import numpy as np


def pyplot():
    """Import matplotlib, or say how to get it."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            'Pictures need matplotlib: pip install "sklearn_mfgd[plot]".'
        ) from error
    return plt


def axes_for(ax, count=1, *, width=4.5, height=3.6):
    """`count` axes side by side, as an array, and their figure."""
    if ax is None:
        size = (min(width * count, 12), height)
        figure, axes = pyplot().subplots(
            1, count, figsize=size, layout="constrained", squeeze=False
        )
        return figure, axes.ravel()
    pyplot()
    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if axes.size != count:
        raise ValueError(
            f"ax must hold {count} axes for what is drawn; got {axes.size}."
        )
    return axes[0].figure, axes


def tidy(ax):
    """Leave out the lines that carry nothing."""
    ax.spines[["top", "right"]].set_visible(False)
