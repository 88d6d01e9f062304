/* The kernels of one vector width, for each pair of types. Set before: WIDTH, its name;
 * BYTES of a register, 0 in plain C; TILE_ROWS; TARGET. */

#define NAME(x) JOIN(x, mixed, WIDTH)
#define DATA float
#define REAL double
#define SQRT sqrt
#define MIXED
#define LANES (BYTES ? BYTES / 8 : 1)
#define LEAST 1e-10
#define NOTHING 1e-200
#define PRECISE 1
#include "row_kernels.h"
#undef NAME
#undef DATA
#undef MIXED

#define NAME(x) JOIN(x, double, WIDTH)
#define DATA double
#include "row_kernels.h"
#undef NAME
#undef DATA
#undef REAL
#undef SQRT
#undef LANES
#undef LEAST
#undef NOTHING
#undef PRECISE

#define NAME(x) JOIN(x, float, WIDTH)
#define DATA float
#define SQRT sqrtf
#define REAL float
#define LANES (BYTES ? BYTES / 4 : 1)
#define LEAST 1e-4f
#define NOTHING 1e-30f
#define PRECISE 0
#include "row_kernels.h"
#undef NAME
#undef DATA
#undef REAL
#undef SQRT
#undef LANES
#undef LEAST
#undef NOTHING
#undef PRECISE

/* Rows start .. stop of what is wanted: -1, or the first malformed row. */
#define WALK(type, solved)                                                                 \
    static int64_t JOIN(walk, type, WIDTH)(int wanted, const observed *of, double *work,   \
                                           int64_t start, int64_t stop)                    \
    {                                                                                      \
        for (int64_t i = start; i < stop; i++) {                                           \
            if (is_malformed(of, i))                                                       \
                return i;                                                                  \
            if (wanted == RESIDUALS)                                                       \
                JOIN(residuals, type, WIDTH)(of, i);                                       \
            else if (wanted == GRADIENT)                                                   \
                JOIN(gradient, type, WIDTH)(of, i);                                        \
            else if (wanted == SQUARES)                                                    \
                JOIN(squares, type, WIDTH)(of, i);                                         \
            else                                                                           \
                of->singular[i] = !(solved);                                               \
        }                                                                                  \
        return -1;                                                                         \
    }

WALK(double, JOIN(solve_row, double, WIDTH)(of, i, work))
/* Single precision first; a row that needs more gets it. */
WALK(float, JOIN(solve_row, float, WIDTH)(of, i, (float *)work) ||
                JOIN(solve_row, mixed, WIDTH)(of, i, work))

#undef WALK
#undef WIDTH
#undef BYTES
#undef TILE_ROWS
#undef TARGET
