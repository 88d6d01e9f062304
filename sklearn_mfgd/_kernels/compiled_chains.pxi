"""The functions of `numpy_chains`, compiled: a part of ``compiled.pyx``."""


cdef chain_problem unpack_chain(problem, conditionals, filtered) except *:
    """Struct of a `ChainProblem` and of what elimination leaves of its rows."""
    cdef chain_problem c
    memset(&c, 0, sizeof(c))
    cdef const double[:, ::1] systems = problem.systems, targets = problem.targets
    cdef const double[:, ::1] persistence = problem.persistence
    cdef const double[::1] precision = problem.precision
    cdef const double[:, ::1] C = conditionals, f = filtered
    m, q = targets.shape[0], targets.shape[1]
    size = q * (q + 1) // 2
    c.q = q
    if systems is not None:  # only elimination needs them
        c.system_stride = systems.shape[1]
        if c.system_stride < size:
            raise ValueError(f"systems must have at least {size} columns.")
        check_shape("systems", systems, (m, c.system_stride))
    check_shape("persistence", persistence, (m + 1, q))
    check_shape("precision", precision, (q,))
    check_shape("conditionals", C, (m, size))
    check_shape("filtered", f, (m, q))
    if m and q:
        c.targets = &targets[0, 0]
        if systems is not None:
            c.systems = &systems[0, 0]
        c.persistence, c.precision = &persistence[0, 0], &precision[0]
        c.conditionals, c.filtered = <double *> &C[0, 0], <double *> &f[0, 0]
    return c


cdef set_end(chain_problem *c, double[::1] vector, double[:, ::1] matrix):
    """Where the rows end: a message or a state, updated in place."""
    check_shape("vector", vector, (c.q,))
    c.vector = &vector[0] if c.q else NULL
    if matrix is not None:
        check_shape("matrix", matrix, (c.q, c.q))
        c.matrix = &matrix[0, 0] if c.q else NULL


def filter_states(problem, message, double[:, ::1] conditionals,
                  double[:, ::1] filtered, Py_ssize_t start, Py_ssize_t stop):
    """None if rounding made a matrix indefinite; the message is not changed then."""
    cdef chain_problem c = unpack_chain(problem, conditionals, filtered)
    cdef double log_det
    check_range(start, stop, filtered.shape[0], "rows")
    set_end(&c, message[1], message[0])
    if problem.systems is None:
        raise ValueError("systems must be given.")
    if start == stop or c.q == 0:
        return 0.0
    memory = Aligned(chain_work_size(c.q))
    cdef double *work = memory.start
    with nogil:
        log_det = in_use.filter_states(&c, start, stop, work)
    return None if log_det != log_det else log_det


def smooth_states(problem, after, const double[:, ::1] conditionals,
                  const double[:, ::1] filtered, out, Py_ssize_t start,
                  Py_ssize_t stop):
    cdef chain_problem c = unpack_chain(problem, conditionals, filtered)
    cdef double[:, ::1] means = out.means, covariances = out.covariances
    cdef double[:, ::1] lagged = out.lagged
    m = filtered.shape[0]
    check_range(start, stop, m, "rows")
    check_shape("means", means, (m, c.q))
    set_end(&c, after[0], after[1])
    if covariances is not None:
        check_shape("covariances", covariances, (m, c.q * (c.q + 1) // 2))
        check_shape("lagged", lagged, (m, c.q))
    if start == stop or c.q == 0:
        return
    c.means = &means[0, 0]
    if covariances is not None:
        c.covariances, c.lagged = &covariances[0, 0], &lagged[0, 0]
    memory = Aligned(chain_work_size(c.q))
    cdef double *work = memory.start
    with nogil:
        in_use.smooth_states(&c, start, stop, work)


def filter_means(problem, f, const double[:, ::1] conditionals,
                 double[:, ::1] filtered, Py_ssize_t start, Py_ssize_t stop):
    cdef chain_problem c = unpack_chain(problem, conditionals, filtered)
    check_range(start, stop, filtered.shape[0], "rows")
    set_end(&c, f, None)
    if start == stop or c.q == 0:
        return
    memory = Aligned(chain_work_size(c.q))
    cdef double *work = memory.start
    with nogil:
        in_use.filter_means(&c, start, stop, work)


cdef process_problem unpack_process(problem) except *:
    """Struct of a `ProcessProblem`; any row may be named until there are states."""
    cdef process_problem c
    memset(&c, 0, sizeof(c))
    cdef const int64_t[::1] indptr = problem.indptr
    cdef const int32_t[::1] indices = problem.indices
    cdef const double[::1] values = problem.values, weights = problem.weights
    cdef const double[::1] gaps = problem.gaps
    c.n_rows, c.n_entries, c.n_candidates = -1, values.shape[0], 1
    if indptr.shape[0] == 0:
        raise ValueError("indptr must not be empty.")
    check_shape("indices", indices, (c.n_entries,))
    check_shape("gaps", gaps, (c.n_entries,))
    if weights is not None:
        check_shape("weights", weights, (c.n_entries,))
    c.indptr = &indptr[0]
    if c.n_entries:
        c.indices, c.values, c.gaps = &indices[0], &values[0], &gaps[0]
        if weights is not None:
            c.weights = &weights[0]
    return c


cdef check_columns(const process_problem *c, Py_ssize_t start, Py_ssize_t stop):
    cdef int64_t malformed
    with nogil:
        malformed = find_malformed_column(c, start, stop)
    if malformed >= 0:
        raise ValueError(
            f"Column {malformed} of the entries is malformed: its indptr decreases or "
            "leads past the entries, or a row index lies outside of the states.")


def process_likelihoods(
        problem, const double[:, ::1] timescales, const double[:, ::1] ratios,
        double[:, ::1] log_dets, double[:, ::1] squares, Py_ssize_t start,
        Py_ssize_t stop):
    cdef process_problem c = unpack_process(problem)
    n = problem.indptr.shape[0] - 1
    c.n_candidates = ratios.shape[1]
    for name, array in (("timescales", timescales), ("ratios", ratios),
                        ("log_dets", log_dets), ("squares", squares)):
        check_shape(name, array, (n, c.n_candidates))
    check_range(start, stop, n, "columns")
    check_columns(&c, start, stop)
    if start == stop or c.n_candidates == 0:
        return
    c.timescales, c.ratios = &timescales[0, 0], &ratios[0, 0]
    c.log_dets, c.squares = &log_dets[0, 0], &squares[0, 0]
    with nogil:
        in_use.process_likelihoods(&c, start, stop, NULL)


def process_means(
        problem, const double[::1] timescales, const double[::1] ratios,
        double[::1] means, double[::1] variances, Py_ssize_t start, Py_ssize_t stop):
    cdef process_problem c = unpack_process(problem)
    n = problem.indptr.shape[0] - 1
    check_shape("timescales", timescales, (n,))
    check_shape("ratios", ratios, (n,))
    check_shape("means", means, (c.n_entries,))
    check_shape("variances", variances, (c.n_entries,))
    check_range(start, stop, n, "columns")
    check_columns(&c, start, stop)
    if start == stop or c.n_entries == 0:
        return
    c.timescales, c.ratios = &timescales[0], &ratios[0]
    c.means, c.variances = &means[0], &variances[0]
    memory = Aligned(2 * longest_column(&c, start, stop))
    cdef double *work = memory.start
    with nogil:
        in_use.process_means(&c, start, stop, work)


def whitened_products(
        problem, const double[:, ::1] W, biases, const double[::1] timescales,
        const double[::1] ratios, double[:, ::1] products, Py_ssize_t start,
        Py_ssize_t stop):
    cdef process_problem c = unpack_process(problem)
    n = problem.indptr.shape[0] - 1
    c.row_bias, c.column_bias = biases
    c.n_rows, c.state_stride, c.rank = W.shape[0], W.shape[1], W.shape[1] - c.row_bias
    if c.rank < 0:
        raise ValueError("W must hold the row biases.")
    width = c.rank + c.column_bias + 1
    check_shape("timescales", timescales, (n,))
    check_shape("ratios", ratios, (n,))
    check_shape("products", products, (n, width * (width + 1) // 2))
    check_range(start, stop, n, "columns")
    check_columns(&c, start, stop)
    if start == stop:
        return
    c.states = <const double *> first_of(W)
    c.timescales, c.ratios = &timescales[0], &ratios[0]
    c.products = &products[0, 0]
    memory = Aligned(whitening_work_size(width))
    cdef double *work = memory.start
    with nogil:
        in_use.whitened_products(&c, start, stop, work)
