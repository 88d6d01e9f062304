"""What the estimators share: parameters, conventions, and what factors are for."""

import warnings
from copy import copy
from functools import partial
from numbers import Integral, Real

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from ._bayes.moments import unpack
from ._callbacks import CallbackSupportMixin, FitTasks
from ._data.matrix import matrix_of, scale_exponent, unit_exponent
from ._data.observed import SPARSE_FORMATS, check_sparse, observe, warn_if_constant
from ._data.occupied import Occupied
from ._data.tables import FLOATS, check_table
from ._data.target import check_target
from ._data.units import in_range, rescale, times_power
from ._fit import factorize
from ._guard import all_or_nothing
from ._kernels.dispatch import entry_products
from ._kernels.linalg import row_slices
from ._kernels.rows import Biases, Rows
from ._optim.init import given_factors
from ._optim.objective import objective_of
from ._optim.penalty import Ridge, penalties_of
from ._optim.score import explained_share
from ._optim.steps import STEPS
from ._persistence import PlainStateMixin

# Of two, in what a covariance may be multiplied with.
LARGEST_EXPONENT = 1000

KEYWORDS = "pass it by its name, mask= or entry_weight="


class BaseMatrixFactorization(
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    PlainStateMixin,
    BaseEstimator,
):
    """Fit, fold in, reconstruct and score; subclasses hold parameters and defaults."""

    _unstored_is_zero = False
    _parameter_constraints: dict = {
        "rank": [Interval(Integral, 1, None, closed="left")],
        "eta": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "solver": [StrOptions({"auto", "sgd", *STEPS})],
        "reg": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "noise": [StrOptions({"column", "shared"})],
        "pattern": ["boolean"],
        "n_draws": [Interval(Integral, 0, None, closed="left")],
        "fit_bias": ["boolean", StrOptions({"columns"})],
        "init": [StrOptions({"svd", "random"}), tuple, list],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
    }

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, mask=None, entry_weight=None):
        """Factorize the observed entries of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The matrix; NaN and what a masked array masks is missing. What a sparse X
            does not store is missing too in MaskedGradientMF, an observed zero in
            GradientMF.
        y : Ignored
            Not used, present for API consistency by convention.
        mask : array-like of bool of shape (n_samples, n_features), default=None
            True where X is observed, in addition to NaN.
        entry_weight : array-like of shape (n_samples, n_features), default=None
            Weight of the squared error of each entry; 0 means missing. For a sparse X
            also sparse, with the same entries stored.

        Returns
        -------
        self : object
            Fitted estimator.

        Raises
        ------
        ValueError
            When no entry is observed, a parameter does not suit the data, or y is a
            mask.
        DivergenceError
            When a fixed `eta` makes the objective grow.
        """
        self._fit(X, y, mask, entry_weight, factors=False)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def fit_transform(self, X, y=None, *, mask=None, entry_weight=None):
        """Factorize the observed entries of X and return its row factors.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The matrix; NaN and what a masked array masks is missing. What a sparse X
            does not store is missing too in MaskedGradientMF, an observed zero in
            GradientMF.
        y : Ignored
            Not used, present for API consistency by convention.
        mask : array-like of bool of shape (n_samples, n_features), default=None
            True where X is observed, in addition to NaN.
        entry_weight : array-like of shape (n_samples, n_features), default=None
            Weight of the squared error of each entry; 0 means missing. For a sparse X
            also sparse, with the same entries stored.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_factors) or (n_samples, n_factors + 1)
            What ``fit(X).transform(X)`` returns: one column for each row of
            `components_`, and with row biases (``fit_bias=True``) one more.
        """
        return self._fit(X, y, mask, entry_weight)

    def transform(self, X, *, mask=None, entry_weight=None, return_cov=False):
        r"""Fold rows in: the row factors given `components_`.

        With ``reg="auto"`` these are the means of their posterior, given the posterior
        of the columns. With a number each row minimizes

        .. math::

            \tfrac12 \sum_{j \text{ observed}} s_j (x_j - \mu - c_j - b - w \cdot h_j)^2
            + \tfrac12 \, \mathrm{reg} \, (\|w\|^2 + b^2)

        (s the weights, 1 by default) by itself, so neither the other rows nor their
        order matter. Where many row
        factors do, the one of least norm is taken, in units in which the data of `fit`
        are of order one; a row with nothing observed gets zeros.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows seen in `fit` or new ones; NaN means missing.
        mask : array-like of bool of shape (n_samples, n_features), default=None
            True where X is observed, in addition to NaN.
        entry_weight : array-like of shape (n_samples, n_features), default=None
            Weight of the squared error of each entry; 0 means missing. For a sparse X
            also sparse, with the same entries stored.
        return_cov : bool, default=False
            Whether to return how uncertain the factors are, too. Only with
            ``reg="auto"``.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_factors) or (n_samples, n_factors + 1)
            Row factors, one column for each row of `components_`. With row biases
            (``fit_bias=True``) the last column is the bias of the row.
        covariance : ndarray of shape (n_samples, Z.shape[1], Z.shape[1])
            Posterior covariance of each row of Z, float64 where the squares of X are
            too large for float32. Only with ``return_cov=True``.
        """
        check_is_fitted(self)
        if return_cov:
            self._check_learned("return_cov=True")
            self._check_squares()
        entries = self._entries(X, mask, entry_weight)
        if not return_cov:
            return self._fold_in(entries)
        rows = entries.listed().rows
        W, packed = self._learned.fold_in(rows, with_covariances=True)
        unit = times_power(1.0, self._exponent * self._orders())
        units = np.outer(unit, unit)
        dtype = W.dtype  # or double precision, where squares have no place in single
        if packed.size and units.max() > np.finfo(dtype).max / max(1, packed.max()):
            dtype = np.float64
        covariance = np.empty((len(W), *units.shape), dtype)
        for part in row_slices(len(W), units.size):
            covariance[part] = units * unpack(packed[part], len(unit))
        return rescale(W, self._biases.row, self._exponent), covariance

    def inverse_transform(self, Z):
        """Reconstruct the complete rows: ``mean + column biases + W @ components_``.

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_factors) or (n_samples, n_factors + 1)
            Row factors as `transform` returns them.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            Without missing values.
        """
        check_is_fitted(self)
        Z = self._check_factors(Z)
        H = self.components_.T.astype(Z.dtype, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):
            X = Z[:, : H.shape[1]] @ H.T
            X += (self.mean_ + self.column_bias_).astype(Z.dtype)
            if self._biases.row:
                X += Z[:, -1:]
        return _refuse_overflow(X)

    def predict_entries(self, Z, rows, columns, *, covariance=None, return_std=False):
        """Reconstruct chosen entries, for matrices too large to be written out.

        Parameters
        ----------
        Z : array-like of shape (n_samples, n_factors) or (n_samples, n_factors + 1)
            Row factors as `transform` returns them.
        rows, columns : array-like of int of shape (n_entries,)
            Which entries: ``inverse_transform(Z)[rows, columns]``.
        covariance : array-like of shape (n_samples, Z.shape[1], Z.shape[1])
            What ``transform(X, return_cov=True)`` returns with Z. Needed for
            `return_std`.
        return_std : bool, default=False
            Whether to return how far observed entries are expected to be off, too.

        Returns
        -------
        x : ndarray of shape (n_entries,)
            The reconstructed entries.
        std : ndarray of shape (n_entries,)
            Standard deviation of an observation of each entry: of the noise, of the
            row factors and of the column factors. Only with ``return_std=True``.
        """
        check_is_fitted(self)
        Z = self._check_factors(Z)
        rows = _check_indices(rows, len(Z), "rows")
        columns = _check_indices(columns, self.n_features_in_, "columns")
        if rows.shape != columns.shape:
            raise ValueError(
                f"rows and columns must have the same length; got {len(rows)} and "
                f"{len(columns)}."
            )
        H = self.components_.T.astype(Z.dtype, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):
            x = entry_products(Z[:, : H.shape[1]], H, rows, columns)
            x += (self.mean_ + self.column_bias_).astype(Z.dtype)[columns]
            if self._biases.row:
                x += Z[rows, -1]
        _refuse_overflow(x)
        if not return_std:
            return x
        return x, self._deviations(Z, rows, columns, covariance)

    def _deviations(self, Z, rows, columns, covariance):
        self._check_learned("return_std=True")
        shape = (len(Z), Z.shape[1], Z.shape[1])
        if covariance is None or np.shape(covariance) != shape:
            raise ValueError(
                f"return_std=True needs the covariance of shape {shape} that "
                "transform(X, return_cov=True) returns with Z; got "
                f"{None if covariance is None else np.shape(covariance)}."
            )
        covariance = check_array(
            covariance, dtype=FLOATS, allow_nd=True, input_name="covariance"
        )
        unit = times_power(1.0, -self._exponent * self._orders())
        covariance = covariance * np.outer(unit, unit)
        variances = self._learned.variances(Z * unit, covariance, rows, columns)
        deviations = times_power(np.sqrt(variances), 2 * self._exponent)
        return deviations.astype(Z.dtype, copy=False)

    def _sample_entries(self, X, rows, columns, number, rng, limits=None):
        """Sample chosen entries of X given the columns of one of the draws."""
        entries = self._entries(X, None, None)
        draws, observed = self._draws.astype(entries.dtype), entries.listed().rows
        if limits is not None:
            limits = [
                times_power(limit, -2 * self._exponent) - entries.mean
                for limit in limits
            ]
        x = draws.sample(number, observed, rows, columns, rng, limits)
        return times_power(x + entries.mean, 2 * self._exponent)

    def score(self, X, y=None, *, mask=None, entry_weight=None):
        r"""Predict entries of X that were hidden, and return the share explained.

        The k-th observed entry of a row belongs to fold k mod 5. Each fold is predicted
        from a fold-in on the other four, and the score is

        .. math::

            Q^2 = 1 - \frac{\sum (x_{ij} - \hat x_{ij})^2}{\sum (x_{ij} - \bar x_j)^2}

        with the column means of `fit`: 1 is perfect, 0 no better than column means. It
        does not grow with the rank for ever, as the error of a reconstruction does.
        On rows that `fit` did not see it is bi-cross-validation [1]_.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows, best such as `fit` has not seen; NaN means missing.
        y : Ignored
            Not used, present for API consistency by convention.
        mask : array-like of bool of shape (n_samples, n_features), default=None
            True where X is observed, in addition to NaN.
        entry_weight : array-like of shape (n_samples, n_features), default=None
            Weight of the squared error of each entry; 0 means missing. For a sparse X
            also sparse, with the same entries stored.

        Returns
        -------
        score : float
            Q². With a denominator of zero: 1.0 when every prediction is right, else
            0.0, as in :func:`sklearn.metrics.r2_score`.

        References
        ----------
        .. [1] A. B. Owen, P. O. Perry, "Bi-Cross-Validation of the SVD and the
           Nonnegative Matrix Factorization", Annals of Applied Statistics 3 (2009).
        """
        check_is_fitted(self)
        check_target(y, X, KEYWORDS)
        entries = self._entries(X, mask, entry_weight)
        if entries.n_observed == 0:
            raise ValueError("There is nothing to score: every entry of X is missing.")
        H = self._column_factors(entries.dtype)
        centre = times_power(self.column_mean_, -2 * self._exponent) - entries.mean
        fold_in = partial(self._row_factors, H=H)
        return explained_share(entries, H, fold_in, centre, self._biases)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        by_entry = self.early_stopping or self.reg == "auto" or self.solver == "sgd"
        tags.input_tags.sparse = not (self._unstored_is_zero and by_entry)
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def __sklearn_is_fitted__(self):
        return hasattr(self, "components_")

    @property
    def _n_features_out(self):
        return len(self.components_) + self._biases.row

    def _fit(self, X, y, mask, entry_weight, factors=True):
        """Fit, or leave the estimator as it was: an error or Ctrl-C changes nothing."""
        check_target(y, X, KEYWORDS)
        # Outside of the guard, which would lose what ends the callbacks after an error.
        tasks = None
        if hasattr(self, "_skl_callbacks"):
            tasks = FitTasks(self, X, y, {"mask": mask, "entry_weight": entry_weight})
        arguments = X, mask, entry_weight, tasks, factors
        return all_or_nothing(self, self._fit_unguarded, *arguments)

    def _fit_unguarded(self, X, mask, entry_weight, tasks, factors):
        if self.reg == "auto" and self.solver in ("gd", "scaled", "sgd"):
            raise ValueError(
                f"reg='auto' works with solver='als' or 'auto'; solver={self.solver!r} "
                "needs a number for reg."
            )
        if self.n_draws and self.reg != "auto":
            raise ValueError(
                f"n_draws={self.n_draws} draws from what reg='auto' learns; with "
                f"reg={self.reg!r} use n_draws=0."
            )
        if self.n_draws and self.warm_start:
            raise ValueError(
                "warm_start=True continues one fit, not draws: use n_draws=0."
            )
        if self.reg == "auto" and self.eta != "auto":
            raise ValueError(
                f"reg='auto' has no steps to choose; eta={self.eta!r} needs a number "
                "for reg."
            )
        X = self._validate(X, reset=True)
        observed = self._observe(X, mask, entry_weight)
        if isinstance(observed, Rows):
            if observed.indices.size == 0:
                raise ValueError(
                    "There is nothing to fit: every entry of X is missing."
                )
            warn_if_constant(observed.values, X.shape)
        occupied, observed = Occupied.of(observed)
        biases = Biases(row=self.fit_bias is True, column=self.fit_bias is not False)
        exponent = scale_exponent(observed)
        entries = matrix_of(observed, exponent=exponent, centred=biases.column)
        if self.reg == "auto":
            exponent = unit_exponent(entries, exponent)
            entries = matrix_of(observed, exponent=exponent, centred=biases.column)
        del observed  # as large as the entries
        about = occupied, entries, biases, exponent
        monitor = partial(self._monitor, tasks, about)
        found = factorize(
            entries,
            self.get_params(deep=False) | {"init": self._start(occupied, X, exponent)},
            biases=biases,
            exponent=exponent,
            start=self._warm_start(X, biases, exponent, occupied),
            rng=check_random_state(self.random_state),
            monitor=monitor if self.verbose or tasks is not None else None,
            factors=factors,
        )
        self._set_fitted(found, *about)
        if tasks is not None:
            tasks.end()
        descent = found.descent
        if not descent.converged and self.tol > 0:
            warnings.warn(
                f"The fit had not converged to tol={self.tol:g} after "
                f"{descent.n_iter} sweeps. Increase max_iter, or tol.",
                ConvergenceWarning,
                stacklevel=4,
            )
        if not factors:
            return None
        return occupied.spread_rows(rescale(found.W, biases.row, exponent))

    def _monitor(self, tasks, about, descent, finish):
        """Report a sweep; return whether a callback asks for the fit to end there."""
        *_, entries, _, exponent = about
        if self.verbose and descent.n_iter:
            loss = self._losses(descent.loss_curve[-1:], entries, exponent)[0]
            _print_progress(loss, 4.0**exponent, descent)
        return tasks is not None and tasks.advance(
            descent, lambda: self._fitted(finish(), *about)
        )

    def _fitted(self, *found):
        """What `_set_fitted` would make of the estimator, which stays as it is."""
        model = copy(self)
        model._set_fitted(*found)
        return vars(model)

    def _set_fitted(self, found, occupied, entries, biases, exponent):
        """Store the factorization in the units of the data."""
        dtype, descent = entries.dtype, found.descent
        H = occupied.spread_columns(rescale(found.H, biases.column, exponent))
        unit = times_power(1.0, 2 * exponent)
        self._biases, self._exponent, self._centre = biases, exponent, entries.mean
        n_factors = H.shape[1] - biases.column
        self.components_ = np.ascontiguousarray(H[:, :n_factors].T)
        learned, draws = (
            None if known is None else known._replace(columns=occupied.numbers())
            for known in (found.learned, found.draws)
        )
        self.rank_ = n_factors if learned is None else learned.rank
        bias = H[:, -1] if biases.column else np.zeros(len(H), dtype)
        self.column_bias_ = bias.copy()
        self.mean_ = entries.mean * unit
        means = occupied.spread_columns(entries.column_means(), entries.mean)
        self.column_mean_ = (means * unit).astype(dtype)
        self._draws = draws
        self._set_learned(learned)
        self.eta_ = descent.step
        if self.eta == "auto" and self.solver in ("gd", "sgd"):
            self.eta_ /= unit  # back from the units of the solver
        self.n_iter_ = descent.n_iter
        self.loss_curve_ = self._losses(descent.loss_curve, entries, exponent)
        self.validation_curve_ = (
            [error * unit for error in descent.validation_curve]
            if self.early_stopping
            else None
        )
        error = np.sqrt(2 * found.loss)
        self.reconstruction_err_ = float(in_range(error, 2 * exponent))

    def _losses(self, curve, entries, exponent):
        """Objective in the units of the data, or the evidence of data in these."""
        if self.reg != "auto":
            return in_range(curve, 4 * exponent).tolist()
        n_observed = entries.n_observed
        if self.early_stopping:
            n_observed -= int(self.validation_fraction * n_observed)
        return (np.array(curve) - n_observed * exponent * np.log(4)).tolist()

    def _set_learned(self, learned):
        """Store what was learned besides the factors, None without."""
        self._learned = learned
        self.noise_variance_ = self.row_precision_ = self.column_precision_ = None
        if learned is None:
            return
        variance = in_range(1 / learned.noise_precision, 4 * self._exponent)
        self.noise_variance_ = variance[:-1]
        if learned.columns is not None:
            self.noise_variance_ = variance[learned.columns]
        if self.noise == "shared":
            self.noise_variance_ = float(variance[0])
        self.row_precision_, self.column_precision_ = (
            in_range(precision[: self.rank_], -2 * self._exponent)
            for precision in (learned.row_precision, learned.column_precision)
        )

    def _start(self, occupied, X, exponent):
        """The parameter `init`: given factors are checked and in the solvers' units."""
        if isinstance(self.init, str):
            return self.init
        W, H = given_factors(self.init, X.shape, self.rank, X.dtype, exponent)
        return occupied.take_rows(W), occupied.take_columns(H)

    def _warm_start(self, X, biases, exponent, occupied):
        """Column factors of the last fit, or None before the first."""
        if not (self.warm_start and self.__sklearn_is_fitted__()):
            return None
        rank, n = self.components_.shape
        same_rank = rank == self.rank or (self.reg == "auto" and rank < self.rank)
        if not same_rank or n != X.shape[1] or self._biases != biases:
            raise ValueError(
                "warm_start=True continues a fit with components_ of shape "
                f"{self.components_.shape} and fit_bias of the same kind; got rank="
                f"{self.rank}, {X.shape[1]} features and fit_bias={self.fit_bias!r}. "
                "Use warm_start=False to start afresh."
            )
        return occupied.take_columns(self._column_factors(X.dtype, exponent))

    def _validate(self, X, *, reset):
        zero = self._unstored_is_zero
        checked = check_table(
            check_sparse(X, type(self).__name__, unstored_is_zero=zero),
            estimator=self,
            unstored="zero" if zero else "missing",
            accept_sparse=("csr", "csc") if zero else SPARSE_FORMATS,
            ensure_all_finite="allow-nan",
        )
        validate_data(self, X, reset=reset, skip_check_array=True)  # names of features
        return checked

    def _observe(self, X, mask, entry_weight):
        """Find the observed entries of validated X."""
        return observe(X, mask, entry_weight, unstored_is_zero=self._unstored_is_zero)

    def _entries(self, X, mask, entry_weight):
        """Prepare rows for the fitted model."""
        X = self._validate(X, reset=False)
        return matrix_of(
            self._observe(X, mask, entry_weight),
            exponent=self._exponent,
            mean=self._centre,
        )

    def _column_factors(self, dtype, exponent=None):
        """The fitted H, in the units of the solvers."""
        exponent = self._exponent if exponent is None else exponent
        H = self.components_.T
        if self._biases.column:
            H = np.column_stack([H, self.column_bias_])
        return rescale(H.astype(dtype), self._biases.column, -exponent)

    def _row_factors(self, entries, columns, *, H):
        """Rows folded in from some of the columns, in the units of the solvers."""
        if self._draws is not None:
            draws = self._draws.astype(entries.dtype).take(columns)
            return draws.fold_in(entries.listed().rows)
        if self._learned is not None:
            learned = self._learned.take(columns)
            return learned.fold_in(entries.listed().rows)[0]
        ridge = Ridge(self.reg, self.reg)
        penalties = penalties_of(self.rank_, self._biases, ridge, self._exponent)
        objective = objective_of(entries, self._biases)
        return objective.least_squares(H[columns], penalties[0].ridge)

    def _fold_in(self, entries):
        H = self._column_factors(entries.dtype) if self._learned is None else None
        W = self._row_factors(entries, slice(None), H=H)
        return rescale(W, self._biases.row, self._exponent)

    def _orders(self):
        """Powers of the unit in which the columns of Z count: factors 1, biases 2."""
        return np.repeat([1, 2], [self.rank_, self._biases.row])

    def _check_learned(self, what):
        if self._learned is None or self._draws is not None:
            raise ValueError(
                f"{what} needs a fit with reg='auto' and n_draws=0, which learns how "
                f"uncertain its factors are; this one had reg={self.reg!r} and "
                f"n_draws={self.n_draws}."
            )

    def _check_squares(self):
        """Refuse to square factors and biases whose squares are no floats."""
        if 2 * abs(self._exponent) * self._orders().max() > LARGEST_EXPONENT:
            raise ValueError(
                "return_cov=True needs the squares of values of the size of "
                f"{times_power(1.0, 2 * self._exponent):.1g}, as X has them, which are "
                "beyond the range of float64. Fit to X in another unit."
            )

    def _check_factors(self, Z):
        Z = check_array(Z, dtype=FLOATS, input_name="Z")
        if Z.shape[1] != self._n_features_out:
            raise ValueError(
                f"Z must have {self._n_features_out} columns, as transform returns "
                f"them; got {Z.shape[1]}."
            )
        return Z


def _refuse_overflow(X):
    if not np.isfinite(X).all():
        raise ValueError(
            f"Factors as large as those of Z and components_ have products beyond the "
            f"range of {X.dtype}. Fit with a larger reg, or to data in other units."
        )
    return X


def _print_progress(loss, unit, descent):
    name = "objective" if descent.state is None else "evidence"
    line = f"Sweep {descent.n_iter}: {name} {loss:.6g}"
    if descent.validation_curve:
        line += f", held-out error {descent.validation_curve[-1] * unit:.6g}"
    print(line)


def _check_indices(indices, length, name):
    indices = np.asarray(indices)
    if indices.size == 0:  # an empty list has no type
        indices = indices.astype(np.intp)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise ValueError(f"{name} must be a one-dimensional array of integers.")
    outside = np.flatnonzero((indices < 0) | (indices >= length))
    if outside.size:
        raise ValueError(
            f"{name}[{outside[0]}] is {indices[outside[0]]}; it must lie in "
            f"[0, {length})."
        )
    return indices
