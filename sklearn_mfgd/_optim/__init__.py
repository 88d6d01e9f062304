"""Factors that minimize an objective whose ridge is given: objectives, steps, a loop.

Imports `_data` and `_kernels`. Knows no prior, no posterior and no estimator.
"""
