"""Make a matrix from a dask.dataframe of its entries: row, column and value."""

from typing import TYPE_CHECKING, Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import pandas as pd
from dask import delayed
from pandas.api.types import is_integer_dtype, is_numeric_dtype
from scipy import sparse

from ._blocks import is_dask_frame
from ._lazy import array_of

if TYPE_CHECKING:
    import dask.dataframe as dd


class Triplets(NamedTuple):
    """What `from_triplets` returns."""

    X: da.Array
    rows: pd.Index
    columns: pd.Index


def from_triplets(
    df: "dd.DataFrame",
    row: str,
    column: str,
    value: str,
    *,
    ids: str = "auto",
    n_blocks: int | None = None,
    n_rows: int | None = None,
    n_columns: int | None = None,
) -> Triplets:
    """Make a sparse matrix from a data frame with one entry in each row.

    The data frame lists entries as row, column and value, such as user, film and stars.
    A shuffle of Dask brings the entries of each block of rows together.

    Parameters
    ----------
    df : dask.dataframe.DataFrame
        One entry of the matrix in each row, in any order, for example from
        ``dask.dataframe.read_parquet(...)``. Entries without a row here, and values of
        NaN, are missing.
    row, column, value : str
        Names of the columns of `df` that hold the row ids, the column ids and the
        values.
    ids : {"auto", "given", "mapped"}, default="auto"
        What the ids are. Leave it at "auto" unless integer ids have large gaps.

        - "given": integers from 0, which are the numbers of rows and columns.
        - "mapped": labels, such as strings. Row k of the matrix is the k-th of the
          sorted ids.
        - "auto": "given" for integers, "mapped" for all other types.
    n_blocks : int, default=None
        Number of blocks of rows, all of about the same size. By default as many as `df`
        has partitions.
    n_rows, n_columns : int, default=None
        Shape of the matrix if ids are given. By default it ends at the largest id,
        which takes a pass over `df`.

    Returns
    -------
    X : dask.array.Array of shape (n_rows, n_columns)
        The matrix. Its chunks are blocks of rows, as sparse CSR arrays. Its type is
        float32 if the values are float32, else float64.
    rows, columns : pandas.Index
        The id of each row and of each column.

    Raises
    ------
    ValueError
        If the ids cannot be numbers of rows or columns. If an entry occurs more than
        once; this error comes when X is computed.

    Notes
    -----
    A fit computes X in every sweep, and the shuffle runs each time. To avoid this, keep
    X on the workers (``X.persist()``), or store its blocks and read them back.

    Examples
    --------
    >>> import pandas as pd
    >>> import dask.dataframe as dd
    >>> from sklearn_mfgd.dask import from_triplets
    >>> ratings = pd.DataFrame(
    ...     {
    ...         "user": ["ida", "bob", "ida", "eve"],
    ...         "film": ["Heat", "Heat", "Alien", "Alien"],
    ...         "stars": [4.0, 2.0, 5.0, 3.0],
    ...     }
    ... )
    >>> df = dd.from_pandas(ratings, npartitions=2)
    >>> X, users, films = from_triplets(df, "user", "film", "stars")
    >>> X.shape, list(users), list(films)
    ((3, 2), ['bob', 'eve', 'ida'], ['Alien', 'Heat'])
    >>> X.compute().toarray()
    array([[0., 2.],
           [3., 0.],
           [5., 4.]])
    """
    _check_frame(df, row, column, value)
    if ids not in ("auto", "given", "mapped"):
        raise ValueError(f"ids must be 'auto', 'given' or 'mapped'; got {ids!r}.")
    rows, columns = _indices(
        [df[row], df[column]], ids, {"n_rows": n_rows, "n_columns": n_columns}
    )
    if len(rows) == 0 or len(columns) == 0:
        raise ValueError("df holds no entries: there is no matrix to make of them.")
    n_blocks = df.npartitions if n_blocks is None else n_blocks
    if n_blocks < 1:
        raise ValueError(f"n_blocks must be at least 1; got {n_blocks}.")
    n_blocks = min(n_blocks, len(rows))
    cuts = np.linspace(0, len(rows), n_blocks + 1).astype(np.int64).tolist()
    dtype = np.dtype(np.float32 if df[value].dtype == np.float32 else np.float64)
    numbered = df[[row, column, value]].map_partitions(
        _numbered,
        delayed(rows, traverse=False),
        delayed(columns, traverse=False),
        dtype,
        meta=_numbered(df._meta[[row, column, value]], rows[:0], columns[:0], dtype),
    )
    # The index of a frame with divisions: each partition holds the rows of a block.
    by_rows = numbered.set_index("row", divisions=cuts)
    make_block = delayed(_sparse_block)
    parts = [
        make_block(frame, start, stop, len(columns))
        for frame, start, stop in zip(
            by_rows.to_delayed(), cuts[:-1], cuts[1:], strict=True
        )
    ]
    return Triplets(_sparse_array(parts, cuts, len(columns), dtype), rows, columns)


def _check_frame(df, row: str, column: str, value: str):
    if not is_dask_frame(df):
        raise TypeError(
            "df must be a dask.dataframe, as of dask.dataframe.read_parquet or "
            f"from_pandas; got {type(df).__name__}."
        )
    for argument, name in (("row", row), ("column", column), ("value", value)):
        if name not in df.columns:
            raise ValueError(
                f"{argument}={name!r} is no column of df, which has {list(df.columns)}."
            )
    if not is_numeric_dtype(df[value].dtype):
        raise ValueError(
            f"Column {value!r} of df must hold the values, which are numbers; it has "
            f"the type {df[value].dtype}."
        )


def _indices(series: list, ids: str, sizes: dict[str, int | None]) -> list[pd.Index]:
    """Find the ids of rows and of columns, where needed by one pass over df."""
    wanted: list[Any] = []
    for some_ids, (argument, size) in zip(series, sizes.items(), strict=True):
        if not _are_numbers(some_ids, ids):
            if size is not None:
                raise ValueError(
                    f"{argument} is for ids that are numbers; those of "
                    f"{some_ids.name!r} are mapped to as many as there are."
                )
            wanted.append(some_ids.drop_duplicates())
        else:
            wanted.append(some_ids.max() if size is None else size)
    found = dask.compute(*wanted)
    return [
        _index(of_ids, some_ids.name, size)
        for of_ids, some_ids, size in zip(found, series, sizes.values(), strict=True)
    ]


def _are_numbers(series: "dd.Series", ids: str) -> bool:
    """Whether ids are given, not mapped."""
    if ids == "given" and not is_integer_dtype(series.dtype):
        raise ValueError(
            f"ids='given' needs integers, but column {series.name!r} of df has the "
            f"type {series.dtype}. Convert it, or use ids='mapped'."
        )
    return ids == "given" or (ids == "auto" and is_integer_dtype(series.dtype))


def _index(found, name: str, size: int | None) -> pd.Index:
    """The ids from what was computed: distinct labels, or the largest number."""
    if isinstance(found, pd.Series):
        labels = pd.Index(_plain(found))
        if labels.hasnans:
            raise ValueError(_missing(name))
        return labels.unique().sort_values()
    if size is None:
        size = 0 if pd.isna(found) else int(found) + 1
    return pd.RangeIndex(max(size, 0))


def _plain(labels: pd.Series) -> pd.Series:
    """Labels in place of categories, which may differ from partition to partition."""
    if isinstance(labels.dtype, pd.CategoricalDtype):
        return labels.astype(labels.cat.categories.dtype)
    return labels


def _missing(name: str) -> str:
    return (
        f"Column {name!r} of df holds a missing id. Drop such rows: "
        f"df.dropna(subset=[{name!r}])."
    )


def _numbered(
    frame: pd.DataFrame, rows: pd.Index, columns: pd.Index, dtype: np.dtype
) -> pd.DataFrame:
    """A partition with numbers of rows and columns in place of ids."""
    values = frame.iloc[:, 2].to_numpy(dtype=dtype, na_value=np.nan)
    return pd.DataFrame(
        {
            "row": _numbers(frame.iloc[:, 0], rows),
            "column": _numbers(frame.iloc[:, 1], columns),
            "value": values,
        }
    )


def _numbers(labels: pd.Series, index: pd.Index) -> np.ndarray:
    """The number of each label."""
    if labels.hasnans:
        raise ValueError(_missing(labels.name))
    numbers = index.get_indexer(_plain(labels))
    outside = np.flatnonzero(numbers < 0)
    if outside.size:
        raise ValueError(
            f"Column {labels.name!r} of df holds the id {labels.iloc[outside[0]]}, but "
            f"ids as given lie in [0, {len(index)}). Use ids='mapped', or a larger "
            "n_rows or n_columns."
        )
    return numbers.astype(np.int64)


def _sparse_block(frame: pd.DataFrame, start: int, stop: int, n_columns: int):
    """The entries of some rows as a sparse matrix, whose numbers are the index."""
    rows = frame.index.to_numpy() - start
    columns = frame["column"].to_numpy()
    order = np.lexsort((columns, rows))
    rows, columns = rows[order], columns[order]
    twice = np.flatnonzero((np.diff(rows) == 0) & (np.diff(columns) == 0))
    if twice.size:
        k = twice[0]
        raise ValueError(
            f"df holds the entry of row {rows[k] + start} and column {columns[k]} (as "
            "numbered in the matrix) more than once. Sum or drop the duplicates first: "
            "which of them is meant, only you can tell."
        )
    counts = np.bincount(rows, minlength=stop - start)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    values = frame["value"].to_numpy()[order]
    shape = (stop - start, n_columns)
    return sparse.csr_array((values, columns.astype(np.int32), indptr), shape)


def _sparse_array(parts: list, cuts: list, n_columns: int, dtype) -> da.Array:
    """A dask.array of sparse blocks of rows."""
    meta = sparse.csr_array((0, 0), dtype=dtype)
    return array_of(parts, np.diff(cuts).tolist(), (n_columns,), meta=meta)
