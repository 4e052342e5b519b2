"""The thread pool as Python sees it: how many, from many threads at once, after fork, without the
GIL. What needs a process of its own runs in one."""

import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from cases import Case

import fanano


def script(text, timeout=120, **environment):
    """Runs Python code in a process of its own; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | environment,
    )
    assert done.returncode == 0, f"exit {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def test_as_many_as_asked_for(threads):
    for n in 1, 2, 7:
        threads(n)
        assert fanano.get_num_threads() == n
    big = np.ones((1, 4, 2000, 64), np.float32)
    threads(3)
    assert fanano.explain(big, big, big).threads == 3


@pytest.mark.parametrize("n", [0, -1])
def test_fewer_than_one_is_an_error(n):
    before = fanano.get_num_threads()
    with pytest.raises(ValueError, match=f"{n}.*at least 1"):
        fanano.set_num_threads(n)
    assert fanano.get_num_threads() == before


def test_the_environment_says_how_many():
    count = "import fanano; print(fanano.get_num_threads())"
    assert script(count, FANANO_NUM_THREADS="5") == "5"
    available = len(os.sched_getaffinity(0))
    assert 1 <= int(script(count, FANANO_NUM_THREADS="")) <= available


@pytest.mark.parametrize("text", ["0", "-2", "two", "3x", "99999999999999999999"])
def test_nonsense_in_the_environment_is_an_error(text):
    output = script(
        """
        import fanano
        try:
            fanano.get_num_threads()
        except ValueError as error:
            print(error)
        """,
        FANANO_NUM_THREADS=text,
    )
    assert "FANANO_NUM_THREADS" in output
    assert text in output


def test_the_affinity_of_the_process_counts():
    assert script(
        """
        import os
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        import fanano
        print(fanano.get_num_threads())
        """,
        FANANO_NUM_THREADS="",
    ) == "1"  # fmt: skip


def test_many_callers_at_once(threads):
    """Eight Python threads, each with its own problem: every result as if it were alone."""
    problems = [
        Case("float32", rows=100 + n, keys=300 + n, heads=(1, 4, 2, 4), where="causal").arrays()
        for n in range(8)
    ]
    threads(1)
    expected = [fanano.attention(*p, is_causal=True).tobytes() for p in problems]
    threads(4)
    wrong = []

    def work(n):
        for _ in range(20):
            if fanano.attention(*problems[n], is_causal=True).tobytes() != expected[n]:
                wrong.append(n)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(timeout=120)
    assert not any(w.is_alive() for w in workers)
    assert wrong == []


def test_changing_the_number_while_others_compute(threads):
    arrays = Case("float32", rows=300, keys=300, heads=(1, 4, 2, 4)).arrays()
    expected = fanano.attention(*arrays).tobytes()
    stop = threading.Event()

    def change():
        while not stop.is_set():
            for n in 1, 2, 3, 4:
                threads(n)

    changer = threading.Thread(target=change)
    changer.start()
    try:
        same = [fanano.attention(*arrays).tobytes() == expected for _ in range(50)]
    finally:
        stop.set()
        changer.join()
    assert all(same)


@pytest.mark.parametrize("n", [1, 2])
def test_the_gil_is_released(n, threads):
    """Another Python thread runs in the middle of a call, not only before and after it."""
    threads(n)
    x = np.ones((1, 8, 1500, 64), np.float32)
    times = []
    called = threading.Event()

    def work():
        called.set()
        times.append(time.perf_counter())
        fanano.attention(x, x, x)
        times.append(time.perf_counter())

    worker = threading.Thread(target=work)
    worker.start()
    called.wait()
    ticks = []
    while worker.is_alive():
        ticks.append(time.perf_counter())
        time.sleep(0.001)
    begin, end = times
    middle = [t for t in ticks if begin + (end - begin) * 0.3 < t < end - (end - begin) * 0.3]
    assert middle, f"no tick in the middle of a call of {end - begin:.3f} s"


FORK = """
    import os, signal, sys, warnings
    import numpy as np
    import fanano
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork in a threaded process
    fanano.set_num_threads(4)
    x = np.random.default_rng(0).standard_normal((1, 8, 300, 64)).astype(np.float32)
    before = fanano.attention(x, x, x).tobytes()
    for generation in range(3):
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # a child that hangs dies
            same = [fanano.attention(x, x, x).tobytes() == before for _ in range(3)]
            grandchild = os.fork()
            if grandchild == 0:
                os._exit(0 if fanano.attention(x, x, x).tobytes() == before else 4)
            _, status = os.waitpid(grandchild, 0)
            os._exit(0 if all(same) and status == 0 else 3)
        here = fanano.attention(x, x, x).tobytes() == before
        _, status = os.waitpid(child, 0)
        assert status == 0 and here, (generation, status, here)
    print("ok")
"""


def test_fork_after_a_parallel_region():
    assert script(FORK) == "ok"


def test_fork_while_others_compute():
    assert script(
        """
        import os, signal, threading, warnings
        import numpy as np
        import fanano
        warnings.simplefilter("ignore", DeprecationWarning)
        fanano.set_num_threads(3)
        x = np.ones((1, 8, 400, 64), np.float32)
        expected = fanano.attention(x, x, x).tobytes()
        stop = threading.Event()

        def work():
            while not stop.is_set():
                fanano.attention(x, x, x)

        worker = threading.Thread(target=work)
        worker.start()
        bad = 0
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                os._exit(fanano.attention(x, x, x).tobytes() != expected)
            bad += os.waitpid(child, 0)[1] != 0
        stop.set()
        worker.join()
        print(bad)
        """
    ) == "0"  # fmt: skip


def test_exit_with_work_under_way():
    """Workers are asleep or busy when the interpreter ends: it must simply end."""
    script(
        """
        import threading
        import numpy as np
        import fanano
        fanano.set_num_threads(4)
        x = np.ones((1, 8, 2000, 64), np.float32)
        fanano.attention(x[:, :, :300], x, x)
        threading.Thread(target=fanano.attention, args=(x, x, x), daemon=True).start()
        """
    )


def test_signals_stay_with_the_main_thread():
    """Workers block all signals: Python's handlers run, in the main thread, between the calls."""
    assert script(
        """
        import signal
        import numpy as np
        import fanano
        fanano.set_num_threads(4)
        seen = []
        signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
        x = np.ones((1, 8, 300, 64), np.float32)
        expected = fanano.attention(x, x, x).tobytes()
        same = all(fanano.attention(x, x, x).tobytes() == expected for _ in range(50))
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(same and len(seen) > 0)
        """
    ) == "True"  # fmt: skip
