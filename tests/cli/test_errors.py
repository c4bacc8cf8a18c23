"""``main`` turns errors into one line each: about files of the user, names, encodings, pipes, Ctrl-C."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from bench.cli import app as apps
from bench.cli import main, say, streams
from bench.errors import BenchError
from bench.files import read_text, write_bytes

MAIN = "from bench.cli import main; main()"


def ending(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    """The exit code of a command in which ``error`` is raised."""
    app = typer.Typer()

    @app.command()
    def broken() -> None:
        raise error

    monkeypatch.setattr(apps, "app", app)
    monkeypatch.setattr(sys, "argv", ["bench"])
    with pytest.raises(SystemExit) as end:
        main()
    assert isinstance(end.value.code, int)
    return int(end.value.code)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOENT, "No such file or directory", "/proc/nope"), "/proc/nope: no such file or"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), "choose a shorter name"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "/a/loop"), "round in a circle"),
        (OSError(errno.EACCES, "Permission denied", "/a/mine"), "/a/mine: permission denied"),
        (OSError(errno.ENOTDIR, "Not a directory", "/a/file"), "something there is not a folder"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device; make room"),
        (OSError(errno.EIO, "Input/output error", b"/a/disk"), "/a/disk: input/output error; check the disk"),
        (OSError(errno.EIO, "Input/output error"), "input/output error; check the disk"),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files; raise the limit on open files"),
        (UnicodeEncodeError("utf-8", "runs/caf\udce9/a", 8, 9, "no"), "a name that is not UTF-8; rename"),
        (RuntimeError("Could not determine home directory."), "write the path out"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_what_a_user_can_mend_is_one_line(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert ending(monkeypatch, error) == 2
    said = capsys.readouterr().err
    assert says in said and said.startswith("bench: ") and said.count("\n") == 1


def test_a_file_that_may_not_be_read_is_made_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    file = tmp_path / "mine.toml"
    file.touch()
    refused = PermissionError(errno.EACCES, "Permission denied", str(file))
    for readable, mend in (
        (False, "make it readable, or name another file"),
        (True, "mend that, or name another place (--results, --cache, --out)"),
    ):
        monkeypatch.setattr(os, "access", lambda path, mode, may=readable: may)
        assert ending(monkeypatch, refused) == 2
        assert capsys.readouterr().err == f"bench: {file}: permission denied; {mend}\n"


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", streams.__file__ + "x"),
        OSError("no number"),
        UnicodeEncodeError("ascii", "é", 0, 1, "no"),
        RuntimeError("something of ours"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),  # not of a standard stream
        ZeroDivisionError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_bug_shows_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(type(error)):
        ending(monkeypatch, error)


def test_an_interruption_is_one_line_in_every_verb(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    assert ending(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "bench: interrupted; what was finished is kept\n"


def in_a_process(*words: str, code: str = MAIN, **more: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE, **more)


def test_a_pipe_that_closes_and_a_full_disk() -> None:
    """Also while rich, which meets a closed pipe in its own way, prints a help."""
    read, write = os.pipe()
    os.close(read)
    for words in (("list", "suites"), ("run", "--help")):
        process = in_a_process(*words, stdout=write)
        assert process.communicate(timeout=60)[1] == b"" and process.returncode == 141
    os.close(write)
    if Path("/dev/full").exists():
        with open("/dev/full", "wb") as full:
            process = in_a_process("list", "suites", stdout=full)
            error = process.communicate(timeout=60)[1]
        assert b"bench: no space left on device" in error and process.returncode == 2
        assert b"Traceback" not in error and b"Exception ignored" not in error


def test_closed_streams_and_an_ascii_terminal() -> None:
    words = [sys.executable, "-c", MAIN, "list", "suites"]
    process = in_a_process(code=f"import os; os.close(1); os.execv({sys.executable!r}, {words})")
    assert process.communicate(timeout=60)[1] == b"" and process.returncode == 0
    show = "import typer\nfrom bench.cli import streams\nstreams.prepare()\ntyper.echo('café 1 ± 2 ── 犬')"
    process = in_a_process(code=show, stdout=subprocess.PIPE, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert process.communicate(timeout=60)[0] == rb"caf\xe9 1 +- 2 -- \u72ac" + b"\n"


def test_a_name_that_is_no_text_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="utf-8"))
    streams.prepare()
    print("é caf\udce9")
    sys.stdout.flush()
    assert raw.getvalue() == "é caf\\udce9\n".encode()


def test_ctrl_c_while_a_process_works() -> None:
    hang = (
        "import time\nfrom bench import suite\n"
        "suite.names = lambda: (print('there', flush=True), time.sleep(60))\n"
    )
    process = in_a_process(
        "list", "suites", code=hang + MAIN, stdout=subprocess.PIPE, preexec_fn=_hears_interrupts
    )
    assert process.stdout is not None and process.stdout.readline() == b"there\n"
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert error.splitlines() == [b"bench: interrupted; what was finished is kept"]
    assert process.returncode == 130


def _hears_interrupts() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so do its children unless told otherwise."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_files_are_named_in_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "suite.toml").write_bytes(b"name = 'caf\xe9'")
    with pytest.raises(ValueError, match=r"suite.toml: not UTF-8 text \(byte 11 is 0xe9\): save it as UTF-8"):
        read_text(tmp_path / "suite.toml")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as caught:
        write_bytes(tmp_path / "table.tex", b"rows")
    assert caught.value.filename == str(tmp_path / "table.tex")
    assert [p.name for p in tmp_path.iterdir()] == ["suite.toml"]


class Interrupted(io.StringIO):
    """A standard input at which the user presses Ctrl-C."""

    def readline(self, *_: Any) -> str:
        raise KeyboardInterrupt


def test_a_question_that_nobody_answers_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for line, answer in (("y\n", True), ("n\n", False)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(line))
        assert say.confirmed("Delete it?") is answer
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(BenchError, match="nobody answered: add --yes"):
        say.confirmed("Delete it?")
    monkeypatch.setattr(sys, "stdin", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        say.confirmed("Delete it?")
