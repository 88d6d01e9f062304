"""Factors that minimize an objective whose ridge is given: objectives, steps, a loop.

This room imports `_data` and `_kernels`. It does not know priors, posteriors or
estimators.
"""
