"""The callbacks of scikit-learn 1.9 see every sweep; before it there are none."""

import pickle
import threading
from importlib.util import find_spec

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

FACTORIZATIONS = [GradientMF, MaskedGradientMF]
ESTIMATORS = [*FACTORIZATIONS, MFImputer]
METHODS = ["fit", "fit_transform"]


@pytest.fixture
def callback():
    """The module, which scikit-learn has from version 1.9 on."""
    return pytest.importorskip("sklearn.callback")


@pytest.fixture
def holes(planted):
    """A table of 40 x 15 with 20 % missing, in units of its own."""
    return 500 * planted(share_missing=0.2).X + 3


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


class Models(Recorder):
    """Keep all that a callback is given at the end of each sweep."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_fit_task_end(
        self,
        estimator,
        context,
        *,
        X=None,
        y=None,
        metadata=None,
        fitted_estimator=None,
    ):
        if context.task_name == "sweep":
            with pytest.raises(NotFittedError):
                check_is_fitted(estimator)
            self.seen.append((X, y, metadata, fitted_estimator))


class Everywhere(Recorder):
    """A recorder that meta-estimators hand on to all their parts."""

    max_propagation_depth = None


def raiser(error):
    def act(context):
        if context.task_id == 2:
            raise error

    return act


@pytest.fixture
def model():
    """Unfitted, ends after six sweeps."""
    return MaskedGradientMF(3, reg=0.1, max_iter=6, tol=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_a_fit_needs_no_callbacks(Estimator, method, holes):
    model = Estimator(3, max_iter=3)
    getattr(model, method)(holes)
    assert model.n_iter_ == 3
    assert hasattr(model, "set_callbacks") == (
        find_spec("sklearn.callback") is not None
    )


# Tasks


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tol", [0, 1e-2])
@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_every_sweep_is_a_task(callback, Estimator, tol, method, holes):
    recorder = Recorder()
    n = 100 if tol else 12
    model = Estimator(3, max_iter=n, tol=tol).set_callbacks(recorder)
    getattr(model, method)(holes)
    sweeps = [
        (event, "sweep", number)
        for number in range(model.n_iter_)
        for event in ("begin", "end")
    ]
    assert recorder.events == [
        "setup",
        ("begin", "fit", 0),
        *sweeps,
        ("end", "fit", 0),
        "teardown",
    ]
    assert (model.n_iter_ == n) == (tol == 0)
    assert recorder.contexts[0].max_subtasks == n


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_callbacks_do_not_change_the_fit(callback, Estimator, holes):
    model = Estimator(3, max_iter=10)
    Z = clone(model).fit_transform(holes)
    watched = model.set_callbacks(Models())
    assert_array_equal(watched.fit_transform(holes), Z)


def test_callbacks_and_verbose_go_together(callback, model, holes, capsys):
    recorder = Recorder()
    model.set_params(verbose=1).set_callbacks(recorder).fit(holes)
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert recorder.count("end", "sweep") == 6


def test_a_callback_can_end_the_fit(callback, model, holes, recwarn):
    recorder = Recorder(act=lambda context: context.task_id == 2)
    model.set_params(max_iter=50, tol=1e-12).set_callbacks(recorder).fit(holes)
    assert model.n_iter_ == 3
    assert recorder.count("begin", "sweep") == recorder.count("end", "sweep") == 3
    assert recorder.events[-2:] == [("end", "fit", 0), "teardown"]
    assert not [w for w in recwarn.list if w.category is ConvergenceWarning]


# The model after each sweep


def assert_equal(found, expected, name):
    """Compare attributes, and the parts of those that have names."""
    if not hasattr(expected, "_fields"):
        assert_array_equal(found, expected, err_msg=name)
        return
    assert type(found) is type(expected)
    for field in expected._fields:
        part = getattr(found, field), getattr(expected, field)
        assert_equal(*part, f"{name}.{field}")


@pytest.mark.pairwise(
    params=[{"reg": "auto"}, {"solver": "gd"}, {"solver": "scaled"}],
    fit_bias=[False, True, "columns"],
    early_stopping=[False, True],
)
def test_a_callback_gets_what_a_fit_that_ends_there_would_leave(
    callback, params, fit_bias, early_stopping, holes
):
    models = Models()
    model = GradientMF(
        3,
        fit_bias=fit_bias,
        early_stopping=early_stopping,
        max_iter=8,
        random_state=0,
        **params,
    )
    fitted = clone(model).set_callbacks(models).fit(holes)
    assert len(models.seen) == fitted.n_iter_ > 1
    for number, (*_, seen) in enumerate(models.seen, 1):
        expected = vars(clone(model).set_params(max_iter=number).fit(holes))
        assert expected.keys() <= vars(seen).keys()
        for name in expected.keys() - model.get_params().keys():
            assert_equal(getattr(seen, name), expected[name], name)


def test_the_model_is_only_made_for_a_callback_that_asks_for_it(
    callback, model, holes, monkeypatch
):
    made = []
    original = MaskedGradientMF._set_fitted

    def set_fitted(self, *args):
        made.append(self)
        original(self, *args)

    monkeypatch.setattr(MaskedGradientMF, "_set_fitted", set_fitted)
    model.set_callbacks(Recorder()).fit(holes)
    assert made == [model]
    clone(model).set_callbacks(Models(), Models()).fit(holes)
    assert len(made) == 1 + 6 + 1


def test_a_callback_gets_the_data_as_fit_got_them(callback, model, holes):
    models, mask = Models(), ~np.isnan(holes)
    X = pd.DataFrame(holes, columns=[f"c{j}" for j in range(15)])
    model.set_callbacks(models).fit(X, mask=mask)
    for seen_X, seen_y, metadata, _ in models.seen:
        assert seen_X is seen_y is X
        assert metadata == {"mask": mask}


def q2(model, X, y, **metadata):
    return model.score(X, **metadata)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("container", [np.asarray, pd.DataFrame])
@pytest.mark.parametrize("Estimator", FACTORIZATIONS)
def test_the_scoring_monitor_scores_every_sweep(
    callback, Estimator, container, masked, holes, recwarn
):
    X = container(holes)
    if container is pd.DataFrame:
        X.columns = [f"c{j}" for j in range(15)]
    fit_params = {"mask": np.arange(40 * 15).reshape(40, 15) % 7 > 0} if masked else {}
    model = Estimator(3, reg=0.1, max_iter=5, tol=0)
    monitor = callback.ScoringMonitor(scoring={"q2": q2})
    clone(model).set_callbacks(monitor).fit(X, **fit_params)
    scores = [
        clone(model)
        .set_params(max_iter=number)
        .fit(X, **fit_params)
        .score(X, **fit_params)
        for number in range(1, 6)
    ]
    rows = monitor.get_logs().data
    # The row of the whole fit comes first.
    assert [row["task_name"] for row in rows] == ["fit"] + 5 * ["sweep"]
    assert_allclose([row["q2"] for row in rows], scores[-1:] + scores)
    assert not recwarn.list


def test_the_scoring_monitor_scores_sparse_data(callback):
    X = sparse.random(40, 15, density=0.3, random_state=0, format="csr")
    monitor = callback.ScoringMonitor(scoring={"q2": q2})
    model = GradientMF(3, max_iter=5, tol=0).set_callbacks(monitor).fit(X)
    assert monitor.get_logs().data[-1]["q2"] == pytest.approx(model.score(X))


# The imputer, whose sweeps are those of its factorization


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"reg": 0.1, "solver": "scaled"},
        {"add_indicator": True, "keep_empty_features": True},
    ],
    ids=str,
)
def test_a_callback_gets_the_imputer_that_a_fit_that_ends_there_would_leave(
    callback, params, holes
):
    holes[:, 4] = np.nan
    X = pd.DataFrame(holes, columns=[f"c{j}" for j in range(15)])
    models, model = Models(), MFImputer(3, max_iter=5, tol=0, **params)
    fitted = clone(model).set_callbacks(models).fit(X)
    assert len(models.seen) == fitted.n_iter_ > 1
    for number, (seen_X, _, metadata, seen) in enumerate(models.seen, 1):
        expected = clone(model).set_params(max_iter=number).fit(X)
        assert seen_X is X and metadata == {}
        assert vars(seen).keys() >= vars(expected).keys()
        assert (seen.rank_, seen.n_iter_) == (expected.rank_, number)
        assert_array_equal(seen.transform(X), expected.transform(X))
        names = expected.get_feature_names_out()
        assert_array_equal(seen.get_feature_names_out(), names)
        assert seen.score(X) == expected.score(X)


def test_before_there_are_draws_a_callback_imputes_expected_values(callback, holes):
    models = Models()
    model = MFImputer(3, max_iter=3, tol=0, sample_posterior=True, random_state=0)
    clone(model).set_callbacks(models).fit(holes)
    *_, seen = models.seen[-1]
    expected = clone(model).set_params(sample_posterior=False).fit(holes)
    assert_array_equal(seen.transform(holes), expected.transform(holes))


def test_the_scoring_monitor_scores_every_sweep_of_an_imputer(callback, holes, recwarn):
    monitor = callback.ScoringMonitor(scoring={"q2": q2})
    model = MFImputer(3, max_iter=4, tol=0)
    clone(model).set_callbacks(monitor).fit(holes)
    scores = [
        clone(model).set_params(max_iter=number).fit(holes).score(holes)
        for number in range(1, 5)
    ]
    rows = monitor.get_logs().data
    assert [row["q2"] for row in rows] == scores[-1:] + scores
    assert not recwarn.list


def test_the_fit_of_a_factorization_in_an_imputer_is_no_task_of_its_own(
    callback, holes
):
    recorder = Everywhere()
    imputer = MFImputer(3, max_iter=2, tol=0).set_callbacks(recorder).fit(holes)
    assert not hasattr(imputer.factorization_, "_skl_callbacks")
    assert recorder.count("begin", "fit") == recorder.count("end", "fit") == 1


# Fits that fail


def test_a_callback_that_fails_at_the_end_of_a_fit_undoes_it(callback, holes):
    class Last(Recorder):
        def on_fit_task_end(self, estimator, context):
            if context.task_name == "fit":
                check_is_fitted(estimator)
                raise KeyboardInterrupt

    for Estimator in ESTIMATORS:
        model = Estimator(3, max_iter=2, tol=0).set_callbacks(Last())
        with pytest.raises(KeyboardInterrupt):
            model.fit(holes)
        assert vars(model) == vars(clone(model))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_an_interrupted_fit_ends_its_callbacks(
    callback, Estimator, method, error, holes
):
    recorder = Recorder(raiser(error))
    model = Estimator(3, reg=0.1, max_iter=6, tol=0).set_callbacks(recorder)
    with pytest.raises(error):
        getattr(model, method)(holes)
    assert recorder.events[-2:] == [("end", "sweep", 2), "teardown"]
    assert vars(model) == vars(clone(model))


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_an_interrupted_fit_keeps_the_earlier_one(callback, Estimator, holes):
    recorder = Recorder()
    model = Estimator(3, reg=0.1, max_iter=6, tol=0)
    model.set_callbacks(recorder).fit(holes)
    before = vars(model).copy()
    recorder.act = raiser(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(holes[:, :9])
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())
    recorder.act = lambda context: None
    assert model.fit(holes).n_iter_ == 6


@pytest.mark.parametrize("eta", [1e-3, 1e3])
def test_a_fit_that_diverges_ends_its_callbacks(callback, eta, holes):
    recorder = Recorder()
    model = GradientMF(3, solver="gd", eta=eta).set_callbacks(recorder)
    with pytest.raises(DivergenceError):
        model.fit(holes)
    assert recorder.events[-1] == "teardown"
    assert ("end", "fit", 0) not in recorder.events


def test_data_that_are_refused_end_the_callbacks(callback, model):
    recorder = Recorder()
    with pytest.raises(ValueError, match="every entry of X is missing"):
        model.set_callbacks(recorder).fit(np.full((4, 9), np.nan))
    assert recorder.events == ["setup", ("begin", "fit", 0), "teardown"]


# Progress bars


@pytest.fixture
def progress_bar(callback):
    pytest.importorskip("rich")
    return callback.ProgressBar


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tol", [0, 1e-2])
@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_the_progress_bar_is_full_in_the_end(
    progress_bar, Estimator, tol, method, holes, capsys
):
    model = Estimator(3, max_iter=40, tol=tol).set_callbacks(progress_bar())
    getattr(model, method)(holes)
    shown = capsys.readouterr().out
    assert f"{Estimator.__name__} - fit" in shown
    assert "100%" in shown


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_progress_bar_stops_with_a_fit_that_fails(
    progress_bar, model, error, holes
):
    threads = threading.enumerate()
    model.set_callbacks(progress_bar(), Recorder(raiser(error)))
    with pytest.raises(error):
        model.fit(holes)
    left = set(threading.enumerate()) - set(threads)
    assert all(
        thread.daemon for thread in left
    )  # others would keep Python from exiting


# In company


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_a_pipeline_hands_its_callbacks_on(callback, Estimator, holes):
    recorder = Everywhere()
    step = Estimator(3, max_iter=5, tol=0)
    pipeline = make_pipeline(step, LogisticRegression(max_iter=5))
    pipeline.set_callbacks(recorder).fit(holes, np.arange(40) % 2)
    assert recorder.count("begin", "sweep") == recorder.count("end", "sweep") == 5
    assert recorder.events.count("setup") == recorder.events.count("teardown") == 1
    assert vars(step).keys() == vars(clone(step).fit(holes)).keys()


def test_a_pipeline_whose_step_fails_takes_its_callbacks_back(callback, model, holes):
    recorder = Everywhere(raiser(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make_pipeline(model).set_callbacks(recorder).fit(holes)
    assert recorder.events[-1] == "teardown"
    assert vars(model) == vars(clone(model))


def test_a_grid_search_fits_clones_with_the_same_callbacks(callback, model, holes):
    recorder = Recorder()
    grid = {"rank": [2, 3]}
    search = GridSearchCV(
        model.set_callbacks(recorder), grid, cv=2, error_score="raise"
    )
    search.fit(holes)
    assert recorder.events.count("setup") == recorder.events.count("teardown") == 5
    assert recorder.count("end", "sweep") == 5 * 6


def test_a_grid_search_hands_its_callbacks_on(callback, model, holes):
    recorder = Everywhere()
    search = GridSearchCV(model, {"rank": [2, 3]}, cv=2, error_score="raise")
    search.set_callbacks(recorder).fit(holes)
    assert recorder.events.count("setup") == recorder.events.count("teardown") == 1
    assert recorder.count("end", "sweep") == 5 * 6


def test_the_scoring_monitor_sees_all_fits_of_a_grid_search(callback, model, holes):
    monitor = callback.ScoringMonitor(scoring={"q2": q2})
    search = GridSearchCV(model.set_callbacks(monitor), {"rank": [2, 3]}, cv=2)
    search.set_params(refit=False).fit(holes)
    rows = monitor.get_logs().data
    assert [row["task_name"] for row in rows].count("sweep") == 4 * 6


@pytest.mark.parametrize("Estimator", ESTIMATORS)
def test_a_fitted_estimator_with_callbacks_can_be_pickled(callback, Estimator, holes):
    model = Estimator(3, reg=0.1, max_iter=6, tol=0)
    model.set_callbacks(callback.ScoringMonitor(scoring={"q2": q2})).fit(holes)
    restored = pickle.loads(pickle.dumps(model))
    assert_array_equal(restored.transform(holes), model.transform(holes))
    assert_array_equal(restored.fit_transform(holes), model.transform(holes))
