"""The grid of blocks in whose order an epoch visits the entries.

Rows and columns are dealt out to groups at random, which depends on their number only.
Blocks in different rows and columns of that grid touch different factors and may run at
the same time, in any order, with the same result [1]_.

References
----------
.. [1] R. Gemulla, E. Nijkamp, P. J. Haas, Y. Sismanis, "Large-Scale Matrix
   Factorization with Distributed Stochastic Gradient Descent", KDD 2011.
"""

from itertools import pairwise

import numpy as np

from .._kernels.linalg import row_slices

MIN_BLOCK_LENGTH = 32  # rows and columns of a block
MAX_GROUPS = 16  # of rows and of columns
MAX_SHUFFLED = 4_000_000  # entries in one call, as Ctrl-C waits for its end


def deal(rows, rng) -> tuple[np.ndarray, int, np.ndarray]:
    """Deal rows and columns out to a grid, and shuffle the entries of each block.

    Returns their order block by block, the number of groups, and where blocks begin.
    """
    n_groups = int(np.clip(min(rows.shape) // MIN_BLOCK_LENGTH, 1, MAX_GROUPS))
    row_groups, column_groups = (
        (rng.permutation(n) % n_groups).astype(np.uint16) for n in rows.shape
    )
    blocks = row_groups[rows.row_numbers] * np.uint16(n_groups)
    blocks += column_groups[rows.indices]
    order, starts = _sort_by_group(blocks, n_groups**2)
    for start, stop in pairwise(starts.tolist()):
        shuffle(order[start:stop], rng)
    return order, n_groups, starts


def _sort_by_group(groups: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions sorted by group, stably, in short calls, and where groups begin.

    This is a counting sort.
    """
    parts = row_slices(groups.size, 1)
    counts = np.zeros((len(parts), n_groups), np.intp)
    for part, count in zip(parts, counts, strict=True):
        count[:] = np.bincount(groups[part], minlength=n_groups)
    starts = np.concatenate([[0], np.cumsum(counts.sum(axis=0))])
    order, filled = np.empty(groups.size, np.intp), starts[:-1].copy()
    for part, count in zip(parts, counts, strict=True):
        # The positions of this part come after those of the parts before, by group.
        sorted_part = np.argsort(groups[part], kind="stable")
        offsets = filled - np.concatenate([[0], np.cumsum(count)[:-1]])
        places = np.arange(sorted_part.size) + np.repeat(offsets, count)
        order[places] = part.start + sorted_part
        filled += count
    return order, starts


def shuffle(out: np.ndarray, rng) -> None:
    """Put numbers into random order in place, in calls that are not long.

    Many are dealt out to piles at random, and the piles are shuffled one by one.
    """
    if out.size <= MAX_SHUFFLED:
        rng.shuffle(out)
        return
    n_piles = -(-2 * out.size // MAX_SHUFFLED)
    piles = np.empty(out.size, np.uint16)
    for part in row_slices(out.size, 1):
        piles[part] = rng.randint(n_piles, size=piles[part].size)
    by_pile, starts = _sort_by_group(piles, n_piles)
    numbers = out.copy()
    for start, stop in pairwise(starts.tolist()):
        pile = numbers[by_pile[start:stop]]
        rng.shuffle(pile)
        out[start:stop] = pile
