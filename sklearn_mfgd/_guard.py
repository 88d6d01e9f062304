"""A fit that ends early leaves its estimator as it was."""


def all_or_nothing(estimator, fit, *arguments):
    """Call ``fit(*arguments)``; an error or Ctrl-C takes back what it has changed.

    Parameters
    ----------
    estimator : estimator
        What `fit` changes the attributes of, but not their contents.
    fit : callable
    *arguments : object

    Returns
    -------
    object
        What `fit` returns.
    """
    before = estimator.__dict__.copy()
    try:
        return fit(*arguments)
    except BaseException:
        # In one step: a second Ctrl-C finds all of the one state or of the other.
        estimator.__dict__ = before
        raise
