"""Batches side by side on a CPU: a core each, instead of one batch after the other on all cores.

Threads that share a product wait for each other after every layer. Where a core is needed elsewhere, by the database
among others, all of them wait for that one; threads that have a batch each do not.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MOST_BATCHES = 8
"""At a time, in a process: Python runs one thread at a time between the products. Further cores share batches."""


def each(do: Callable[[Sequence[int]], None], batches: Sequence[Sequence[int]]) -> None:
    """Do something with each batch, as many at a time as there are cores for it; raise the first error.

    Callers share the threads, so that two of them do not take each other's cores. Fewer batches than threads would
    leave cores idle: they are done one after the other, each on all cores.
    """
    for _ in _side_by_side(do, batches) or _in_turn(do, batches):
        pass


_making, _turns = threading.Lock(), threading.Lock()


def _side_by_side(do: Callable[[Sequence[int]], None], batches: Sequence[Sequence[int]]) -> Iterator[None] | None:
    """Begin with all; None where there are too few, or Python is ending and starts no thread any more."""
    import torch

    cores = torch.get_num_threads()
    if len(batches) < min(cores, MOST_BATCHES):
        return None
    with _making:
        threads = _threads(cores, os.getpid())
    try:
        return threads.map(do, batches)
    except RuntimeError:
        return None


def _in_turn(do: Callable[[Sequence[int]], None], batches: Sequence[Sequence[int]]) -> Iterator[None]:
    with _turns if len(batches) > 1 else contextlib.nullcontext():
        yield from map(do, batches)


@functools.cache
def _threads(cores: int, _process: int) -> ThreadPoolExecutor:  # a process that was forked has none of its parent's
    at_a_time = min(cores, MOST_BATCHES)
    shares = iter([cores // at_a_time + (place < cores % at_a_time) for place in range(at_a_time)])
    return ThreadPoolExecutor(at_a_time, "encode", initializer=lambda: _use(next(shares)))


def _use(cores: int) -> None:
    """Let this thread compute on so many cores, and leave others alone: `torch.set_num_threads` is for all."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.get_num_threads()  # torch sets the number of a new thread itself, once: not after us
    with contextlib.suppress(Exception):  # it warns of libraries that do not go together; then threads are only slower
        threadpool_limits(cores, user_api="openmp")
    if torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        # its own number, where somebody has set one, goes before that of OpenMP
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).MKL_Set_Num_Threads_Local(cores)
