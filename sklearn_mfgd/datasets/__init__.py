"""Data sets with missing values, to try the estimators on."""

from sklearn_mfgd.datasets._beijing_air import load_beijing_air

__all__ = ["load_beijing_air"]
