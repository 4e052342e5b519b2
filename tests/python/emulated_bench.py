"""`fanano bench --device cuda` where the emulator is the device: all of it but torch's clock and
tensors, in sizes that an emulator can bear.

    python emulated_bench.py bench --device cuda --quick      # any command line of fanano's
"""

import sys

import emulated
import numpy as np

import fanano
from fanano.cli import main
from fanano.cli.bench import cases, devices, peers
from fanano.cli.bench.arrays import NUMPY
from fanano.cli.bench.cases import Case
from fanano.cli.bench.devices import CPU, Device
from fanano.cli.bench.peers.ours import Fanano
from fanano.cli.bench.peers.peer import CannotRun, Prepared

SQUARES = tuple(Case(1, 1, 1, 20, 20, 64, causal) for causal in (False, True))
TINY = {"prefill": SQUARES, "decode": (Case(1, 2, 1, 1, 40, 64),), "backward": SQUARES[1:]}


class Emulated(Device):
    name = "cuda"
    library = NUMPY

    def facts(self, threads):
        kernels = sum(kernel.device == "cuda" for kernel in fanano.kernels())
        return {
            "machine": f"no GPU: the emulator, {kernels} kernels",
            "gpu": "none, emulated",
            "capability": "8.0",
            "multiprocessors": 1,
            "threads": threads,
        }

    def sets(self, case, holders):
        return 1, 0

    def sample(self, calls):
        return CPU.sample(calls)._replace(mhz=1000)

    def yardstick(self, group, case, sets):
        return lambda: 1e9


class OnEmulator(Fanano):
    """The library, on arrays that lie in the emulator's memory."""

    def prepare(self, case, sets):
        prepared = super().prepare(case, [[emulated.Array(x) for x in one] for one in sets])
        return Prepared(prepared.calls, lambda out: out.numpy())

    def backward(self, case, one, dout):
        arrays = [emulated.Array(x) for x in one]
        prepared = super().backward(case, arrays, emulated.Array(dout))
        try:
            prepared.calls[0]()
        except ValueError as error:  # of a library that knows nothing of devices
            if "must be in the CPU's memory" in str(error):
                raise NotImplementedError(str(error)) from None
            raise
        return Prepared(prepared.calls, lambda found: [x.numpy() for x in found[:3]])


class Safe(OnEmulator):
    name = "stand-in of a peer"
    library = "torch"
    algorithm = "safe"

    def backward(self, case, one, dout):
        raise CannotRun("is a stand-in")


class Host(Fanano):
    """Compared and not timed, as torch's mathematics."""

    name = "stand-in of math"
    library = "torch"
    devices = ("cuda",)
    untimed = ("cuda",)

    def prepare(self, case, sets):
        return Prepared([lambda: np.asarray(fanano.attention(*sets[0], is_causal=case.causal))],
                        lambda out: out)  # fmt: skip


def stand_in():
    """From here on the emulator is what `--device cuda` asks for."""
    cases.CUDA_QUICK = cases.CUDA_FULL = TINY
    devices.BY_NAME["cuda"] = Emulated
    peers.ALL = (OnEmulator, Safe, Host)


if __name__ == "__main__":
    stand_in()
    sys.exit(main(sys.argv[1:]))
