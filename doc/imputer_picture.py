"""Draw the decision tree of ``choosing_an_imputer.rst`` anew.

Run ``python doc/imputer_picture.py``.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

FILE = Path(__file__).resolve().parent / "images" / "which_imputer.png"

# A question, and what to take if the answer is yes; in the order of asking.
STEPS = [
    (
        "Is a value missing because of\nhow large or small it would be?",
        "no imputer corrects for this",
        "other",
    ),
    (
        "Is the table only for a model\nthat accepts NaN?",
        "you need no imputer",
        "other",
    ),
    ("Are the data ratings or\na sparse matrix?", "MaskedGradientMF()", "code"),
    ("Do the rows have times?", "MFImputer(), with times=", "code"),
    (
        "Do you need multiple imputation\nfor standard errors?",
        "MFImputer(\n  sample_posterior=True)",
        "code",
    ),
    (
        "Is a smaller error worth\nminutes of computing?",
        "StackingImputer()",
        "code",
    ),
    (
        "Are columns skewed, and do you\nwant medians or intervals?",
        'MFImputer(\n  marginal="auto")',
        "code",
    ),
]
LAST = "MFImputer()"

INK, QUESTION, COLOURS = "#222222", "#e8eef7", {"code": "#fff1d6", "other": "#ececec"}
LEFT, RIGHT, WIDTH = 0.0, 5.35, 4.55  # of the two columns of boxes
STEP, HEIGHT = 1.16, 0.84


def draw_box(ax, x, y, width, text, colour, font="DejaVu Sans"):
    """Draw a text in a box whose left end is x and whose middle is y."""
    box = FancyBboxPatch(
        (x, y - HEIGHT / 2),
        width,
        HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=colour,
        edgecolor=INK,
        linewidth=1.2,
    )
    ax.add_patch(box)
    ax.text(
        x + width / 2,
        y,
        text,
        ha="center",
        va="center",
        color=INK,
        fontsize=15,
        fontfamily=font,
        linespacing=1.25,
        multialignment="left" if "Mono" in font else "center",
    )


def draw_arrow(ax, start, end, text, offset):
    """Draw an arrow with an answer beside its middle."""
    style = {"arrowstyle": "-|>", "color": INK, "linewidth": 1.5, "mutation_scale": 16}
    ax.annotate("", end, start, arrowprops={**style, "shrinkA": 0, "shrinkB": 0})
    x, y = (start[0] + end[0]) / 2 + offset[0], (start[1] + end[1]) / 2 + offset[1]
    ax.text(x, y, text, ha="center", va="center", fontsize=14, color=INK)


def draw():
    """Draw the tree: questions on the left, imputers on the right."""
    figure = plt.figure(figsize=(9, 9.6), facecolor="white")
    ax = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    for k, (question, imputer, kind) in enumerate(STEPS):
        y = -k * STEP
        draw_box(ax, LEFT, y, WIDTH, question, QUESTION)
        font = "DejaVu Sans Mono" if kind == "code" else "DejaVu Sans"
        draw_box(ax, RIGHT, y, 9.0 - RIGHT, imputer, COLOURS[kind], font)
        draw_arrow(ax, (LEFT + WIDTH, y), (RIGHT, y), "yes", (-0.05, 0.17))
        below = y - STEP + HEIGHT / 2
        middle = LEFT + WIDTH / 2
        draw_arrow(ax, (middle, y - HEIGHT / 2), (middle, below), "no", (0.3, 0.02))
    y = -len(STEPS) * STEP
    draw_box(ax, LEFT, y, WIDTH, LAST, COLOURS["code"], "DejaVu Sans Mono")
    ax.text(
        RIGHT,
        y,
        "the default: fast,\nfor large tables as well",
        va="center",
        fontsize=14,
        color=INK,
    )
    ax.set_xlim(-0.05, 9.05)
    ax.set_ylim(y - 0.55, 0.55)
    ax.axis("off")
    figure.savefig(FILE, dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    draw()
