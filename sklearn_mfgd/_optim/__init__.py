"""Factors that minimize an objective whose ridge is given.

Objectives, ridges, steps, starting factors, and one loop for descent and stochastic
descent. Imports `_data` and `_kernels`. Knows no prior, no posterior and no estimator.
"""
