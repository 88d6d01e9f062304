/* What the kernels of chain_kernels.h are asked, and what they share whatever the vector
 * width. vector_widths.h includes this file once. The structs hold what problems.py
 * describes; a pointer is NULL where there is no such thing, or nothing in it.
 */

#define CACHED_BITS 5
#define CACHED (1 << CACHED_BITS) /* gaps of which the correlations are kept */
#define MOST_LANES 8              /* of type double */
#define PRODUCT_LIMIT 1e100       /* beyond it the logarithm of a product is taken */

typedef struct {
    int64_t q, system_stride;
    const double *systems, *targets, *persistence, *precision;
    double *matrix, *vector; /* message or state at the end of the rows, updated */
    double *conditionals, *filtered;
    double *means, *covariances, *lagged;
} chain_problem;

typedef struct {
    int64_t n_rows, n_entries, n_candidates;
    const int64_t *indptr;
    const int32_t *indices;
    const double *values, *weights, *gaps;
    const double *timescales, *ratios; /* (n_columns, n_candidates) */
    double *log_dets, *squares;        /* the same */
    double *means, *variances;         /* (n_entries,) */
    const double *states;              /* factors of the rows, and their bias */
    int64_t rank, state_stride;
    int row_bias, column_bias;
    double *products;
} process_problem;

/* Numbers of type double that the kernels of chains need to work on. */
static int64_t chain_work_size(int64_t q)
{
    int64_t ld = q / 16 * 16 + 16;
    return 4 * ld * ld + 8 * ld;
}

/* Rows of a panel of gathered states. */
static int64_t chunk_of_panel(int64_t ld)
{
    int64_t chunk = PANEL / (ld * (int64_t)sizeof(double));
    return chunk < 16 ? 16 : chunk;
}

/* Numbers that whitened products of regressors and targets need to work on. */
static int64_t whitening_work_size(int64_t width)
{
    int64_t ld = width / 16 * 16 + 16, chunk = PANEL / 64 + 16;
    return ld * ld + ld + chunk * ld;
}

/* Number of the first column of start .. stop that leads outside of the entries or, unless
 * n_rows is negative, of the rows; -1 if there is none. */
static int64_t find_malformed_column(const process_problem *of, int64_t start, int64_t stop)
{
    for (int64_t j = start; j < stop; j++) {
        int64_t first = of->indptr[j], last = of->indptr[j + 1];
        uint32_t limit = (uint32_t)of->n_rows, outside = 0;
        if (first < 0 || first > last || last > of->n_entries)
            return j;
        for (int64_t k = first; of->n_rows >= 0 && k < last; k++)
            outside |= (uint32_t)of->indices[k] >= limit;
        if (outside)
            return j;
    }
    return -1;
}

/* Entries of the longest of the columns. */
static int64_t longest_column(const process_problem *of, int64_t start, int64_t stop)
{
    int64_t longest = 0;
    for (int64_t j = start; j < stop; j++)
        if (of->indptr[j + 1] - of->indptr[j] > longest)
            longest = of->indptr[j + 1] - of->indptr[j];
    return longest;
}

/* phi^2 U, U and phi U of the step to row t, see numpy_chains.py. */
INLINE void steps_to(const chain_problem *of, int64_t t, double *inward, double *outward,
                     double *step)
{
    const double *phi = of->persistence + t * of->q;
    for (int64_t k = 0; k < of->q; k++) {
        outward[k] = of->precision[k] / (1 - phi[k] * phi[k]);
        step[k] = phi[k] * outward[k];
        inward[k] = phi[k] * step[k];
    }
}

/* Multiply by x a number of which the logarithm is log_part + log(product). */
INLINE void multiply(double *product, double *log_part, double x)
{
    *product *= x;
    if (!(*product > 1 / PRODUCT_LIMIT && *product < PRODUCT_LIMIT)) {
        *log_part += log(*product);
        *product = 1;
    }
}

/* Correlations over gaps that were seen before: regular times have few of them. */
typedef struct {
    double gaps[CACHED];
    double phis[CACHED * MOST_LANES];
} persistence_cache;

INLINE void clear_cache(persistence_cache *cache)
{
    for (int slot = 0; slot < CACHED; slot++)
        cache->gaps[slot] = NAN; /* equal to none */
}

/* Correlations over a gap for n timescales: zero without a timescale. */
INLINE const double *find_persistence(persistence_cache *cache, double gap,
                                      const double *timescales, const int n)
{
    uint64_t bits;
    memcpy(&bits, &gap, sizeof(bits));
    uint64_t slot = bits * 0x9E3779B97F4A7C15u >> (64 - CACHED_BITS);
    double *phis = cache->phis + slot * n;
    if (cache->gaps[slot] != gap) {
        cache->gaps[slot] = gap;
        for (int c = 0; c < n; c++)
            phis[c] = timescales[c] > 0 ? exp(-gap / timescales[c]) : 0;
    }
    return phis;
}
