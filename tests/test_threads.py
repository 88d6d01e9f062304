"""Sharing out ranges of work among threads."""

import signal
import threading
from time import sleep

import joblib
import pytest
from numpy.testing import assert_array_equal

from sklearn_mfgd import MaskedGradientMF
from sklearn_mfgd._kernels import threads
from sklearn_mfgd._kernels.threads import at_most_threads, n_threads, share_out

RANGES = [(k, k + 3) for k in range(0, 60, 3)]


class Interruption(BaseException):
    """Neither an error nor Ctrl-C."""


NONSENSE = ["abc", "0", "-1", "1.5", ",2", "2,", "2,abc", "2,0", "2 3", "²", "+2"]


class TestNumberOfThreads:
    @pytest.fixture(autouse=True)
    def nothing_said_before(self):
        threads._limit.cache_clear()

    @pytest.mark.parametrize("limit", ["3", "1", "2,1", "7,3,1", " 2 ", "4 , 2"])
    def test_is_the_limit_of_openmp(self, monkeypatch, limit, recwarn):
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
        assert n_threads() == int(limit.strip()[0])
        assert not recwarn.list

    @pytest.mark.parametrize("limit", NONSENSE)
    def test_is_that_of_the_processors_after_nonsense(self, monkeypatch, limit):
        """Which is told once."""
        monkeypatch.setenv("OMP_NUM_THREADS", limit)
        with pytest.warns(UserWarning) as caught:
            assert n_threads() == n_threads() == joblib.cpu_count()
        assert f"OMP_NUM_THREADS={limit!r} is ignored" in str(caught[0].message)
        assert len(caught) == 1

    @pytest.mark.parametrize("limit", [None, "", " "])
    def test_is_that_of_the_processors_by_default(self, monkeypatch, limit, recwarn):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if limit is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", limit)
        assert n_threads() == joblib.cpu_count()
        assert not recwarn.list


class TestLimitOfACall:
    """That of `at_most_threads`."""

    @pytest.fixture(autouse=True)
    def four_threads(self, monkeypatch):
        monkeypatch.setenv("OMP_NUM_THREADS", "4")

    @pytest.mark.parametrize(
        "limit, expected", [(1, 1), (3, 3), (4, 4), (9, 4), (None, 4)]
    )
    def test_is_never_more_than_there_are(self, limit, expected):
        with at_most_threads(limit):
            assert n_threads() == expected

    def test_ends_with_the_call_or_its_error(self):
        with at_most_threads(3):
            with pytest.raises(Interruption), at_most_threads(2):
                assert n_threads() == 2
                raise Interruption
            assert n_threads() == 3
        assert n_threads() == 4

    def test_is_that_of_one_thread_alone(self):
        seen, both_inside = {}, threading.Barrier(2, timeout=60)

        def call(limit):
            with at_most_threads(limit):
                both_inside.wait()
                seen[limit] = n_threads()
                both_inside.wait()

        callers = [threading.Thread(target=call, args=(limit,)) for limit in (1, 2)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert seen == {1: 1, 2: 2}
        assert n_threads() == 4


@pytest.fixture(params=[1, 2, 4])
def limit(request):
    return request.param


class TestRanges:
    def test_are_done_once_each_in_order_and_leave_no_thread_behind(self, limit):
        before = threading.active_count()
        for ranges in ([], RANGES[:1], RANGES[:2], RANGES):
            done = []
            share_out(lambda *bounds, done=done: done.append(bounds), ranges, limit)
            assert (done if limit == 1 else sorted(done)) == ranges
        assert threading.active_count() == before

    def test_are_shared_by_as_many_threads_as_are_set(self, monkeypatch, limit):
        """Every thread waits until all of them have a range."""
        monkeypatch.setenv("OMP_NUM_THREADS", str(limit))
        all_at_work, done = threading.Barrier(limit, timeout=60), []

        def work(*bounds):
            all_at_work.wait()
            done.append((bounds, threading.get_ident()))

        share_out(work, RANGES[: 3 * limit])
        assert sorted(bounds for bounds, _ in done) == RANGES[: 3 * limit]
        assert len({thread for _, thread in done}) == limit


class TestWhereThreadsCannotBeStarted:
    @pytest.fixture(params=[0, 1, 2])
    def startable(self, request, monkeypatch):
        """How many threads the system allows."""
        start, started = threading.Thread.start, []

        def refuse(thread):
            if len(started) == request.param:
                raise RuntimeError("can't start new thread")
            started.append(thread)
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)
        return request.param

    def test_the_others_do_all_of_the_work(self, startable):
        done, workers = [], set()
        all_at_work = threading.Barrier(startable + 1, timeout=60)

        def work(*bounds):
            if threading.get_ident() not in workers:
                workers.add(threading.get_ident())
                all_at_work.wait()
            done.append(bounds)

        share_out(work, RANGES, 4)
        assert sorted(done) == RANGES
        assert len(workers) == startable + 1

    def test_an_error_of_the_work_is_still_raised(self, startable):
        def work(*bounds):
            raise RuntimeError("of the work itself")

        with pytest.raises(RuntimeError, match="of the work itself"):
            share_out(work, RANGES, 4)

    def test_a_fit_finds_the_same(self, startable, planted, monkeypatch):
        monkeypatch.setattr("sklearn_mfgd._kernels.dispatch.OPERATIONS", 1e4)
        X, factors = planted(share_missing=0.2).X, []
        for limit in ("1", "4"):
            monkeypatch.setenv("OMP_NUM_THREADS", limit)
            factors.append(MaskedGradientMF(3).fit_transform(X))
        assert_array_equal(*factors)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, Interruption])
class TestErrors:
    def test_are_raised_and_leave_no_thread_behind(self, limit, error):
        before = threading.active_count()

        def work(start, stop):
            if start == 30:
                raise error("in the middle")

        with pytest.raises(error, match="in the middle"):
            share_out(work, RANGES, limit)
        assert threading.active_count() == before

    def test_end_what_comes_after(self, error):
        done = []

        def work(*bounds):
            done.append(bounds)
            if len(done) == 4:
                raise error

        with pytest.raises(error):
            share_out(work, RANGES, 1)
        assert done == RANGES[:4]

    def test_of_one_thread_let_the_others_end_the_range_at_hand(self, error):
        """Here this thread has a range until the other one is gone."""
        before, done = set(threading.enumerate()), []

        def work(*bounds):
            if threading.current_thread() not in before:
                raise error
            for other in set(threading.enumerate()) - before:
                other.join()
            done.append(bounds)

        with pytest.raises(error):
            share_out(work, RANGES, 2)
        assert len(done) <= 1

    def test_of_several_threads_are_raised_once(self, error):
        all_at_work = threading.Barrier(3, timeout=60)

        def work(start, stop):
            all_at_work.wait()
            raise error(f"at {start}")

        with pytest.raises(error, match=r"at [036]"):
            share_out(work, RANGES, 3)


class Endless:
    """So many ranges that nobody waits for the last one."""

    def __len__(self):
        return 10_000_000

    def __iter__(self):
        return ((k, k + 1) for k in range(len(self)))


@pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="this system cannot send itself Ctrl-C"
)
class TestControlC:
    @pytest.fixture(autouse=True)
    def heeded(self):
        """Raise KeyboardInterrupt even in a process that was started to ignore it."""
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        signal.signal(signal.SIGINT, before)

    def test_waits_for_the_ranges_at_hand(self):
        """It comes while the first thread has nothing left but to wait for another."""
        main, done, other_at_work = threading.main_thread(), [], threading.Event()

        def work(*bounds):
            if threading.current_thread() is main:
                other_at_work.wait(60)
                return
            other_at_work.set()
            sleep(0.2)  # until the first thread waits
            signal.pthread_kill(main.ident, signal.SIGINT)
            sleep(0.2)
            done.append(bounds)

        with pytest.raises(KeyboardInterrupt):
            share_out(work, RANGES[:2], 2)
        assert len(done) == 1

    def test_ends_the_work_of_all_threads(self, limit):
        """It comes while the first thread is at work."""
        main, done, main_at_work = threading.main_thread(), [], threading.Event()

        def work(*bounds):
            if threading.current_thread() is main:
                main_at_work.set()
                signal.pthread_kill(main.ident, signal.SIGINT)
            main_at_work.wait(60)
            done.append(bounds)

        with pytest.raises(KeyboardInterrupt):
            share_out(work, Endless(), limit)
        assert len(done) < len(Endless())
