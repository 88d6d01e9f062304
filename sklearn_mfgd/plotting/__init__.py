"""Pictures of matrices, fits, factors and gaps, like scikit-learn's displays.

Each display has a method `from_estimator` that draws it. The displays need matplotlib,
which is imported when something is drawn.
"""

from ._calibration import CalibrationDisplay
from ._factors import FactorDisplay
from ._gaps import GapDisplay
from ._loss_curve import LossCurveDisplay
from ._matrix import MatrixDisplay

__all__ = [
    "CalibrationDisplay",
    "FactorDisplay",
    "GapDisplay",
    "LossCurveDisplay",
    "MatrixDisplay",
]
