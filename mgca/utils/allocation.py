"""Memory that tensors free is kept for the next ones."""

import ctypes
import os

#: Bytes of freed memory that a process keeps, and the size from which a block goes back at once.
KEPT = 2**30
_PARAMETERS = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_MMAP_THRESHOLD_": -3}  # of glibc's mallopt


def keep_freed_memory() -> None:
    """Let this process, and those that it starts, use memory again that they have freed.

    By itself glibc gives the memory of every larger tensor back to the system, which hands it out
    again page by page: a quarter of an encoder's time on a virtual machine. What the environment
    says stays; without glibc nothing happens.
    """
    for name, parameter in _PARAMETERS.items():
        if name in os.environ:
            continue
        os.environ[name] = str(KEPT)
        try:
            ctypes.CDLL(None).mallopt(parameter, KEPT)
        except (AttributeError, OSError, TypeError):  # another C library
            continue
