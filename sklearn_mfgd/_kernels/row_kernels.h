/* The kernels for one vector width and one pair of types. vector_widths.h includes this
 * file once for each, by way of data_types.h, with these macros set:
 *   WIDTH       name of the vector width
 *   BYTES       of a vector register, 0 in plain C
 *   TILE_ROWS   rows of a register tile; a tile is up to three vectors wide
 *   TARGET      function attribute that allows the instructions, or nothing
 *   TYPES       name of the pair of types
 *   DATA        type of the data and the factors, float or double
 *   DATA_BYTES  of such a number, 4 or 8
 *   REAL_BYTES  of a number in the arithmetic, 4 or 8
 */

#define NAME(x) JOIN(x, TYPES, WIDTH)
#define LANES (BYTES ? BYTES / REAL_BYTES : 1) /* numbers in a register */

/* LEAST_PIVOT: one below this share of the largest diagonal entry is not trusted.
 * UNDERFLOW_LIMIT: a system without any larger entry says nothing about its row. */
#if REAL_BYTES == 4
#define REAL float
#define SQRT sqrtf
#define LEAST_PIVOT 1e-4f
#define UNDERFLOW_LIMIT 1e-30f
#else
#define REAL double
#define SQRT sqrt
#define LEAST_PIVOT 1e-10
#define UNDERFLOW_LIMIT 1e-200
#endif

/* Non-negative rows, as in non_negative.py. */
#define NEARNESS 1e-10
#define KKT_ROUNDING 1e-15
#define DESCENDING_CYCLES 4
#define MOST_PASSES 4
#define MOST_ENTERING 3
#define MOST_REFINEMENTS 3

#define BATCH (4 * LANES) /* rows that descend together */

#if LANES > 1
typedef REAL NAME(vec)
    __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
#else
typedef REAL NAME(vec);
#endif
#define VEC NAME(vec)
#define LOAD(p) (*(const VEC *)(p))
#define STORE(p, x) (*(VEC *)(p) = (x))
#define FLOOR(i) ((i) / LANES * LANES)
#define PADDING (LANES > TILE_ROWS ? LANES : TILE_ROWS)

INLINE TARGET REAL NAME(sum)(VEC x)
{
    REAL lane[LANES];
    STORE(lane, x);
    UNROLL for (int half = LANES / 2; half; half /= 2)
        UNROLL for (int c = 0; c < half; c++)
            lane[c] += lane[c + half];
    return lane[0];
}

/* out[row + a, col + c] += sign * sum_j left[j, row + a] * right[j, col + c] */
INLINE TARGET void NAME(tile)(const int rows, const int cols, const REAL sign, int64_t n,
                              const REAL *left, const REAL *right, int64_t ld, int64_t row,
                              int64_t col, REAL *out)
{
    VEC sum[2 * TILE_ROWS][3];
    left += row;
    right += col;
    out += row * ld + col;
    UNROLL for (int a = 0; a < rows; a++)
        UNROLL for (int c = 0; c < cols; c++)
            sum[a][c] = (VEC){0};
    for (int64_t j = 0; j < n; j++, left += ld, right += ld) {
        VEC x[3];
        UNROLL for (int c = 0; c < cols; c++)
            x[c] = LOAD(right + c * LANES);
        UNROLL for (int a = 0; a < rows; a++)
            UNROLL for (int c = 0; c < cols; c++)
                sum[a][c] += left[a] * x[c];
    }
    UNROLL for (int a = 0; a < rows; a++)
        UNROLL for (int c = 0; c < cols; c++)
            STORE(out + a * ld + c * LANES, LOAD(out + a * ld + c * LANES) + sign * sum[a][c]);
}

/* The same for TILE_ROWS rows and all columns from col to ld. */
INLINE TARGET void NAME(tiles)(const REAL sign, int64_t n, const REAL *left, const REAL *right,
                               int64_t ld, int64_t row, int64_t col, REAL *out)
{
    int64_t vectors = (ld - col) / LANES;
    for (; vectors > 4 || vectors == 3; vectors -= 3, col += 3 * LANES)
        NAME(tile)(TILE_ROWS, 3, sign, n, left, right, ld, row, col, out);
    for (; vectors > 1; vectors -= 2, col += 2 * LANES)
        NAME(tile)(TILE_ROWS, 2, sign, n, left, right, ld, row, col, out);
    if (vectors)
        NAME(tile)(TILE_ROWS, 1, sign, n, left, right, ld, row, col, out);
}

/* system += panel' panel: the upper triangle, and what the tiles cover beside it. */
TARGET static void NAME(add_products)(int64_t n, const REAL *panel, int64_t ld, REAL *system)
{
    for (int64_t row = 0; row < ld; row += TILE_ROWS) {
        if (LANES == 2 * TILE_ROWS && row == ld - LANES) {
            /* One vector wide, tiles need more rows to keep the arithmetic busy. */
            NAME(tile)(2 * TILE_ROWS, 1, 1, n, panel, panel, ld, row, row, system);
            return;
        }
        NAME(tiles)(1, n, panel, panel, ld, row, FLOOR(row), system);
    }
}

/* y += a x, on whole vectors */
INLINE TARGET void NAME(add_scaled)(REAL a, const REAL *x, REAL *y, int64_t start, int64_t stop)
{
    for (int64_t c = FLOOR(start); c < stop; c += LANES)
        STORE(y + c, LOAD(y + c) + a * LOAD(x + c));
}

/* Factorize system = U'U in place, inverses of the diagonal apart, and replace targets b
 * by the z of U'z = b. Returns 0 where a pivot is not above limit. */
TARGET static int NAME(cholesky)(int64_t size, int64_t ld, REAL *system, REAL limit,
                                 REAL *inverses, REAL *target, REAL *border)
{
    for (int64_t block = 0; block < size; block += TILE_ROWS) {
        int64_t stop = block + TILE_ROWS < size ? block + TILE_ROWS : size;
        NAME(tiles)(-1, block, system, system, ld, block, FLOOR(block), system);
        for (int64_t k = block; k < stop; k++) {
            REAL *row = system + k * ld, solved;
            if (!(row[k] > limit))
                return 0;
            REAL inverse = inverses[k] = 1 / SQRT(row[k]);
            for (int64_t c = FLOOR(k); c < ld; c += LANES)
                STORE(row + c, LOAD(row + c) * inverse);
            for (int64_t c = FLOOR(k); c < k; c++)
                row[c] = 0; /* so that whole vectors may be added below and above */
            for (int64_t below = k + 1; below < stop; below++)
                NAME(add_scaled)(-row[below], row, system + below * ld, k, ld);
            solved = target[k] * inverse;
            NAME(add_scaled)(-solved, row, target, k, ld);
            target[k] = solved;
            if (border) {
                solved = border[k] * inverse;
                NAME(add_scaled)(-solved, row, border, k, ld);
                border[k] = solved;
            }
        }
    }
    return 1;
}

/* x of U x = z, in place of z; both are zero in the padding. */
TARGET static void NAME(back_substitute)(int64_t size, int64_t ld, const REAL *factor,
                                         const REAL *inverses, REAL *z)
{
    for (int64_t block = (size - 1) / TILE_ROWS * TILE_ROWS; block >= 0; block -= TILE_ROWS) {
        int rows = (int)(size - block < TILE_ROWS ? size - block : TILE_ROWS);
        const REAL *row = factor + block * ld;
        VEC sum[TILE_ROWS];
        REAL right[TILE_ROWS];
        UNROLL for (int a = 0; a < TILE_ROWS; a++) {
            sum[a] = (VEC){0};
            right[a] = z[block + a];
            z[block + a] = 0;
        }
        /* Left of its diagonal the factor is zero, and so is z within the block for now. */
        for (int64_t c = FLOOR(block); c < ld; c += LANES) {
            VEC x = LOAD(z + c);
            UNROLL for (int a = 0; a < TILE_ROWS; a++)
                sum[a] += LOAD(row + a * ld + c) * x;
        }
        for (int a = rows - 1; a >= 0; a--) {
            REAL x = right[a] - NAME(sum)(sum[a]);
            for (int b = a + 1; b < rows; b++)
                x -= row[a * ld + block + b] * z[block + b];
            z[block + a] = x * inverses[block + a];
        }
    }
}

/* Copy the factors of some entries, scaled by the roots of their weights, to a panel. */
INLINE TARGET void NAME(gather)(const row_problem *of, int64_t first, int64_t n, int64_t ld,
                                REAL *panel, REAL *target, REAL *root)
{
    const DATA *columns = of->columns, *values = of->values, *weights = of->weights;
    for (int64_t j = 0; j < n; j++, panel += ld) {
        int64_t k = first + j;
        const DATA *h = columns + of->indices[k] * of->column_stride;
        if (j + AHEAD < n)
            PREFETCH(columns + of->indices[k + AHEAD] * of->column_stride, of->rank * sizeof(DATA));
        REAL s = weights ? SQRT((REAL)weights[k]) : 1;
        int64_t c = 0;
        if (sizeof(DATA) == sizeof(REAL))
            for (; c + LANES <= of->rank; c += LANES)
                STORE(panel + c, s * LOAD(h + c));
        for (; c < of->rank; c++)
            panel[c] = s * (REAL)h[c];
        for (; c < ld; c++)
            panel[c] = 0;
        root[j] = s;
        target[j] = s * ((REAL)values[k] - (of->column_bias ? (REAL)h[of->rank] : 0));
    }
}

/* Sum the products of the entries of row i, of roots s of weights, regressors h and
 * targets t: system = sum s^2 h h', the upper triangle; b = sum s^2 t h; border = sum s^2 h;
 * and for the bias totals = sum s^2 t, sum s^2. `panel` is work memory. */
TARGET static void NAME(sum_system)(const row_problem *of, int64_t i, int64_t ld, REAL *system,
                                    REAL *b, REAL *border, REAL *totals, REAL *panel)
{
    int64_t chunk = PANEL / (ld * (int64_t)sizeof(REAL));
    chunk = chunk < 16 ? 16 : chunk;
    REAL *target = panel + chunk * ld, *root = target + chunk;
    totals[0] = totals[1] = 0;
    for (int64_t first = of->indptr[i]; first < of->indptr[i + 1]; first += chunk) {
        int64_t n = of->indptr[i + 1] - first;
        n = n < chunk ? n : chunk;
        NAME(gather)(of, first, n, ld, panel, target, root);
        NAME(add_products)(n, panel, ld, system);
        for (int64_t c = 0; c < ld; c += LANES) {
            VEC b_sum = (VEC){0}, border_sum = (VEC){0};
            for (int64_t j = 0; j < n; j++) {
                VEC x = LOAD(panel + j * ld + c);
                b_sum += target[j] * x;
                border_sum += root[j] * x;
            }
            STORE(b + c, LOAD(b + c) + b_sum);
            STORE(border + c, LOAD(border + c) + border_sum);
        }
        REAL target_sum = 0, weight_sum = 0;
        for (int64_t j = 0; j < n; j++) {
            target_sum += root[j] * target[j];
            weight_sum += root[j] * root[j];
        }
        totals[0] += target_sum;
        totals[1] += weight_sum;
    }
}

/* Solve row i; returns 0 where its system is singular as far as REAL can tell. With a
 * bias the system has one more row, the border, and is solved by its Schur complement:
 * with U'U = system, U'z = b and U's = border, (weight - s.s) bias = target - s.z and
 * U w = z - bias s. Draws are added to the right of these last triangular systems. */
TARGET static int NAME(solve_row)(const row_problem *of, int64_t i, REAL *work)
{
    int64_t rank = of->rank, ld = rank ? (rank + PADDING - 1) / PADDING * PADDING : PADDING;
    REAL *system = work, *b = system + ld * ld, *border = b + ld, *inverses = border + ld;
    REAL totals[2], largest = 0, bias = 0;
    const DATA *draws = of->draws ? (const DATA *)of->draws + i * of->row_stride : NULL;
    memset(system, 0, (size_t)(ld * ld + 2 * ld) * sizeof(REAL));
    NAME(sum_system)(of, i, ld, system, b, border, totals, inverses + ld);
    REAL target = totals[0], weight = totals[1];
    const double *ridge = of->ridge + i * of->ridge_stride;
    for (int64_t k = 0; k < rank; k++) {
        REAL *diagonal = system + k * ld + k;
        *diagonal += (REAL)ridge[k];
        largest = *diagonal > largest ? *diagonal : largest;
    }
    if (of->row_bias) {
        weight += (REAL)ridge[rank];
        largest = weight > largest ? weight : largest;
    }
    REAL limit = LEAST_PIVOT * largest;
    if (!(largest > UNDERFLOW_LIMIT) ||
        !NAME(cholesky)(rank, ld, system, limit, inverses, b, of->row_bias ? border : NULL))
        return 0;
    if (of->row_bias) {
        for (int64_t k = 0; k < rank; k++) {
            weight -= border[k] * border[k];
            target -= border[k] * b[k];
        }
        if (!(weight > limit))
            return 0;
        bias = target / weight;
        if (draws)
            bias += draws[rank] / SQRT(weight);
        NAME(add_scaled)(-bias, border, b, 0, ld);
    }
    for (int64_t k = 0; draws && k < rank; k++)
        b[k] += draws[k];
    NAME(back_substitute)(rank, ld, system, inverses, b);
    DATA *out = (DATA *)of->out + i * of->row_stride;
    for (int64_t k = 0; k < rank; k++)
        out[k] = (DATA)b[k];
    if (of->row_bias)
        out[rank] = (DATA)bias;
    return 1;
}

#if REAL_BYTES == 8 /* the posterior and non-negative rows are computed in double */

/* Scale a symmetric system, given by its upper triangle, to a unit diagonal in place. The
 * scale of a coefficient of which the system knows nothing is 0. Returns 0 where a number
 * of the diagonal is not finite. */
TARGET static int NAME(scale_system)(int64_t size, int64_t ld, REAL *system, REAL *scale)
{
    for (int64_t a = 0; a < size; a++) {
        REAL known = system[a * ld + a];
        if (known - known != 0)
            return 0;
        scale[a] = known > UNDERFLOW_LIMIT ? 1 / SQRT(known) : 0;
    }
    for (int64_t a = 0; a < size; a++) {
        REAL *row = system + a * ld;
        for (int64_t c = 0; c < a; c++)
            row[c] = system[c * ld + a];
        for (int64_t c = a; c < size; c++)
            row[c] *= scale[a] * scale[c];
        for (int64_t c = size; c < ld; c++)
            row[c] = 0;
        row[a] = 1;
    }
    return 1;
}

/* One pass of coordinate descent over a system of unit diagonal; returns whether another
 * set of coefficients is positive after it. */
INLINE TARGET int NAME(descend)(int64_t size, int64_t ld, const REAL *system, REAL *w,
                                REAL *gradient)
{
    int changed = 0;
    for (int64_t k = 0; k < size; k++) {
        REAL before = w[k], after = before - gradient[k];
        after = after > 0 ? after : 0;
        if (after == before)
            continue;
        changed |= (after > 0) != (before > 0);
        w[k] = after;
        NAME(add_scaled)(after - before, system + k * ld, gradient, 0, ld);
    }
    return changed;
}

/* gradient = system w - b */
INLINE TARGET void NAME(find_gradient)(int64_t size, int64_t ld, const REAL *system,
                                       const REAL *b, const REAL *w, REAL *gradient)
{
    for (int64_t c = 0; c < ld; c++)
        gradient[c] = -b[c];
    for (int64_t k = 0; k < size; k++)
        if (w[k] > 0)
            NAME(add_scaled)(w[k], system + k * ld, gradient, 0, ld);
}

/* Whether w fulfils the conditions of Karush, Kuhn and Tucker, to rounding; `enters` is
 * the coefficient that violates them most. */
INLINE TARGET int NAME(is_minimum)(int64_t size, const REAL *b, const REAL *w,
                                   const REAL *gradient, int64_t *enters)
{
    REAL largest = 0, worst = 0;
    for (int64_t k = 0; k < size; k++) {
        REAL target = b[k] < 0 ? -b[k] : b[k];
        REAL violation = w[k] > 0 && gradient[k] > 0 ? gradient[k] : -gradient[k];
        largest = target > largest ? target : largest;
        largest = w[k] > largest ? w[k] : largest;
        if (violation > worst) {
            worst = violation;
            *enters = k;
        }
    }
    return worst <= size * KKT_ROUNDING * largest;
}

/* Move w to the minimum over n coefficients, the face, where the gradient vanishes. Those
 * that would become negative leave the face, one after the other. `work` is memory for a
 * system and two vectors. */
TARGET static void NAME(minimize_on_face)(int64_t size, int64_t ld, const REAL *system,
                                          const REAL *b, REAL *w, REAL *gradient, REAL *work,
                                          int64_t *face, int64_t n)
{
    REAL *factor = work, *inverses = factor + ld * ld, *step = inverses + ld;
    int round = 0;
    while (n && round < MOST_REFINEMENTS) {
        int64_t narrow = (n + PADDING - 1) / PADDING * PADDING, enters, left = 0;
        if (round == 0) {
            memset(factor, 0, (size_t)(narrow * narrow) * sizeof(REAL));
            for (int64_t a = 0; a < n; a++) {
                for (int64_t c = a; c < n; c++)
                    factor[a * narrow + c] = system[face[a] * ld + face[c]];
                factor[a * narrow + a] += NEARNESS;
            }
        }
        for (int64_t a = 0; a < narrow; a++)
            step[a] = a < n ? -gradient[face[a]] : 0;
        if (round == 0 && !NAME(cholesky)(n, narrow, factor, 0, inverses, step, NULL))
            return;
        for (int64_t a = 0; round > 0 && a < n; a++) {
            REAL solved = step[a] * inverses[a];
            NAME(add_scaled)(-solved, factor + a * narrow, step, a, narrow);
            step[a] = solved;
        }
        NAME(back_substitute)(n, narrow, factor, inverses, step);
        REAL length = 1;
        int64_t blocking = -1;
        for (int64_t a = 0; a < n; a++)
            if (w[face[a]] + length * step[a] < 0) {
                length = -w[face[a]] / step[a];
                blocking = a;
            }
        for (int64_t a = 0; a < n; a++) {
            REAL moved = w[face[a]] + length * step[a];
            w[face[a]] = moved > 0 && a != blocking ? moved : 0;
            if (a != blocking)
                face[left++] = face[a];
        }
        NAME(find_gradient)(size, ld, system, b, w, gradient);
        if (blocking < 0 && NAME(is_minimum)(size, b, w, gradient, &enters))
            return;
        round = blocking < 0 ? round + 1 : 0;
        n = left;
    }
}

/* Minimize w.A w / 2 - b.w over w >= 0, for a system A of unit diagonal, from w on. `work`
 * is memory for a system and four vectors. */
TARGET static void NAME(minimize)(int64_t size, int64_t ld, const REAL *system, const REAL *b,
                                  REAL *w, REAL *work)
{
    REAL *gradient = work;
    int64_t *face = (int64_t *)(gradient + ld), n, enters = -1;
    NAME(find_gradient)(size, ld, system, b, w, gradient);
    if (NAME(is_minimum)(size, b, w, gradient, &enters))
        return;
    for (int64_t cycle = 0; cycle < DESCENDING_CYCLES + MOST_ENTERING * size; cycle++) {
        int descends = cycle < DESCENDING_CYCLES;
        for (int pass = 0; descends && pass < MOST_PASSES; pass++)
            if (!NAME(descend)(size, ld, system, w, gradient))
                break;
        n = 0;
        for (int64_t k = 0; k < size; k++)
            if (w[k] > 0 || (!descends && k == enters))
                face[n++] = k;
        NAME(minimize_on_face)(size, ld, system, b, w, gradient, work + 2 * ld, face, n);
        int has_entered = descends || w[enters] > 0;
        if (NAME(is_minimum)(size, b, w, gradient, &enters) || !has_entered)
            return;
    }
}

/* Minimize a row in the scale of its system; `out` holds where it starts. */
INLINE TARGET void NAME(minimize_row)(int64_t size, int64_t ld, const REAL *system,
                                      const REAL *scale, REAL *b, REAL *w, REAL *work, DATA *out)
{
    for (int64_t k = 0; k < ld; k++) {
        int is_known = k < size && scale[k] > 0;
        b[k] = is_known ? b[k] * scale[k] : 0;
        w[k] = is_known && out[k] > 0 ? (REAL)out[k] / scale[k] : 0;
    }
    NAME(minimize)(size, ld, system, b, w, work);
    for (int64_t k = 0; k < size; k++)
        out[k] = (DATA)(w[k] * scale[k]);
}

/* Row i, of which `out` holds the start, from its own entries. */
TARGET static void NAME(non_negative_row)(const row_problem *of, int64_t i, REAL *work)
{
    int64_t rank = of->rank, ld = (rank + PADDING - 1) / PADDING * PADDING;
    REAL *system = work, *b = system + ld * ld, *border = b + ld, *w = border + ld;
    REAL *scale = w + ld, *rest = scale + ld, totals[2];
    DATA *out = (DATA *)of->out + i * of->row_stride;
    const double *ridge = of->ridge + i * of->ridge_stride;
    memset(system, 0, (size_t)(ld * ld + 2 * ld) * sizeof(REAL));
    NAME(sum_system)(of, i, ld, system, b, border, totals, rest);
    for (int64_t k = 0; k < rank; k++)
        system[k * ld + k] += (REAL)ridge[k];
    if (NAME(scale_system)(rank, ld, system, scale))
        NAME(minimize_row)(rank, ld, system, scale, b, w, rest, out);
    else
        for (int64_t k = 0; k < rank; k++)
            out[k] = (DATA)NAN;
}

#if DATA_BYTES == 8

/* Passes of coordinate descent over a batch of rows that share a system of unit diagonal:
 * coefficient k of row a is w[k * BATCH + a], and so is its target. */
TARGET static void NAME(descend_together)(int64_t size, int64_t ld, int64_t n_passes,
                                          const REAL *system, const REAL *b, REAL *w)
{
    for (int64_t pass = 0; pass < n_passes; pass++)
        for (int64_t k = 0; k < size; k++) {
            VEC left[BATCH / LANES];
            const REAL *row = system + k * ld;
            UNROLL for (int a = 0; a < BATCH / LANES; a++)
                left[a] = LOAD(b + k * BATCH + a * LANES) + LOAD(w + k * BATCH + a * LANES);
            for (int64_t c = 0; c < size; c++)
                UNROLL for (int a = 0; a < BATCH / LANES; a++)
                    left[a] -= row[c] * LOAD(w + c * BATCH + a * LANES);
            UNROLL for (int a = 0; a < BATCH / LANES; a++)
                STORE(w + k * BATCH + a * LANES, left[a]);
            for (int a = 0; a < BATCH; a++)
                w[k * BATCH + a] = w[k * BATCH + a] > 0 ? w[k * BATCH + a] : 0;
        }
}

/* Rows start .. stop, which share one system: so many passes of coordinate descent or,
 * with 0, to the minimum. */
TARGET static void NAME(non_negative_rows)(const shared_problem *of, int64_t start, int64_t stop,
                                           REAL *work)
{
    int64_t rank = of->rank, ld = (rank + PADDING - 1) / PADDING * PADDING;
    REAL *system = work, *b = system + ld * ld, *w = b + ld * BATCH;
    REAL *scale = w + ld * BATCH, *rest = scale + ld;
    for (int64_t a = 0; a < rank; a++)
        memcpy(system + a * ld, of->system + a * rank, (size_t)rank * sizeof(REAL));
    if (!NAME(scale_system)(rank, ld, system, scale)) {
        for (int64_t k = start * rank; k < stop * rank; k++)
            of->out[k] = NAN;
        return;
    }
    for (int64_t i = start; i < stop && of->n_passes == 0; i++) {
        memcpy(b, of->targets + i * rank, (size_t)rank * sizeof(REAL));
        NAME(minimize_row)(rank, ld, system, scale, b, w, rest, (DATA *)of->out + i * rank);
    }
    for (int64_t i = start; i < stop && of->n_passes > 0; i += BATCH) {
        int64_t n = stop - i < BATCH ? stop - i : BATCH;
        memset(b, 0, (size_t)(2 * ld * BATCH) * sizeof(REAL)); /* and w */
        for (int64_t a = 0; a < n; a++)
            for (int64_t k = 0; k < rank; k++)
                if (scale[k] > 0) {
                    b[k * BATCH + a] = of->targets[(i + a) * rank + k] * scale[k];
                    w[k * BATCH + a] = of->out[(i + a) * rank + k] / scale[k];
                }
        NAME(descend_together)(rank, ld, of->n_passes, system, b, w);
        for (int64_t a = 0; a < n; a++)
            for (int64_t k = 0; k < rank; k++)
                of->out[(i + a) * rank + k] = w[k * BATCH + a] * scale[k];
    }
}

#endif

/* Y = inverse of U', for U as `cholesky` leaves it: row c of Y ends at column c. */
TARGET static void NAME(invert)(int64_t size, int64_t ld, const REAL *factor,
                                const REAL *inverses, REAL *inverse)
{
    memset(inverse, 0, (size_t)(size * ld) * sizeof(REAL));
    for (int64_t c = 0; c < size; c++) {
        REAL *row = inverse + c * ld;
        row[c] = 1;
        for (int64_t k = 0; k < c; k++)
            NAME(add_scaled)(-factor[k * ld + c], inverse + k * ld, row, 0, k + 1);
        for (int64_t a = 0; a <= c; a += LANES)
            STORE(row + a, LOAD(row + a) * inverses[c]);
    }
}

/* Posterior of row i. `fresh`: the work memory holds another system than the one of this
 * row, and is filled anew. Returns 0 where rounding made the precision indefinite. */
TARGET static int NAME(posterior)(const posterior_problem *of, int64_t i, int fresh, REAL *work)
{
    int64_t q = of->rank + of->row_bias, rank = of->rank;
    int64_t ld = q ? (q + PADDING - 1) / PADDING * PADDING : PADDING;
    const DATA *sums = (const DATA *)of->sums + of->system_index[i] * of->size;
    const DATA *target = (const DATA *)of->targets + i * of->target_stride;
    const DATA *cross = of->column_bias ? sums + of->size - (rank + 2) : NULL;
    REAL scale = of->scale[i], *system = work, *covariance = system + ld * ld;
    REAL *inverse = covariance + ld * ld, *right = inverse + ld * ld;
    REAL *z = right + ld, *inverses = z + ld;
    memset(right, 0, (size_t)(2 * ld) * sizeof(REAL)); /* and z */
    for (int64_t k = 0; k < q; k++)
        right[k] = z[k] = scale * ((REAL)target[k] - (cross ? (REAL)cross[k] : 0));
    if (fresh) {
        REAL logdet = 0;
        const double *prior = of->prior;
        memset(system, 0, (size_t)(2 * ld * ld) * sizeof(REAL));
        for (int64_t a = 0; a < q; a++)
            for (int64_t b = 0; b <= a; b++)
                system[b * ld + a] = *prior++ + scale * (REAL)*sums++;
        if (!NAME(cholesky)(q, ld, system, of->least_eigenvalue / 2, inverses, covariance, NULL))
            return 0;
        for (int64_t k = 0; k < q; k++)
            logdet += log(inverses[k]);
        inverses[ld] = 2 * logdet;
        memset(covariance, 0, (size_t)(ld * ld) * sizeof(REAL));
        NAME(invert)(q, ld, system, inverses, inverse);
        NAME(add_products)(q, inverse, ld, covariance);
    }
    of->logdets[i] = inverses[ld];
    /* U'y = right, then U z = y */
    for (int64_t k = 0; k < q; k++) {
        REAL solved = z[k] * inverses[k];
        NAME(add_scaled)(-solved, system + k * ld, z, k, ld);
        z[k] = solved;
    }
    NAME(back_substitute)(q, ld, system, inverses, z);
    REAL gain = 0;
    DATA *mean = (DATA *)of->means + i * q;
    for (int64_t k = 0; k < q; k++) {
        gain += z[k] * right[k];
        mean[k] = (DATA)z[k];
    }
    of->gains[i] = gain;
    if (of->covariances) {
        DATA *spread = (DATA *)of->covariances + i * (q * (q + 1) / 2);
        for (int64_t a = 0; a < q; a++)
            for (int64_t b = 0; b <= a; b++)
                *spread++ = (DATA)covariance[b * ld + a];
    }
    DATA *out = (DATA *)of->moments + i * of->out_size;
    for (int64_t a = 0; a < rank; a++)
        for (int64_t b = 0; b <= a; b++)
            *out++ = (DATA)(covariance[b * ld + a] + z[a] * z[b]);
    for (int64_t k = 0; k < rank; k++)
        *out++ = (DATA)z[k];
    *out++ = 1;
    if (of->row_bias) {
        for (int64_t k = 0; k < q; k++) {
            if (k == rank)
                *out++ = (DATA)z[rank];
            *out++ = (DATA)(covariance[k * ld + rank] + z[k] * z[rank]);
        }
    }
    return 1;
}

TARGET static void NAME(posteriors)(const posterior_problem *of, int64_t start, int64_t stop, double *work)
{
    for (int64_t i = start; i < stop; i++) {
        int fresh = i == start || of->needs_fallback[i - 1] ||
                    of->system_index[i] != of->system_index[i - 1] || of->scale[i] != of->scale[i - 1];
        of->needs_fallback[i] = !NAME(posterior)(of, i, fresh, work);
    }
}

#endif

#if DATA_BYTES == REAL_BYTES /* what needs no other precision than that of the data */

/* w . h, without biases */
INLINE TARGET REAL NAME(dot)(int64_t rank, const REAL *w, const REAL *h)
{
    VEC even = (VEC){0}, odd = (VEC){0};
    int64_t c = 0;
    for (; c + 2 * LANES <= rank; c += 2 * LANES) {
        even += LOAD(w + c) * LOAD(h + c);
        odd += LOAD(w + c + LANES) * LOAD(h + c + LANES);
    }
    if (c + LANES <= rank) {
        even += LOAD(w + c) * LOAD(h + c);
        c += LANES;
    }
    REAL total = NAME(sum)(even + odd);
    for (; c < rank; c++)
        total += w[c] * h[c];
    return total;
}

/* Approximation less value of entry k, in the row with factors w. */
INLINE TARGET REAL NAME(residual)(const row_problem *of, const REAL *w, int64_t k)
{
    const REAL *h = (const REAL *)of->columns + of->indices[k] * of->column_stride;
    REAL sum = NAME(dot)(of->rank, w, h) - ((const REAL *)of->values)[k];
    if (of->row_bias)
        sum += w[of->rank];
    return of->column_bias ? sum + h[of->rank] : sum;
}

TARGET static void NAME(residuals)(const row_problem *of, int64_t i)
{
    const REAL *w = (const REAL *)of->rows + i * of->row_stride;
    for (int64_t k = of->indptr[i]; k < of->indptr[i + 1]; k++)
        ((REAL *)of->out)[k] = NAME(residual)(of, w, k);
}

/* g += sum_k change[k] h_k, for n entries of a row */
INLINE TARGET void NAME(accumulate)(const int n, const row_problem *of, int64_t first,
                                    const REAL *change, REAL *g)
{
    const REAL *h[4];
    int64_t c = 0;
    UNROLL for (int a = 0; a < n; a++)
        h[a] = (const REAL *)of->columns + of->indices[first + a] * of->column_stride;
    for (; c + LANES <= of->rank; c += LANES) {
        VEC sum = LOAD(g + c);
        UNROLL for (int a = 0; a < n; a++)
            sum += change[a] * LOAD(h[a] + c);
        STORE(g + c, sum);
    }
    for (; c < of->rank; c++)
        UNROLL for (int a = 0; a < n; a++)
            g[c] += change[a] * h[a][c];
}

/* out_i = sum_k change_k h_k, the change of entry k being its weighted residual, or its
 * value where there are no factors of rows; sums_i = sum_k change_k residual_k. */
INLINE TARGET void NAME(sum_factors)(const row_problem *of, int64_t i, const int with_residuals)
{
    const REAL *w = (const REAL *)of->rows + (with_residuals ? i * of->row_stride : 0);
    const REAL *values = of->values, *weights = of->weights;
    REAL *g = (REAL *)of->out + i * of->row_stride, total = 0;
    int64_t stop = of->indptr[i + 1];
    double sum = 0;
    for (int64_t c = 0; c < of->rank + of->row_bias; c++)
        g[c] = 0;
    for (int64_t first = of->indptr[i]; first < stop; first += 4) {
        int n = stop - first < 4 ? (int)(stop - first) : 4;
        REAL change[4];
        for (int a = 0; a < n; a++) {
            int64_t k = first + a;
            if (k + AHEAD < stop)
                PREFETCH((const REAL *)of->columns + of->indices[k + AHEAD] * of->column_stride,
                         of->rank * sizeof(REAL));
            if (with_residuals) {
                REAL e = NAME(residual)(of, w, k);
                change[a] = weights ? weights[k] * e : e;
                sum += (double)change[a] * e;
                total += change[a];
            } else
                change[a] = values ? values[k] : 1;
        }
        if (n == 4)
            NAME(accumulate)(4, of, first, change, g);
        else
            for (int a = 0; a < n; a++)
                NAME(accumulate)(1, of, first + a, change + a, g);
    }
    if (with_residuals) {
        if (of->row_bias)
            g[of->rank] = total;
        of->sums[i] = sum;
    }
}

/* Gradient of half the weighted squared residuals of row i, and their sum. */
TARGET static void NAME(gradient)(const row_problem *of, int64_t i)
{
    NAME(sum_factors)(of, i, 1);
}

/* Row i of the sparse matrix of the values times the matrix of the column factors. */
TARGET static void NAME(product)(const row_problem *of, int64_t i)
{
    NAME(sum_factors)(of, i, 0);
}

/* Sum of squared residuals of row i, or of squared changes where there are no values. */
TARGET static void NAME(squares)(const row_problem *of, int64_t i)
{
    const REAL *w = (const REAL *)of->rows + i * of->row_stride, *weights = of->weights;
    double total = 0;
    for (int64_t k = of->indptr[i]; k < of->indptr[i + 1]; k++) {
        REAL e;
        if (of->values)
            e = NAME(residual)(of, w, k);
        else {
            const REAL *h = (const REAL *)of->columns + of->indices[k] * of->column_stride;
            e = NAME(dot)(of->rank, w, h) + (of->row_bias ? w[of->rank] : 0);
        }
        total += weights ? (double)weights[k] * e * e : (double)e * e;
    }
    of->sums[i] = total;
}

/* Entries first .. stop of a product: -1, or the first that lies outside. */
TARGET static int64_t NAME(products)(const product_problem *of, int64_t first, int64_t stop)
{
    for (int64_t k = first; k < stop; k++) {
        int64_t i = of->i[k], j = of->j[k];
        if (i < 0 || i >= of->n_rows || j < 0 || j >= of->n_columns)
            return k;
        ((REAL *)of->out)[k] = NAME(dot)(of->rank, (const REAL *)of->rows + i * of->rank,
                                         (const REAL *)of->columns + j * of->rank);
    }
    return -1;
}

/* Length of the step of one row, whose squared gradients were summed so far. */
INLINE TARGET REAL NAME(step)(REAL *sum, REAL square, REAL eta, REAL scale)
{
    if (!sum)
        return eta;
    REAL length = eta / SQRT(1 + scale * *sum);
    *sum += square;
    return length;
}

/* Stochastic gradient: one step of both sides for each entry in turn. Returns -1, or the
 * first entry that lies outside. */
TARGET static int64_t NAME(sgd)(const stochastic_problem *of, int64_t first, int64_t stop)
{
    int64_t rank = of->rank;
    const REAL *values = of->values, *weights = of->weights;
    const REAL *row_share = of->row_share, *column_share = of->column_share;
    REAL *row_squares = of->row_squares, *column_squares = of->column_squares;
    REAL eta = (REAL)of->eta, scale = (REAL)of->scale, ridge = (REAL)of->ridge;
    REAL bias_eta = (REAL)of->bias_eta, bias_scale = (REAL)of->bias_scale;
    REAL bias_ridge = (REAL)of->bias_ridge;
    for (int64_t k = first; k < stop; k++) {
        int64_t i = of->i[k], j = of->j[k];
        if (i < 0 || i >= of->n_rows || j < 0 || j >= of->n_columns)
            return k;
        REAL *w = (REAL *)of->rows + i * of->row_stride;
        REAL *h = (REAL *)of->columns + j * of->column_stride;
        REAL *w_sum = row_squares ? row_squares + 2 * i : NULL;
        REAL *h_sum = column_squares ? column_squares + 2 * j : NULL;
        REAL e = NAME(dot)(rank, w, h) - values[k];
        e += (of->row_bias ? w[rank] : 0) + (of->column_bias ? h[rank] : 0);
        REAL change = weights ? weights[k] * e : e;
        REAL square = change * change;
        /* A share of the ridge, so that an epoch has seen all of it. */
        REAL w_ridge = row_share[i], h_ridge = column_share[j];
        REAL w_step = NAME(step)(w_sum, w_sum ? square * NAME(dot)(rank, h, h) : 0, eta, scale);
        REAL h_step = NAME(step)(h_sum, h_sum ? square * NAME(dot)(rank, w, w) : 0, eta, scale);
        if (of->row_bias) {
            REAL step = NAME(step)(w_sum ? w_sum + 1 : NULL, square, bias_eta, bias_scale);
            w[rank] -= step * (change + bias_ridge * w_ridge * w[rank]);
        }
        if (of->column_bias) {
            REAL step = NAME(step)(h_sum ? h_sum + 1 : NULL, square, bias_eta, bias_scale);
            h[rank] -= step * (change + bias_ridge * h_ridge * h[rank]);
        }
        w_ridge *= ridge;
        h_ridge *= ridge;
        int64_t c = 0;
        for (; c + LANES <= rank; c += LANES) {
            VEC a = LOAD(w + c), b = LOAD(h + c);
            STORE(w + c, a - w_step * (change * b + w_ridge * a));
            STORE(h + c, b - h_step * (change * a + h_ridge * b));
        }
        for (; c < rank; c++) {
            REAL a = w[c], b = h[c];
            w[c] = a - w_step * (change * b + w_ridge * a);
            h[c] = b - h_step * (change * a + h_ridge * b);
        }
    }
    return -1;
}

#endif

/* The other macros read the same each time. */
#undef TYPES
#undef DATA
#undef DATA_BYTES
#undef REAL_BYTES
#undef REAL
#undef SQRT
#undef LEAST_PIVOT
#undef UNDERFLOW_LIMIT
