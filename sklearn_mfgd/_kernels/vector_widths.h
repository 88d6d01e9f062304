/* Kernels over observed entries, for the vector widths of the processor.
 *
 * row_kernels.h and chain_kernels.h hold each of them once; here they are compiled for
 * every width, and the widest that the processor has is chosen when the module is loaded. Compilers without
 * the vector extensions of GCC and Clang get plain C.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__)
#define VECTORS 1
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#define PREFETCH_LINE(p) __builtin_prefetch(p)
#else
#define VECTORS 0
#define INLINE static __inline
#define UNROLL
#define PREFETCH_LINE(p) ((void)0)
#endif
#if VECTORS && defined(__x86_64__)
#define WIDTHS 1 /* may be chosen at run time */
#else
#define WIDTHS 0
#endif

#define AHEAD 8     /* entries whose factors are on their way from memory */
#define PANEL 16384 /* bytes of gathered factors, half of a first-level cache */

#define PREFETCH(p, size)                                                                  \
    do {                                                                                   \
        const char *start = (const char *)(p);                                             \
        for (size_t line = 0; line < (size_t)(size); line += 64)                           \
            PREFETCH_LINE(start + line);                                                   \
    } while (0)

/* The structs hold what problems.py describes. A pointer is NULL where there is no such
 * thing, or nothing in it. A stride is the length of a row, its bias included. */
typedef struct {
    int64_t n_rows, n_columns, n_entries;
    const int64_t *indptr;
    const int32_t *indices;
    const void *values, *weights;
    int64_t rank /* without biases */, row_stride, column_stride, ridge_stride;
    int row_bias, column_bias;
    const void *columns, *rows; /* factors */
    const double *ridge;        /* (rank + row_bias,), of row 0 */
    const void *draws;
    void *out;
    double *sums;
    uint8_t *needs_fallback;
} row_problem;

typedef struct {
    int64_t n_rows, n_columns, rank;
    const int64_t *i, *j;
    const void *rows, *columns;
    void *out;
} product_problem;

/* Rows that share a system, which is symmetric. */
typedef struct {
    int64_t n_rows, rank, n_passes;
    const double *system, *targets;
    double *out;
} shared_problem;

typedef struct {
    const int64_t *system_index;
    int64_t rank, size, out_size, target_stride;
    int row_bias, column_bias;
    const void *sums, *targets;
    const double *scale, *prior;
    double least_eigenvalue;
    void *means, *moments, *covariances;
    double *logdets, *gains;
    uint8_t *needs_fallback;
} posterior_problem;

typedef struct {
    int64_t n_rows, n_columns;
    const int32_t *i, *j;
    const void *values, *weights;
    int64_t rank, row_stride, column_stride;
    int row_bias, column_bias;
    void *rows, *columns;
    const void *row_share, *column_share;
    void *row_squares, *column_squares; /* (., 2) */
    double ridge, bias_ridge, eta, bias_eta, scale, bias_scale;
} stochastic_problem;

enum { LEAST_SQUARES, GRADIENT, PRODUCT, SQUARES, RESIDUALS, NON_NEGATIVE };

#define JOIN_(x, type, width) x##_##type##_##width
#define JOIN(x, type, width) JOIN_(x, type, width)

/* Whether the pointers or the indices of row i lead outside the arrays. */
static int is_malformed(const row_problem *of, int64_t i)
{
    int64_t first = of->indptr[i], stop = of->indptr[i + 1];
    uint32_t limit = (uint32_t)of->n_columns, outside = 0;
    if (first < 0 || first > stop || stop > of->n_entries)
        return 1;
    for (int64_t k = first; k < stop; k++)
        outside |= (uint32_t)of->indices[k] >= limit;
    return (int)outside;
}

/* Numbers of type double that least squares needs to work on. */
static int64_t least_squares_work_size(int64_t rank)
{
    int64_t ld = rank / 16 * 16 + 16, chunk = PANEL / (4 * ld) + 16;
    return ld * ld + 3 * ld + chunk * (ld + 2);
}

/* The same for non-negative rows. */
static int64_t non_negative_work_size(int64_t rank)
{
    int64_t ld = rank / 16 * 16 + 16;
    return least_squares_work_size(rank) + ld * ld + 6 * ld;
}

/* The same for those that share a system, in batches of 32 at the most. */
static int64_t shared_work_size(int64_t rank)
{
    int64_t ld = rank / 16 * 16 + 16;
    return non_negative_work_size(rank) + 2 * 32 * ld;
}

/* The same for posteriors; room for vectors that reach past the end. */
static int64_t posterior_work_size(int64_t rank)
{
    int64_t ld = (rank + 1) / 16 * 16 + 16;
    return 3 * ld * ld + 4 * ld + 16;
}

#include "chain_problems.h"

/* Vectors of 16 bytes where the compiler has them at all, else plain C. */
#define WIDTH base
#define BYTES (16 * VECTORS)
#define TILE_ROWS 4
#define TARGET
#include "data_types.h"

#if WIDTHS
#define WIDTH avx2
#define BYTES 32
#define TILE_ROWS 4
#define TARGET __attribute__((target("avx2,fma")))
#include "data_types.h"

#define WIDTH avx512
#define BYTES 64
#define TILE_ROWS 8
#define TARGET __attribute__((target("avx512f,avx2,fma")))
#include "data_types.h"
#endif

/* For tests: the tiles of avx512 in vectors that the compiler puts together. */
#ifdef SKLEARN_MFGD_EMULATE
#define WIDTH emulated
#define BYTES 64
#define TILE_ROWS 8
#define TARGET
#include "data_types.h"
#endif

/* The kernels for one vector width: those of rows in single and in double precision. */
typedef struct {
    const char *name;
    int64_t (*run_rows[2])(int, const row_problem *, double *, int64_t, int64_t);
    int64_t (*products[2])(const product_problem *, int64_t, int64_t);
    int64_t (*sgd[2])(const stochastic_problem *, int64_t, int64_t);
    void (*posteriors[2])(const posterior_problem *, int64_t, int64_t, double *);
    void (*non_negative_rows)(const shared_problem *, int64_t, int64_t, double *);
    double (*filter_states)(const chain_problem *, int64_t, int64_t, double *);
    void (*smooth_states)(const chain_problem *, int64_t, int64_t, double *);
    void (*filter_means)(const chain_problem *, int64_t, int64_t, double *);
    void (*process_likelihoods)(const process_problem *, int64_t, int64_t, double *);
    void (*process_means)(const process_problem *, int64_t, int64_t, double *);
    void (*whitened_products)(const process_problem *, int64_t, int64_t, double *);
} instruction_set;

#define INSTRUCTION_SET(width)                                                             \
    {                                                                                      \
        #width, {run_rows_float_##width, run_rows_double_##width},                         \
            {products_float_##width, products_double_##width},                             \
            {sgd_float_##width, sgd_double_##width},                                       \
            {posteriors_mixed_##width, posteriors_double_##width},                         \
            non_negative_rows_double_##width,                                              \
            filter_states_double_##width, smooth_states_double_##width,                    \
            filter_means_double_##width, process_likelihoods_double_##width,               \
            process_means_double_##width, whitened_products_double_##width,                \
    }

/* The widest first. */
static const instruction_set instruction_sets[] = {
#if WIDTHS
    INSTRUCTION_SET(avx512),
    INSTRUCTION_SET(avx2),
#endif
    INSTRUCTION_SET(base),
#ifdef SKLEARN_MFGD_EMULATE
    INSTRUCTION_SET(emulated),
#endif
};

static int processor_has(const instruction_set *candidate)
{
#if WIDTHS
    __builtin_cpu_init();
    if (!strcmp(candidate->name, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("fma");
    if (!strcmp(candidate->name, "avx2"))
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return candidate->name != NULL;
}

/* The set of that name, or without a name the widest that this processor has; NULL where
 * there is none. */
static const instruction_set *find_instruction_set(const char *name)
{
    const size_t n_sets = sizeof(instruction_sets) / sizeof(instruction_sets[0]);
    for (size_t k = 0; k < n_sets; k++) {
        const instruction_set *candidate = instruction_sets + k;
        if (processor_has(candidate) && (!*name || !strcmp(name, candidate->name)))
            return candidate;
    }
    return NULL;
}
