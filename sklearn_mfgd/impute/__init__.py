"""Imputers, which fill in the missing values of a table."""

from ._mf_imputer import MFImputer
from ._stacking import StackingImputer

__all__ = ["MFImputer", "StackingImputer"]
