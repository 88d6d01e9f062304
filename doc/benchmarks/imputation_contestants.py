"""Imputers that the benchmarks compare, each with its default settings.

A contestant is a function without parameters that returns an object with a
``fit_transform``. Packages are imported by the contestants that need them, so that the
others run without.
"""

import numpy as np


def simple():
    from sklearn.impute import SimpleImputer

    return SimpleImputer(keep_empty_features=True)


def neighbours():
    from sklearn.impute import KNNImputer

    return KNNImputer(keep_empty_features=True)


class StandardizedNeighbours:
    """KNNImputer measures distances: this gives every column the same weight."""

    def __init__(self):
        from sklearn.preprocessing import StandardScaler

        self.scaler, self.imputer = StandardScaler(), neighbours()

    def fit_transform(self, X):
        filled = self.imputer.fit_transform(self.scaler.fit_transform(X))
        return self.scaler.inverse_transform(filled)


def iterative(**options):
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    return IterativeImputer(keep_empty_features=True, random_state=0, **options)


def iterative_trees(**options):
    from sklearn.ensemble import ExtraTreesRegressor

    return iterative(estimator=ExtraTreesRegressor(random_state=0), **options)


class _Peer:
    """What a peer needs that does not take constant columns."""

    def fit_transform(self, X):
        low, high = np.nanmin(X, axis=0), np.nanmax(X, axis=0)
        varies = low < high
        filled = np.where(np.isnan(X), low, X)
        filled[:, varies] = self.fill(X[:, varies])
        return filled


class MiceForest(_Peer):
    """Five rounds of miceforest; one data set of it is what it fills in."""

    def fill(self, X):
        import pandas as pd
        from miceforest import ImputationKernel

        frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(X.shape[1])])
        kernel = ImputationKernel(frame, random_state=0)
        kernel.mice(5)
        return kernel.complete_data().to_numpy()


class Copula(_Peer):
    """The Gaussian copula of gcimpute; with a rank, that of few factors."""

    def __init__(self, rank=None):
        self.rank = rank

    def fill(self, X):
        # Its version 0.0.4 calls this function by the name it had before NumPy 2.
        setattr(np, "round_", np.round)  # noqa: B010
        from gcimpute.gaussian_copula import GaussianCopula
        from gcimpute.low_rank_gaussian_copula import LowRankGaussianCopula

        if self.rank is None:
            return GaussianCopula().fit_transform(X)
        return LowRankGaussianCopula(rank=self.rank).fit_transform(X)


def factors(rank="auto", **options):
    from sklearn_mfgd import MFImputer

    return MFImputer(rank, keep_empty_features=True, **options)


def stack(**options):
    from sklearn_mfgd import StackingImputer

    return StackingImputer(keep_empty_features=True, random_state=0, **options)


PEERS = {
    "mean": simple,
    "KNN": StandardizedNeighbours,
    "Iterative": iterative,
    "Iterative, trees": iterative_trees,
    "miceforest": MiceForest,
    "gcimpute": Copula,
}
OURS = {
    "MFImputer": factors,
    "MFImputer, marginals": lambda: factors(marginal="auto", random_state=0),
    "MFImputer, median": lambda: factors(
        marginal="auto", statistic="median", random_state=0
    ),
    "StackingImputer": stack,
    "StackingImputer, median": lambda: stack(statistic="median"),
}
# Not part of the comparison, but run where they are named.
FURTHER = {
    "KNN, columns as they are": neighbours,
    "Iterative, 10 nearest": lambda: iterative(n_nearest_features=10),
    "MFImputer, rank 80": lambda: factors(80),
}
CONTESTANTS = {**PEERS, **OURS, **FURTHER}
# Rounds take the same time, so the first one tells how long ten of them would take.
IN_ROUNDS = {"Iterative": iterative, "Iterative, trees": iterative_trees}
