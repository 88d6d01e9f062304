"""Factorization of matrices larger than memory: blocks of rows on Dask, or on disk.

:class:`MaskedGradientMF` fits a dask.array, a dask.dataframe or a list of delayed
blocks. :func:`from_triplets` makes a matrix from a dask.dataframe of single entries.
:class:`Checkpoint` saves the model during a fit. This needs the extra ``dask``.
"""

from importlib import import_module

for _needed in ("dask.array", "distributed"):
    try:
        import_module(_needed)
    except ImportError as error:
        raise ImportError(
            f"sklearn_mfgd.dask needs {_needed}, which cannot be imported ({error}): "
            'pip install "sklearn_mfgd[dask]"'
        ) from error

from ._checkpoint import Checkpoint  # noqa: E402
from ._estimators import MaskedGradientMF  # noqa: E402
from ._triplets import from_triplets  # noqa: E402

__all__ = ["Checkpoint", "MaskedGradientMF", "from_triplets"]
