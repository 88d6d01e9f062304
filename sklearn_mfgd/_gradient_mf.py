from ._base import BaseMatrixFactorization


class GradientMF(BaseMatrixFactorization):
    _accept_sparse = True
    def __init__(self, rank=10, *, eta="auto", solver="auto", reg=0.0, fit_bias=False, init="svd", max_iter=200, tol=1e-4, random_state=None, verbose=0, warm_start=False, early_stopping=False, validation_fraction=0.1, n_iter_no_change=5):
        self.rank = rank
        self.eta = eta
        self.solver = solver
        self.reg = reg
        self.fit_bias = fit_bias
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
