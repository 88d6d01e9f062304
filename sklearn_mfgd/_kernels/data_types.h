/* The kernels of one vector width, for each pair of types. Set before: WIDTH, its name;
 * BYTES of a register, 0 in plain C; TILE_ROWS; TARGET. */

#define TYPES mixed /* single precision computed in double */
#define DATA float
#define DATA_BYTES 4
#define REAL_BYTES 8
#include "row_kernels.h"

#define TYPES double
#define DATA double
#define DATA_BYTES 8
#define REAL_BYTES 8
#include "row_kernels.h"
#include "chain_kernels.h"

#define TYPES float
#define DATA float
#define DATA_BYTES 4
#define REAL_BYTES 4
#include "row_kernels.h"

/* Run a kernel of the enum on rows start .. stop: -1, or the first malformed row. Those of
 * `in_double` compute in double whatever the data. */
#define RUN_ROWS(type, in_double, is_solved)                                                          \
    static int64_t JOIN(run_rows, type, WIDTH)(int kernel, const row_problem *of,          \
                                               double *work, int64_t start, int64_t stop)  \
    {                                                                                      \
        void (*const run[])(const row_problem *, int64_t) = {                              \
            NULL, JOIN(gradient, type, WIDTH), JOIN(product, type, WIDTH),                 \
            JOIN(squares, type, WIDTH), JOIN(residuals, type, WIDTH)};                     \
        for (int64_t i = start; i < stop; i++) {                                           \
            if (is_malformed(of, i))                                                       \
                return i;                                                                  \
            if (kernel == LEAST_SQUARES)                                                   \
                of->needs_fallback[i] = !(is_solved);                                      \
            else if (kernel == NON_NEGATIVE)                                               \
                JOIN(non_negative_row, in_double, WIDTH)(of, i, work);                     \
            else                                                                           \
                run[kernel](of, i);                                                        \
        }                                                                                  \
        return -1;                                                                         \
    }

RUN_ROWS(double, double, JOIN(solve_row, double, WIDTH)(of, i, work))
/* Single precision first; a row that needs more gets it. */
RUN_ROWS(float, mixed, JOIN(solve_row, float, WIDTH)(of, i, (float *)work) ||
                           JOIN(solve_row, mixed, WIDTH)(of, i, work))

#undef WIDTH
#undef BYTES
#undef TILE_ROWS
#undef TARGET
