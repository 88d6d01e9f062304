"""The base class of the displays. It imports matplotlib when something is drawn."""

from typing import Any, Self

import numpy as np

# Blue below, grey at and yellow above zero. Its brightness increases, so that signs
# differ in greyscale, too; and no value is white, as missing entries are.
SIGNED_COLOURS = "cividis"


def show_matrix(ax, values: np.ndarray, colours: str, low, high, **options):
    """Draw a matrix as an image of one colour for each entry."""
    options |= {"aspect": "auto", "interpolation": "nearest", "cmap": colours}
    return ax.imshow(values, vmin=low, vmax=high, **options)


class BaseDisplay:
    """Base class of the displays, which say in `_draw` what is on their axes."""

    _draw: Any

    def plot(self, ax=None) -> Self:
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw, one for each panel. By default in a new figure.

        Returns
        -------
        display : object
            This display.
        """
        self._draw(ax)
        return self

    def _open_axes(self, ax, count=1, *, columns=None, width, height=3.6) -> np.ndarray:
        """Return `count` axes, the given ones or new ones, and note their figure."""
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError(
                'Pictures need matplotlib: pip install "sklearn_mfgd[plot]".'
            ) from error
        if ax is None:
            columns = columns or count
            rows = -(-count // columns)
            size = width * columns, height * rows
            figure = plt.figure(figsize=size, layout="constrained")
            ax = figure.subplots(rows, columns, squeeze=False).ravel()
            for unused in ax[count:]:
                unused.remove()
            ax = ax[:count]
        axes = np.asarray(ax, dtype=object).ravel()
        if axes.size != count:
            message = f"ax must hold {count} axes for what is drawn; got {axes.size}."
            raise ValueError(message)
        self.figure_ = axes[0].figure
        return axes

    @staticmethod
    def _hide_frame(ax):
        """Hide the two edges of the frame that carry no ticks."""
        ax.spines[["top", "right"]].set_visible(False)

    @staticmethod
    def _count_in_integers(*axis):
        """Put no ticks between rows, columns, factors or sweeps."""
        for each in axis:
            each.get_major_locator().set_params(integer=True)
