"""What the displays share: axes, and matplotlib only when something is drawn."""

import numpy as np


class BaseDisplay:
    """Base class of the displays, which say in `_draw` what is on their axes."""

    def plot(self, ax=None):
        """Draw the picture.

        Parameters
        ----------
        ax : matplotlib Axes or array-like of them, default=None
            Where to draw, one for each panel; by default a new figure.

        Returns
        -------
        display : object
            This display.
        """
        self._draw(ax)
        return self

    def _open_axes(
        self,
        ax,
        count: int = 1,
        *,
        columns: int | None = None,
        width: float,
        height: float = 3.6,
    ) -> np.ndarray:
        """Return `count` axes, and note their figure: the given ones, or a new figure.

        A new figure has them in rows of `columns`, each of this width and height.
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError(
                'Pictures need matplotlib: pip install "sklearn_mfgd[plot]".'
            ) from error
        if ax is None:
            columns = columns or count
            rows = -(-count // columns)
            _, grid = plt.subplots(
                rows,
                columns,
                figsize=(width * columns, height * rows),
                layout="constrained",
                squeeze=False,
            )
            axes = grid.ravel()[:count]
            for unused in grid.ravel()[count:]:
                unused.remove()
        else:
            axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
        if axes.size != count:
            raise ValueError(
                f"ax must hold {count} axes for what is drawn; got {axes.size}."
            )
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
