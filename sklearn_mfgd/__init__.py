"""Factorize incomplete matrices by gradient methods, as scikit-learn estimators.

:class:`GradientMF` is for complete and nearly complete matrices,
:class:`MaskedGradientMF` for those with many missing values. Both fit ``X ≈ W @ H.T``
to the observed entries of X alone. :class:`MFImputer` fills in the missing values of a
table.
"""

from . import datasets
from ._gradient_mf import GradientMF
from ._imputer import MFImputer
from ._masked_gradient_mf import MaskedGradientMF
from ._optim.divergence import DivergenceError
from ._show_versions import show_versions

__version__ = "0.1.0"

__all__ = [
    "DivergenceError",
    "GradientMF",
    "MFImputer",
    "MaskedGradientMF",
    "__version__",
    "datasets",
    "show_versions",
]
