"""What is installed, for bug reports."""

import importlib.metadata
import platform

import threadpoolctl

from ._kernels.backend import kernels_in_use
from ._kernels.threads import n_threads


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
    from . import __version__

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
