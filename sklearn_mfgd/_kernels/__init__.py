"""Arithmetic on observed entries: arrays in, arrays out.

Kernels in C and their reference implementation in NumPy, the choice between the two,
threads, and dense linear algebra. This room imports no other room. It does not know
models, parameters of estimators or units.
"""
