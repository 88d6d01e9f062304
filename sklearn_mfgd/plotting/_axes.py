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


def axes_for(ax, count=1, *, columns=None, width=4.5, height=3.6):
    """`count` axes as an array, and their figure; new ones have `columns` in a row."""
    if ax is None:
        columns = count if columns is None else columns
        rows = -(-count // columns)
        figure, axes = pyplot().subplots(
            rows,
            columns,
            figsize=(width * columns, height * rows),
            layout="constrained",
            squeeze=False,
        )
        for empty in axes.ravel()[count:]:
            empty.remove()
        return figure, axes.ravel()[:count]
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


def count_in_integers(axis):
    """Put no ticks between rows, columns, factors or sweeps."""
    axis.get_major_locator().set_params(integer=True)
