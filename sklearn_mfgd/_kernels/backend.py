"""Choice of the backend: compiled kernels, or the reference implementation in NumPy."""

import os

from . import numpy_chains, numpy_kernels


def _load():
    """Import the compiled kernels, or NumPy's if they are wanted or all there is."""
    wanted = os.environ.get("SKLEARN_MFGD_KERNELS", "")
    required = os.environ.get("SKLEARN_MFGD_REQUIRE_COMPILED", "") not in ("", "0")
    if wanted == "numpy" and not required:
        return numpy_kernels
    try:
        from . import compiled
    except ImportError as error:
        if not (required or wanted):
            return numpy_kernels
        raise ImportError(
            "The compiled kernels of sklearn_mfgd, which SKLEARN_MFGD_REQUIRE_COMPILED "
            "or SKLEARN_MFGD_KERNELS asks for, are not installed: install it where "
            "there is a C compiler."
        ) from error
    if wanted == "numpy":
        raise ImportError(
            "SKLEARN_MFGD_KERNELS=numpy switches off the kernels that "
            "SKLEARN_MFGD_REQUIRE_COMPILED asks for; unset one of them."
        )
    compiled.choose(wanted)
    return compiled


kernels = _load()


def chain_kernels():
    """The kernels of processes in time that belong to those in use."""
    return numpy_chains if kernels is numpy_kernels else kernels


def kernels_in_use():
    """Name the kernels in use, for `show_versions`."""
    if kernels is numpy_kernels:
        return "NumPy"
    return f"compiled, {kernels.instructions()}"
