"""Factorize incomplete matrices by gradient methods, as scikit-learn estimators."""

from . import datasets
from ._gradient_mf import GradientMF
from ._masked_gradient_mf import MaskedGradientMF
from ._solvers import DivergenceError

__version__ = "0.1.0"
