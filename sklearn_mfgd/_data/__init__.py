"""What is observed: tables, masks, weights and units in, observed entries out.

Only this room interprets NaN, masks, the entries that a sparse matrix stores, weights
of entries (see `observed`) and units of measurement (see `units`). It imports
`_kernels`. It does not know objectives, priors or estimators.
"""
