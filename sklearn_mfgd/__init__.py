"""Matrix factorization of incomplete data, as scikit-learn estimators.

Use :class:`MFImputer` to fill in a table, or :class:`StackingImputer` where minutes are
well spent on better values. Use :class:`MaskedGradientMF` for ratings and other sparse
matrices. Use :class:`GradientMF` for complete matrices, or for factors with a rank that
you give. All of them fit ``X ≈ W @ H.T`` to the observed entries of X alone.
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
    """Print the versions and settings that a bug report should contain.

    These are the versions of Python, of this package and of the packages it needs; the
    platform; the kernels in use (compiled, with their vector instructions, or those in
    NumPy) with their number of threads; and the libraries that run threads.

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
