"""Imputers have no mask: what is missing is NaN. They say so where one is passed."""

from functools import wraps


def no_mask(imputer) -> str:
    """Say what to do with a mask."""
    return (
        f"{type(imputer).__name__} has no mask; set the missing values to NaN: "
        "X = np.where(mask, X, np.nan), or X = X.where(mask) for a data frame"
    )


def refusing_mask(method):
    """Make a method of an imputer say what to do with a keyword argument `mask`."""

    @wraps(method)
    def wrapped(self, *args, **kwargs):
        if "mask" in kwargs:
            raise TypeError(
                f"{method.__name__} got an argument 'mask'. {no_mask(self)}."
            )
        return method(self, *args, **kwargs)

    return wrapped
