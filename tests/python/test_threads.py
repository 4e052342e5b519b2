"""The thread pool as Python sees it: how many, from many threads at once, after fork, beside
signals, at the end of the process. What needs a process of its own runs in one."""

import os
import threading

import numpy as np
import pytest
from cases import Case
from scripts import script

import fanano


def test_as_many_as_asked_for(threads):
    for n in 1, 2, 7:
        threads(n)
        assert fanano.get_num_threads() == n
    big = np.ones((1, 4, 2000, 64), np.float32)
    threads(3)
    assert fanano.explain(big, big, big).threads == 3


@pytest.mark.parametrize("n", [0, -1, -(2**63), 4097, 2**31 + 1, 2**32 + 1, 2**63 - 1])
def test_fewer_than_one_and_more_than_any_machine_has_are_errors(n):
    before = fanano.get_num_threads()
    with pytest.raises(ValueError, match=f"got {n}, expected at least 1 and at most 4096"):
        fanano.set_num_threads(n)
    assert fanano.get_num_threads() == before


def test_the_environment_says_how_many():
    count = "import fanano; print(fanano.get_num_threads())"
    for n in "5", "1", "4096":
        assert script(count, FANANO_NUM_THREADS=n) == n
    available = len(os.sched_getaffinity(0))
    assert 1 <= int(script(count, FANANO_NUM_THREADS="")) <= available


@pytest.mark.parametrize("text", ["0", "-2", "two", "3x", "4097", "99999999999999999999"])
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
    """Eight Python threads, each with a prefill or a decode of its own and their gradients: every
    result as if it were alone."""
    problems = [
        Case("float32", rows=(100 + n, 3)[n % 2], keys=600 + n, heads=(1, 4, 2, 4)).arrays()
        for n in range(8)
    ]
    threads(1)
    forward = [fanano.attention(*p, is_causal=True, return_lse=True) for p in problems]

    def backward(n):
        dq, dk, dv, *_ = fanano.attention_backward(
            forward[n][0], *problems[n], *forward[n], is_causal=True
        )
        return dq.tobytes() + dk.tobytes() + dv.tobytes()

    gradients = [backward(n) for n in range(8)]
    threads(4)
    wrong = []

    def work(n):
        for _ in range(20):
            out = fanano.attention(*problems[n], is_causal=True)
            if out.tobytes() != forward[n][0].tobytes() or backward(n) != gradients[n]:
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


FORK = """
    import os, signal, sys, time, warnings
    import numpy as np
    import fanano
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork in a threaded process
    fanano.set_num_threads(4)
    x = np.random.default_rng(0).standard_normal((1, 8, 300, 64)).astype(np.float32)
    def both():
        out, lse = fanano.attention(x, x, x, return_lse=True)
        return out.tobytes() + fanano.attention_backward(x, x, x, x, out, lse).dk.tobytes()
    before = both()
    for generation in range(3):
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # a child that hangs dies
            same = [both() == before for _ in range(3)]
            while time.process_time() - time.thread_time() < 0.001:  # until workers have worked
                fanano.attention(x, x, x)
            grandchild = os.fork()
            if grandchild == 0:
                os._exit(0 if both() == before else 4)
            _, status = os.waitpid(grandchild, 0)
            os._exit(0 if all(same) and status == 0 else 3)
        here = both() == before
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


CALLS = {
    "flash": "fanano.attention(x, x, x)",
    "safe": "fanano.attention(x, x, x, algorithm='safe')",
    "softmax": "fanano.softmax(np.broadcast_to(x.ravel(), (30, x.size)))",
    "read": "fanano._core.read(np.zeros(200_000_000, np.float32))",
    "measure_peak": "fanano._core.measure_peak(0.2)",
}


@pytest.mark.parametrize("seconds", [0, 1], ids=["still computing", "done"])
@pytest.mark.parametrize("call", CALLS)
def test_exit_with_work_under_way(call, seconds):
    """The interpreter ends while a thread of its own is in the middle of a call: it must simply
    end. Also where that thread is done while modules are taken apart, and wants the GIL."""
    assert script(
        f"""
        import sys, threading, time, types
        import numpy as np
        import fanano

        class Last:
            def __del__(self, sleep=time.sleep):
                sleep({seconds})

        # Not a global of this module: the thread keeps those.
        sys.modules["last"] = types.SimpleNamespace(last=Last())
        fanano.set_num_threads(4)
        x = np.ones((1, 8, 1000, 64), np.float32)
        fanano.attention(x[:, :, :300], x, x)
        called = threading.Event()
        threading.Thread(target=lambda: (called.set(), {CALLS[call]}), daemon=True).start()
        called.wait()
        time.sleep(0.01)
        print("here")
        """
    ) == "here"  # fmt: skip


def test_signals_come_between_the_calls():
    """Python's handlers run in the main thread once a call is over; what they raise is raised."""
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
        assert same and len(seen) > 0

        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        try:
            while True:
                fanano.attention(x, x, x)
        except KeyboardInterrupt:
            print(fanano.attention(x, x, x).tobytes() == expected)
        """
    ) == "True"  # fmt: skip


def test_workers_block_all_signals():
    """The kernel hands a signal to any thread that does not: handlers of C programs would run on a
    worker's small stack, in the middle of a task."""
    assert script(
        """
        import os
        import numpy as np
        import fanano
        x = np.ones((1, 8, 300, 64), np.float32)
        before = set(os.listdir("/proc/self/task"))
        fanano.set_num_threads(4)
        fanano.attention(x, x, x)
        workers = set(os.listdir("/proc/self/task")) - before
        unblockable = 1 << 8 | 1 << 18  # SIGKILL, SIGSTOP
        own = 3 << 31  # 32 and 33, which the C library keeps for itself
        for worker in workers:
            for line in open(f"/proc/self/task/{worker}/status"):
                if line.startswith("SigBlk:"):
                    assert int(line.split()[1], 16) | unblockable | own == 2**64 - 1, line
        print(len(workers))
        """
    ) == "3"  # fmt: skip
