"""Ctrl-C, SIGTERM and SIGHUP end every command with one line and exit code 130, whatever it is doing."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from bench.executors import on_ray

HANG = """
import time
from bench import suite
def names():
    try:
        print("there", flush=True)
        time.sleep(60)
    finally:
        {last}
suite.names = names
from bench.cli import main
main()
"""
# At work on a cluster of Ray's on this machine.
AT_RAY = """
import os, time
os.environ["RAY_TMPDIR"], os.environ["RAY_USAGE_STATS_ENABLED"] = "/tmp", "0"
from bench import suite
from bench.executors import on_ray
def names():
    ray = on_ray._connected(None)
    task = ray.remote(lambda: time.sleep(120)).remote()
    print("there", flush=True)
    ray.wait([task])
suite.names = names
from bench.cli import main
main()
"""
LINE = b"bench: interrupted; what was finished is kept\n"
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def defaults() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so do its children unless told otherwise."""
    for number in ENDS:
        signal.signal(number, signal.SIG_DFL)


def without_hangup() -> None:
    """As ``nohup`` does."""
    defaults()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def command(code: str, before: Callable[[], None] = defaults) -> subprocess.Popen[bytes]:
    """A command of that code, which has printed a line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, "list", "suites"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=before,
    )
    assert process.stdout is not None and process.stdout.readline() == b"there\n"
    return process


@pytest.mark.parametrize("sent", ENDS, ids=lambda sent: sent.name)
def test_each_ends_a_command_in_one_line(sent: signal.Signals) -> None:
    process = command(HANG.format(last="pass"))
    process.send_signal(sent)
    assert process.communicate(timeout=60)[1] == LINE and process.returncode == 130


def test_what_was_told_to_be_ignored_stays_ignored() -> None:
    process = command(HANG.format(last="pass"), without_hangup)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[1] == LINE and process.returncode == 130


def test_a_second_one_does_not_wait_for_what_the_first_ends() -> None:
    process = command(HANG.format(last="print('ending', flush=True); time.sleep(60)"))
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None and process.stdout.readline() == b"ending\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == b"" and process.returncode == 130


def test_in_the_last_moments_no_traceback_is_shown() -> None:
    """Libraries end their threads when the interpreter ends."""
    late = "import atexit, time\natexit.register(lambda: (print('there', flush=True), time.sleep(60)))\n"
    quiet = "from bench import suite\nsuite.names = lambda: []\n"
    process = command(late + quiet + "from bench.cli import main\nmain()")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == b"" and process.returncode == -signal.SIGINT


def test_a_thread_that_does_not_end_is_left_behind() -> None:
    code = """
import threading, time
from bench import cli, suite
cli._LEAVE = 1.0
threading.Thread(target=time.sleep, args=(100,)).start()
print("there", flush=True)
cli.main()
"""
    process = command(code)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0 and b"pocket" in out
    assert said == b"bench: a thread of a plugin or a library does not end; bench ends without it\n"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray")
def test_sigterm_ends_a_command_that_waits_for_ray_in_one_line() -> None:
    process = command(AT_RAY)
    time.sleep(1)  # until it waits
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]  # after what Ray says of its start
    assert said.endswith(LINE) and b"Traceback" not in said and process.returncode == 130, said


def test_ray_does_not_keep_the_signals_that_end_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**options: object) -> None:
        for number in ENDS:
            signal.signal(number, signal.SIG_IGN)

    before = [signal.getsignal(number) for number in ENDS]
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    try:
        on_ray._connected(None)
        assert [signal.getsignal(number) for number in ENDS] == before
    finally:
        for number, handler in zip(ENDS, before, strict=True):
            signal.signal(number, handler)
