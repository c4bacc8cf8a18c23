"""Too little memory is one line that says what needs less, wherever it is met; never a traceback."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from bench.errors import BenchError, out_of_memory, short_of_memory
from bench.run import stages

LIMITED = (
    "import resource, sys\n"
    "resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000, 1_500_000_000))\n"
    "from bench.cli import main\nmain()"
)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 3.00 GiB for an array with shape (3,)"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: not enough memory: you tried to "
        ),
        RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 80 bytes. Error code 12"
        ),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        ImportError("/x.so: cannot allocate memory in static TLS block"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=lambda error: str(error)[:40] or "MemoryError",
)
def test_however_it_is_said(error: Exception) -> None:
    line = out_of_memory(error)
    assert line.startswith("not enough memory") and "--jobs 1 --workers 0" in line and "\n" not in line
    assert stages.message(error) == line, "a cell's failure says it too"


def test_a_gpu_has_mends_of_its_own_and_the_size_is_told() -> None:
    text = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139.80 GiB"
    line = stages.message(RuntimeError(text + "x" * 999))
    assert "Tried to allocate 20.00 GiB. GPU 0" in line and len(line) < 400
    assert "--jobs 1 --no-join" in line and "ulimit" not in line


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`",
        "cuFFT error: CUFFT_ALLOC_FAILED",
    ],
)
def test_however_a_gpu_says_it(text: str) -> None:
    assert short_of_memory(RuntimeError(text)) and "--no-join" in out_of_memory(RuntimeError(text))


@pytest.mark.parametrize("place", ["/data/CUSTOM_SET", "my/DOCUMENT_SCANS", "/mnt/CUDA_runs", "CUBISM_v2"])
def test_a_path_names_no_gpu(place: str) -> None:
    line = out_of_memory(RuntimeError(f"{place}: cannot allocate memory"))
    assert "ulimit" in line and "--device cpu" not in line


def test_pytorch_names_it_without_a_word() -> None:
    import torch

    assert short_of_memory(torch.OutOfMemoryError("")) and not short_of_memory(RuntimeError(""))
    assert not short_of_memory(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"))


def test_long_texts_are_cut_and_other_errors_are_others() -> None:
    assert len(out_of_memory(RuntimeError("x" * 9999 + " not enough memory"))) < 400
    for error in (
        RuntimeError("shape mismatch"),
        BenchError("out of memory: a name"),
        OSError(errno.EIO, "x"),
        RuntimeError("I tried to allocate a class to each row"),
        RuntimeError("cannot allocate a class to each row"),
    ):
        assert out_of_memory(error) == ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits on memory hold on Linux")
def test_a_limit_too_low_for_pytorch(tmp_path: object) -> None:
    words = ("run", "--datasets", "digits", "--methods", "zero-shot", "--backbone", "pocket-rn")
    places = ("--results", f"{tmp_path}/r", "--cache", f"{tmp_path}/c")
    command = [sys.executable, "-c", LIMITED, *words, *places]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr[-2000:]
    at_work, last = ("planning: ", "loading "), done.stderr.splitlines()[-1]
    assert last.startswith("bench: not enough memory (")
    assert all(line.startswith(at_work) for line in done.stderr.splitlines()[:-1]), done.stderr
