"""Columns of categories as columns of numbers, and back.

The factorization takes numbers only. Ordered categories become one column of their
positions. Of K unordered categories each has an indicator, which is 0 or 1, and the
expected value of an indicator is a probability. As the indicators of an entry sum to
one, K columns of them are linearly dependent: factors would explain this dependence
without any noise, and predict nothing by it. So they are encoded as their K - 1
principal components, which are uncorrelated, and all of what the indicators tell.

What a linear model expects of an indicator is far from a probability where classes are
many or well apart. A logistic model, the link, turns it into one once it is known.
"""

from typing import Any, NamedTuple, Self

import numpy as np
from scipy.special import softmax

from .tables import check_table, is_frame

NUMBER, ORDERED, UNORDERED = "number", "ordered", "unordered"
MISSING = -1  # the code of a missing category, as pandas has it

# Categories that are stored as they are; of others there is only how they print.
PLAIN = str, bool, int, float

# More than double precision loses of an indicator.
ROUNDING = 1e-12


class Encoding(NamedTuple):
    """What `fit` learned about the columns of a pandas data frame.

    A code is the position of a category among those that its column declared in `fit`.
    All fields have one item per column of the frame, and are of plain content.
    """

    kinds: list[str]
    categories: list[list]  # as declared; empty for numbers
    seen: list[list[int]]  # codes that occurred; empty for numbers
    bases: list[np.ndarray]  # (K, K - 1), components of unordered ones, or empty
    links: list[np.ndarray]  # (K, K), slopes and, last, intercepts of logits; or empty

    @classmethod
    def of(cls, X) -> Self | None:
        """Learn it from X; None without any column of categories."""
        if not has_categories(X):
            return None
        kinds = [kind_of(dtype) for dtype in X.dtypes]
        categories, seen, bases = [], [], []
        for k, (kind, dtype) in enumerate(zip(kinds, X.dtypes, strict=True)):
            counts = np.zeros(0, dtype=np.intp)
            if kind != NUMBER:
                codes = X.iloc[:, k].cat.codes.to_numpy()
                counts = np.bincount(codes[codes != MISSING])
            categories.append([] if kind == NUMBER else _plain_values(dtype))
            seen.append(np.flatnonzero(counts).tolist())
            counts = counts[counts > 0] if kind == UNORDERED else counts[:0]
            bases.append(components_of_indicators(counts))
        links = [np.zeros((0, 0)) for _ in kinds]
        return cls(kinds, categories, seen, bases, links)

    @property
    def widths(self) -> list[int]:
        """Number of encoded columns of each column, at least one."""
        return [max(1, basis.shape[1]) for basis in self.bases]

    @property
    def spans(self) -> list[slice]:
        """The encoded columns of each column."""
        stops = np.cumsum(self.widths).tolist()
        return [
            slice(stop - width, stop)
            for stop, width in zip(stops, self.widths, strict=True)
        ]

    def is_of(self, *kinds: str) -> np.ndarray:
        """Which columns are of one of these kinds."""
        return np.isin(self.kinds, kinds)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Repeat values of columns, along the last axis, for their encoded columns."""
        return np.repeat(values, self.widths, axis=-1)

    def gather(self, values: np.ndarray) -> np.ndarray:
        """Take the value of the first encoded column of each column."""
        return values[..., [span.start for span in self.spans]]

    def encode(self, X) -> np.ndarray:
        """Return all columns as numbers, float64, NaN where missing."""
        codes = check_table(self.coded(X), ensure_all_finite="allow-nan")
        return self.expand(codes, np.isnan(codes))[0]

    def coded(self, X):
        """Return a frame like X that has codes, -1 where missing, for categories."""
        self._check(X)
        coded = X.copy(deep=False)
        for k in np.flatnonzero(~self.is_of(NUMBER)):
            coded.isetitem(k, self._codes_of(X, k).astype(np.float64))
        return coded

    def expand(
        self, codes: np.ndarray, missing: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the encoded columns of `coded` as an array, and what is missing there.

        `missing` says it of the columns of numbers; of the others their codes do.
        """
        missing = np.where(self.is_of(NUMBER), missing, codes == MISSING)
        encoded = np.empty((len(codes), sum(self.widths)))
        for k, span in enumerate(self.spans):
            column = codes[:, [k]]
            if self.kinds[k] == UNORDERED:
                indicators = column == np.array(self.seen[k])
                column = indicators @ self.bases[k] if self.bases[k].size else 0
            encoded[:, span] = column
        missing = self.spread(missing)
        encoded[missing] = np.nan
        return encoded, missing

    def probabilities(self, filled: np.ndarray) -> dict[int, np.ndarray]:
        """Return, by the number of each unordered column, those of its seen categories.

        Expected indicators can lie outside [0, 1] by a little: without a link they are
        replaced by the nearest probabilities. What is observed is certain.
        """
        found = {}
        for k in np.flatnonzero(self.is_of(UNORDERED)):
            basis, n_seen = self.bases[k], len(self.seen[k])
            if not basis.size:
                found[int(k)] = np.ones((len(filled), n_seen))
                continue
            encoded = filled[:, self.spans[k]]
            expected = encoded @ basis.T + 1 / n_seen
            if self.links[k].size:
                link = self.links[k]
                shares = softmax(encoded @ link[:, :-1].T + link[:, -1], axis=1)
            else:
                shares = nearest_probabilities(expected)
            # Observed indicators are whole numbers but for rounding.
            whole = np.rint(expected)
            certain = np.abs(expected - whole).max(axis=1) < ROUNDING
            shares[certain] = whole[certain]
            found[int(k)] = shares
        return found

    def with_link(self, k: int, link: np.ndarray) -> Self:
        """Return the encoding with a link for an unordered column."""
        links = [*self.links]
        links[k] = link
        return self._replace(links=links)

    def seen_positions(self, k: int, encoded: np.ndarray) -> np.ndarray:
        """Return which of the seen categories, by position, encoded entries are of."""
        return (encoded @ self.bases[k].T).argmax(axis=1)

    def codes(self, filled: np.ndarray) -> np.ndarray:
        """Return numbers as they are, and for categories the code of the nearest.

        Of unordered categories it is the code of the most probable one.
        """
        codes = self.gather(filled).astype(np.float64)
        for k in np.flatnonzero(self.is_of(ORDERED)):
            codes[:, k] = np.clip(np.rint(codes[:, k]), 0, len(self.categories[k]) - 1)
        for k, shares in self.probabilities(filled).items():
            if self.seen[k]:
                codes[:, k] = np.take(self.seen[k], shares.argmax(axis=1))
        return codes

    def sampled_codes(
        self, filled: np.ndarray, expected: np.ndarray, rng: np.random.RandomState
    ) -> np.ndarray:
        """Return the codes of samples; unordered ones by probabilities.

        These are of the expected values: a sample of an indicator has noise that no
        probability has.
        """
        codes = self.codes(filled)
        for k, shares in self.probabilities(expected).items():
            if self.seen[k]:
                below = np.cumsum(shares, axis=1) < rng.uniform(size=(len(shares), 1))
                sampled = np.minimum(below.sum(axis=1), len(self.seen[k]) - 1)
                codes[:, k] = np.take(self.seen[k], sampled)
        return codes

    def decode(self, codes: np.ndarray, X, missing: np.ndarray):
        """Return a frame like X with `codes`, or numbers, where values are missing.

        What is observed is X's own, and so is the type of a column unless the imputed
        values do not fit into it.
        """
        decoded = X.copy()
        for k in np.flatnonzero(missing.any(axis=0)):
            column, places = X.iloc[:, k], missing[:, k]
            if self.kinds[k] == NUMBER:
                values = _with_numbers(column, places, codes[:, k])
            else:
                values = self._with_categories(X, k, places, codes[:, k])
            decoded.isetitem(k, values)
        return decoded

    def values_of(self, k: int, dtype) -> list:
        """Return the seen categories of a column, as objects of the type if it can."""
        declared = dict(zip(_plain_values(dtype), dtype.categories, strict=True))
        values = [self.categories[k][code] for code in self.seen[k]]
        return [declared.get(value, value) for value in values]

    def _check(self, X):
        """Refuse what has not the columns of `fit` or other kinds of them."""
        if not (is_frame(X) and hasattr(X, "iloc")):
            raise ValueError(
                "X must be a pandas data frame, as some of its columns in fit were "
                f"categorical; got {type(X).__name__}."
            )
        if X.shape[1] != len(self.kinds):
            raise ValueError(
                f"X must have the {len(self.kinds)} columns of fit; got {X.shape[1]}."
            )
        for name, kind, dtype in zip(X.columns, self.kinds, X.dtypes, strict=True):
            found = kind_of(dtype)
            if found != kind:
                kinds = {NUMBER: "numbers", ORDERED: "ordered categories"}
                kinds[UNORDERED] = "unordered categories"
                raise ValueError(
                    f"Column {name!r} of X held {kinds[kind]} in fit and is of type "
                    f"{dtype} now, read as {kinds[found]}. Convert it with astype to "
                    "the type that it had in fit."
                )

    def _codes_of(self, X, k: int) -> np.ndarray:
        """Codes, in the meaning of `fit`, of a column of categories."""
        column, name = X.iloc[:, k], X.columns[k]
        codes = column.cat.codes.to_numpy()
        if not self.seen[k]:  # nothing is learned of them: one code is as good as any
            return np.where(codes == MISSING, MISSING, 0)
        at = {value: code for code, value in enumerate(self.categories[k])}
        known = self.seen[k] if self.kinds[k] == UNORDERED else at.values()
        unknown = -2
        new = [at.get(value, unknown) for value in _plain_values(column.dtype)]
        new = np.array([*new, MISSING])  # which the code -1 of pandas finds, too
        ranks = new[new >= 0]
        if self.kinds[k] == ORDERED and (np.diff(ranks) < 0).any():
            raise ValueError(
                f"Column {name!r} of X orders its categories otherwise than in fit: "
                f"{self.categories[k]} there. Convert it with astype to the type that "
                "it had in fit."
            )
        found = new[codes]
        strange = np.flatnonzero((found != MISSING) & ~np.isin(found, list(known)))
        if strange.size:
            row = strange[0]
            raise ValueError(
                f"Column {name!r} of X holds the category {column.iloc[row]!r} in row "
                f"{row}, which did not occur in fit. Fit with rows that have it, or "
                "mark it as missing."
            )
        return found

    def _with_categories(self, X, k: int, missing, codes):
        """Return the column with categories filled in, of its own type if they fit."""
        column = X.iloc[:, k]
        dtype, declared = column.dtype, _plain_values(column.dtype)
        if not self.seen[k]:
            if not declared:
                raise ValueError(
                    f"Column {X.columns[k]!r} of X had no values in fit and declares "
                    "no categories, so nothing can be imputed. Drop it, or use "
                    "keep_empty_features=False."
                )
            filled = np.where(missing, 0, column.cat.codes)
            return type(column.array).from_codes(filled, dtype=dtype)
        own = {value: code for code, value in enumerate(declared)}
        at = np.array([own.get(value, MISSING) for value in self.categories[k]])
        wanted = codes[missing].astype(np.intp)
        filled = column.cat.codes.to_numpy().astype(np.intp)
        needed = self.seen[k] if self.kinds[k] == UNORDERED else slice(None)
        if (at[needed] == MISSING).any():
            dtype = self._dtype_of_fit(X, k)
            filled = self._codes_of(X, k).astype(np.intp)
            at = np.arange(len(at))
        filled[missing] = at[wanted]
        return type(column.array).from_codes(filled, dtype=dtype)

    def _dtype_of_fit(self, X, k: int):
        """The categorical type that the column had in `fit`."""
        dtype = X.dtypes.iloc[k]
        if not all(isinstance(value, PLAIN) for value in dtype.categories):
            raise ValueError(
                f"Column {X.columns[k]!r} of X does not declare all categories of fit, "
                "which may be imputed. Convert it with astype to the type that it had "
                "in fit."
            )
        return type(dtype)(self.categories[k], ordered=self.kinds[k] == ORDERED)


def has_categories(X) -> bool:
    """Whether X is a pandas data frame with a column of categories."""
    if not (is_frame(X) and hasattr(X, "iloc")):
        return False
    return any(kind_of(dtype) != NUMBER for dtype in X.dtypes)


def kind_of(dtype) -> str:
    """What a column of this type is read as: categories are those of pandas."""
    if str(dtype) != "category":
        return NUMBER
    return ORDERED if dtype.ordered else UNORDERED


def components_of_indicators(counts: np.ndarray) -> np.ndarray:
    """Return the principal components of the indicators of categories, as columns.

    The component that is left out is their sum, which is constant.
    """
    if len(counts) < 2:
        return np.zeros((0, 0))
    shares = counts / counts.sum()
    covariance = np.diag(shares) - np.outer(shares, shares)
    return np.linalg.eigh(covariance)[1][:, 1:]


def nearest_probabilities(values: np.ndarray) -> np.ndarray:
    """Return, for each row, the nearest point with shares that sum to one.

    This is the projection to the simplex: what is subtracted from all values of a row
    is such that those that stay positive sum to one.
    """
    descending = -np.sort(-values, axis=1)
    excess = np.cumsum(descending, axis=1) - 1
    counts = np.arange(1, values.shape[1] + 1)
    n_positive = np.count_nonzero(descending * counts > excess, axis=1)[:, None]
    shift = np.take_along_axis(excess, n_positive - 1, axis=1) / n_positive
    return np.clip(values - shift, 0, 1)


def _plain_values(dtype) -> list:
    """Return what identifies each category: itself, or how other objects print."""
    values = [
        value.item() if isinstance(value, np.generic) else value
        for value in dtype.categories
    ]
    return [value if isinstance(value, PLAIN) else repr(value) for value in values]


def _with_numbers(column, missing: np.ndarray, numbers: np.ndarray) -> Any:
    """Return a column of numbers with some filled in, of its own type if they fit."""
    dtype, values = column.dtype, numbers[missing]
    if isinstance(dtype, np.dtype) and dtype.kind == "f":
        filled = column.to_numpy(copy=True)
        filled[missing] = values.astype(dtype)
        return filled
    if str(dtype) in ("Float32", "Float64"):
        filled = column.array.copy()
    elif str(dtype) == "boolean" or str(dtype).startswith(("Int", "UInt")):
        with np.errstate(invalid="ignore"):  # what is out of range does not fit
            narrow = values.astype(dtype.numpy_dtype)
        if (narrow == values).all():
            values, filled = narrow, column.array.copy()
        else:
            filled = column.array.astype("Float64")
    else:  # no type that holds both: floats, as of an array
        return numbers
    filled[missing] = values
    return filled
