"""Arithmetic on observed entries: arrays in, arrays out.

Kernels in C and their reference implementation in NumPy, the choice between the two,
threads, and dense linear algebra. Imports nothing of this package from outside of this
folder. Knows no model, no parameter of an estimator and no unit.
"""
