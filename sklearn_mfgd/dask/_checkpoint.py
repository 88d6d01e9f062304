"""A callback that saves the model during a fit."""

import os
import pickle
from pathlib import Path


class Checkpoint:
    """Callback that saves the model every few sweeps of a long fit.

    The file holds the ordinary estimator, :class:`sklearn_mfgd.MaskedGradientMF`, as if
    the fit had ended there. Only `reconstruction_err_` is not computed. A file is
    replaced once the next one is complete. Callbacks need scikit-learn 1.9 or later.

    Parameters
    ----------
    path : str or path-like
        The file, a pickle.

    every : int, default=10
        Number of sweeps from one checkpoint to the next.

    See Also
    --------
    MaskedGradientMF.from_local : Makes an estimator that goes on from a checkpoint.

    Examples
    --------
    >>> import pickle
    >>> import tempfile
    >>> import numpy as np
    >>> import dask.array as da
    >>> from pathlib import Path
    >>> from sklearn_mfgd.dask import Checkpoint, MaskedGradientMF
    >>> path = Path(tempfile.mkdtemp()) / "model.pickle"
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(200, 2)) @ rng.normal(size=(2, 10))
    >>> X = da.from_array(X + 0.1 * rng.normal(size=X.shape), chunks=(50, 10))
    >>> model = MaskedGradientMF().set_callbacks(Checkpoint(path, every=2)).fit(X)

    After an interruption, a fit goes on from the column factors in the file:

    >>> saved = pickle.loads(path.read_bytes())
    >>> model = MaskedGradientMF.from_local(saved).set_params(warm_start=True).fit(X)
    >>> model.rank_
    2
    """

    def __init__(self, path, *, every: int = 10) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1; got {every}.")
        self.path, self.every = Path(path), every

    def setup(self, estimator, context) -> None:
        """Do nothing before a fit."""

    def teardown(self, estimator, context) -> None:
        """Do nothing after a fit."""

    def on_fit_task_begin(self, estimator, context) -> None:
        """Do nothing before a sweep."""

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None) -> None:
        """Save the model where enough sweeps were made.

        Parameters
        ----------
        estimator : estimator instance
            The estimator that is being fitted.
        context : sklearn.callback.CallbackContext
            What says which sweep has ended.
        fitted_estimator : estimator instance
            The estimator as if the fit had ended with this sweep.
        """
        if context.task_name == "sweep" and (context.task_id + 1) % self.every == 0:
            beside = self.path.with_name(self.path.name + ".new")
            beside.write_bytes(pickle.dumps(fitted_estimator.to_local()))
            os.replace(beside, self.path)
