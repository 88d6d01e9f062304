"""Factorize incomplete matrices by gradient methods, as scikit-learn estimators.

:class:`GradientMF` is for complete and nearly complete matrices,
:class:`MaskedGradientMF` for those with many missing values. Both fit ``X ≈ W @ H.T``
to the observed entries of X alone. :class:`MFImputer` fills in the missing values of a
table, and :class:`StackingImputer` does so by a weighted mean of several imputers.
"""

import importlib.metadata
import platform

import threadpoolctl

from . import datasets
from ._gradient_mf import GradientMF
from ._kernels.backend import kernels_in_use
from ._kernels.threads import n_threads
from ._masked_gradient_mf import MaskedGradientMF
from ._optim.divergence import DivergenceError
from .impute import MFImputer, StackingImputer

__version__ = "0.1.0"

__all__ = [
    "DivergenceError",
    "GradientMF",
    "MFImputer",
    "MaskedGradientMF",
    "StackingImputer",
    "__version__",
    "datasets",
    "show_versions",
]


def show_versions() -> None:
    """Print what a report of a bug should say about the installation.

    These are the versions of Python, of this package and of those it depends on, the
    platform, the kernels in use (compiled, with their vector instructions, or those in
    NumPy) with their number of threads, and the libraries that run threads.

    Examples
    --------
    >>> import sklearn_mfgd
    >>> sklearn_mfgd.show_versions()
    python         3...
    platform       ...
    sklearn_mfgd   ...
    numpy          ...
    scipy          ...
    scikit-learn   ...
    threadpoolctl  ...
    kernels        ...
    """
    lines = [
        ("python", platform.python_version()),
        ("platform", platform.platform()),
        ("sklearn_mfgd", __version__),
    ]
    for package in ("numpy", "scipy", "scikit-learn", "threadpoolctl"):
        lines.append((package, importlib.metadata.version(package)))
    lines.append(("kernels", f"{kernels_in_use()}, {n_threads()} threads"))
    for pool in threadpoolctl.threadpool_info():
        library = f"{pool['internal_api']} {pool['version'] or ''}".strip()
        if "architecture" in pool:
            library += f" for {pool['architecture']}"
        lines.append((pool["user_api"], f"{library}, {pool['num_threads']} threads"))
    for name, text in lines:
        print(f"{name:<13}  {text}")
