"""The compiled kernels against their reference implementation in NumPy."""

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
from sklearn_mfgd._kernels.problems import (
    PosteriorProblem,
    Posteriors,
    RowProblem,
    StochasticProblem,
)
from sklearn_mfgd._kernels.rows import Rows

# Around the widths of registers (2 to 16 numbers), of tiles (4, 8) and of three tiles.
RANKS = [0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 25, 31, 32, 33, 48, 49]
RANKS += [64, 65, 97, 130]
LARGE = 64  # from here on there are only more tiles: two kinds of rows tell
BIASES = [(False, False), (True, False), (False, True), (True, True)]
FLAGS = [(*biases, weighted) for biases in BIASES for weighted in (False, True)]

# Sums of about a thousand terms differ in their order alone; so do systems, magnified
# by their condition, which is below 1000 here. Neither is near a last digit. Of
# posteriors only the sums are single: nothing is computed with them that is not double.
TOLERANCE = {np.float64: 1e-10, np.float32: 1e-4}
TOLERANCE_OF_SYSTEMS = {np.float64: 1e-10, np.float32: 1e-3}
TOLERANCE_OF_POSTERIORS = {np.float64: 1e-10, np.float32: 1e-6}

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
    before = compiled_kernels.instructions()
    compiled_kernels.choose(request.param)
    yield compiled_kernels
    compiled_kernels.choose(before)


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture(params=["NumPy", "compiled"])
def either(request):
    is_numpy = request.param == "NumPy"
    return numpy_kernels if is_numpy else request.getfixturevalue("compiled_kernels")


def shifted(array):
    """Copy an array to where no register is aligned; it may not be changed."""
    copy = np.empty(array.size + MARGIN, array.dtype)[MARGIN:].reshape(array.shape)
    copy[...] = array
    copy.flags.writeable = False
    return copy


def guarded(shape, dtype, fill=GUARD):
    size = int(np.prod(shape))
    array = np.full(size + 2 * MARGIN, GUARD, dtype)[MARGIN : size + MARGIN]
    array[...] = fill if np.isscalar(fill) else fill.ravel()
    return array.reshape(shape)


def assert_near(found, expected, tolerance, what=""):
    """Compare to the largest number of each row; nothing was written beside it."""
    shape = (len(expected), -1) if expected.size else (0, 1)
    pair = np.array([found, expected], float).reshape(2, *shape)
    scale = np.abs(pair[1]).max(axis=1, keepdims=True, initial=1e-30)
    assert (np.abs(pair[0] - pair[1]) / scale).max(initial=0) <= tolerance, what
    assert_guards_stand(found, what)


def assert_guards_stand(array, what=""):
    whole = array.base
    assert whole.size == array.size + 2 * MARGIN
    assert_array_equal(whole[:MARGIN], GUARD, err_msg=what)
    assert_array_equal(whole[-MARGIN:], GUARD, err_msg=what)


def wrong_shapes(array):
    """Yield each axis with arrays that are shorter and longer there."""
    for axis, size in product(range(array.ndim), (-1, 1)):
        shape = list(array.shape)
        shape[axis] += size
        yield axis, np.zeros(shape, array.dtype)


def random_sizes(shape, dtype, low=0.0, high=1.0, seed=0):
    rng = np.random.RandomState(seed)
    return shifted(rng.uniform(low, high, shape).astype(dtype))


class RowCase:
    """A problem of rows, what each kernel needs besides, and a call of it.

    A row lists as many entries as `counts` says, some of them more than once where
    there are not as many columns; the last column has none.
    """

    def __init__(self, rank, row_bias, column_bias, weighted, dtype, counts=None):
        rng = np.random.RandomState(rank)
        width, n = rank + row_bias, 3 * rank + 20
        if counts is None:
            counts = [0, 3 * width + 5, 1, 0, 1100, width, 3, 2 * width + 7, 0]
        n_rows, n_entries = len(counts), sum(counts)
        listed = [rng.permutation(np.arange(count) % (n - 1)) for count in counts]
        H = shifted(rng.standard_normal((n, rank + column_bias)).astype(dtype))
        indices = shifted(np.concatenate([[], *listed]).astype(np.int32))
        values = shifted(rng.standard_normal(n_entries).astype(dtype))
        weights = random_sizes(n_entries, dtype, 0.5, 2) if weighted else None
        rows = Rows(shifted(np.cumsum([0, *counts])), indices, values, weights, n)
        self.dtype, self.problem = dtype, RowProblem(rows, H, row_bias, column_bias)
        self.W = shifted(rng.standard_normal((n_rows, width)).astype(dtype))
        self.ridge = random_sizes((1, width), float, 0.5, 1)
        self.ridges = random_sizes((n_rows, width), float, 0.25, 2)
        self.draws = shifted(rng.standard_normal(self.W.shape).astype(dtype))

    @property
    def rows(self):
        return self.problem.rows

    def inputs(self, call):
        if call == "least_squares":
            return {"ridge": self.ridge, "draws": None}
        return {} if call == "product" else {"W": self.W}

    def results(self, call):
        n_rows = len(self.W)
        shape, dtype = {
            "product": ((n_rows, self.problem.H.shape[1]), self.dtype),
            "squares": (n_rows, float),
            "residuals": (self.rows.indices.size, self.dtype),
        }.get(call, (self.W.shape, self.dtype))
        results = {"out": guarded(shape, dtype)}
        if call == "least_squares":
            results["needs_fallback"] = guarded(n_rows, np.uint8)
        if call == "gradient":
            results["sums"] = guarded(n_rows, float)
        return results

    def run(self, kernels, call, start=0, stop=None, without_values=False, **changes):
        """Call a kernel, with other arguments where `changes` names them."""
        arguments = {**self.inputs(call), **self.results(call), **changes}
        problem = self.problem
        if without_values:
            problem = problem._replace(rows=self.rows._replace(values=None))
        stop = len(self.W) if stop is None else stop
        getattr(kernels, call)(problem, *arguments.values(), start, stop)
        return {name: arguments[name] for name in self.results(call)}

    def change(self, **changes):
        H = changes.pop("H", self.problem.H)
        self.problem = self.problem._replace(rows=self.rows._replace(**changes), H=H)
        return self


CALLS = ["least_squares", "gradient", "product", "squares", "residuals"]


@cache
def row_cases(dtype):
    flags = {rank: FLAGS if rank < LARGE else FLAGS[::7] for rank in RANKS}
    return [RowCase(rank, *which, dtype) for rank in RANKS for which in flags[rank]]


@cache
def reference(dtype, call, *options):
    """Return what the kernels in NumPy make of all of them, once and for all."""
    cases = row_cases(dtype)
    return [case.run(numpy_kernels, call, **chosen(case, options)) for case in cases]


def chosen(case, options):
    values = {"ridge": case.ridges, "draws": case.draws, "without_values": True}
    return {name: values[name] for name in options}


OPTIONS = [(call,) for call in CALLS]
OPTIONS += [("least_squares", "ridge"), ("least_squares", "draws")]
OPTIONS += [("product", "without_values"), ("squares", "without_values")]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_rows_have_the_same_answers_at_every_rank(compiled, dtype, options):
    call, *options = options
    tolerance = TOLERANCE_OF_SYSTEMS if call == "least_squares" else TOLERANCE
    answers = reference(dtype, call, *options)
    for case, expected in zip(row_cases(dtype), answers, strict=True):
        if call == "least_squares" and not case.W.shape[1]:
            continue
        found = case.run(compiled, call, **chosen(case, options))
        for name, array in found.items():
            what = f"{call} {name} {case.problem.H.shape} {case.problem[2:]}"
            whole = None if call == "residuals" else ...  # residuals are one row
            pair = array[whole], expected[name][whole]
            assert_near(*pair, tolerance[dtype], what)


def marks_of_irregular_rows(compiled, case, regular):
    """Solve without a ridge; regular rows are to be solved and not marked."""
    found = case.run(compiled, "least_squares", ridge=0 * case.ridge)
    expected = case.run(numpy_kernels, "least_squares", ridge=0 * case.ridge)
    found["out"][~regular] = expected["out"][~regular]
    assert_near(found["out"], expected["out"], TOLERANCE_OF_SYSTEMS[case.dtype])
    assert_guards_stand(found["needs_fallback"])
    assert_array_equal(found["needs_fallback"][regular], 0)
    return found["needs_fallback"][~regular]


def test_regular_rows_are_solved_without_a_ridge_and_others_marked(compiled, dtype):
    for case in row_cases(dtype):
        width, counts = case.W.shape[1], np.diff(case.rows.indptr)
        if 0 < width <= LARGE:
            regular = counts > 2 * width
            marks = marks_of_irregular_rows(compiled, case, regular)
            assert_array_equal(marks[counts[~regular] < width], 1)


def test_what_single_precision_cannot_solve_is_solved_in_double(compiled):
    """Systems of a condition of 1e8, whose factorization single precision loses."""
    case = RowCase(6, True, True, True, np.float32)
    scales = np.geomspace(1, 1e-4, 7).astype(np.float32)
    case.change(H=shifted(case.problem.H * scales))
    marks_of_irregular_rows(compiled, case, np.diff(case.rows.indptr) > 14)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_systems_of_any_scale_are_solved(compiled, dtype, scale):
    """What leaves the range of single precision is solved in double."""
    scale = scale if dtype == np.float32 else scale**5
    case = RowCase(9, False, True, False, dtype)
    values, H = case.rows.values * dtype(scale), case.problem.H * dtype(scale)
    case.change(H=shifted(H), values=values)
    options = {"ridge": case.ridge * scale**2}
    found = case.run(compiled, "least_squares", **options)
    expected = case.run(numpy_kernels, "least_squares", **options)
    assert_array_equal(found["needs_fallback"], 0)
    assert_near(found["out"], expected["out"], TOLERANCE_OF_SYSTEMS[dtype])


def test_products_of_entries_are_the_same_at_every_rank(compiled, dtype):
    for rank in RANKS:
        case = RowCase(rank, False, False, False, dtype)
        rng = np.random.RandomState(0)
        i, j = (rng.randint(len(A), size=200) for A in (case.W, case.problem.H))
        arguments = case.W, case.problem.H, shifted(i), shifted(j)
        found, expected = guarded(200, dtype), guarded(200, dtype)
        compiled.entry_products(*arguments, found, 0, 200)
        numpy_kernels.entry_products(*arguments, expected, 0, 200)
        assert_near(found[None], expected[None], TOLERANCE[dtype], f"rank {rank}")


def stochastic_case(rank, row_bias, column_bias, weighted, dtype, adaptive, size=40):
    m, n = 7, 6
    rng = np.random.RandomState(rank)
    W = rng.standard_normal((m, rank + row_bias))
    H = rng.standard_normal((n, rank + column_bias))
    sums = [rng.uniform(0, 1, (side, 2)) for side in (m, n)]
    pair = (shifted(rng.randint(side, size=size).astype("i4")) for side in (m, n))
    values = shifted(rng.standard_normal(size).astype(dtype))
    weights = random_sizes(size, dtype, 0, 2) if weighted else None
    W, H = (guarded(A.shape, dtype, A / np.sqrt(rank + 1)) for A in (W, H))
    shares = random_sizes(m, dtype), random_sizes(n, dtype, seed=1)
    squares = None, None
    if adaptive:
        squares = tuple(guarded(A.shape, dtype, A) for A in sums)
    problem = (*pair, values, weights), W, H, row_bias, column_bias, shares, squares
    return StochasticProblem(
        *problem, ridges=(0.3, 0.7), etas=(0.05, 0.1), scales=(2, 0.5)
    )


def changed_by(kernels, problem, start=0, stop=None):
    kernels.sgd(problem, start, len(problem.entries[0]) if stop is None else stop)
    changed = problem.W, problem.H, *problem.squares
    return [array for array in changed if array is not None]


@cache
def steps_at_every_rank(dtype, adaptive):
    """Return what the kernels in NumPy make of every rank, biases and weights."""
    few = RANKS[:18]
    kinds = [(r, *f) for f in FLAGS for r in (few if f in FLAGS[1:-1] else RANKS)]
    cases = {kind: stochastic_case(*kind, dtype, adaptive) for kind in kinds}
    return {kind: changed_by(numpy_kernels, case) for kind, case in cases.items()}


adaptive_or_fixed = pytest.mark.parametrize("adaptive", [False, True])


class TestStochasticSteps:
    @pytest.mark.slow
    @adaptive_or_fixed
    def test_are_the_same_at_every_rank(self, compiled, dtype, adaptive):
        for kind, expected in steps_at_every_rank(dtype, adaptive).items():
            found = changed_by(compiled, stochastic_case(*kind, dtype, adaptive))
            for pair in zip(found, expected, strict=True):
                assert_near(*pair, TOLERANCE[dtype], str(kind))

    @adaptive_or_fixed
    def test_are_made_from_start_to_stop_only(self, compiled, dtype, adaptive):
        kind = 5, True, True, True, dtype, adaptive
        for start, stop, tolerance in ((7, 7, 0), (7, 19, TOLERANCE[dtype])):
            found = changed_by(compiled, stochastic_case(*kind), start, stop)
            expected = changed_by(numpy_kernels, stochastic_case(*kind), start, stop)
            for pair in zip(found, expected, strict=True):
                assert_near(*pair, tolerance)


class PosteriorCase:
    """Sums of moments, which rows share, and a call of the kernel for posteriors."""

    def __init__(self, rank, row_bias, column_bias, dtype):
        rng = np.random.RandomState(rank)
        q, length = rank + row_bias, rank + 1 + column_bias
        v = rng.standard_normal((3, 2 * length + 5, length))
        v[..., rank] = 1
        sums = v.transpose(0, 2, 1) @ v
        sums[:, np.arange(rank), np.arange(rank)] += rng.uniform(1, 2, (3, rank))
        a, b = np.tril_indices(length)
        root = rng.standard_normal((q, q)) / max(q, 1) ** 0.5
        prior = root @ root.T + np.eye(q)
        sums = shifted(sums[:, a, b].astype(dtype))
        # Runs of rows with one system, and rows that come back to it.
        system_index = shifted(np.array([0, 1, 1, 1, 2, 0, 0, 2, 2]))
        targets = shifted(rng.standard_normal((9, length)).astype(dtype))
        # Rows 1 and 2 share theirs; row 3 has another one.
        scale = shifted(np.array([1.0, 2.0, 2.0, 0.5, 3.0, 1.0, 1.0, 3.0, 0.25]))
        given = sums, system_index, targets, scale, shifted(prior[np.tril_indices(q)])
        least = np.linalg.eigvalsh(prior).min(initial=np.inf)
        self.problem = PosteriorProblem(*given, least, row_bias, column_bias)
        self.q, self.dtype = q, dtype

    def change(self, **changes):
        self.problem = self.problem._replace(**changes)
        return self

    def know_less_than_nothing(self):
        """Let one system subtract from what the prior knows of the fourth factor."""
        sums = np.array(self.problem.sums)
        sums[1, 9] = -2 * self.problem.prior[9]
        return self.change(sums=sums)

    def results(self):
        n_rows, q = len(self.problem.system_index), self.q
        return {
            "means": guarded((n_rows, q), self.dtype),
            "moments": guarded((n_rows, (q + 1) * (q + 2) // 2), self.dtype),
            "covariances": guarded((n_rows, q * (q + 1) // 2), self.dtype),
            "logdets": guarded(n_rows, float),
            "gains": guarded(n_rows, float),
            "needs_fallback": guarded(n_rows, np.uint8),
        }

    def run(self, kernels, start=0, stop=None, **changes):
        results = {**self.results(), **changes}
        *posteriors, needs_fallback = results.values()
        stop = len(self.problem.system_index) if stop is None else stop
        out = Posteriors(*posteriors)
        kernels.posterior(self.problem, out, needs_fallback, start, stop)
        return results


@cache
def posterior_cases(dtype):
    kinds = [(rank, *b) for rank in RANKS for b in BIASES[:: 1 if rank < LARGE else 3]]
    cases = [PosteriorCase(*kind, dtype) for kind in kinds]
    return [(case, case.run(numpy_kernels)) for case in cases]


class TestPosterior:
    def test_is_the_same_at_every_rank(self, compiled, dtype):
        for k, (case, expected) in enumerate(posterior_cases(dtype)):
            found = case.run(compiled, **({} if k % 3 else {"covariances": None}))
            for name in [name for name, array in found.items() if array is not None]:
                array = found[name]
                precision = np.float64 if array.dtype == np.float64 else dtype
                what = f"{name} {case.q} {case.problem[-2:]}"
                tolerance = TOLERANCE_OF_POSTERIORS[precision]
                assert_near(array, expected[name], tolerance, what)

    def test_is_found_from_start_to_stop_only(self, either, dtype):
        """The same bits, though a range may begin within rows of one system."""
        case = PosteriorCase(5, True, True, dtype)
        whole = case.run(either)
        for start, stop in ((0, 0), (0, 4), (2, 5), (6, 9), (9, 9)):
            filled = slice(start, stop)
            for name, array in case.run(either, start, stop).items():
                assert_array_equal(array[filled], whole[name][filled], err_msg=name)
                outside = np.delete(array, filled, axis=0)
                assert_array_equal(outside, GUARD, err_msg=name)
                assert_guards_stand(array, name)

    def test_is_marked_where_rounding_made_it_indefinite(self, compiled, dtype):
        """Rows that come after, of the same system or of another, are not harmed."""
        case = PosteriorCase(4, True, True, dtype)
        expected = case.run(compiled)
        found = case.know_less_than_nothing().run(compiled)
        indefinite = case.problem.system_index == 1
        assert_array_equal(found["needs_fallback"], indefinite)
        for name, array in found.items():
            regular = array[~indefinite]
            assert_array_equal(regular, expected[name][~indefinite], err_msg=name)
            assert_guards_stand(array, name)

    @pytest.mark.parametrize("share, mark", [(0.4, 1), (0.6, 0)])
    def test_is_marked_below_half_of_what_the_prior_knows(self, compiled, share, mark):
        """By less than half of it, it may be rounding that does no harm."""
        case = PosteriorCase(3, False, False, np.float64)
        sums = np.array(case.problem.sums)
        sums[:, :6] = [0.0, 0.0, share - 1, 0.0, 0.0, 0.0]
        identity = np.array([1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
        case.change(sums=sums, prior=identity, least_eigenvalue=1.0, scale=np.ones(9))
        assert_array_equal(case.run(compiled)["needs_fallback"], mark)

    def test_is_that_of_numpy_where_it_is_marked(self, monkeypatch, compiled, dtype):
        problem = PosteriorCase(4, True, True, dtype).know_less_than_nothing().problem
        arguments, answers = (*problem[:5], (True, True)), []
        for kernels in (compiled, numpy_kernels):
            monkeypatch.setattr(backend, "kernels", kernels)
            answers.append(dispatch.posterior(*arguments, with_covariances=True))
        for found, expected in zip(*answers, strict=True):
            assert np.isfinite(found).all()
            assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    def test_has_a_system_that_exists_for_every_row(self, compiled_kernels):
        case = PosteriorCase(3, True, True, np.float64)
        for index in (-1, 3, -(2**63)):
            case.change(system_index=np.array(case.problem.system_index))
            case.problem.system_index[4] = index
            with pytest.raises(IndexError, match=rf"Row 4 has no system {index}\."):
                case.run(compiled_kernels)
            assert_array_equal(case.run(compiled_kernels, 5, 9)["means"][:5], GUARD)

    def test_refuses_arrays_of_a_wrong_shape(self, compiled_kernels):
        case = PosteriorCase(3, True, True, np.float64)
        given, problem = ("sums", "targets", "scale", "prior"), case.problem
        arrays = {**{name: getattr(problem, name) for name in given}, **case.results()}
        for name, array in arrays.items():
            for axis, wrong in wrong_shapes(array):
                # There may be any number of systems; the means say how many factors.
                if (name, axis) in {("sums", 0), ("means", 1)}:
                    continue
                changes = {name: wrong}
                if name in given:
                    case.problem, changes = problem._replace(**changes), {}
                with pytest.raises(ValueError, match=f"{name} must have shape"):
                    case.run(compiled_kernels, **changes)
                case.problem = problem
        for width in (0, 3, 5):
            with pytest.raises(ValueError, match="must h"):
                case.run(compiled_kernels, means=np.zeros((9, width)))
        with pytest.raises(ValueError, match="mismatch"):
            case.change(targets=case.problem.targets.astype("f4")).run(compiled_kernels)


class TestRanges:
    @pytest.mark.parametrize("call", CALLS)
    def test_are_filled_and_nothing_else_is(self, either, call, dtype):
        case = RowCase(5, True, True, True, dtype)
        whole = case.run(either, call)
        tolerance = TOLERANCE_OF_SYSTEMS[dtype] if either is numpy_kernels else 0
        for start, stop in ((0, 0), (0, 4), (2, 5), (4, 9), (9, 9)):
            filled = slice(start, stop)
            if call == "residuals":
                filled = slice(case.rows.indptr[start], case.rows.indptr[stop])
            for name, array in case.run(either, call, start, stop).items():
                pair = array[filled], whole[name][filled]
                assert_allclose(*pair, rtol=tolerance, atol=tolerance)
                assert_array_equal(np.delete(array, filled, axis=0), GUARD)

    def test_of_entries_are_filled_and_nothing_else_is(self, either, dtype):
        case, (i, j) = RowCase(5, False, False, False, dtype), np.ones((2, 9), int)
        out, H = guarded(9, dtype), case.problem.H
        either.entry_products(case.W, H, i, j, out, 3, 5)
        assert_allclose(out[3:5], case.W[1] @ H[1], rtol=1e-5)
        assert_array_equal(np.delete(out, [3, 4]), GUARD)

    @pytest.mark.parametrize("start, stop", [(-1, 2), (3, 2), (0, 10), (2**40, 2**41)])
    def test_outside_are_refused(self, compiled_kernels, small, start, stop):
        steps = stochastic_case(5, True, True, True, np.float64, True, size=5)
        arguments = small.W, small.W, *np.zeros((2, 5), int), guarded(5, float)
        told = f"not {start} to {stop}"
        for call in CALLS:
            with pytest.raises(ValueError, match=f"There are 5 rows, {told}"):
                small.run(compiled_kernels, call, start, stop)
        with pytest.raises(ValueError, match=f"There are 9 rows, {told}"):
            PosteriorCase(3, True, True, float).run(compiled_kernels, start, stop)
        with pytest.raises(ValueError, match=f"There are 5 entries, {told}"):
            compiled_kernels.sgd(steps, start, stop)
        with pytest.raises(ValueError, match=f"There are 5 entries, {told}"):
            compiled_kernels.entry_products(*arguments, start, stop)


@pytest.mark.parametrize("call", CALLS)
def test_no_rows_no_entries_and_no_factors_have_answers_of_zero(compiled, call, dtype):
    for rank, flags, counts in product((0, 3), FLAGS, ([], [0], [0, 0, 0])):
        case = RowCase(rank, *flags, dtype, counts)
        found = case.run(compiled, call)
        if counts == [0] and rank:  # nor columns
            case.change(H=shifted(case.problem.H[:0]))
            without_columns = case.run(compiled, call)
            found |= {f"{name}, no H": a for name, a in without_columns.items()}
        for name, array in found.items():
            if array.dtype != np.uint8:
                assert_array_equal(array, 0, err_msg=(name, flags))
            assert len(array) == (0 if call == "residuals" else len(counts))


def test_no_rows_and_no_entries_write_nothing(compiled_kernels, dtype):
    case = PosteriorCase(3, True, True, dtype)
    for name in ("system_index", "targets", "scale", "sums"):
        case.change(**{name: getattr(case.problem, name)[:0]})
        if name in ("scale", "sums"):
            for array in case.run(compiled_kernels).values():
                assert_guards_stand(array)
    out, nothing = guarded(0, dtype), np.zeros(0, int)
    for shape in ((0, 3), (4, 0), (0, 0)):
        W = np.zeros(shape, dtype)
        compiled_kernels.entry_products(W, W, nothing, nothing, out, 0, 0)
        assert_guards_stand(out)


# Index, value or what is added to all.
MALFORMED = [("indices", -3, 35), ("indices", -3, 2**31 - 1)]
MALFORMED += [("indices", 0, -1), ("indices", 5, -(2**31))]
MALFORMED += [("indptr", 2, 0), ("indptr", 0, -1), ("indptr", ..., -(2**40))]
MALFORMED += [("indptr", -1, 50), ("indptr", ..., 2**40), ("indptr", -1, 2**63 - 1)]


@pytest.fixture
def small():
    return RowCase(5, True, True, True, np.float64, counts=[8, 0, 12, 9, 20])


def broken(case, name, index, value):
    array = np.array(getattr(case.rows, name))
    array[index] = array + value if index is ... else value
    return case.change(**{name: array})


class TestMalformedRows:
    @pytest.mark.parametrize("name, index, value", MALFORMED)
    def test_are_refused(self, compiled_kernels, small, name, index, value):
        """Even where the memory beyond the entries looks like more of them."""
        broken(small, name, index, value)
        longer = np.append(small.rows.indices, np.zeros(9, np.int32))
        small.change(indices=longer[:-9])
        with pytest.raises(ValueError, match="malformed"):
            small.run(compiled_kernels, "squares")

    @pytest.mark.parametrize("call", CALLS)
    def test_are_named_by_every_kernel(self, compiled, dtype, call):
        case = RowCase(5, True, True, True, dtype, counts=[8, 0, 12, 9, 20])
        broken(case, "indices", 25, -1)
        with pytest.raises(ValueError, match=r"Row 3 .* malformed"):
            case.run(compiled, call)
        found = case.run(compiled, call, 4, 5)
        assert not np.any(found["out"][-1] == GUARD)  # no harm outside of the range

    @pytest.mark.parametrize("call", CALLS)
    def test_may_lead_to_what_is_not_there(self, compiled_kernels, call):
        pointers, H = {"indptr": np.array([0, 0, 4])}, {"H": np.zeros((0, 4))}
        for counts, changes in (([0, 0], pointers), ([2, 2], H)):
            case = RowCase(3, True, True, True, np.float64, counts).change(**changes)
            with pytest.raises(ValueError, match="malformed"):
                case.run(compiled_kernels, call)

    @pytest.mark.parametrize("call", CALLS)
    def test_have_arrays_that_fit_together(self, compiled_kernels, small, call):
        problem = small.problem
        for name, array, told in (
            ("values", np.zeros(48), "values has 48 entries"),
            ("weights", np.zeros(50), "weights has 50 entries"),
            ("weights", np.zeros(0), "weights has 0 entries"),
            ("indptr", np.zeros(0, int), "indptr must not be empty"),
            ("H", np.zeros((35, 0)), "H must hold the column biases"),
            ("H", np.zeros((35, 6), order="F"), "contiguous"),
            ("H", np.zeros((35, 12))[:, ::2], "contiguous"),
            ("values", np.zeros(49, np.float32), "mismatch"),
        ):
            small.problem = problem
            with pytest.raises(ValueError, match=told):
                small.change(**{name: array}).run(compiled_kernels, call)


@pytest.mark.parametrize("call", CALLS)
def test_arrays_of_a_wrong_shape_are_refused(compiled_kernels, small, call):
    arguments = {**small.inputs(call), **small.results(call)}
    if call == "least_squares":
        arguments |= {"ridge": small.ridges, "draws": small.draws}
    for name, array in arguments.items():
        for _, wrong in wrong_shapes(array):
            with pytest.raises(ValueError, match=f"{name} must have shape"):
                small.run(compiled_kernels, call, **{name: wrong})


class TestEntriesOutside:
    @pytest.mark.parametrize("side", [0, 1])
    def test_have_no_product(self, compiled, dtype, side):
        factors = np.ones((6, 3), dtype)
        for index in (-1, 6, 2**62, -(2**63)):
            pair, out = [np.zeros(5, int), np.zeros(5, int)], guarded(5, dtype)
            pair[side][3] = index
            with pytest.raises(IndexError, match="Entry 3 lies outside"):
                compiled.entry_products(factors, factors, *pair, out, 0, 5)
            compiled.entry_products(factors, factors, *pair, out, 4, 5)
            assert_array_equal(out, [3, 3, 3, GUARD, 3])
            assert_guards_stand(out)

    @pytest.mark.parametrize("side", [0, 1])
    def test_move_nothing(self, compiled, dtype, side):
        for index in (-1, 7, 2**31 - 1, -(2**31)):
            case = stochastic_case(5, True, True, True, dtype, True)
            entries = [np.array(array) for array in case.entries]
            entries[side][3] = index
            case = case._replace(entries=tuple(entries))
            with pytest.raises(IndexError, match="Entry 3 lies outside"):
                changed_by(compiled, case)
            whole = stochastic_case(5, True, True, True, dtype, True)
            found = changed_by(compiled, case, 3, 3)
            for pair in zip(found, changed_by(compiled, whole, 0, 3), strict=True):
                assert_near(*pair, 0)

    def test_have_no_factors_and_arrays_of_a_wrong_shape(self, compiled_kernels):
        W, i, out = np.ones((6, 3)), np.zeros(5, int), guarded(5, float)
        for H, j, result, told in (
            (np.ones((6, 4)), i, out, "H"),
            (W, i[:4], out, "columns"),
            (W, np.zeros(6, int), out, "columns"),
            (W, i, out[:4], "out"),
            (W, i, np.zeros(6), "out"),
        ):
            with pytest.raises(ValueError, match=f"{told} must have shape"):
                compiled_kernels.entry_products(W, H, i, j, result, 0, 5)

    @pytest.mark.parametrize("change", [-1, 1])
    def test_make_no_steps_with_arrays_of_a_wrong_shape(self, compiled_kernels, change):
        case = stochastic_case(5, True, True, True, np.float64, True, size=5)
        rows, columns, values, weights = case.entries
        shares, squares = case.ridge_shares, case.squares
        length = 5 + change
        for told, wrong in {
            "columns": {"entries": (rows, np.zeros(length, "i4"), values, weights)},
            "values": {"entries": (rows, columns, np.zeros(length), weights)},
            "weights": {"entries": (rows, columns, values, np.zeros(length))},
            "H": {"H": np.zeros((6, 6 + change))},
            "row_share": {"ridge_shares": (np.zeros(7 + change), shares[1])},
            "column_share": {"ridge_shares": (shares[0], np.zeros(6 + change))},
            "row_squares": {"squares": (np.zeros((7 + change, 2)), squares[1])},
            "column_squares": {"squares": (squares[0], np.zeros((6, 2 + change)))},
        }.items():
            with pytest.raises(ValueError, match=f"{told} must have shape"):
                compiled_kernels.sgd(case._replace(**wrong), 0, 5)


class TestChoiceOfBackend:
    @pytest.fixture
    def load(self, monkeypatch, compiled_kernels):
        before = compiled_kernels.instructions()

        def load(wanted="", required=""):
            monkeypatch.setenv("SKLEARN_MFGD_KERNELS", wanted)
            monkeypatch.setenv("SKLEARN_MFGD_REQUIRE_COMPILED", required)
            return backend._load()

        yield load
        compiled_kernels.choose(before)

    @pytest.fixture
    def absent(self, monkeypatch):
        name = "sklearn_mfgd._kernels.compiled"
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delattr(sklearn_mfgd._kernels, "compiled", raising=False)

    def test_is_the_compiled_one_unless_numpy_is_wanted(self, load, compiled_kernels):
        for required in ("", "0", "1"):
            assert load(required=required) is compiled_kernels
        assert load("numpy") is numpy_kernels

    def test_is_that_of_the_instructions_that_are_wanted(self, load, compiled_kernels):
        for name in available(INSTRUCTIONS):
            assert load(name) is compiled_kernels
            assert compiled_kernels.instructions() == name

    def test_is_refused_where_it_contradicts_itself(self, load):
        with pytest.raises(ImportError, match="unset one"):
            load("numpy", "1")
        with pytest.raises(ImportError, match="'sse9'"):
            load("sse9")

    def test_is_numpy_or_refused_where_the_compiled_one_is_absent(self, load, absent):
        assert load() is load("numpy") is numpy_kernels
        for wanted, required in (("", "1"), ("base", "")):
            with pytest.raises(ImportError, match="not installed"):
                load(wanted, required)

    def test_is_told(self, monkeypatch, compiled_kernels):
        compiled = f"compiled, {compiled_kernels.instructions()}"
        for kernels, told in ((numpy_kernels, "NumPy"), (compiled_kernels, compiled)):
            monkeypatch.setattr(backend, "kernels", kernels)
            assert backend.kernels_in_use() == told
