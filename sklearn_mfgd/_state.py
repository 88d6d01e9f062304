"""The state of an estimator: all of a fit or nothing of it, and what files hold of it.

Files hold arrays, numbers, strings and plain containers.

Inside, a fitted estimator has records, named tuples of private classes. In its state,
which pickle, joblib and skops write, a record is a dictionary. So a reader needs to
trust the estimators only, and what a file can make is what `RECORDS` lists.
"""

import warnings
from contextlib import contextmanager

from sklearn.exceptions import InconsistentVersionWarning

from ._bayes.draws import DrawsModel, Sample, SidePrior
from ._bayes.loss_model import VariationalLossModel
from ._bayes.missingness import FeatureMap
from ._bayes.noise import Noise
from ._bayes.online import Memory
from ._bayes.pattern_sums import PatternSums
from ._bayes.posterior import VariationalModel
from ._bayes.seasons import Seasons
from ._bayes.time_model import TimeModel
from ._data.categories import Encoding
from ._data.normal_scores import NormalScores
from ._data.standardize import Standardization
from ._data.units import Units
from ._kernels.rows import Biases
from ._optim.column_losses import ColumnLosses
from ._optim.loss_model import RidgeLossModel
from ._optim.losses import Huber, Logistic, Poisson, Squared, StudentT
from ._optim.ridge_model import RidgeModel

RECORDS = {
    record.__name__: record
    for record in (
        Biases,
        ColumnLosses,
        FeatureMap,
        DrawsModel,
        Encoding,
        Huber,
        Logistic,
        Memory,
        Noise,
        NormalScores,
        PatternSums,
        Poisson,
        RidgeLossModel,
        RidgeModel,
        Sample,
        Seasons,
        SidePrior,
        Squared,
        Standardization,
        StudentT,
        TimeModel,
        Units,
        VariationalLossModel,
        VariationalModel,
    )
}

# Where a dictionary names the record that it stands for, and the state of an estimator
# the version that it is of.
RECORD, VERSION = "_record", "_sklearn_mfgd_version"


@contextmanager
def all_or_nothing(estimator):
    """Take back what has changed of an estimator after an error or Ctrl-C."""
    before = estimator.__dict__.copy()
    try:
        yield
    except BaseException:
        # In one step: a second Ctrl-C finds all of the one state or of the other.
        estimator.__dict__ = before
        raise


class PlainStateMixin:
    """Give an estimator a state without objects of private classes."""

    def __getstate__(self):
        state = super().__getstate__()
        state = {name: plain(value) for name, value in state.items()}
        return state | {VERSION: _version()}

    def __setstate__(self, state):
        state = dict(state)
        version = state.pop(VERSION, "unknown")
        if version != _version():
            warnings.warn(
                InconsistentVersionWarning(
                    estimator_name=f"sklearn_mfgd.{type(self).__name__}",
                    current_sklearn_version=_version(),
                    original_sklearn_version=version,
                ),
                stacklevel=2,
            )
        super().__setstate__({name: restored(value) for name, value in state.items()})


def plain(value):
    """Take records apart, wherever they are in a value; leave the rest as it is."""
    name = type(value).__name__
    if RECORDS.get(name) is type(value):
        fields = {field: plain(part) for field, part in value._asdict().items()}
        return {RECORD: name} | fields
    return _of_parts(value, plain)


def restored(value):
    """Put records together again."""
    if isinstance(value, dict) and RECORD in value:
        fields = {field: restored(part) for field, part in value.items()}
        return _record(fields.pop(RECORD), fields)
    return _of_parts(value, restored)


def _of_parts(value, change):
    """Change the parts of a plain container; any other value is returned itself."""
    if type(value) is dict:
        parts = {name: change(part) for name, part in value.items()}
        changed = any(parts[name] is not part for name, part in value.items())
        return parts if changed else value
    if type(value) in (list, tuple):
        parts = [change(part) for part in value]
        changed = any(new is not old for new, old in zip(parts, value, strict=True))
        return type(value)(parts) if changed else value
    return value


def _record(name, fields):
    try:
        return RECORDS[name](**fields)
    except (KeyError, TypeError):
        raise ValueError(
            f"This version of sklearn_mfgd, {_version()}, cannot read {name!r} as the "
            "file has it: its fields are others. Load the file with the version that "
            "wrote it, or fit again."
        ) from None


def _version():
    from . import __version__

    return __version__
