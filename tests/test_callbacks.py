"""The callbacks of scikit-learn 1.9 see every sweep; before it there are none."""

import pickle
import threading
from importlib.util import find_spec
from itertools import product

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_is_fitted

from sklearn_mfgd import DivergenceError, GradientMF, MaskedGradientMF, MFImputer

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ESTIMATORS = [GradientMF, MaskedGradientMF, MFImputer]
METHODS = ["fit", "fit_transform"]
IMPUTERS = [
    {"reg": 0.1, "solver": "scaled"},
    {"add_indicator": True, "keep_empty_features": True},
    {"sample_posterior": True, "random_state": 0},
]


@pytest.fixture
def callback():
    """The module, which scikit-learn has from version 1.9 on."""
    return pytest.importorskip("sklearn.callback")


@pytest.fixture
def X(incomplete):
    """A table of 40 x 15 with 20 % missing, in units of its own."""
    return 500 * incomplete + 3


@pytest.fixture
def model():
    """Unfitted, ends after six sweeps."""
    return MaskedGradientMF(3, reg=0.1, max_iter=6, tol=0)


class Recorder:
    """Note what happens, and call `act` at the end of each sweep."""

    def __init__(self, act=lambda context: None):
        self.act = act
        self.events, self.contexts = [], []

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.events.append(("begin", context.task_name, context.task_id))
        self.contexts.append(context)

    def on_fit_task_end(self, estimator, context):
        self.events.append(("end", context.task_name, context.task_id))
        return self.act(context) if context.task_name == "sweep" else None

    def count(self, event, task_name):
        return [event[:2] for event in self.events].count((event, task_name))


class ModelRecorder(Recorder):
    """Keep all that a callback is given at the end of each sweep."""

    def __init__(self):
        super().__init__()
        self.given = []

    def on_fit_task_end(
        self, estimator, context, *, X, y, metadata, fitted_estimator=None
    ):
        if context.task_name == "sweep":
            with pytest.raises(NotFittedError):
                check_is_fitted(estimator)
            self.given.append((X, y, metadata, fitted_estimator))


class PropagatedRecorder(Recorder):
    max_propagation_depth = None  # meta-estimators hand it on to all their parts


def raiser(error):
    def act(context):
        if context.task_id == 2:
            raise error

    return act


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_a_fit_needs_no_callbacks(Estimator, X):
    model = Estimator(3, max_iter=3).fit(X)
    assert model.n_iter_ == 3
    has_callbacks = find_spec("sklearn.callback") is not None
    assert hasattr(model, "set_callbacks") == has_callbacks


# Tasks


@pytest.mark.pairwise(Estimator=ESTIMATORS, tol=[0, 1e-2], method=METHODS)
def test_every_sweep_is_a_task(callback, Estimator, tol, method, X):
    recorder, n = Recorder(), 100 if tol else 12
    model = Estimator(3, max_iter=n, tol=tol).set_callbacks(recorder)
    getattr(model, method)(X)
    sweeps = product(range(model.n_iter_), ("begin", "end"))
    sweeps = [(event, "sweep", number) for number, event in sweeps]
    whole = ("begin", "fit", 0), ("end", "fit", 0)
    assert recorder.events == ["setup", whole[0], *sweeps, whole[1], "teardown"]
    assert (model.n_iter_ == n) == (tol == 0)
    assert recorder.contexts[0].max_subtasks == n


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_callbacks_change_no_fit_and_no_print(callback, Estimator, X, capsys):
    model = Estimator(3, max_iter=10, verbose=1)
    Z, printed = clone(model).fit_transform(X), capsys.readouterr().out
    assert_array_equal(model.set_callbacks(ModelRecorder()).fit_transform(X), Z)
    assert capsys.readouterr().out == printed
    assert len(printed.splitlines()) == model.n_iter_


def test_a_callback_can_end_the_fit(callback, model, X, recwarn):
    recorder = Recorder(act=lambda context: context.task_id == 2)
    model.set_params(max_iter=50, tol=1e-12).set_callbacks(recorder).fit(X)
    assert model.n_iter_ == 3
    assert recorder.count("begin", "sweep") == recorder.count("end", "sweep") == 3
    assert recorder.events[-2:] == [("end", "fit", 0), "teardown"]
    assert not [w for w in recwarn.list if w.category is ConvergenceWarning]


# The model after each sweep


@pytest.fixture
def check_given(callback, assert_same_model):
    """Return ``check_given(model, X)``: callbacks get what shorter fits leave."""

    def check(model, X):
        recorder = ModelRecorder()
        fitted = clone(model).set_callbacks(recorder).fit(X)
        assert len(recorder.given) == fitted.n_iter_ > 1
        if isinstance(model, MFImputer):  # there are no samples before the last sweep
            model.set_params(sample_posterior=False)
        for number, (*_, given) in enumerate(recorder.given, 1):
            assert_same_model(given, model.set_params(max_iter=number).fit(X), X)

    return check


@pytest.mark.pairwise(
    solver=[{"reg": "auto"}, {"solver": "gd"}, {"solver": "scaled"}],
    fit_bias=[False, True, "columns"],
    early_stopping=[False, True],
)
def test_a_callback_gets_what_a_shorter_fit_leaves(check_given, solver, params, X):
    check_given(GradientMF(3, max_iter=8, random_state=0, **solver, **params), X)


@pytest.mark.filterwarnings("ignore:Skipping features")
@pytest.mark.parametrize("params", IMPUTERS, ids=str)
def test_a_callback_gets_the_imputer_that_a_shorter_fit_leaves(check_given, params, X):
    X[:, 4] = np.nan
    check_given(MFImputer(3, max_iter=5, tol=0, **params), framed(X))


def test_a_model_is_only_made_if_a_callback_asks(callback, model, X, monkeypatch):
    made, original = [], MaskedGradientMF._set_fitted

    def set_fitted(self, *args):
        made.append(self)
        original(self, *args)

    monkeypatch.setattr(MaskedGradientMF, "_set_fitted", set_fitted)
    model.set_callbacks(Recorder()).fit(X)
    assert made == [model]
    clone(model).set_callbacks(ModelRecorder(), ModelRecorder()).fit(X)
    assert len(made) == 1 + 6 + 1


def test_a_callback_gets_the_data_as_fit_got_them(callback, model, X):
    recorder, mask = ModelRecorder(), ~np.isnan(X)
    X = framed(X)
    model.set_callbacks(recorder).fit(X, mask=mask)
    assert len(recorder.given) == 6
    for given_X, given_y, metadata, _ in recorder.given:
        assert given_X is given_y is X
        assert metadata == {"mask": mask}


def q2(model, X, y, **metadata):
    return model.score(X, **metadata)


def framed(X):
    return pd.DataFrame(X).add_prefix("c")


@pytest.mark.parametrize(
    "Estimator, container, masked",
    [
        (GradientMF, np.asarray, False),
        (GradientMF, framed, True),
        (GradientMF, lambda X: sparse.csr_array(np.nan_to_num(X)), False),
        (MaskedGradientMF, np.asarray, True),
        (MFImputer, framed, False),
    ],
)
def test_the_scoring_monitor_scores_every_sweep(
    callback, Estimator, container, masked, X, recwarn
):
    X = container(X)
    options = {"mask": np.arange(40 * 15).reshape(40, 15) % 7 > 0} if masked else {}
    model = Estimator(3, reg=0.1, tol=0)
    monitor = callback.ScoringMonitor(scoring={"q2": q2})
    clone(model).set_params(max_iter=5).set_callbacks(monitor).fit(X, **options)
    fits = (model.set_params(max_iter=k).fit(X, **options) for k in range(1, 6))
    scores = [fit.score(X, **options) for fit in fits]
    rows = monitor.get_logs().data
    # The row of the whole fit comes first.
    assert [row["task_name"] for row in rows] == ["fit"] + 5 * ["sweep"]
    assert_allclose([row["q2"] for row in rows], scores[-1:] + scores)
    assert not recwarn.list


def test_the_fit_of_a_factorization_in_an_imputer_is_no_task_of_its_own(callback, X):
    recorder = PropagatedRecorder()
    imputer = MFImputer(3, max_iter=2, tol=0).set_callbacks(recorder).fit(X)
    assert not hasattr(imputer.factorization_, "_skl_callbacks")
    assert recorder.count("begin", "fit") == recorder.count("end", "fit") == 1


# Fits that fail


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_a_callback_that_fails_at_the_end_of_a_fit_undoes_it(callback, Estimator, X):
    class Last(Recorder):
        def on_fit_task_end(self, estimator, context):
            if context.task_name == "fit":
                check_is_fitted(estimator)
                raise KeyboardInterrupt

    model = Estimator(3, max_iter=2, tol=0).set_callbacks(Last())
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert vars(model) == vars(clone(model))


@pytest.mark.pairwise(
    Estimator=ESTIMATORS, error=[KeyboardInterrupt, ValueError], method=METHODS
)
def test_an_interrupted_fit_ends_its_callbacks(callback, Estimator, method, error, X):
    recorder = Recorder(raiser(error))
    model = Estimator(3, reg=0.1, max_iter=6, tol=0).set_callbacks(recorder)
    with pytest.raises(error):
        getattr(model, method)(X)
    assert recorder.events[-2:] == [("end", "sweep", 2), "teardown"]
    assert vars(model) == vars(clone(model))
    recorder.act = lambda context: None
    state = vars(model.fit(X)).copy()
    recorder.act = raiser(error)
    with pytest.raises(error):
        getattr(model, method)(X[:, :9])
    assert vars(model).keys() == state.keys()
    assert all(vars(model)[name] is value for name, value in state.items())


def test_a_fit_that_diverges_or_refuses_its_data_ends_its_callbacks(callback, model, X):
    for eta in (1e-3, 1e3):
        recorder = Recorder()
        diverging = GradientMF(3, solver="gd", eta=eta).set_callbacks(recorder)
        with pytest.raises(DivergenceError):
            diverging.fit(X)
        assert recorder.events[-1] == "teardown"
        assert ("end", "fit", 0) not in recorder.events
    recorder = Recorder()
    with pytest.raises(ValueError, match="every entry of X is missing"):
        model.set_callbacks(recorder).fit(np.full((4, 9), np.nan))
    assert recorder.events == ["setup", ("begin", "fit", 0), "teardown"]


@pytest.fixture
def progress_bar(callback):
    pytest.importorskip("rich")
    return callback.ProgressBar()


@pytest.mark.pairwise(Estimator=ESTIMATORS, tol=[0, 1e-2], method=METHODS)
def test_the_bar_is_full_in_the_end(progress_bar, Estimator, tol, method, X, capsys):
    model = Estimator(3, max_iter=40, tol=tol).set_callbacks(progress_bar)
    getattr(model, method)(X)
    shown = capsys.readouterr().out
    assert f"{Estimator.__name__} - fit" in shown and "100%" in shown


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_progress_bar_stops_with_a_fit_that_fails(progress_bar, model, error, X):
    before = set(threading.enumerate())
    with pytest.raises(error):
        model.set_callbacks(progress_bar, Recorder(raiser(error))).fit(X)
    # Threads that are no daemons would keep Python from exiting.
    assert all(thread.daemon for thread in set(threading.enumerate()) - before)


# In company


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_a_pipeline_hands_its_callbacks_on_and_takes_them_back(callback, Estimator, X):
    recorder, step = PropagatedRecorder(), Estimator(3, max_iter=5, tol=0)
    pipeline = make_pipeline(step, LogisticRegression(max_iter=5))
    pipeline.set_callbacks(recorder).fit(X, np.arange(40) % 2)
    assert recorder.count("begin", "sweep") == recorder.count("end", "sweep") == 5
    assert recorder.events.count("setup") == recorder.events.count("teardown") == 1
    assert vars(step).keys() == vars(clone(step).fit(X)).keys()
    recorder.act, unfitted = raiser(KeyboardInterrupt), clone(step)
    with pytest.raises(KeyboardInterrupt):
        make_pipeline(unfitted).set_callbacks(recorder).fit(X)
    assert recorder.events[-1] == "teardown"
    assert vars(unfitted) == vars(clone(step))


def test_a_grid_search_fits_with_callbacks(callback, model, X):
    own, handed_on = Recorder(), PropagatedRecorder()
    monitor = callback.ScoringMonitor(scoring={"q2": q2})
    model.set_callbacks(own, monitor)
    search = GridSearchCV(model, {"rank": [2, 3]}, cv=2, error_score="raise")
    search.set_callbacks(handed_on).fit(X)
    for recorder, n_setups in (own, 5), (handed_on, 1):
        n_ends = recorder.events.count("teardown")
        assert recorder.events.count("setup") == n_ends == n_setups
        assert recorder.count("end", "sweep") == 5 * 6
    rows = monitor.get_logs().data
    assert [row["task_name"] for row in rows].count("sweep") == 5 * 6


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_a_fitted_estimator_with_callbacks_can_be_pickled(callback, Estimator, X):
    model = Estimator(3, reg=0.1, max_iter=6, tol=0)
    model.set_callbacks(callback.ScoringMonitor(scoring={"q2": q2})).fit(X)
    restored = pickle.loads(pickle.dumps(model))
    assert_array_equal(restored.transform(X), model.transform(X))
    assert_array_equal(restored.fit_transform(X), model.transform(X))
