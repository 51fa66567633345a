"""What a process frees it uses again, where the C library is glibc."""

import os
import platform
import resource
import subprocess
import sys

import pytest

from mgca.utils.allocation import KEPT

# Page faults of a process that makes and frees blocks of 48 MiB, more than glibc keeps by itself.
FAULTS = """
import resource, sys
if sys.argv[1:]:
    from mgca.utils.allocation import keep_freed_memory
    keep_freed_memory()
b"x" * (48 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    b"x" * (48 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*words: str, **changes: str) -> int:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")} | changes
    command = [sys.executable, "-c", FAULTS, *words]
    return int(subprocess.check_output(command, env=environment, text=True))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again():
    of_a_block = 48 * 2**20 // resource.getpagesize()
    assert faults() > 4 * of_a_block > of_a_block > faults("kept")
    chosen = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    assert faults("kept", **chosen) > 4 * of_a_block


def test_it_is_an_int_of_c():
    assert 0 < KEPT < 2**31
