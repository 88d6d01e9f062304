/* Gaussian Markov chains and processes in time, in double precision, for one vector
 * width: data_types.h includes this file after row_kernels.h, whose tiles it uses.
 * numpy_chains.py says what is computed, and is the reference.
 *
 * Symmetric matrices are packed in the arrays of the caller, row after row of the lower
 * triangle, and here have rows of `ld` numbers, zero from q on.
 */

#define TYPES double
#define REAL double
#define REAL_BYTES 8
#define PADDED(q) ((q) ? ((q) + PADDING - 1) / PADDING * PADDING : PADDING)

/* y = C x for a packed C; y has room for whole vectors. */
INLINE TARGET void NAME(packed_times)(int64_t q, const double *C, const double *x, double *y)
{
    for (int64_t a = 0; a < q; a++) {
        const double *row = C + a * (a + 1) / 2;
        VEC sum = (VEC){0};
        double total, own = x[a];
        int64_t b = 0;
        for (; b + LANES <= a; b += LANES) {
            VEC c = LOAD(row + b);
            sum += c * LOAD(x + b);
            STORE(y + b, LOAD(y + b) + own * c);
        }
        total = NAME(sum)(sum);
        for (; b < a; b++) {
            total += row[b] * x[b];
            y[b] += row[b] * own;
        }
        y[a] = total + row[a] * own;
    }
}

/* Eliminate the rows start .. stop and update the message; returns the log determinants
 * of C, summed. Where rounding made a matrix indefinite the result is NaN and the message
 * is as it was. */
TARGET static double NAME(filter_states)(const chain_problem *of, int64_t start, int64_t stop,
                                         double *work)
{
    int64_t q = of->q, size = q * (q + 1) / 2, ld = PADDED(q);
    size_t matrix = (size_t)(ld * ld) * sizeof(double);
    double *system = work, *covariance = system + ld * ld, *inverse = covariance + ld * ld;
    double *F = inverse + ld * ld, *f = F + ld * ld, *z = f + ld, *inverses = z + ld;
    double *inward = inverses + ld, *outward = inward + ld, *step = outward + ld;
    double product = 1, log_det = 0;
    memset(f, 0, (size_t)(2 * ld) * sizeof(double)); /* and z */
    memcpy(f, of->vector, (size_t)q * sizeof(double));
    for (int64_t a = 0; a < q; a++)
        memcpy(F + a * (a + 1) / 2, of->matrix + a * q, (size_t)(a + 1) * sizeof(double));
    for (int64_t t = start; t < stop; t++) {
        const double *S = of->systems + t * of->system_stride, *b = of->targets + t * q;
        double *filtered = of->filtered + t * q, *C = of->conditionals + t * size, *next = F;
        steps_to(of, t + 1, inward, outward, step);
        memset(system, 0, 2 * matrix); /* and the covariance */
        for (int64_t i = 0; i < q; i++) {
            for (int64_t k = 0; k <= i; k++)
                system[k * ld + i] = *next++ + *S++;
            system[i * ld + i] += inward[i];
            z[i] = filtered[i] = f[i] + b[i];
        }
        if (!NAME(cholesky)(q, ld, system, 0, inverses, z, NULL))
            return NAN;
        NAME(invert)(q, ld, system, inverses, inverse);
        NAME(add_products)(q, inverse, ld, covariance);
        NAME(back_substitute)(q, ld, system, inverses, z);
        next = F;
        for (int64_t i = 0; i < q; i++) {
            for (int64_t k = 0; k <= i; k++) {
                double c = *C++ = covariance[k * ld + i];
                *next++ = -step[i] * c * step[k];
            }
            next[-1] += outward[i];
            f[i] = step[i] * z[i];
            multiply(&product, &log_det, inverses[i]);
        }
    }
    memcpy(of->vector, f, (size_t)q * sizeof(double));
    for (int64_t a = 0; a < q; a++)
        for (int64_t b = 0; b <= a; b++)
            of->matrix[a * q + b] = of->matrix[b * q + a] = *F++;
    return 2 * (log_det + log(product));
}

/* Covariance V of row t, from that of the row after it in its place; the rest is work
 * memory of which the padding is zero. With L = diag(step) C:
 * (C diag(step) V)' = V'L, and V becomes C + (V'L)'L. */
INLINE TARGET void NAME(smooth_covariance)(const chain_problem *of, int64_t t, int64_t ld,
                                           const double *step, double *V, double *L)
{
    int64_t q = of->q, size = q * (q + 1) / 2;
    double *with_next = L + ld * ld, *change = with_next + ld * ld;
    const double *C = of->conditionals + t * size;
    double *out = of->covariances + t * size;
    for (int64_t a = 0; a < q; a++)
        for (int64_t b = 0; b <= a; b++) {
            L[b * ld + a] = step[b] * *C;
            L[a * ld + b] = step[a] * *C++;
        }
    memset(with_next, 0, (size_t)(2 * ld * ld) * sizeof(double)); /* and the change */
    for (int64_t row = 0; row < q; row += TILE_ROWS)
        NAME(tiles)(1, q, V, L, ld, row, 0, with_next);
    for (int64_t row = 0; row < q; row += TILE_ROWS)
        NAME(tiles)(1, q, with_next, L, ld, row, FLOOR(row), change);
    C -= size;
    for (int64_t a = 0; a < q; a++) {
        of->lagged[t * q + a] = with_next[a * ld + a];
        for (int64_t b = 0; b <= a; b++)
            V[a * ld + b] = V[b * ld + a] = *out++ = *C++ + change[b * ld + a];
    }
}

/* Means and covariances, if these are wanted, of the rows start .. stop, backwards. */
TARGET static void NAME(smooth_states)(const chain_problem *of, int64_t start, int64_t stop,
                                       double *work)
{
    int64_t q = of->q, size = q * (q + 1) / 2, ld = PADDED(q);
    double *V = work, *L = V + ld * ld, *mean = L + 3 * ld * ld, *right = mean + ld;
    double *inward = right + ld, *outward = inward + ld, *step = outward + ld;
    if (of->covariances) {
        memset(V, 0, (size_t)(2 * ld * ld) * sizeof(double)); /* and L */
        for (int64_t a = 0; a < q; a++)
            memcpy(V + a * ld, of->matrix + a * q, (size_t)q * sizeof(double));
    }
    memcpy(mean, of->vector, (size_t)q * sizeof(double));
    for (int64_t t = stop - 1; t >= start; t--) {
        steps_to(of, t + 1, inward, outward, step);
        for (int64_t k = 0; k < q; k++)
            right[k] = of->filtered[t * q + k] + step[k] * mean[k];
        NAME(packed_times)(q, of->conditionals + t * size, right, mean);
        memcpy(of->means + t * q, mean, (size_t)q * sizeof(double));
        if (of->covariances)
            NAME(smooth_covariance)(of, t, ld, step, V, L);
    }
    memcpy(of->vector, mean, (size_t)q * sizeof(double));
    if (of->covariances)
        for (int64_t a = 0; a < q; a++)
            memcpy(of->matrix + a * q, V + a * ld, (size_t)q * sizeof(double));
}

/* Eliminate the rows start .. stop with the conditional covariances that are known. */
TARGET static void NAME(filter_means)(const chain_problem *of, int64_t start, int64_t stop,
                                      double *work)
{
    int64_t q = of->q, size = q * (q + 1) / 2, ld = PADDED(q);
    double *y = work, *inward = y + ld, *outward = inward + ld, *step = outward + ld;
    double *f = of->vector;
    for (int64_t t = start; t < stop; t++) {
        double *filtered = of->filtered + t * q;
        for (int64_t k = 0; k < q; k++)
            filtered[k] = f[k] + of->targets[t * q + k];
        steps_to(of, t + 1, inward, outward, step);
        NAME(packed_times)(q, of->conditionals + t * size, filtered, y);
        for (int64_t k = 0; k < q; k++)
            f[k] = step[k] * y[k];
    }
}

/* Likelihoods of as many candidates of column j as a register has lanes. */
INLINE TARGET void NAME(likelihoods)(const process_problem *of, int64_t j, int64_t first)
{
    int64_t left = of->n_candidates - first, n = left < LANES ? left : LANES;
    int64_t at = j * of->n_candidates + first;
    double timescales[LANES], ratios[LANES], products[LANES], log_dets[LANES], squares[LANES];
    persistence_cache cache;
    clear_cache(&cache);
    for (int64_t c = 0; c < LANES; c++) {
        timescales[c] = c < n ? of->timescales[at + c] : 0;
        ratios[c] = c < n ? of->ratios[at + c] : 0;
        log_dets[c] = 0;
    }
    VEC ratio = LOAD(ratios), variance = ratio, mean = (VEC){0}, square = (VEC){0};
    VEC ones = (VEC){0} + 1.0, product = ones;
    for (int64_t k = of->indptr[j]; k < of->indptr[j + 1]; k++) {
        VEC phi = LOAD(find_persistence(&cache, of->gaps[k], timescales, LANES));
        double weight = of->weights ? of->weights[k] : 1;
        VEC kept = phi * phi;
        variance = kept * variance + (ones - kept) * ratio;
        mean *= phi;
        VEC spread = ones + weight * variance, shrink = ones / spread;
        VEC error = of->values[k] - mean;
        square += weight * shrink * error * error;
        variance *= shrink;
        mean += weight * variance * error;
        product *= spread;
        /* No factor is below one. */
        if (!(NAME(sum)(product) < PRODUCT_LIMIT) || k == of->indptr[j + 1] - 1) {
            STORE(products, product);
            for (int64_t c = 0; c < LANES; c++)
                log_dets[c] += log(products[c]);
            product = ones;
        }
    }
    STORE(squares, square);
    memcpy(of->log_dets + at, log_dets, (size_t)n * sizeof(double));
    memcpy(of->squares + at, squares, (size_t)n * sizeof(double));
}

TARGET static void NAME(process_likelihoods)(const process_problem *of, int64_t start,
                                             int64_t stop, double *work)
{
    (void)work;
    for (int64_t j = start; j < stop; j++)
        for (int64_t first = 0; first < of->n_candidates; first += LANES)
            NAME(likelihoods)(of, j, first);
}

/* Posterior of the process at the entries of the columns; `work` has room for two numbers
 * of each entry of a column. */
TARGET static void NAME(process_means)(const process_problem *of, int64_t start, int64_t stop,
                                       double *work)
{
    for (int64_t j = start; j < stop; j++) {
        int64_t first = of->indptr[j], n = of->indptr[j + 1] - first;
        const double *values = of->values + first, *gaps = of->gaps + first;
        const double *weights = of->weights ? of->weights + first : NULL;
        double *means = of->means + first, *variances = of->variances + first;
        double *phis = work, *predicted = phis + n;
        double ratio = of->ratios[j], mean = 0, variance = ratio;
        persistence_cache cache;
        clear_cache(&cache);
        for (int64_t k = 0; k < n; k++) {
            double phi = *find_persistence(&cache, gaps[k], of->timescales + j, 1);
            double weight = weights ? weights[k] : 1;
            phis[k] = phi;
            variance = predicted[k] = phi * phi * variance + (1 - phi * phi) * ratio;
            variance /= 1 + weight * variance;
            mean *= phi;
            mean += weight * variance * (values[k] - mean);
            means[k] = mean;
            variances[k] = variance;
        }
        for (int64_t k = n - 2; k >= 0; k--) {
            double phi = phis[k + 1], ahead = predicted[k + 1];
            double gain = phi * variances[k] / (ahead > 0 ? ahead : 1);
            mean = means[k] += gain * (mean - phi * means[k]);
            variance = variances[k] += gain * gain * (variance - ahead);
        }
    }
}

/* Copy [g, y] of n entries to a panel of rows of ld numbers. */
INLINE TARGET void NAME(gather_states)(const process_problem *of, int64_t first, int64_t n,
                                       int64_t ld, double *panel)
{
    for (int64_t k = first; k < first + n; k++, panel += ld) {
        const double *w = of->states + of->indices[k] * of->state_stride;
        if (k + AHEAD < first + n)
            PREFETCH(of->states + of->indices[k + AHEAD] * of->state_stride,
                     of->state_stride * sizeof(double));
        int64_t c = 0;
        for (; c + LANES <= of->rank; c += LANES)
            STORE(panel + c, LOAD(w + c));
        for (; c < of->rank; c++)
            panel[c] = w[c];
        if (of->column_bias)
            panel[c++] = 1;
        panel[c++] = of->values[k] - (of->row_bias ? w[of->rank] : 0);
        for (; c < ld; c++)
            panel[c] = 0;
    }
}

/* Packed products of [g, y] of each column, whitened. */
TARGET static void NAME(whitened_products)(const process_problem *of, int64_t start, int64_t stop,
                                           double *work)
{
    int64_t width = of->rank + of->column_bias + 1, ld = PADDED(width);
    int64_t chunk = chunk_of_panel(ld);
    double *system = work, *mean = system + ld * ld, *panel = mean + ld;
    double *out = of->products + start * (width * (width + 1) / 2);
    for (int64_t j = start; j < stop; j++) {
        double ratio = of->ratios[j], variance = ratio;
        persistence_cache cache;
        clear_cache(&cache);
        memset(system, 0, (size_t)(ld * ld + ld) * sizeof(double)); /* and the mean */
        for (int64_t first = of->indptr[j]; first < of->indptr[j + 1]; first += chunk) {
            int64_t n = of->indptr[j + 1] - first;
            n = n < chunk ? n : chunk;
            NAME(gather_states)(of, first, n, ld, panel);
            for (int64_t k = 0; k < n; k++) {
                double *row = panel + k * ld, weight = of->weights ? of->weights[first + k] : 1;
                if (ratio == 0) {
                    double root = sqrt(weight);
                    for (int64_t c = 0; weight != 1 && c < ld; c += LANES)
                        STORE(row + c, root * LOAD(row + c));
                    continue;
                }
                double phi = *find_persistence(&cache, of->gaps[first + k], of->timescales + j, 1);
                variance = phi * phi * variance + (1 - phi * phi) * ratio;
                double share = weight / (1 + weight * variance), root = sqrt(share);
                double gain = share * variance;
                variance /= 1 + weight * variance;
                for (int64_t c = 0; c < ld; c += LANES) {
                    VEC predicted = phi * LOAD(mean + c), error = LOAD(row + c) - predicted;
                    STORE(row + c, root * error);
                    STORE(mean + c, predicted + gain * error);
                }
            }
            NAME(add_products)(n, panel, ld, system);
        }
        for (int64_t a = 0; a < width; a++)
            for (int64_t b = 0; b <= a; b++)
                *out++ = system[b * ld + a];
    }
}

#undef TYPES
#undef REAL
#undef REAL_BYTES
#undef PADDED
