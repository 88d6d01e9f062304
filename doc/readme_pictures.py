"""Draw the pictures of README.rst anew, with the code of the gallery.

Run ``python doc/readme_pictures.py``.
"""

import runpy
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
PICTURES = ("air_quality", "nothing_to_tune")

if __name__ == "__main__":
    for name in PICTURES:
        plt.close("all")
        plt.rcdefaults()
        runpy.run_path(str(HERE / "examples" / f"plot_{name}.py"))
        plt.savefig(HERE / "images" / f"{name}.png", dpi=90)
