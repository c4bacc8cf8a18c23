"""Child processes: they answer, say how they died, end with their parent, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import children
from bench.children import Child, Died, portable, send_bytes
from bench.errors import UnreadableImage

ROOT = Path(__file__).resolve().parents[1]


def answer(line: Any) -> None:
    while True:
        line.send(line.recv() + 1)


def many(line: Any, sent: int) -> None:
    line.recv()
    send_bytes(line, memoryview(bytes(range(256)) * (sent // 256)))
    line.send("and on")


def leave(line: Any, code: int) -> None:
    os._exit(code)


def kill(line: Any, number: int) -> None:
    os.kill(os.getpid(), number)


def heed(line: Any) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        os.kill(os.getpid(), number)
    line.send("alive")


# Prints its children's ids: one waits for an order, and one never lets go of the interpreter's lock.
PARENT = """
import ctypes, os, time
from bench.children import Child

def wait(line):
    line.send(os.getpid())
    line.recv()

def hang(line):
    line.send(os.getpid())
    ctypes.PyDLL(None).sleep(600)

if __name__ == "__main__":
    children = [Child(wait), Child(hang)]
    print(*[child.recv() for child in children], flush=True)
    time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int], seconds: float = 20.0) -> bool:
    """Whether the processes end within that time; those that do not are ended then."""
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    left = [pid for pid in pids if alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return not left


def test_a_child_answers_and_ends() -> None:
    child = Child(answer)
    child.send(1)
    assert child.recv() == 2
    child.end()
    child.send(2)
    with pytest.raises(Died, match="SIGKILL"):
        child.recv()


@pytest.mark.parametrize(
    ("target", "how", "says"),
    [
        (leave, 0, "exit code 0"),
        (leave, 3, "exit code 3"),
        (kill, signal.SIGSEGV, "SIGSEGV"),
        (kill, signal.SIGKILL, "SIGKILL: out of memory?"),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_a_death_says_how(target: Callable[..., None], how: int, says: str) -> None:
    with pytest.raises(Died) as died:
        Child(target, how).recv()
    assert str(died.value) == says


def test_bytes_are_read_in_place() -> None:
    child, size = Child(many, 1 << 20), 1 << 20
    try:
        child.send("begin")
        child.read_into(memoryview(b""))
        into = bytearray(size)
        child.read_into(memoryview(into))
        assert into == bytes(range(256)) * (size // 256) and child.recv() == "and on"
        with pytest.raises(Died, match="exit code 0"):  # it ended before it sent as many
            child.read_into(memoryview(into))
    finally:
        child.end()


def test_what_a_terminal_sends_to_all_is_the_parents_to_handle() -> None:
    assert Child(heed).recv() == "alive"


def test_errors_travel() -> None:
    class Odd(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} and {two}")

    whole = portable(UnreadableImage("damaged", "a/0.png"))
    assert isinstance(whole, UnreadableImage) and whole.path == "a/0.png" and str(whole) == "damaged"
    other = portable(Odd(1, 2))
    assert type(other) is RuntimeError and str(other) == "Odd: 1 and 2" and "Odd" in other.__notes__[0]


def heed_signals() -> None:
    """What ``nohup`` starts ignores SIGHUP, and so do its children unless told otherwise."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], ids=lambda s: s.name)
def test_children_end_with_their_parent(tmp_path: Path, sent: signal.Signals) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, env=env, text=True, preexec_fn=heed_signals
    ) as parent:
        assert parent.stdout
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(map(alive, pids))
        held = [Path(f"/proc/{pid}/maps").read_text() for pid in (parent.pid, *pids)]
        parent.send_signal(sent)
        parent.wait(20)
        assert gone(pids)
    assert not any("/dev/shm" in maps for maps in held), "what a killed process would leave there"


def test_cores_are_those_that_a_container_gives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(children, "_QUOTA", quota)
    assert children.cores() == 64
    for text, cores in (("max 100000\n", 64), ("400000 100000\n", 4), ("50000 100000\n", 1), ("odd", 64)):
        quota.write_text(text)
        assert children.cores() == cores
