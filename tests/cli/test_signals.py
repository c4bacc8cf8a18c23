"""Ctrl-C, SIGTERM and SIGHUP end every command alike: one line, exit code 130, whatever it was at."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

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
CONNECTS = """
    from bench.executors import on_ray
    ray = on_ray._connected(None)
    try:
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


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs Ray")
def test_sigterm_ends_a_command_that_uses_ray() -> None:
    """Ray has a handler of its own, in C, which would abort; what it writes itself comes before."""
    process = command(HANG.format(last="ray.shutdown()").replace("    try:\n", CONNECTS))
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[1].endswith(b"\n" + LINE) and process.returncode == 130


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
    assert said == b"bench: a thread that a plugin or a library has begun does not end, and is left behind\n"
