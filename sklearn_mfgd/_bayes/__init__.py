"""Factors and what regularizes them, learned together by variational Bayes.

The model, the posterior of one side given the other, priors, noise, the evidence lower
bound (ELBO), coordinate ascent on it, and Gibbs sampling. This room imports `_optim`
(for its starting factors), `_data` and `_kernels`. It does not know estimators.
"""
