"""What is observed: tables, masks, weights and units in, observed entries out.

The only room that knows NaN, masks, what a sparse matrix stores, weights of entries and
units of measurement. Imports `_kernels`. Knows no objective, no prior and no estimator.
"""
