# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""The compiled twin of `numpy_kernels`: the same functions, for ranges of rows or entries.

The C is in ``row_kernels.h``. Everything here checks shapes, releases the GIL and
reports what C found to be malformed; threads are the caller's affair.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uintptr_t
from libc.stdlib cimport free, malloc

ctypedef fused real:
    float
    double

cdef extern from "vector_widths.h" nogil:
    enum: LEAST_SQUARES, GRADIENT, SQUARES, RESIDUALS

    ctypedef struct observed:
        int64_t n_rows, n_columns, n_entries
        const int64_t *indptr
        const int32_t *indices
        const void *values
        const void *weights
        int64_t rank
        bint row_bias, column_bias
        const void *columns
        const void *draws
        void *rows
        void *gradient
        void *entries
        int64_t row_stride, column_stride, gradient_stride
        const double *ridge
        int64_t ridge_stride
        double *sums
        uint8_t *singular

    ctypedef struct pairs:
        int64_t n_rows, n_columns
        const int64_t *i
        const int64_t *j
        int64_t rank, row_stride, column_stride
        const void *rows
        const void *columns
        void *out

    ctypedef struct posteriors:
        const int64_t *which
        int64_t rank, size, own_size, target_stride
        bint row_bias, column_bias
        const void *sums
        const void *targets
        const double *scale
        const double *prior
        double least
        void *means
        void *moments
        void *covariances
        double *logdets
        double *gains
        uint8_t *singular

    ctypedef struct stochastic:
        int64_t n_rows, n_columns
        const int32_t *i
        const int32_t *j
        const void *values
        const void *weights
        int64_t rank, row_stride, column_stride
        bint row_bias, column_bias
        void *rows
        void *columns
        double ridge, bias_ridge
        const void *row_share
        const void *column_share
        void *row_squares
        void *column_squares
        double eta, bias_eta, scale, bias_scale

    ctypedef int64_t (*walk_function)(
        int, const observed *, double *, int64_t, int64_t
    ) noexcept nogil
    ctypedef int64_t (*products_function)(
        const pairs *, int64_t, int64_t
    ) noexcept nogil
    ctypedef int64_t (*sgd_function)(
        const stochastic *, int64_t, int64_t
    ) noexcept nogil

    ctypedef void (*posterior_function)(
        const posteriors *, int64_t, int64_t, double *
    ) noexcept nogil

    ctypedef struct engine:
        const char *name
        walk_function walk[2]
        products_function products[2]
        sgd_function sgd[2]
        posterior_function posterior[2]

    const engine *find_engine(const char *name)
    int64_t work_size(int64_t rank)
    int64_t posterior_work_size(int64_t rank)

cdef const engine *chosen = NULL


def choose(name=""):
    """Use the vector instructions of that name, or the widest of this processor."""
    global chosen
    found = find_engine(name.encode())
    if found == NULL:
        raise ImportError(
            f"SKLEARN_MFGD_KERNELS={name!r}: this processor or this build has no such "
            "instructions; use 'avx512', 'avx2', 'base', or 'numpy' for no compiled "
            "kernels."
        )
    chosen = found


def instructions():
    """Name of the vector instructions in use."""
    return chosen.name.decode()


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


cdef observed by_rows(
    const real[:, ::1] H,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const real[::1] values,
    const real[::1] weights,
    bint row_bias,
    bint column_bias,
) except *:
    cdef observed of
    if indptr.shape[0] == 0 or H.shape[1] < column_bias:
        raise ValueError("indptr must not be empty, and H must hold the column biases.")
    for name, array in (("values", values), ("weights", weights)):
        if array is not None and array.shape[0] != indices.shape[0]:
            raise ValueError(
                f"{name} has {array.shape[0]} entries, indices has {indices.shape[0]}."
            )
    of.n_rows, of.n_entries = indptr.shape[0] - 1, indices.shape[0]
    of.n_columns, of.rank = H.shape[0], H.shape[1] - column_bias
    of.indptr, of.indices = &indptr[0], NULL
    of.values = of.weights = of.columns = of.draws = NULL
    of.rows = of.gradient = of.entries = NULL
    of.ridge = of.sums = NULL
    of.singular = NULL
    if of.n_entries:
        of.indices = &indices[0]
        if values is not None:
            of.values = &values[0]
        if weights is not None:
            of.weights = &weights[0]
    of.row_bias, of.column_bias = row_bias, column_bias
    if H.shape[0] and H.shape[1]:
        of.columns = &H[0, 0]
    of.column_stride, of.row_stride = H.shape[1], of.rank + row_bias
    of.gradient_stride = of.row_stride
    return of


cdef check_given(values):
    if values is None:
        raise ValueError("values must be given.")


cdef check_shape(name, array, shape):
    if tuple(array.shape[:array.ndim]) != shape:
        raise ValueError(f"{name} must have shape {shape}.")


cdef walk(int wanted, observed *of, bint single, Py_ssize_t start, Py_ssize_t stop):
    """Rows start .. stop, without the GIL."""
    cdef int64_t malformed
    cdef double *work = NULL
    if not 0 <= start <= stop <= of.n_rows:
        raise ValueError(f"There are {of.n_rows} rows, not {start} to {stop}.")
    memory = Aligned(work_size(of.rank)) if wanted == LEAST_SQUARES else None
    if memory is not None:
        work = (<Aligned> memory).start
    with nogil:
        malformed = chosen.walk[0 if single else 1](wanted, of, work, start, stop)
    if malformed >= 0:
        raise ValueError(
            f"Row {malformed} of the sparse matrix is malformed: its indptr decreases "
            "or leads past the entries, or a column index lies outside the matrix."
        )


def least_squares(
    const real[:, ::1] H,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const real[::1] values,
    const real[::1] weights,
    bint row_bias,
    bint column_bias,
    const double[:, ::1] ridge,
    const real[:, ::1] draws,
    real[:, ::1] W,
    uint8_t[::1] singular,
    Py_ssize_t start,
    Py_ssize_t stop,
):
    cdef observed of = by_rows(
        H, indptr, indices, values, weights, row_bias, column_bias
    )
    if ridge.shape[0] == 1:
        check_shape("ridge", ridge, (1, of.row_stride))
    else:
        check_shape("ridge", ridge, (of.n_rows, of.row_stride))
    check_shape("W", W, (of.n_rows, of.row_stride))
    check_shape("singular", singular, (of.n_rows,))
    if draws is not None:
        check_shape("draws", draws, (of.n_rows, of.row_stride))
    if W.shape[0] == 0 or W.shape[1] == 0:
        return
    check_given(values)
    of.ridge, of.rows, of.singular = &ridge[0, 0], &W[0, 0], &singular[0]
    of.ridge_stride = of.row_stride if ridge.shape[0] > 1 else 0
    if draws is not None:
        of.draws = &draws[0, 0]
    walk(LEAST_SQUARES, &of, real is float, start, stop)


def gradient(
    const real[:, ::1] H,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const real[::1] values,
    const real[::1] weights,
    bint row_bias,
    bint column_bias,
    const real[:, ::1] W,
    real[:, ::1] gradient,
    double[::1] sums,
    Py_ssize_t start,
    Py_ssize_t stop,
):
    cdef observed of = by_rows(
        H, indptr, indices, values, weights, row_bias, column_bias
    )
    check_shape("gradient", gradient, (of.n_rows, of.row_stride))
    check_shape("sums", sums, (of.n_rows,))
    if W is not None:
        check_shape("W", W, (of.n_rows, of.row_stride))
    if gradient.shape[0] == 0:
        return
    if W is not None:
        check_given(values)
    # Without columns there is nothing to point at, but W is there all the same.
    of.sums, of.gradient = &sums[0], &sums[0]
    if W is not None:
        of.rows = &sums[0]
    if gradient.shape[1]:
        of.gradient = &gradient[0, 0]
        if W is not None:
            of.rows = <void *> &W[0, 0]
    walk(GRADIENT, &of, real is float, start, stop)


def squares(
    const real[:, ::1] H,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const real[::1] values,
    const real[::1] weights,
    bint row_bias,
    bint column_bias,
    const real[:, ::1] W,
    double[::1] sums,
    Py_ssize_t start,
    Py_ssize_t stop,
):
    cdef observed of = by_rows(
        H, indptr, indices, values, weights, row_bias, column_bias
    )
    check_shape("W", W, (of.n_rows, of.row_stride))
    check_shape("sums", sums, (of.n_rows,))
    if W.shape[0] == 0:
        return
    of.sums = &sums[0]
    of.rows = <void *> &W[0, 0] if W.shape[1] else NULL
    walk(SQUARES, &of, real is float, start, stop)


def residuals(
    const real[:, ::1] H,
    const int64_t[::1] indptr,
    const int32_t[::1] indices,
    const real[::1] values,
    const real[::1] weights,
    bint row_bias,
    bint column_bias,
    const real[:, ::1] W,
    real[::1] out,
    Py_ssize_t start,
    Py_ssize_t stop,
):
    cdef observed of = by_rows(
        H, indptr, indices, values, weights, row_bias, column_bias
    )
    check_shape("W", W, (of.n_rows, of.row_stride))
    check_shape("out", out, (of.n_entries,))
    if W.shape[0] == 0:
        return
    check_given(values)
    of.entries = &out[0] if out.shape[0] else NULL
    of.rows = <void *> &W[0, 0] if W.shape[1] else NULL
    walk(RESIDUALS, &of, real is float, start, stop)


def entry_products(
    const real[:, ::1] W,
    const real[:, ::1] H,
    const int64_t[::1] rows,
    const int64_t[::1] columns,
    real[::1] out,
    Py_ssize_t start,
    Py_ssize_t stop,
):
    cdef pairs of
    cdef int64_t outside
    check_shape("H", H, (H.shape[0], W.shape[1]))
    check_shape("columns", columns, (rows.shape[0],))
    check_shape("out", out, (rows.shape[0],))
    if not 0 <= start <= stop <= rows.shape[0]:
        raise ValueError(f"There are {rows.shape[0]} entries, not {start} to {stop}.")
    if start == stop:
        return
    of.n_rows, of.n_columns, of.rank = W.shape[0], H.shape[0], W.shape[1]
    of.row_stride = of.column_stride = W.shape[1]
    of.i, of.j, of.out = &rows[0], &columns[0], &out[0]
    of.rows = &W[0, 0] if W.shape[0] and W.shape[1] else NULL
    of.columns = &H[0, 0] if H.shape[0] and H.shape[1] else NULL
    with nogil:
        outside = chosen.products[0 if real is float else 1](&of, start, stop)
    if outside >= 0:
        raise IndexError(f"Entry {outside} lies outside the matrix.")


def sgd(
    const int32_t[::1] rows,
    const int32_t[::1] columns,
    const real[::1] values,
    const real[::1] weights,
    real[:, ::1] W,
    real[:, ::1] H,
    bint row_bias,
    bint column_bias,
    const real[::1] row_share,
    const real[::1] column_share,
    real[:, ::1] row_squares,
    real[:, ::1] column_squares,
    double ridge,
    double bias_ridge,
    double eta,
    double bias_eta,
    double scale,
    double bias_scale,
    Py_ssize_t start,
    Py_ssize_t stop,
):
    cdef stochastic of
    cdef int64_t outside
    n_entries = rows.shape[0]
    check_given(values)
    for name, array in (("columns", columns), ("values", values), ("weights", weights)):
        if array is not None:
            check_shape(name, array, (n_entries,))
    check_shape("H", H, (H.shape[0], W.shape[1] - row_bias + column_bias))
    check_shape("row_share", row_share, (W.shape[0],))
    check_shape("column_share", column_share, (H.shape[0],))
    if not 0 <= start <= stop <= n_entries:
        raise ValueError(f"There are {n_entries} entries, not {start} to {stop}.")
    if start == stop:
        return
    of.n_rows, of.n_columns, of.rank = W.shape[0], H.shape[0], W.shape[1] - row_bias
    of.row_stride, of.column_stride = W.shape[1], H.shape[1]
    of.i, of.j, of.values, of.weights = &rows[0], &columns[0], &values[0], NULL
    if weights is not None:
        of.weights = &weights[0]
    of.row_bias, of.column_bias = row_bias, column_bias
    of.rows, of.columns = &W[0, 0], &H[0, 0]
    of.row_share, of.column_share = &row_share[0], &column_share[0]
    of.row_squares = of.column_squares = NULL
    if row_squares is not None:
        check_shape("row_squares", row_squares, (W.shape[0], 2))
        check_shape("column_squares", column_squares, (H.shape[0], 2))
        of.row_squares, of.column_squares = &row_squares[0, 0], &column_squares[0, 0]
    of.ridge, of.bias_ridge, of.eta, of.bias_eta = ridge, bias_ridge, eta, bias_eta
    of.scale, of.bias_scale = scale, bias_scale
    with nogil:
        outside = chosen.sgd[0 if real is float else 1](&of, start, stop)
    if outside >= 0:
        raise IndexError(f"Entry {outside} lies outside the matrix.")


def posterior(
    const real[:, ::1] sums,
    const int64_t[::1] which,
    const real[:, ::1] targets,
    const double[::1] scale,
    const double[::1] prior,
    double least,
    bint row_bias,
    bint column_bias,
    real[:, ::1] means,
    real[:, ::1] moments,
    real[:, ::1] covariances,
    double[::1] logdets,
    double[::1] gains,
    uint8_t[::1] singular,
    Py_ssize_t start,
    Py_ssize_t stop,
):
    cdef posteriors of
    cdef Py_ssize_t n_rows = which.shape[0], q = means.shape[1], rank = q - row_bias, i
    if rank < 0:
        raise ValueError("means must hold the row biases.")
    n_pairs = (rank + 1) * (rank + 2) // 2
    of.size = n_pairs + (rank + 2 if column_bias else 0)
    of.own_size = n_pairs + (rank + 2 if row_bias else 0)
    of.target_stride = rank + 1 + column_bias
    check_shape("sums", sums, (sums.shape[0], of.size))
    check_shape("targets", targets, (n_rows, of.target_stride))
    check_shape("means", means, (n_rows, q))
    check_shape("moments", moments, (n_rows, of.own_size))
    check_shape("prior", prior, (q * (q + 1) // 2,))
    for name, array in (("scale", scale), ("logdets", logdets), ("gains", gains)):
        check_shape(name, array, (n_rows,))
    check_shape("singular", singular, (n_rows,))
    if not 0 <= start <= stop <= n_rows:
        raise ValueError(f"There are {n_rows} rows, not {start} to {stop}.")
    if covariances is not None:
        check_shape("covariances", covariances, (n_rows, q * (q + 1) // 2))
    if start == stop:
        return
    for i in range(start, stop):
        if not 0 <= which[i] < sums.shape[0]:
            raise IndexError(f"Row {i} has no system {which[i]}.")
    of.which, of.rank = &which[0], rank
    of.row_bias, of.column_bias = row_bias, column_bias
    of.sums, of.targets = &sums[0, 0], &targets[0, 0]
    of.scale, of.least = &scale[0], least
    of.prior = &prior[0] if q else NULL
    of.means = &means[0, 0] if q else NULL
    of.moments, of.logdets, of.gains = &moments[0, 0], &logdets[0], &gains[0]
    of.covariances = NULL
    if covariances is not None and q:
        of.covariances = &covariances[0, 0]
    of.singular = &singular[0]
    memory = Aligned(posterior_work_size(rank))
    cdef double *work = memory.start
    with nogil:
        chosen.posterior[0 if real is float else 1](&of, start, stop, work)


choose()
