"""
The compiled part of fanano. Private: use the names of the package fanano.
"""

from typing import overload


class Plan:
    """How an attention call would be carried out."""

    @property
    def device(self) -> str:
        """Where it would run."""

    @property
    def backward(self) -> bool:
        """Of attention_backward, or of attention."""

    @property
    def isa(self) -> str:
        """The instruction set of its kernels."""

    @property
    def algorithm(self) -> str:
        """naive, safe, online or flash."""

    @property
    def tile(self) -> tuple[int, int]:
        """
        Query rows of one task, of each of its heads (backward: that pass the keys together), and keys of one tile.
        """

    @property
    def heads(self) -> int:
        """
        Query heads of one task: they share a key head, and pass its keys together.
        """

    @property
    def tasks(self) -> int:
        """
        Independent blocks of query rows, or teams of heads that share a key head (decode). Backward: key heads, or the sums of each.
        """

    @property
    def threads(self) -> int:
        """Threads that would take part."""

    @property
    def scratch_bytes(self) -> int:
        """Memory of each thread."""

    @property
    def workspace_bytes(self) -> int:
        """
        Memory shared by all threads: materialised scores, or states of split keys, else 0. Backward: three numbers of each row, and sums of dk and dv.
        """

    def __str__(self) -> str: ...

    def __repr__(self) -> str: ...

class Kernel:
    """One row of the table of kernels in this build."""

    @property
    def device(self) -> str:
        """cpu or cuda."""

    @property
    def isa(self) -> str:
        """
        The instruction set; of CUDA, the least architecture: sm_80 and what is newer.
        """

    @property
    def name(self) -> str:
        """
        Which of that device's kernels; empty on the CPU, where an instruction set has all.
        """

    @property
    def dtype(self) -> str:
        """Of its inputs; empty on the CPU."""

    @property
    def runnable(self) -> bool:
        """Whether this machine has it."""

    @property
    def why_not(self) -> str:
        """What is missing; empty when runnable."""

    @property
    def chosen(self) -> bool:
        """Whether calls with arrays on the CPU use it."""

    def __repr__(self) -> str: ...

class State:
    """The state (m, l) of an online softmax, a value."""

    @overload
    def __init__(self) -> None: ...

    @overload
    def __init__(self, m: float, l: float) -> None: ...

    def absorb(self, scores: object | None) -> State: ...

    def merge(self, other: State) -> State: ...

    @property
    def m(self) -> float: ...

    @property
    def l(self) -> float: ...

    @property
    def lse(self) -> float: ...

class Buffer:
    """Memory that a library takes over through DLPack."""

    @overload
    def __init__(self, shape: object, dtype: object | None) -> None: ...

    @overload
    def __init__(self, shape: object, dtype: object | None, device: int, stream: object | None) -> None: ...

    def __dlpack_device__(self) -> tuple[int, int]: ...

    def __dlpack__(self, *, stream: object | None = None, max_version: object | None = None, dl_device: object | None = None, copy: object | None = None) -> object:
        """A capsule. The memory is lent where it is, and never copied."""

def attention(query: object, key: object, value: object, out: object | None, empty: object | None, return_lse: object | None, attn_mask: object | None, is_causal: object | None, window_size: object | None, q_offset: object | None, scale: object | None, softcap: object | None, alibi_slopes: object | None, sinks: object | None, dropout_p: object | None, seed: object | None, dropout_offset: object | None, q_lengths: object | None, kv_lengths: object | None, layout: object | None, algorithm: object | None, out_dtype: object | None, max_threads: int, stream: object | None = None) -> object: ...

def attention_backward(dout: object, query: object, key: object, value: object, out: object, lse: object, dlse: object | None, empty: object | None, grad_mask: object | None, attn_mask: object | None, is_causal: object | None, window_size: object | None, q_offset: object | None, scale: object | None, softcap: object | None, alibi_slopes: object | None, sinks: object | None, dropout_p: object | None, seed: object | None, dropout_offset: object | None, q_lengths: object | None, kv_lengths: object | None, layout: object | None, max_threads: int, stream: object | None = None) -> tuple[object, object, object, object, object]: ...

def explain(query: object, key: object, value: object, attn_mask: object | None, is_causal: object | None, window_size: object | None, q_offset: object | None, scale: object | None, softcap: object | None, alibi_slopes: object | None, sinks: object | None, dropout_p: object | None, seed: object | None, dropout_offset: object | None, q_lengths: object | None, kv_lengths: object | None, layout: object | None, algorithm: object | None, out_dtype: object | None, backward: object | None, grad_mask: object | None, max_threads: int) -> Plan: ...

def explain_shapes(query: object, key: object, value: object, dtype: object | None, *, attn_mask: object | None = None, is_causal: object | None = False, window_size: object | None = None, q_offset: object | None = None, scale: object | None = None, softcap: object | None = None, alibi_slopes: object | None = None, sinks: object | None = None, dropout_p: object | None = 0.0, seed: object | None = None, dropout_offset: object = (0, 0, 0, 0), q_lengths: object | None = None, kv_lengths: object | None = None, layout: object | None = 'bhsd', algorithm: object | None = 'flash', out_dtype: object | None = None, backward: object | None = False, grad_mask: object | None = False, max_threads: int = 0) -> Plan:
    """The plan for shapes alone: nothing is allocated."""

def softmax(x: object | None, axis: object | None, algorithm: object | None, empty: object | None, max_threads: int) -> object: ...

def merge_states(out_a: object, lse_a: object, out_b: object, lse_b: object, empty: object | None, max_threads: int) -> tuple[object, object]: ...

most_threads: int = 4096

def version() -> str: ...

def borrow_openmp(library: str) -> bool:
    """
    From now on calls that are told of max_threads, more than 1, are helped by the OpenMP
    threads of this shared library, which must be loaded. Returns whether they were found.
    """

def refusals() -> list[tuple[str, str, str]]:
    """
    Every error of the core: (id, name of the exception, words with blanks in braces).
    """

def measure_peak(seconds: float, dtype: str = 'float32') -> float:
    """
    Floating-point operations a second of multiply-adds in registers, all threads, as prefill
    makes them for inputs of that dtype.
    """

def read(x: object) -> int:
    """
    Loads the bytes of an array once, all threads together, and returns their parity: timed, it
    is the bandwidth that memory can be read with.
    """

def xla_version() -> tuple[int, int]:
    """
    The version of XLA's foreign function interface that the handlers speak: (major, minor).
    (0, 0): this build has none.
    """

def xla_handlers() -> list[tuple[str, str, object]]:
    """The handlers of compiled JAX: (target, platform, handler)."""

def kernels() -> list[Kernel]:
    """
    Every kernel of this build, best first, and whether this machine can run it.

    Returns a list of objects with device, isa, name, dtype, runnable, why_not and chosen: those
    of the CPU, then those of CUDA, which is looked for at every call. Where there is a driver
    that starts CUDA, and children that are forked afterwards cannot use it. The environment
    variable FANANO_ISA names the instruction set to use instead of the best; ValueError if
    this build or this machine has no such.
    """

def build_info() -> dict[str, object]:
    """
    What this build is.

    Returns a dictionary of version, cuda (whether it has CUDA kernels), compiler, isas
    (the instruction sets compiled, best first), cuda_machine_code (the GPU architectures that
    need no compiling by the driver) and cuda_kernels (name, dtype and architecture of each).
    No device is looked for.
    """

def get_num_threads() -> int:
    """
    How many threads a call uses at most.

    At first the environment variable FANANO_NUM_THREADS, else the CPUs that this process may
    use. Calls with torch tensors are helped by torch's threads: by the smaller of this
    number and torch.get_num_threads().
    """

def set_num_threads(threads: int) -> None:
    """
    Sets how many threads a call uses at most, in the whole process.

    Raises TypeError or ValueError unless threads is an integer from 1 to 4096. Results do not
    depend on it.
    """
