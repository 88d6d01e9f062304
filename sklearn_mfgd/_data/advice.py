"""What to do about a table that is refused: advice with code that can be copied."""

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

DATES = ("datetime", "timestamp")
DURATIONS = ("timedelta64", "duration")


class Column(NamedTuple):
    """A column of a table X that is refused, or all of X where the name is None.

    `takes_categories` and `times` are of the caller: "time" for a parameter that names
    a column of times, "times" for an argument of `fit` only, "" for neither.
    """

    X: Any
    name: Any
    takes_categories: bool = False
    times: str = ""

    @property
    def _is_pandas(self) -> bool:
        return hasattr(self.X, "iloc")

    @property
    def _is_polars(self) -> bool:
        return hasattr(self.X, "columns") and not self._is_pandas

    @property
    def _at(self) -> str:
        """Code of the column."""
        if self.name is None:
            return "X"
        is_frame = self._is_pandas or self._is_polars
        return f"X[{self.name!r}]" if is_frame else f"X[:, {self.name}]"

    @property
    def _others(self) -> str:
        """Code of the table without the column."""
        if self._is_pandas:
            return f"X.drop(columns={self.name!r})"
        if self._is_polars:
            return f"X.drop({self.name!r})"
        return f"np.delete(X, {self.name}, axis=1)"

    def _leave_out(self) -> str:
        if self.name is None:
            return ""
        advice = f" To leave the column out, use {self._others}"
        if self._is_pandas:
            advice += (
                ", or in a pipeline a ColumnTransformer with "
                "make_column_selector(dtype_include='number')"
            )
        return f"{advice}."

    def of_mark(self, mark: str) -> str:
        """Advise on a text in a column of numbers."""
        advice = f"If {mark!r} marks a missing value, use "
        if self._is_pandas:
            return (
                f"{advice}X = X.replace({mark!r}, np.nan), or for all such marks "
                f"{self._at} = pd.to_numeric({self._at}, errors='coerce')."
            )
        if self._is_polars:
            cast = f"pl.col({self.name!r}).cast(pl.Float64, strict=False)"
            return f"{advice}X = X.with_columns({cast})."
        numbers = "pd.DataFrame(X).apply(pd.to_numeric, errors='coerce')"
        return f"{advice}X = {numbers}, which makes NaN of all that is no number."

    def of_categories(self, kind: str = "text") -> str:
        """Advise on text, or on a type of categories that the caller does not take."""
        if self.takes_categories:
            what = "If it holds categories, use " if kind == "text" else "Use "
            as_category = f".astype({{{self.name!r}: 'category'}})"
            if self._is_pandas:
                frame = "X"
            else:
                frame = "X.to_pandas()" if self._is_polars else "pd.DataFrame(X)"
            advice = f"{what}X = {frame}{as_category}: missing ones are imputed, too."
        else:
            encode = f"(OneHotEncoder(sparse_output=False), [{self.name!r}])"
            advice = (
                f"Encode it: make_column_transformer({encode}, "
                "remainder='passthrough'), or with an OrdinalEncoder if the categories "
                "have an order."
            )
            if kind != "text" and self._is_pandas:
                number = f"{self._at} = {self._at}.astype(float)"
                advice += f" If they are quantities, use {number}."
        return advice + self._leave_out()

    def of_times(self, dtype) -> str:
        """Advise on dates, durations and other times of a type."""
        advice = "Turn it into numbers"
        code = self._as_hours(str(dtype).lower())
        advice += f": {code}." if code else ", such as hours since a start."
        if self.times and self.name is not None:
            is_name = isinstance(self.name, str) and not isinstance(self.X, np.ndarray)
            if self.times == "time" and is_name:
                way = f"use MFImputer(time={self.name!r})"
            else:
                way = f"use fit({self._others}, times={self._at})"
                way += "" if self.times == "time" else ", which needs reg='auto'"
            advice += f" If it is the time of each row, {way}."
        return advice + self._leave_out()

    def _as_hours(self, dtype: str) -> str:
        """Code that turns dates or durations into numbers; "" for other types."""
        is_date, at = dtype.startswith(DATES) or dtype == "date", self._at
        if not (is_date or dtype.startswith(DURATIONS)):
            return ""
        if self._is_polars:
            number = "dt.epoch('s')" if is_date else "dt.total_seconds()"
            return f"X = X.with_columns(pl.col({self.name!r}).{number})"
        if self._is_pandas:
            since = f"({at} - {at}.min())" if is_date else at
            return f"{at} = {since} / pd.Timedelta('1h')"
        if self.name is None:
            since = "(X - X.min())" if is_date else "X"
            return f"X = {since} / np.timedelta64(1, 'h')"
        return ""

    def of_objects(self) -> str:
        """Advise on Python objects that are neither text nor times."""
        return f"Turn it into numbers.{self._leave_out()}"

    def of_complex_numbers(self) -> str:
        """Advise on complex numbers."""
        whole = "X.data" if sparse.issparse(self.X) else "X"
        at = whole if self.name is None else self._at
        return f"Use np.real({at}) or np.abs({at})."


def where_not_finite(X, is_wrong) -> str | None:
    """Say where the first value is for which ``is_wrong(values)``; None without any."""
    if sparse.issparse(X):
        X = X.tocoo()
        wrong = np.flatnonzero(is_wrong(X.data))
        if not wrong.size:
            return None
        return f"column {X.coords[1][wrong[0]]}, row {X.coords[0][wrong[0]]}"
    names = list(X.columns) if hasattr(X, "columns") else None
    values = np.asarray(X, dtype=np.float64)
    places = np.argwhere(is_wrong(values))
    if not places.size:
        return None
    row, column = places[0]
    return f"column {column if names is None else repr(names[column])}, row {row}"


def instead_of_infinity(X) -> str:
    """Code that marks infinite values as missing."""
    if hasattr(X, "iloc"):
        return "X = X.replace([np.inf, -np.inf], np.nan)"
    if hasattr(X, "columns"):
        return "X = X.with_columns(pl.all().replace([np.inf, -np.inf], None))"
    if sparse.issparse(X):
        return "X.data[np.isinf(X.data)] = np.nan"
    return "X = np.where(np.isinf(X), np.nan, X)"


def instead_of_other_names(X, names: list) -> str:
    """Advise on a frame without the columns of these names, or with others, too."""
    is_pandas = hasattr(X, "iloc")
    found = list(X.columns)
    unseen = [name for name in found if name not in names]
    absent = [name for name in names if name not in found]
    chosen = "X[model.feature_names_in_]"
    if not is_pandas:
        chosen = "X.select(list(model.feature_names_in_))"
    if not absent:
        return f"Use {chosen}, which has the columns of fit in their order."
    advice = "X.reindex(columns=model.feature_names_in_) fills it with NaN."
    if not is_pandas:
        advice = f"X.with_columns(pl.lit(None).alias({absent[0]!r})) makes it."
    advice = f"If {absent[0]!r} is not known, {advice}"
    if unseen:
        new = f"{{{unseen[0]!r}: {absent[0]!r}}}"
        rename = f"X.rename(columns={new})" if is_pandas else f"X.rename({new})"
        advice = f"If it was renamed, use {rename}. {advice}"
    return advice
