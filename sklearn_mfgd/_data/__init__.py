"""What is observed: tables, masks, weights and units in, observed entries out.

The only room that interprets NaN, masks, what a sparse matrix stores, weights of
entries (`observed` says what they do) and units of measurement (`units`). Imports
`_kernels`. Knows no objective, no prior and no estimator.
"""
