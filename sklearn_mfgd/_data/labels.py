"""Masks and weights as data frames: their labels have to be those of X."""

from .tables import is_frame


def refuse_other_labels(X, **given):
    """Refuse frames of masks or weights, by name, whose labels are not those of X.

    They are used by position, so another order would be another mask. Labels that are
    numbers in order say no more than positions, unless those of X are the same in
    another order.
    """
    if not is_frame(X):
        return
    for name, frame in given.items():
        if not is_frame(frame) or frame.shape != X.shape:  # shapes are checked later
            continue
        _compare(list(X.columns), list(frame.columns), "column", name)
        both = hasattr(X, "index") and hasattr(frame, "index")
        if both and not X.index.equals(frame.index):
            _compare(list(X.index), list(frame.index), "row", name)


def _compare(labels: list, found: list, what: str, name: str):
    """Refuse other labels of rows or columns."""
    if found == labels:
        return
    positions = list(range(len(found))), [f"column_{k}" for k in range(len(found))]
    has_same_labels = set(labels) == set(found)
    if found in positions and not has_same_labels:
        return
    pairs = zip(labels, found, strict=True)
    place = next(k for k, (one, other) in enumerate(pairs) if one != other)
    by_label = f"{name}.loc[X.index]" if what == "row" else f"{name}[list(X.columns)]"
    advice = f"{by_label} for the order of X, or " if has_same_labels else ""
    raise ValueError(
        f"{name} has other {what} labels than X: {what} {place} is {found[place]!r} in "
        f"{name} and {labels[place]!r} in X. Use {advice}{name}.to_numpy() if "
        "both have the same rows and columns by position."
    )
