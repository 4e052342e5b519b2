"""Every function that computes lets other Python threads run in the middle of it."""

import threading
import time

import numpy as np
import pytest

import fanano
from fanano import _core


def heads(rows, keys):
    """Eight heads that share their memory."""
    return [np.broadcast_to(np.ones((n, 64), np.float32), (8, n, 64)) for n in (rows, keys, keys)]


def attention(rows=700, keys=700, **options):
    arrays = heads(rows, keys)
    return lambda: fanano.attention(*arrays, **options)


def backward():
    dout, q, k = heads(700, 700)
    out, lse = fanano.attention(q, k, k, return_lse=True)
    return lambda: fanano.attention_backward(dout, q, k, k, out, lse)


def softmax(algorithm):
    x = np.broadcast_to(np.zeros(250_000, np.float32), (40, 250_000))
    return lambda: fanano.softmax(x, algorithm=algorithm)


def merge():
    out = np.broadcast_to(np.float32(1), (150_000, 64))
    lse = np.zeros(150_000, np.float32)
    return lambda: fanano.merge_states(out, lse, out, lse)


def absorb():
    scores = np.broadcast_to(np.float32(1), 10_000_000)
    return lambda: fanano.SoftmaxState().absorb(scores)


def read():
    x = np.zeros(50_000_000, np.float32)
    return lambda: _core.read(x)


# Each takes some ten milliseconds of one thread, and more.
CALLS = {
    "flash": attention,
    "flash, masked": lambda: attention(attn_mask=np.ones((700, 700), bool)),
    "decode": lambda: attention(16, 20_000),
    "naive": lambda: attention(algorithm="naive"),
    "safe": lambda: attention(algorithm="safe"),
    "online": lambda: attention(algorithm="online"),
    "backward": backward,
    "softmax, naive": lambda: softmax("naive"),
    "softmax, safe": lambda: softmax("safe"),
    "softmax, online": lambda: softmax("online"),
    "merge_states": merge,
    "absorb": absorb,
    "read": read,
    "measure_peak": lambda: lambda: _core.measure_peak(0.03),
}


def ticks_in_the_middle(call):
    """How often this thread came to run between 30 and 70 per cent of a call of another."""
    times, ticks, called = [], [], threading.Event()

    def work():
        called.set()
        times.append(time.perf_counter())
        call()
        times.append(time.perf_counter())

    worker = threading.Thread(target=work)
    worker.start()
    called.wait()
    while worker.is_alive():
        ticks.append(time.perf_counter())
        time.sleep(0.001)
    begin, end = times
    return sum(0.3 < (t - begin) / (end - begin) < 0.7 for t in ticks)


@pytest.mark.parametrize(
    ("name", "n"), [*((name, 1) for name in CALLS), ("flash", 2), ("decode", 2)]
)
def test_the_gil_is_released(name, n, threads):
    threads(n)
    call = CALLS[name]()
    # A busy machine may not let this thread run in time; one that waits for the GIL never does.
    assert any(ticks_in_the_middle(call) for _ in range(20))
