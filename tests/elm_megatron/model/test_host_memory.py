"""Freed memory is used again rather than faulted in anew."""

from __future__ import annotations

import ctypes
import resource
import subprocess
import sys

import pytest

from elm_megatron.model import host_memory

BLOCK = 100_000_000
NOT_GLIBC = 3
PR_SET_THP_DISABLE = 41  # Linux
FAULTS_OF_THREE_BLOCKS = f"""
import contextlib, ctypes, resource, sys, numpy as np
from elm_megatron.model.host_memory import keep_freed_blocks
with contextlib.suppress(AttributeError, OSError):
    ctypes.CDLL(None).prctl({PR_SET_THP_DISABLE}, *map(ctypes.c_ulong, (1, 0, 0, 0)))
{{keep}}
np.ones({BLOCK}, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    np.ones({BLOCK}, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: str) -> int:
    program = [sys.executable, "-c", FAULTS_OF_THREE_BLOCKS.format(keep=keep)]
    # numpy, or the kernel where it is set to "always", would take huge pages, whose faults are few; the
    # small ones can be counted.
    plain = {"NUMPY_MADVISE_HUGEPAGE": "0", "PATH": "/usr/bin:/bin"}
    run = subprocess.run(program, env=plain, capture_output=True, text=True, check=False)
    if run.returncode == NOT_GLIBC:
        pytest.skip("this C library is not glibc, or an old one")
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


def test_a_block_freed_is_taken_again_without_new_pages():
    pages = 3 * BLOCK // resource.getpagesize()
    assert faults("") >= pages
    assert faults(f"keep_freed_blocks() or sys.exit({NOT_GLIBC})") < pages // 100


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert not host_memory.keep_freed_blocks()
