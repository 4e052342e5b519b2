"""Calls with torch tensors are helped by torch's own OpenMP threads, which spin between its
operations: a thread of ours would have to share their CPUs. Each in a process of its own."""

import pytest
from scripts import script

torch = pytest.importorskip("torch")

# The threads of OpenMP are there once torch has worked, those of its gradients too; ours are more.
# What spins counts as work: here they sleep.
SETUP = """
    import os, signal, sys, threading, time, warnings
    import numpy as np, torch
    warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork in a threaded process
    torch.set_num_threads(2)
    x = np.random.default_rng(0).standard_normal((1, 8, 300, 64)).astype(np.float32)
    t = torch.from_numpy(x)

    def count():
        return len(os.listdir("/proc/self/task"))

    def start_torch():
        torch.ones(1_000_000, requires_grad=True).mul(2).sum().backward()

    def work_of_others(call):  # in seconds
        start = time.process_time() - time.thread_time()
        call()
        return time.process_time() - time.thread_time() - start

    def others_work(call):  # within a minute
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if work_of_others(call) > 0.0005:
                return True
        return False
"""

FANANO = """
    import fanano
    fanano.set_num_threads(2)

    def attention():
        return fanano.attention(t, t, t)
"""

CALLS = """
    import fanano.torch
    out, lse = fanano.attention(t, t, t, return_lse=True)
    leaf, rows = t.clone().requires_grad_(), t.view(-1, 64).T
    recorded = fanano.attention(leaf, leaf, leaf)

    def backward():
        return fanano.attention_backward(t, t, t, t, out, lse)

    def autograd():
        torch.autograd.grad(recorded, leaf, t, retain_graph=True)

    def installed():
        with fanano.torch.installed():
            torch.nn.functional.scaled_dot_product_attention(t, t, t)

    def softmax():
        return fanano.softmax(rows)

    def merge():
        return fanano.merge_states(out, lse, out, lse)
"""


def run(*parts):
    return script("".join(parts), OMP_WAIT_POLICY="passive")


def test_no_thread_of_ours_is_made():
    assert run(SETUP, "    start_torch()\n", FANANO, CALLS, """
    before = count()
    assert before > 1
    for call in attention, backward, autograd, installed, softmax, merge:
        assert others_work(call), call
        assert count() == before, (call, before, count())
    fanano.attention(x, x, x)  # NumPy's arrays have ours
    assert count() == before + 1
    print("ok")
""") == "ok"  # fmt: skip


def test_the_bits_are_those_of_our_own_threads():
    assert run(SETUP, FANANO, """
    ours, theirs = fanano.attention(x, x, x), fanano.attention(t, t, t)
    assert ours.tobytes() == theirs.numpy().tobytes()
    # Modes are a thread's own, and what others did to OpenMP's does not show.
    tiny = x * np.float32(1e-40)
    ours = fanano.attention(x, x, tiny)
    assert np.any((ours != 0) & (np.abs(ours) < np.finfo(np.float32).tiny))
    assert torch.set_flush_denormal(True)
    start_torch()
    theirs = [fanano.attention(t, t, torch.from_numpy(tiny)) for _ in range(20)]
    assert all(ours.tobytes() == a.numpy().tobytes() for a in theirs)
    print("ok")
""") == "ok"  # fmt: skip


def test_torch_says_how_many():
    """Its number is the team's; one means that nobody is asked, nor woken."""
    assert run(SETUP, FANANO, CALLS, """
    start_torch()
    expected = fanano.attention(x, x, x).tobytes()
    torch.set_num_threads(1)
    for call in attention, backward, softmax:
        assert work_of_others(lambda: [call() for _ in range(5)]) < 0.0005
    fanano.set_num_threads(3)
    for n in 2, 3, 5, 2:
        torch.set_num_threads(n)
        assert others_work(attention)
        assert attention().numpy().tobytes() == expected
    print("ok")
""") == "ok"  # fmt: skip


@pytest.mark.parametrize("first", ["both", "torch", "neither"])
def test_a_forked_child_works_with_threads_of_its_own(first):
    """OpenMP does not know that its threads are gone, and waits for them for ever: also where the
    parent has not called us with tensors yet, or has not imported us."""
    before = {"both": FANANO + "    attention()\n", "torch": FANANO, "neither": ""}[first]
    assert run(SETUP, "    start_torch()\n", before, """
    for generation in range(2):
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # a child that hangs dies
""", FANANO.replace("\n    ", "\n            "), """
            bits = attention().numpy().tobytes()
            same = fanano.attention(x, x, x).tobytes() == bits
            worked = others_work(attention)
            grandchild = os.fork()
            if grandchild == 0:
                os._exit(0 if attention().numpy().tobytes() == bits else 4)
            _, status = os.waitpid(grandchild, 0)
            os._exit(0 if same and worked and count() == 2 and status == 0 else 3)
        _, status = os.waitpid(child, 0)
        assert status == 0, (generation, status)
""", FANANO, """
    assert others_work(attention)
    print("ok")
""") == "ok"  # fmt: skip


def test_many_callers_at_once():
    """Each of Python's threads has a team of its own."""
    assert run(SETUP, FANANO, """
    before = attention().numpy().tobytes()
    wrong = []

    def work(n):
        for _ in range(10):
            torch.ones(100_000).mul_(2)
            if attention().numpy().tobytes() != before:
                wrong.append(n)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=100)
    assert not any(worker.is_alive() for worker in workers)
    print(wrong)
""") == "[]"  # fmt: skip
