# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""The functions of `numpy_kernels` and `numpy_chains`, the references, compiled.

Everything here checks shapes, fills the structs that the C in ``row_kernels.h`` and
``chain_kernels.h`` works on, releases the GIL and reports what C found to be malformed;
threads are the caller's affair. Problems hold the arrays that a struct points to until
a kernel is done.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

ctypedef fused real:
    float
    double

cdef extern from "vector_widths.h" nogil:
    enum: LEAST_SQUARES, GRADIENT, PRODUCT, SQUARES, RESIDUALS, NON_NEGATIVE

    ctypedef struct row_problem:
        int64_t n_rows, n_columns, n_entries
        const int64_t *indptr
        const int32_t *indices
        const void *values, *weights, *columns, *rows, *draws
        int64_t rank, row_stride, column_stride, ridge_stride
        bint row_bias, column_bias
        const double *ridge
        void *out
        double *sums
        uint8_t *needs_fallback

    ctypedef struct product_problem:
        int64_t n_rows, n_columns, rank
        const int64_t *i, *j
        const void *rows, *columns
        void *out

    ctypedef struct shared_problem:
        int64_t n_rows, rank, n_passes
        const double *system, *targets
        double *out

    ctypedef struct posterior_problem:
        const int64_t *system_index
        int64_t rank, size, out_size, target_stride
        bint row_bias, column_bias
        const void *sums, *targets
        const double *scale, *prior
        double least_eigenvalue
        void *means, *moments, *covariances
        double *logdets, *gains
        uint8_t *needs_fallback

    ctypedef struct stochastic_problem:
        int64_t n_rows, n_columns
        const int32_t *i, *j
        const void *values, *weights, *row_share, *column_share
        int64_t rank, row_stride, column_stride
        bint row_bias, column_bias
        void *rows, *columns, *row_squares, *column_squares
        double ridge, bias_ridge, eta, bias_eta, scale, bias_scale

    ctypedef struct chain_problem:
        int64_t q, system_stride
        const double *systems, *targets, *persistence, *precision
        double *matrix, *vector, *conditionals, *filtered
        double *means, *covariances, *lagged

    ctypedef struct process_problem:
        int64_t n_rows, n_entries, n_candidates
        const int64_t *indptr
        const int32_t *indices
        const double *values, *weights, *gaps, *timescales, *ratios, *states
        double *log_dets, *squares, *means, *variances, *products
        int64_t rank, state_stride
        bint row_bias, column_bias

    ctypedef int64_t (*row_function)(
        int, const row_problem *, double *, int64_t, int64_t) noexcept nogil
    ctypedef int64_t (*product_function)(
        const product_problem *, int64_t, int64_t) noexcept nogil
    ctypedef int64_t (*sgd_function)(
        const stochastic_problem *, int64_t, int64_t) noexcept nogil
    ctypedef void (*posterior_function)(
        const posterior_problem *, int64_t, int64_t, double *) noexcept nogil
    ctypedef void (*shared_function)(
        const shared_problem *, int64_t, int64_t, double *) noexcept nogil

    ctypedef double (*filter_function)(
        const chain_problem *, int64_t, int64_t, double *) noexcept nogil
    ctypedef void (*chain_function)(
        const chain_problem *, int64_t, int64_t, double *) noexcept nogil
    ctypedef void (*process_function)(
        const process_problem *, int64_t, int64_t, double *) noexcept nogil

    # Each pair of functions is for single and for double precision.
    ctypedef struct instruction_set:
        const char *name
        row_function run_rows[2]
        product_function products[2]
        sgd_function sgd[2]
        posterior_function posteriors[2]
        shared_function non_negative_rows
        filter_function filter_states
        chain_function smooth_states, filter_means
        process_function process_likelihoods, process_means, whitened_products

    const instruction_set *find_instruction_set(const char *name)
    int64_t least_squares_work_size(int64_t rank)
    int64_t non_negative_work_size(int64_t rank)
    int64_t shared_work_size(int64_t rank)
    int64_t posterior_work_size(int64_t rank)
    int64_t chain_work_size(int64_t q)
    int64_t whitening_work_size(int64_t width)
    int64_t find_malformed_column(const process_problem *, int64_t, int64_t)
    int64_t longest_column(const process_problem *, int64_t, int64_t)

cdef const instruction_set *in_use = NULL


def choose(name=""):
    """Use the vector instructions of that name, or the widest of this processor."""
    global in_use
    found = find_instruction_set(name.encode())
    if found == NULL:
        raise ImportError(
            f"SKLEARN_MFGD_KERNELS={name!r}: this processor or this build has no such "
            "instructions; use 'avx512', 'avx2', 'base', or 'numpy' for no compiled "
            "kernels.")
    in_use = found


def instructions():
    """Name of the vector instructions in use."""
    return in_use.name.decode()


cdef class Aligned:
    """Work memory that begins at a cache line."""

    cdef void *memory
    cdef double *start

    def __cinit__(self, Py_ssize_t size):
        self.memory = malloc(size * sizeof(double) + 64)
        if self.memory == NULL:
            raise MemoryError(f"{8 * size} bytes to solve the systems of rows")
        self.start = <double *>(((<uintptr_t> self.memory) + 63) // 64 * 64)

    def __dealloc__(self):
        free(self.memory)


cdef check_given(values):
    if values is None:
        raise ValueError("values must be given.")


cdef check_shape(name, array, shape):
    if tuple(array.shape[:array.ndim]) != shape:
        raise ValueError(f"{name} must have shape {shape}.")


cdef check_range(Py_ssize_t start, Py_ssize_t stop, Py_ssize_t count, what):
    if not 0 <= start <= stop <= count:
        raise ValueError(f"There are {count} {what}, not {start} to {stop}.")


cdef check_inside(int64_t outside):
    if outside >= 0:
        raise IndexError(f"Entry {outside} lies outside the matrix.")


cdef const void *first_of(const real[:, ::1] array) noexcept:
    """Pointer to the first number, NULL without any."""
    return &array[0, 0] if array.shape[0] and array.shape[1] else NULL


cdef row_problem unpack_rows(problem, const real[:, ::1] H) except *:
    """Struct of a `RowProblem`; NULL for what a kernel adds by itself."""
    cdef row_problem c
    memset(&c, 0, sizeof(c))
    cdef const int64_t[::1] indptr = problem.rows.indptr
    cdef const int32_t[::1] indices = problem.rows.indices
    cdef const real[::1] values = problem.rows.values
    cdef const real[::1] weights = problem.rows.weights
    c.row_bias, c.column_bias = problem.row_bias, problem.column_bias
    if indptr.shape[0] == 0 or H.shape[1] < c.column_bias:
        raise ValueError("indptr must not be empty, and H must hold the column biases.")
    for name, array in (("values", values), ("weights", weights)):
        if array is not None and array.shape[0] != indices.shape[0]:
            raise ValueError(
                f"{name} has {array.shape[0]} entries, indices has {indices.shape[0]}.")
    c.n_rows, c.n_entries = indptr.shape[0] - 1, indices.shape[0]
    c.n_columns, c.rank = H.shape[0], H.shape[1] - c.column_bias
    c.column_stride, c.row_stride = H.shape[1], c.rank + c.row_bias
    c.indptr, c.columns = &indptr[0], first_of(H)
    if c.n_entries:
        c.indices = &indices[0]
        if values is not None:
            c.values = &values[0]
        if weights is not None:
            c.weights = &weights[0]
    return c


cdef row_problem unpack_factors(problem, const real[:, ::1] W) except *:
    """The same, with factors of the rows."""
    cdef const real[:, ::1] H = problem.H
    cdef row_problem c = unpack_rows(problem, H)
    check_shape("W", W, (c.n_rows, c.row_stride))
    c.rows = first_of(W)
    return c


cdef run_rows(int kernel, row_problem *c, bint single, Py_ssize_t start,
              Py_ssize_t stop):
    """Run a kernel on rows start .. stop, without the GIL."""
    cdef int64_t malformed
    cdef double *work = NULL
    check_range(start, stop, c.n_rows, "rows")
    if kernel == LEAST_SQUARES or kernel == NON_NEGATIVE:
        memory = Aligned(
            least_squares_work_size(c.rank) if kernel == LEAST_SQUARES
            else non_negative_work_size(c.rank))
        work = memory.start
    with nogil:
        malformed = in_use.run_rows[0 if single else 1](kernel, c, work, start, stop)
    if malformed >= 0:
        raise ValueError(
            f"Row {malformed} of the sparse matrix is malformed: its indptr decreases "
            "or leads past the entries, or a column index lies outside the matrix.")


def least_squares(
        problem, const double[:, ::1] ridge, draws, real[:, ::1] out,
        uint8_t[::1] needs_fallback, Py_ssize_t start, Py_ssize_t stop):
    cdef const real[:, ::1] H = problem.H
    cdef const real[:, ::1] normal = draws
    cdef row_problem c = unpack_rows(problem, H)
    shape = c.n_rows, c.row_stride
    check_shape("ridge", ridge, (1 if ridge.shape[0] == 1 else shape[0], shape[1]))
    check_shape("out", out, shape)
    check_shape("needs_fallback", needs_fallback, shape[:1])
    if draws is not None:
        check_shape("draws", normal, shape)
    if out.shape[0] == 0 or out.shape[1] == 0:
        return
    check_given(problem.rows.values)
    c.ridge, c.out, c.needs_fallback = &ridge[0, 0], &out[0, 0], &needs_fallback[0]
    c.ridge_stride = c.row_stride if ridge.shape[0] > 1 else 0
    if draws is not None:
        c.draws = &normal[0, 0]
    run_rows(LEAST_SQUARES, &c, real is float, start, stop)


def non_negative(problem, const double[:, ::1] ridge, real[:, ::1] out,
                 Py_ssize_t start, Py_ssize_t stop):
    cdef const real[:, ::1] H = problem.H
    cdef row_problem c = unpack_rows(problem, H)
    if c.row_bias:
        raise ValueError("Rows with a bias have no constraints.")
    shape = c.n_rows, c.row_stride
    check_shape("ridge", ridge, (1 if ridge.shape[0] == 1 else shape[0], shape[1]))
    check_shape("out", out, shape)
    if out.shape[0] == 0 or out.shape[1] == 0:
        return
    check_given(problem.rows.values)
    c.ridge, c.out = &ridge[0, 0], &out[0, 0]
    c.ridge_stride = c.row_stride if ridge.shape[0] > 1 else 0
    run_rows(NON_NEGATIVE, &c, real is float, start, stop)


def non_negative_shared(
        const double[:, ::1] system, const double[:, ::1] targets, int64_t n_passes,
        double[:, ::1] out, Py_ssize_t start, Py_ssize_t stop):
    cdef shared_problem c
    c.n_passes = n_passes
    c.n_rows, c.rank = out.shape[0], out.shape[1]
    check_shape("system", system, (c.rank, c.rank))
    check_shape("targets", targets, (c.n_rows, c.rank))
    check_range(start, stop, c.n_rows, "rows")
    if start == stop or c.rank == 0:
        return
    c.system, c.targets, c.out = &system[0, 0], &targets[0, 0], &out[0, 0]
    memory = Aligned(shared_work_size(c.rank))
    cdef double *work = memory.start
    with nogil:
        in_use.non_negative_rows(&c, start, stop, work)


def gradient(problem, const real[:, ::1] W, real[:, ::1] out, double[::1] sums,
             Py_ssize_t start, Py_ssize_t stop):
    cdef row_problem c = unpack_factors(problem, W)
    check_shape("out", out, (c.n_rows, c.row_stride))
    check_shape("sums", sums, (c.n_rows,))
    check_given(problem.rows.values)
    if c.n_rows:
        c.out, c.sums = <void *> first_of[real](out), &sums[0]
        run_rows(GRADIENT, &c, real is float, start, stop)


def product(problem, real[:, ::1] out, Py_ssize_t start, Py_ssize_t stop):
    cdef const real[:, ::1] H = problem.H
    cdef row_problem c = unpack_rows(problem, H)
    c.row_bias = c.column_bias = False
    c.rank = c.row_stride = H.shape[1]
    check_shape("out", out, (c.n_rows, c.rank))
    c.out = <void *> first_of[real](out)
    run_rows(PRODUCT, &c, real is float, start, stop)


def squares(problem, const real[:, ::1] W, double[::1] out, Py_ssize_t start,
            Py_ssize_t stop):
    cdef row_problem c = unpack_factors(problem, W)
    check_shape("out", out, (c.n_rows,))
    if c.n_rows:
        c.sums = &out[0]
        run_rows(SQUARES, &c, real is float, start, stop)


def residuals(problem, const real[:, ::1] W, real[::1] out, Py_ssize_t start,
              Py_ssize_t stop):
    cdef row_problem c = unpack_factors(problem, W)
    check_shape("out", out, (c.n_entries,))
    check_given(problem.rows.values)
    if c.n_entries:
        c.out = &out[0]
    run_rows(RESIDUALS, &c, real is float, start, stop)


def entry_products(
        const real[:, ::1] W, const real[:, ::1] H, const int64_t[::1] rows,
        const int64_t[::1] columns, real[::1] out, Py_ssize_t start, Py_ssize_t stop):
    cdef product_problem c
    cdef int64_t outside
    check_shape("H", H, (H.shape[0], W.shape[1]))
    check_shape("columns", columns, (rows.shape[0],))
    check_shape("out", out, (rows.shape[0],))
    check_range(start, stop, rows.shape[0], "entries")
    if start == stop:
        return
    c.n_rows, c.n_columns, c.rank = W.shape[0], H.shape[0], W.shape[1]
    c.i, c.j, c.out = &rows[0], &columns[0], &out[0]
    c.rows, c.columns = first_of(W), first_of(H)
    with nogil:
        outside = in_use.products[0 if real is float else 1](&c, start, stop)
    check_inside(outside)


def sgd(problem, Py_ssize_t start, Py_ssize_t stop):
    """Leave the precision to the type of W: a fused type is chosen by an argument."""
    _sgd(problem, problem.W, start, stop)


def _sgd(problem, real[:, ::1] W, Py_ssize_t start, Py_ssize_t stop):
    cdef stochastic_problem c
    memset(&c, 0, sizeof(c))
    cdef int64_t outside
    cdef real[:, ::1] H = problem.H
    entries, shares, squares = problem.entries, problem.ridge_shares, problem.squares
    cdef const int32_t[::1] rows = entries[0], columns = entries[1]
    cdef const real[::1] values = entries[2], weights = entries[3]
    cdef const real[::1] row_share = shares[0], column_share = shares[1]
    cdef real[:, ::1] row_squares = squares[0], column_squares = squares[1]
    c.row_bias, c.column_bias = problem.row_bias, problem.column_bias
    c.ridge, c.bias_ridge = problem.ridges
    c.eta, c.bias_eta = problem.etas
    c.scale, c.bias_scale = problem.scales
    c.n_rows, c.n_columns, c.rank = W.shape[0], H.shape[0], W.shape[1] - c.row_bias
    c.row_stride, c.column_stride = W.shape[1], H.shape[1]
    n_entries = rows.shape[0]
    check_given(values)
    check_shape("columns", columns, (n_entries,))
    check_shape("values", values, (n_entries,))
    if weights is not None:
        check_shape("weights", weights, (n_entries,))
    check_shape("H", H, (c.n_columns, c.rank + c.column_bias))
    check_shape("row_share", row_share, (c.n_rows,))
    check_shape("column_share", column_share, (c.n_columns,))
    if row_squares is not None:
        check_shape("row_squares", row_squares, (c.n_rows, 2))
        check_shape("column_squares", column_squares, (c.n_columns, 2))
    check_range(start, stop, n_entries, "entries")
    if start == stop:
        return
    c.i, c.j, c.values = &rows[0], &columns[0], &values[0]
    if weights is not None:
        c.weights = &weights[0]
    c.rows, c.columns = &W[0, 0], &H[0, 0]
    c.row_share, c.column_share = &row_share[0], &column_share[0]
    if row_squares is not None:
        c.row_squares, c.column_squares = &row_squares[0, 0], &column_squares[0, 0]
    with nogil:
        outside = in_use.sgd[0 if real is float else 1](&c, start, stop)
    check_inside(outside)


def posterior(problem, out, uint8_t[::1] needs_fallback, Py_ssize_t start,
              Py_ssize_t stop):
    """Leave the precision to the type of the means, see `sgd`."""
    _posterior(problem, out, out.means, needs_fallback, start, stop)


def _posterior(problem, out, real[:, ::1] means, uint8_t[::1] needs_fallback,
               Py_ssize_t start, Py_ssize_t stop):
    cdef posterior_problem c
    cdef const real[:, ::1] sums = problem.sums, targets = problem.targets
    cdef const int64_t[::1] system_index = problem.system_index
    cdef const double[::1] scale = problem.scale, prior = problem.prior
    cdef real[:, ::1] moments = out.moments, covariances = out.covariances
    cdef double[::1] logdets = out.logdets, gains = out.gains
    cdef Py_ssize_t i, n_rows = system_index.shape[0], q = means.shape[1]
    c.row_bias, c.column_bias = problem.row_bias, problem.column_bias
    c.rank, c.least_eigenvalue = q - c.row_bias, problem.least_eigenvalue
    if c.rank < 0:
        raise ValueError("means must hold the row biases.")
    n_pairs = (c.rank + 1) * (c.rank + 2) // 2
    c.size = n_pairs + (c.rank + 2 if c.column_bias else 0)
    c.out_size = n_pairs + (c.rank + 2 if c.row_bias else 0)
    c.target_stride = c.rank + 1 + c.column_bias
    check_shape("sums", sums, (sums.shape[0], c.size))
    check_shape("targets", targets, (n_rows, c.target_stride))
    check_shape("means", means, (n_rows, q))
    check_shape("moments", moments, (n_rows, c.out_size))
    check_shape("prior", prior, (q * (q + 1) // 2,))
    for name, array in (("scale", scale), ("logdets", logdets), ("gains", gains),
                        ("needs_fallback", needs_fallback)):
        check_shape(name, array, (n_rows,))
    check_range(start, stop, n_rows, "rows")
    if covariances is not None:
        check_shape("covariances", covariances, (n_rows, q * (q + 1) // 2))
    if start == stop:
        return
    for i in range(start, stop):
        if not 0 <= system_index[i] < sums.shape[0]:
            raise IndexError(f"Row {i} has no system {system_index[i]}.")
    c.system_index, c.scale = &system_index[0], &scale[0]
    c.sums, c.targets = &sums[0, 0], &targets[0, 0]
    c.prior = &prior[0] if q else NULL
    c.means, c.covariances = <void *> first_of[real](means), NULL
    if covariances is not None:
        c.covariances = <void *> first_of[real](covariances)
    c.moments, c.logdets, c.gains = &moments[0, 0], &logdets[0], &gains[0]
    c.needs_fallback = &needs_fallback[0]
    memory = Aligned(posterior_work_size(c.rank))
    cdef double *work = memory.start
    with nogil:
        in_use.posteriors[0 if real is float else 1](&c, start, stop, work)


include "compiled_chains.pxi"

choose()
