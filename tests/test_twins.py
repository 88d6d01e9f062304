"""The compiled kernels against those in NumPy, which specify them."""

import contextlib
import importlib
import os
import sys
from functools import cache
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import sklearn_mfgd
from sklearn_mfgd._kernels import backend, dispatch, numpy_kernels

# Around the widths of registers (2 to 16 numbers), of tiles (4, 8) and of three tiles.
RANKS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 25, 31, 32, 33, 48, 49]
RANKS += [64, 65, 97, 128, 130]
LARGE = 64  # from here on there are only more tiles: two kinds of rows tell
BIASES = [(False, False), (True, False), (False, True), (True, True)]
FLAGS = [(*biases, weighted) for biases in BIASES for weighted in (False, True)]

# Sums of about a thousand terms differ in their order alone; so do systems, magnified
# by their condition, which is below 1000 here. Neither is near a last digit.
TOLERANCE = {np.float64: 1e-10, np.float32: 1e-4}
OF_SYSTEMS = {np.float64: 1e-10, np.float32: 1e-3}

GUARD = 77  # value of what no kernel may write to
MARGIN = 33  # numbers on either side of an array: no multiple of a register


INSTRUCTIONS = ["base", "avx2", "avx512"]


def available(names):
    """Return those that the processor and the build have; without a build the first."""
    try:
        kernels = importlib.import_module("sklearn_mfgd._kernels.compiled")
    except ImportError:
        return names[:1]
    found = []
    for name in names:
        with contextlib.suppress(ImportError):
            kernels.choose(name)
            found.append(name)
    if backend.kernels is kernels:  # as it was
        kernels.choose(os.environ.get("SKLEARN_MFGD_KERNELS", ""))
    return found


@pytest.fixture(scope="module", params=available([*INSTRUCTIONS, "emulated"]))
def compiled(request, compiled_kernels):
    """Return the compiled kernels, with each of the vector instructions in turn."""
    before = compiled_kernels.instructions()
    compiled_kernels.choose(request.param)
    yield compiled_kernels
    compiled_kernels.choose(before)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


def shifted(array):
    """Copy an array to where no register is aligned; it may not be changed."""
    copy = np.empty(array.size + MARGIN, array.dtype)[MARGIN:].reshape(array.shape)
    copy[...] = array
    copy.flags.writeable = False
    return copy


def guarded(shape, dtype, fill=GUARD):
    """Return an array that is a part of a larger one."""
    size = int(np.prod(shape))
    array = np.full(size + 2 * MARGIN, GUARD, dtype)[MARGIN : size + MARGIN]
    array[...] = fill if np.isscalar(fill) else fill.ravel()
    return array.reshape(shape)


def assert_guards_stand(*arrays):
    for array in arrays:
        whole = array.base
        assert whole.size == array.size + 2 * MARGIN
        assert_array_equal(whole[:MARGIN], GUARD)
        assert_array_equal(whole[-MARGIN:], GUARD)


def assert_near(found, expected, tolerance, what=""):
    """Compare to the largest number of each row."""
    scale = np.abs(expected).max(axis=-1, keepdims=True, initial=1e-30)
    error = np.abs(found - expected) / scale
    assert error.max(initial=0) <= tolerance, what


class Rows:
    """Entries, factors and penalties, and calls of every kernel on rows of them.

    A row lists as many entries as `counts` says, some of them more than once where
    there are not as many columns; the last column has none.
    """

    def __init__(self, rank, row_bias, column_bias, weighted, dtype, counts=None):
        rng = np.random.RandomState(rank)
        width, n = rank + row_bias, 3 * rank + 20
        if counts is None:
            counts = [0, 3 * width + 5, 1, 0, 1100, width, 3, 2 * width + 7, 0]
        self.biases, self.dtype = (row_bias, column_bias), dtype
        self.n_rows, n_entries = len(counts), sum(counts)
        listed = [rng.permutation(np.arange(count) % (n - 1)) for count in counts]
        self.H = shifted(rng.standard_normal((n, rank + column_bias)).astype(dtype))
        self.W = shifted(rng.standard_normal((self.n_rows, width)).astype(dtype))
        self.indptr = shifted(np.cumsum([0, *counts]))
        indices = np.concatenate([[], *listed]).astype(np.int32)
        self.indices = shifted(indices)
        self.values = shifted(rng.standard_normal(n_entries).astype(dtype))
        self.weights = None
        if weighted:
            weights = rng.uniform(0.5, 2, n_entries)
            self.weights = shifted(weights.astype(dtype))
        self.ridge = shifted(rng.uniform(0.5, 1, width))
        self.ridges = shifted(rng.uniform(0.25, 2, (self.n_rows, width)))
        self.normal = shifted(rng.standard_normal(self.W.shape).astype(dtype))
        self.answers = {}

    @property
    def entries(self):
        return (
            self.H,
            self.indptr,
            self.indices,
            self.values,
            self.weights,
            *self.biases,
        )

    def specified(self, call, **options):
        """Return what the kernels in NumPy answer, once and for all."""
        key = call, *options.items()
        if key not in self.answers:
            self.answers[key] = getattr(self, call)(numpy_kernels, **options)
        return self.answers[key]

    def least_squares(
        self, kernels, start=0, stop=None, penalized=True, own_ridges=False, drawn=False
    ):
        W = guarded(self.W.shape, self.dtype)
        singular = guarded(self.n_rows, np.uint8)
        ridge = self.ridges if own_ridges else self.ridge[None]
        arguments = ridge if penalized else 0 * ridge, self.normal if drawn else None
        stop = self.n_rows if stop is None else stop
        kernels.least_squares(*self.entries, *arguments, W, singular, start, stop)
        return W, singular

    def gradient(
        self, kernels, start=0, stop=None, with_factors=True, with_values=True
    ):
        gradient = guarded(self.W.shape, self.dtype)
        sums = guarded(self.n_rows, float)
        entries = list(self.entries)
        if not with_values:
            entries[3] = None
        stop = self.n_rows if stop is None else stop
        W = self.W if with_factors else None
        kernels.gradient(*entries, W, gradient, sums, start, stop)
        return gradient, sums[:, None]

    def squares(self, kernels, start=0, stop=None, with_values=True):
        sums = guarded(self.n_rows, float)
        entries = list(self.entries)
        if not with_values:
            entries[3] = None
        stop = self.n_rows if stop is None else stop
        kernels.squares(*entries, self.W, sums, start, stop)
        return (sums[:, None],)

    def residuals(self, kernels, start=0, stop=None):
        out = guarded(self.indices.size, self.dtype)
        stop = self.n_rows if stop is None else stop
        kernels.residuals(*self.entries, self.W, out, start, stop)
        return (out,)


CALLS = ["least_squares", "gradient", "squares", "residuals"]


@cache
def every_kind(rank, dtype):
    kinds = FLAGS if rank < LARGE else FLAGS[::7]
    return [Rows(rank, *flags, dtype) for flags in kinds]


@pytest.fixture(params=RANKS)
def of_rank(request, dtype):
    """Return all kinds of rows of a rank."""
    return every_kind(request.param, dtype)


class TestEveryRank:
    def test_least_squares(self, compiled, of_rank, dtype):
        for rows in of_rank:
            for options in ({}, {"own_ridges": True}, {"drawn": True}):
                W, singular = rows.least_squares(compiled, **options)
                expected, _ = rows.specified("least_squares", **options)
                assert_near(W, expected, OF_SYSTEMS[dtype], (rows.biases, options))
                if W.shape[1]:
                    assert_array_equal(singular, 0)
                assert_guards_stand(W, singular)

    def test_regular_rows_without_a_ridge(self, compiled, of_rank, dtype):
        """Rows without enough entries are marked, and left to others."""
        for rows in of_rank:
            width, counts = rows.W.shape[1], np.diff(rows.indptr)
            if width == 0:
                continue
            W, singular = rows.least_squares(compiled, penalized=False)
            expected, _ = rows.specified("least_squares", penalized=False)
            regular = counts > 2 * width
            assert_near(W[regular], expected[regular], OF_SYSTEMS[dtype], rows.biases)
            assert_array_equal(singular[regular], 0)
            assert_array_equal(singular[counts < width], 1)
            assert set(singular) <= {0, 1}
            assert_guards_stand(W, singular)

    def test_gradient(self, compiled, of_rank, dtype):
        for rows in of_rank:
            for options in ({}, {"with_factors": False}):
                found = rows.gradient(compiled, **options)
                expected = rows.specified("gradient", **options)
                for pair in zip(found, expected, strict=True):
                    assert_near(*pair, TOLERANCE[dtype], (rows.biases, options))
                assert_guards_stand(found[0], found[1][:, 0])

    def test_squares_and_residuals(self, compiled, of_rank, dtype):
        for rows in of_rank:
            for options in ({}, {"with_values": False}):
                (found,) = rows.squares(compiled, **options)
                (expected,) = rows.specified("squares", **options)
                assert_near(found, expected, TOLERANCE[dtype], (rows.biases, options))
                assert_guards_stand(found[:, 0])
            (found,) = rows.residuals(compiled)
            (expected,) = rows.specified("residuals")
            assert_near(found, expected, TOLERANCE[dtype], rows.biases)
            assert_guards_stand(found)


def test_products_of_every_rank(compiled, dtype):
    """Of entries, and of the pattern with factors: a matrix of ones."""
    rng = np.random.RandomState(0)
    for rank in RANKS:
        rows = every_kind(rank, dtype)[0]
        i = shifted(rng.randint(len(rows.W), size=200))
        j = shifted(rng.randint(len(rows.H), size=200))
        found, expected = guarded(200, dtype), guarded(200, dtype)
        compiled.entry_products(rows.W, rows.H, i, j, found, 0, 200)
        numpy_kernels.entry_products(rows.W, rows.H, i, j, expected, 0, 200)
        assert_near(found, expected, TOLERANCE[dtype], rank)
        assert_guards_stand(found)
        for weighted in every_kind(rank, dtype)[:2]:
            options = {"with_factors": False, "with_values": False}
            found = weighted.gradient(compiled, **options)
            expected = weighted.specified("gradient", **options)
            for pair in zip(found, expected, strict=True):
                assert_near(*pair, TOLERANCE[dtype], rank)
            assert_guards_stand(found[0], found[1][:, 0])


class Steps:
    """Entries in random order, and a call of the kernel that changes the factors."""

    def __init__(self, rank, row_bias, column_bias, weighted, dtype, m=7, n=6, size=40):
        rng = np.random.RandomState(rank)
        self.dtype, self.biases = dtype, (row_bias, column_bias)
        self.i = shifted(rng.randint(m, size=size).astype(np.int32))
        self.j = shifted(rng.randint(n, size=size).astype(np.int32))
        self.values = shifted(rng.standard_normal(size).astype(dtype))
        self.weights = None
        if weighted:
            self.weights = shifted(rng.uniform(0, 2, size).astype(dtype))
        scale = 1 / np.sqrt(rank + 1)
        self.W = scale * rng.standard_normal((m, rank + row_bias))
        self.H = scale * rng.standard_normal((n, rank + column_bias))
        self.shares = [
            shifted(rng.uniform(0, 1, side).astype(dtype)) for side in (m, n)
        ]
        self.sums = [rng.uniform(0, 1, (side, 2)) for side in (m, n)]

    def sgd(self, kernels, adaptive, start=0, stop=None):
        """Return what was changed."""
        W, H = (guarded(A.shape, self.dtype, A) for A in (self.W, self.H))
        squares = None, None
        if adaptive:
            squares = tuple(guarded(A.shape, self.dtype, A) for A in self.sums)
        kernels.sgd(
            self.i,
            self.j,
            self.values,
            self.weights,
            W,
            H,
            *self.biases,
            *self.shares,
            *squares,
            *(0.3, 0.7, 0.05, 0.1, 2.0, 0.5),
            start,
            len(self.i) if stop is None else stop,
        )
        return [W, H, *squares] if adaptive else [W, H]


@cache
def specified_steps(rank, flags, dtype, adaptive):
    """Return what the kernels in NumPy make of the factors."""
    return Steps(rank, *flags, dtype).sgd(numpy_kernels, adaptive)


class TestStochasticSteps:
    @pytest.mark.parametrize("adaptive", [False, True], ids=["fixed", "adaptive"])
    @pytest.mark.parametrize("flags", FLAGS)
    def test_are_the_same_at_every_rank(self, compiled, flags, dtype, adaptive):
        for rank in RANKS[:18] if flags in FLAGS[1:-1] else RANKS:
            found = Steps(rank, *flags, dtype).sgd(compiled, adaptive)
            expected = specified_steps(rank, flags, dtype, adaptive)
            for pair in zip(found, expected, strict=True):
                assert_near(*pair, TOLERANCE[dtype], rank)
            assert_guards_stand(*found)

    @pytest.mark.parametrize("adaptive", [False, True], ids=["fixed", "adaptive"])
    def test_are_made_from_start_to_stop(self, compiled, dtype, adaptive):
        steps = Steps(5, True, True, True, dtype)
        found = steps.sgd(compiled, adaptive, 7, 19)
        expected = steps.sgd(numpy_kernels, adaptive, 7, 19)
        for pair in zip(found, expected, strict=True):
            assert_near(*pair, TOLERANCE[dtype])

    def test_of_an_empty_range_change_nothing(self, compiled, dtype):
        for size in (0, 5):
            steps = Steps(5, True, True, True, dtype, size=size)
            start = [A.astype(dtype) for A in (steps.W, steps.H, *steps.sums)]
            for pair in zip(steps.sgd(compiled, True, size, size), start, strict=True):
                assert_array_equal(*pair)


# Sums are single there, but nothing is computed with them that is not double.
OF_POSTERIORS = {np.float64: 1e-10, np.float32: 1e-6}


class Systems:
    """Sums of moments, which rows share, and calls of the kernel for posteriors."""

    # Runs of rows with one system, and rows that come back to it.
    which = [0, 1, 1, 1, 2, 0, 0, 2, 2]

    def __init__(self, rank, row_bias, column_bias, dtype):
        rng = np.random.RandomState(rank)
        q, length = rank + row_bias, rank + 1 + column_bias
        self.dtype, self.biases, self.q = dtype, (row_bias, column_bias), q
        v = rng.standard_normal((3, 2 * length + 5, length))
        v[..., rank] = 1
        sums = v.transpose(0, 2, 1) @ v
        sums[:, np.arange(rank), np.arange(rank)] += rng.uniform(1, 2, (3, rank))
        a, b = np.tril_indices(length)
        self.sums = shifted(sums[:, a, b].astype(dtype))
        self.which = shifted(np.array(self.which))
        n_rows = len(self.which)
        self.targets = shifted(rng.standard_normal((n_rows, length)).astype(dtype))
        # Rows 1 and 2 share theirs; row 3 has another one.
        self.scale = shifted(np.array([1.0, 2.0, 2.0, 0.5, 3.0, 1.0, 1.0, 3.0, 0.25]))
        root = rng.standard_normal((q, q)) / max(q, 1) ** 0.5
        prior = root @ root.T + np.eye(q)
        self.least = np.linalg.eigvalsh(prior).min(initial=np.inf)
        self.prior = shifted(prior[np.tril_indices(q)])

    def results(self, with_covariances=True):
        n_rows, q = len(self.which), self.q
        found = {
            "means": guarded((n_rows, q), self.dtype),
            "moments": guarded((n_rows, (q + 1) * (q + 2) // 2), self.dtype),
            "covariances": guarded((n_rows, q * (q + 1) // 2), self.dtype),
            "logdets": guarded(n_rows, float),
            "gains": guarded(n_rows, float),
            "singular": guarded(n_rows, np.uint8),
        }
        return found if with_covariances else {**found, "covariances": None}

    def posterior(self, kernels, start=0, stop=None, found=None, **options):
        found = self.results(**options) if found is None else found
        kernels.posterior(
            *(self.sums, self.which, self.targets, self.scale, self.prior, self.least),
            *self.biases,
            *found.values(),
            start,
            len(self.which) if stop is None else stop,
        )
        return found


@cache
def systems_of(rank, dtype):
    """Return systems with each kind of biases, and what the kernels in NumPy say."""
    kinds = BIASES if rank < LARGE else BIASES[::3]
    systems = [Systems(rank, *biases, dtype) for biases in kinds]
    return [(every, every.posterior(numpy_kernels)) for every in systems]


class TestPosterior:
    @staticmethod
    def less(systems, sums):
        """Let one system know less than nothing of the fourth factor."""
        sums[1, 9] = -2 * systems.prior[9]

    @pytest.mark.parametrize("with_covariances", [True, False], ids=["", "without"])
    def test_is_the_same_at_every_rank(self, compiled, dtype, with_covariances):
        for rank in RANKS if with_covariances else RANKS[::5]:
            for systems, expected in systems_of(rank, dtype):
                found = systems.posterior(compiled, with_covariances=with_covariances)
                for name, array in found.items():
                    if array is None:
                        continue
                    ours, theirs = (
                        np.reshape(part, (len(systems.which), -1)).astype(float)
                        for part in (array, expected[name])
                    )
                    precise = np.float64 if array.dtype == np.float64 else dtype
                    what = rank, systems.biases, name
                    assert_near(ours, theirs, OF_POSTERIORS[precise], what)
                    assert_guards_stand(array)

    def test_is_found_from_start_to_stop(self, either, dtype):
        """The same bits, though a range may begin within rows of one system."""
        systems = Systems(5, True, True, dtype)
        whole = systems.posterior(either)
        for start, stop in ((0, 0), (0, 4), (2, 5), (6, 9), (9, 9)):
            filled = slice(start, stop)
            for name, part in systems.posterior(either, start, stop).items():
                assert_array_equal(part[filled], whole[name][filled], err_msg=name)
                outside = np.delete(part, filled, axis=0)
                assert_array_equal(outside, GUARD, err_msg=name)
                assert_guards_stand(part)

    def test_is_marked_where_rounding_made_it_indefinite(self, compiled, dtype):
        """Rows that come after, of the same system or of another, are not harmed."""
        systems = Systems(4, True, True, dtype)
        expected = systems.posterior(compiled)
        broken(systems, "sums", self.less)
        found = systems.posterior(compiled)
        indefinite = np.equal(systems.which, 1)
        assert_array_equal(found["singular"], indefinite)
        for name, array in found.items():
            regular = array[~indefinite]
            assert_array_equal(regular, expected[name][~indefinite], err_msg=name)
            assert_guards_stand(array)

    def test_is_marked_where_it_is_below_what_the_prior_knows(self, compiled, dtype):
        """By less than half of it, it may be rounding that does no harm."""
        for share, marked in ((0.4, 1), (0.6, 0)):
            systems = Systems(3, False, False, dtype)
            systems.prior = np.array([1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
            systems.least = 1.0
            sums = np.array(systems.sums)
            sums[:, :6] = [0.0, 0.0, share - 1, 0.0, 0.0, 0.0]
            systems.sums, systems.scale = shifted(sums), np.ones(9)
            found = systems.posterior(compiled)
            assert_array_equal(found["singular"], marked)

    def test_is_solved_by_the_engine_where_it_is_marked(
        self, monkeypatch, compiled, dtype
    ):
        given, found = broken(Systems(4, True, True, dtype), "sums", self.less), []
        arguments = given.sums, given.which, given.targets, given.scale, given.prior
        for kernels in (compiled, numpy_kernels):
            monkeypatch.setattr(backend, "kernels", kernels)
            answer = dispatch.posterior(*arguments, given.biases, with_covariances=True)
            found.append(answer)
        for ours, theirs in zip(*found, strict=True):
            assert np.isfinite(ours).all()
            assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)

    def test_of_no_rows_is_nothing(self, compiled, dtype):
        systems = Systems(3, True, True, dtype)
        for name in ("which", "targets", "scale"):
            setattr(systems, name, getattr(systems, name)[:0])
        systems.posterior(compiled)
        systems.sums = systems.sums[:0]
        systems.posterior(compiled)

    @pytest.mark.parametrize("index", [-1, 3, -(2**63)])
    def test_has_a_system_that_exists(self, compiled, dtype, index):
        systems = broken(
            Systems(3, True, True, dtype), "which", lambda _, k: k.__setitem__(4, index)
        )
        with pytest.raises(IndexError, match=rf"Row 4 has no system {index}\."):
            systems.posterior(compiled)
        systems.posterior(compiled, 0, 4)
        systems.posterior(compiled, 5, 9)

    def test_is_asked_of_rows_that_exist(self, compiled, dtype):
        systems = Systems(3, True, True, dtype)
        for start, stop in ((-1, 2), (3, 2), (0, 10), (2**40, 2**41)):
            told = f"There are 9 rows, not {start} to {stop}"
            with pytest.raises(ValueError, match=told):
                systems.posterior(compiled, start, stop)

    @pytest.mark.parametrize("name", ["sums", "targets", "scale", "prior"])
    def test_has_input_of_its_shape(self, compiled, dtype, name):
        for axis in range(np.ndim(getattr(Systems(3, True, True, dtype), name))):
            if (name, axis) == ("sums", 0):  # there may be any number of systems
                continue
            systems = Systems(3, True, True, dtype)
            array = getattr(systems, name)
            for wrong in (
                np.delete(array, 0, axis),
                np.concatenate([array, array], axis),
            ):
                setattr(systems, name, np.ascontiguousarray(wrong))
                with pytest.raises(ValueError, match=f"{name} must have shape"):
                    systems.posterior(compiled)

    @pytest.mark.parametrize(
        "name", ["means", "moments", "covariances", "logdets", "gains", "singular"]
    )
    def test_has_results_of_their_shape(self, compiled, dtype, name):
        systems = Systems(3, True, True, dtype)
        for axis in range(systems.results()[name].ndim):
            if (name, axis) == ("means", 1):  # says how many factors there are
                continue
            for change in (-1, 1):
                found = systems.results()
                shape = list(found[name].shape)
                shape[axis] += change
                found[name] = np.zeros(shape, found[name].dtype)
                with pytest.raises(ValueError, match=f"{name} must have shape"):
                    systems.posterior(compiled, found=found)

    @pytest.mark.parametrize("width", [0, 3, 5])
    def test_has_as_many_coefficients_as_the_means_have(self, compiled, dtype, width):
        systems = Systems(3, True, True, dtype)
        found = {**systems.results(), "means": np.zeros((9, width), dtype)}
        with pytest.raises(ValueError, match="must h"):
            systems.posterior(compiled, found=found)

    def test_has_all_numbers_of_one_type(self, compiled, dtype):
        systems = Systems(3, True, True, dtype)
        systems.targets = systems.targets.astype("f4" if dtype == np.float64 else "f8")
        with pytest.raises((TypeError, ValueError)):
            systems.posterior(compiled)


@pytest.fixture(params=[numpy_kernels, "compiled"], ids=["NumPy", "compiled"])
def either(request):
    """Return either twin."""
    if request.param is numpy_kernels:
        return numpy_kernels
    return request.getfixturevalue("compiled_kernels")


class TestRanges:
    @pytest.mark.parametrize("call", CALLS)
    def test_are_filled_and_nothing_else_is(self, either, call, dtype):
        rows = Rows(5, True, True, True, dtype)
        whole = getattr(rows, call)(either)
        tolerance = OF_SYSTEMS[dtype] if either is numpy_kernels else 0
        for start, stop in ((0, 0), (0, 4), (2, 5), (4, 9), (9, 9)):
            filled = slice(start, stop)
            if call == "residuals":
                filled = slice(rows.indptr[start], rows.indptr[stop])
            found = getattr(rows, call)(either, start, stop)
            for part, every in zip(found, whole, strict=True):
                pair = (array[filled].astype(float) for array in (part, every))
                assert_near(*pair, tolerance, (start, stop))
                outside = np.delete(part, filled, axis=0)
                assert_array_equal(outside, GUARD)

    def test_of_entries_are_filled_and_nothing_else_is(self, either, dtype):
        rows, (i, j) = Rows(5, False, False, False, dtype), np.ones((2, 9), int)
        out = guarded(9, dtype)
        either.entry_products(rows.W, rows.H, i, j, out, 3, 5)
        assert_allclose(out[3:5], rows.W[1] @ rows.H[1], rtol=1e-5)
        assert_array_equal(np.delete(out, [3, 4]), GUARD)


class TestNothing:
    """No rows, no columns, no entries, no factors."""

    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize("counts", [[], [0], [0, 0, 0]], ids=str)
    def test_has_answers_of_zero(self, compiled, counts, call, dtype):
        for rank, flags in product((0, 3), FLAGS):
            rows = Rows(rank, *flags, dtype, counts)
            for found in getattr(rows, call)(compiled):
                if found.dtype != np.uint8:
                    assert_array_equal(found, 0, err_msg=flags)
                assert len(found) == (0 if call == "residuals" else len(counts))

    @pytest.mark.parametrize("call", CALLS)
    def test_is_left_of_a_matrix_without_columns(self, compiled, call, dtype):
        rows = Rows(3, True, True, True, dtype, counts=[0, 0])
        rows.H = shifted(np.zeros((0, 4), dtype))
        for found in getattr(rows, call)(compiled):
            assert_array_equal(found, 0)

    def test_may_be_asked_of_no_entries(self, compiled, dtype):
        none, out = np.zeros(0, int), guarded(0, dtype)
        for shape in ((0, 3), (4, 0), (0, 0)):
            W = np.zeros(shape, dtype)
            compiled.entry_products(W, W, none, none, out, 0, 0)


def test_systems_of_any_scale_are_solved_or_marked(compiled, dtype):
    """What leaves the range of single precision is solved in double."""
    large = 1e12 if dtype == np.float32 else 1e60
    for scale in (1 / large, large):
        rows = Rows(9, False, True, False, dtype)
        rows.H, rows.values = shifted(rows.H * dtype(scale)), rows.values * dtype(scale)
        rows.ridge = rows.ridge * scale**2
        W, singular = rows.least_squares(compiled)
        expected, _ = rows.least_squares(numpy_kernels)
        assert_array_equal(singular, 0)
        assert_near(W, expected, OF_SYSTEMS[dtype])


def test_what_single_precision_cannot_solve_is_solved_in_double(compiled):
    """Systems of a condition of 1e8, whose factorization single precision loses."""
    rows = Rows(6, True, True, True, np.float32)
    rows.H = shifted(rows.H * np.geomspace(1, 1e-4, 7).astype(np.float32))
    W, singular = rows.least_squares(compiled, penalized=False)
    expected, _ = rows.least_squares(numpy_kernels, penalized=False)
    regular = np.diff(rows.indptr) > 14
    assert_array_equal(singular[regular], 0)
    assert_near(W[regular], expected[regular], OF_SYSTEMS[np.float32])


MALFORMED = {
    "index too large": ("indices", lambda rows, k: k.__setitem__(-3, len(rows.H))),
    "index far too large": ("indices", lambda rows, k: k.__setitem__(-3, 2**31 - 1)),
    "negative index": ("indices", lambda rows, k: k.__setitem__(0, -1)),
    "smallest index": ("indices", lambda rows, k: k.__setitem__(5, -(2**31))),
    "decreasing pointers": ("indptr", lambda rows, p: p.__setitem__(2, 0)),
    "negative pointer": ("indptr", lambda rows, p: p.__setitem__(0, -1)),
    "negative pointers": ("indptr", lambda rows, p: p.__isub__(2**40)),
    "pointer beyond the entries": (
        "indptr",
        lambda rows, p: p.__setitem__(-1, rows.indices.size + 1),
    ),
    "pointers beyond the entries": ("indptr", lambda rows, p: p.__iadd__(2**40)),
    "largest pointer": ("indptr", lambda rows, p: p.__setitem__(-1, 2**63 - 1)),
}


@pytest.fixture(params=FLAGS[::7], ids=["plain", "biased and weighted"])
def well_formed(request):
    """Return rows that the tests below break in one place."""
    return Rows(5, *request.param, np.float64, counts=[8, 0, 12, 9, 20])


def broken(rows, name, change):
    """Change a copy of one of the arrays."""
    array = np.array(getattr(rows, name))
    change(rows, array)
    setattr(rows, name, array)
    return rows


@pytest.mark.parametrize("call", CALLS)
class TestMalformedRows:
    @pytest.mark.parametrize("name, change", MALFORMED.values(), ids=MALFORMED)
    def test_are_refused(self, compiled, call, dtype, name, change):
        """Even where the memory beyond the entries looks like more of them."""
        for flags in FLAGS[::7]:
            rows = Rows(5, *flags, dtype, counts=[8, 0, 12, 9, 20])
            broken(rows, name, change)
            rows.indices = np.append(rows.indices, np.zeros(9, np.int32))[:-9]
            with pytest.raises(ValueError, match="malformed"):
                getattr(rows, call)(compiled)

    def test_are_named(self, compiled, well_formed, call):
        rows = broken(well_formed, "indices", lambda rows, k: k.__setitem__(25, -1))
        with pytest.raises(ValueError, match=r"Row 3 .* malformed"):
            getattr(rows, call)(compiled)

    def test_do_no_harm_outside_of_the_range(self, compiled, well_formed, call):
        rows = broken(well_formed, "indices", lambda rows, k: k.__setitem__(0, -1))
        getattr(rows, call)(compiled, 1, 5)

    def test_may_lead_to_entries_where_there_are_none(self, compiled, call, dtype):
        rows = Rows(3, True, True, True, dtype, counts=[0, 0])
        rows.indptr = np.array([0, 0, 4])
        with pytest.raises(ValueError, match="malformed"):
            getattr(rows, call)(compiled)

    def test_may_lead_to_columns_where_there_are_none(self, compiled, call, dtype):
        rows = Rows(3, True, True, True, dtype, counts=[2, 2])
        rows.H = np.zeros((0, 4), dtype)
        with pytest.raises(ValueError, match="malformed"):
            getattr(rows, call)(compiled)

    def test_have_no_ranges_outside(self, compiled, well_formed, call):
        for start, stop in ((-1, 2), (3, 2), (0, 6), (2**40, 2**41)):
            told = f"There are 5 rows, not {start} to {stop}"
            with pytest.raises(ValueError, match=told):
                getattr(well_formed, call)(compiled, start, stop)

    @pytest.mark.parametrize("name", ["values", "weights"])
    def test_have_arrays_of_one_length(self, compiled, call, dtype, name):
        for size in (0, 48, 50):
            rows = Rows(5, True, True, True, dtype, counts=[8, 0, 12, 9, 20])
            setattr(rows, name, np.zeros(size, dtype))
            with pytest.raises(ValueError, match=f"{name} has {size} entries"):
                getattr(rows, call)(compiled)

    def test_have_pointers(self, compiled, well_formed, call):
        well_formed.indptr = np.zeros(0, int)
        with pytest.raises(ValueError, match="indptr must not be empty"):
            getattr(well_formed, call)(compiled)

    def test_have_factors_of_columns_with_room_for_biases(self, compiled, call, dtype):
        rows = Rows(0, True, True, False, dtype, counts=[4, 0, 2])
        rows.H = np.zeros((20, 0), dtype)
        with pytest.raises(ValueError, match="H must hold the column biases"):
            getattr(rows, call)(compiled)

    def test_have_results_of_their_shape(
        self, monkeypatch, compiled, well_formed, call
    ):
        """One after the other, each array that the kernel writes is of a wrong one."""
        n_results = len(getattr(well_formed, call)(compiled))
        for k, axis, change in product(range(n_results), (0, -1), (-1, 1)):
            made = iter(range(10))

            def misshapen(shape, dtype, k=k, axis=axis, change=change, made=made):
                shape = list(np.atleast_1d(shape))
                if next(made) == k:
                    shape[axis] += change
                return np.zeros(shape, dtype)

            monkeypatch.setitem(globals(), "guarded", misshapen)
            with pytest.raises(ValueError, match="must have shape"):
                getattr(well_formed, call)(compiled)

    @pytest.mark.parametrize("change", [np.asfortranarray, lambda H: H[:, ::-1]])
    def test_need_factors_row_by_row(self, compiled, well_formed, call, change):
        """The engine sees to that."""
        well_formed.H = change(well_formed.H)
        with pytest.raises(ValueError, match="contiguous"):
            getattr(well_formed, call)(compiled)

    def test_need_all_numbers_of_one_type(self, compiled, call, dtype):
        rows = Rows(5, True, True, True, dtype, counts=[8, 0, 12, 9, 20])
        other = np.float32 if dtype == np.float64 else np.float64
        rows.values = rows.values.astype(other)
        with pytest.raises((TypeError, ValueError)):
            getattr(rows, call)(compiled)


class TestWrongFactors:
    """Arguments that only some of the kernels take."""

    @pytest.mark.parametrize("call", ["gradient", "squares", "residuals"])
    def test_of_rows_are_refused(self, compiled, call, dtype):
        rows = Rows(5, True, True, False, dtype, counts=[8, 0, 12, 9, 20])
        results = {
            "gradient": (guarded((5, 6), dtype), guarded(5, float)),
            "squares": (guarded(5, float),),
            "residuals": (guarded(49, dtype),),
        }
        for shape in ((4, 6), (6, 6), (5, 5), (5, 7), (0, 6)):
            W = np.zeros(shape, dtype)
            with pytest.raises(ValueError, match="W must have shape"):
                getattr(compiled, call)(*rows.entries, W, *results[call], 0, 5)

    def test_of_the_penalty_are_refused(self, compiled, dtype):
        """It is one of all rows, or one of each."""
        rows = Rows(5, True, True, False, dtype)
        for shape in ((1, 0), (1, 5), (1, 7), (0, 6), (8, 6), (10, 6), (9, 5)):
            rows.ridges = np.zeros(shape)
            with pytest.raises(ValueError, match="ridge must have shape"):
                rows.least_squares(compiled, own_ridges=True)

    def test_of_the_draws_are_refused(self, compiled, dtype):
        rows = Rows(5, True, True, False, dtype)
        for shape in ((1, 6), (0, 6), (8, 6), (10, 6), (9, 5), (9, 7)):
            rows.normal = np.zeros(shape, dtype)
            with pytest.raises(ValueError, match="draws must have shape"):
                rows.least_squares(compiled, drawn=True)


class TestEntriesOutside:
    @pytest.mark.parametrize("side", [0, 1])
    @pytest.mark.parametrize("index", [-1, 6, 2**62, -(2**63)])
    def test_have_no_product(self, compiled, dtype, side, index):
        factors = np.ones((6, 3), dtype)
        pair, out = [np.zeros(5, int), np.zeros(5, int)], guarded(5, dtype)
        pair[side][3] = index
        with pytest.raises(IndexError, match="Entry 3 lies outside"):
            compiled.entry_products(factors, factors, *pair, out, 0, 5)
        compiled.entry_products(factors, factors, *pair, out, 0, 3)
        assert_guards_stand(out)

    @pytest.mark.parametrize("side", ["i", "j"])
    @pytest.mark.parametrize("index", [-1, 7, 2**31 - 1, -(2**31)])
    def test_move_nothing(self, compiled, dtype, side, index):
        steps = Steps(5, True, True, True, dtype)
        broken(steps, side, lambda _, k: k.__setitem__(3, index))
        with pytest.raises(IndexError, match="Entry 3 lies outside"):
            steps.sgd(compiled, adaptive=True)
        steps.sgd(compiled, True, 0, 3)
        steps.sgd(compiled, True, 4)

    @pytest.mark.parametrize("start, stop", [(-1, 2), (3, 2), (0, 6)])
    def test_are_in_no_range(self, compiled, dtype, start, stop):
        factors, pair = np.ones((6, 3), dtype), np.zeros((2, 5), int)
        out = guarded(5, dtype)
        with pytest.raises(ValueError, match="There are 5 entries"):
            compiled.entry_products(factors, factors, *pair, out, start, stop)
        steps = Steps(5, True, True, True, dtype, size=5)
        with pytest.raises(ValueError, match="There are 5 entries"):
            steps.sgd(compiled, True, start, stop)

    def test_have_factors_of_one_rank(self, compiled, dtype):
        W, H, pair = (
            np.ones((6, 3), dtype),
            np.ones((6, 4), dtype),
            np.zeros((2, 5), int),
        )
        with pytest.raises(ValueError, match="H must have shape"):
            compiled.entry_products(W, H, *pair, guarded(5, dtype), 0, 5)

    @pytest.mark.parametrize("size", [0, 4, 6])
    def test_have_arrays_of_one_length(self, compiled, dtype, size):
        W, pair = np.ones((6, 3), dtype), np.zeros((2, 5), int)
        with pytest.raises(ValueError, match="out must have shape"):
            compiled.entry_products(W, W, *pair, guarded(size, dtype), 0, 5)
        with pytest.raises(ValueError, match="columns must have shape"):
            compiled.entry_products(
                W, W, pair[0], np.zeros(size, int), guarded(5, dtype), 0, 5
            )

    @pytest.mark.parametrize("name", ["j", "values", "weights"])
    def test_make_steps_with_arrays_of_one_length(self, compiled, dtype, name):
        for size in (0, 4, 6):
            steps = Steps(5, True, True, True, dtype, size=5)
            setattr(steps, name, np.zeros(size, np.int32 if name == "j" else dtype))
            with pytest.raises(ValueError, match="must have shape"):
                steps.sgd(compiled, adaptive=False)

    @pytest.mark.parametrize("shape", [(6, 5), (6, 7)])
    def test_make_steps_with_factors_of_one_rank(self, compiled, dtype, shape):
        steps = Steps(5, True, True, True, dtype)
        steps.H = np.zeros(shape)
        with pytest.raises(ValueError, match="H must have shape"):
            steps.sgd(compiled, adaptive=False)

    @pytest.mark.parametrize("side", [0, 1])
    @pytest.mark.parametrize("change", [-1, 1])
    def test_make_steps_with_shares_and_sums_of_each_row(
        self, compiled, dtype, side, change
    ):
        size = (7, 6)[side] + change
        name = ("row", "column")[side]
        steps = Steps(5, True, True, True, dtype)
        steps.sums[side] = np.zeros((size, 2))
        with pytest.raises(ValueError, match=f"{name}_squares must have shape"):
            steps.sgd(compiled, adaptive=True)
        steps.sums[side] = np.zeros((size - change, 3))
        with pytest.raises(ValueError, match=f"{name}_squares must have shape"):
            steps.sgd(compiled, adaptive=True)
        steps.shares[side] = np.zeros(size, dtype)
        with pytest.raises(ValueError, match=f"{name}_share must have shape"):
            steps.sgd(compiled, adaptive=False)


class TestWhichTwin:
    """``SKLEARN_MFGD_KERNELS`` and ``SKLEARN_MFGD_REQUIRE_COMPILED`` settle it."""

    @pytest.fixture
    def load(self, monkeypatch, compiled_kernels):
        """Return ``load(wanted, required)``, which leaves everything as it was."""
        before = compiled_kernels.instructions()

        def load(wanted="", required=""):
            monkeypatch.setenv("SKLEARN_MFGD_KERNELS", wanted)
            monkeypatch.setenv("SKLEARN_MFGD_REQUIRE_COMPILED", required)
            return backend._load()

        yield load
        compiled_kernels.choose(before)

    @pytest.fixture
    def absent(self, monkeypatch):
        """Hide the compiled kernels."""
        name = "sklearn_mfgd._kernels.compiled"
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delattr(sklearn_mfgd._kernels, "compiled", raising=False)

    @pytest.mark.parametrize("required", ["", "0", "1"])
    def test_the_compiled_one_where_there_is_one(
        self, load, compiled_kernels, required
    ):
        assert load(required=required) is compiled_kernels

    def test_the_one_in_numpy_where_that_is_wanted(self, load):
        assert load("numpy") is numpy_kernels

    @pytest.mark.parametrize("name", available(INSTRUCTIONS))
    def test_the_instructions_that_are_wanted(self, load, compiled_kernels, name):
        assert load(name) is compiled_kernels
        assert compiled_kernels.instructions() == name

    def test_not_the_one_in_numpy_where_the_other_is_required(self, load):
        with pytest.raises(ImportError, match="unset one of them"):
            load("numpy", required="1")

    def test_none_where_the_instructions_have_no_such_name(self, load):
        with pytest.raises(ImportError, match="'sse9'"):
            load("sse9")

    def test_the_one_in_numpy_where_there_is_no_other(self, load, absent):
        assert load() is load("numpy") is numpy_kernels

    @pytest.mark.parametrize("asked", [{"required": "1"}, {"wanted": "base"}], ids=str)
    def test_none_where_the_compiled_one_is_asked_for_and_absent(
        self, load, absent, asked
    ):
        with pytest.raises(ImportError, match="not installed"):
            load(**asked)

    def test_is_told(self, monkeypatch, compiled_kernels):
        monkeypatch.setattr(backend, "kernels", numpy_kernels)
        assert backend.kernels_in_use() == "NumPy"
        monkeypatch.setattr(backend, "kernels", compiled_kernels)
        told = f"compiled, {compiled_kernels.instructions()}"
        assert backend.kernels_in_use() == told
