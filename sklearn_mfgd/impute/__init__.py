"""Imputers: what fills in the missing values of a table."""

from ._mf_imputer import MFImputer

__all__ = ["MFImputer"]
