"""Incomplete tables to try matrix factorization on."""

from sklearn_mfgd.datasets._beijing_air import load_beijing_air

__all__ = ["load_beijing_air"]
