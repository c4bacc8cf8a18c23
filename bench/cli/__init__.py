"""This room is the command line: it reads options, calls the other rooms and prints what they return.

Each verb has a thin file of its own. The room may import every other one, and no other room imports it. A
verb imports what it needs inside its function, so that ``bench --help`` never loads torch.

``main`` is the only place where errors become messages. For what a user can mend, it prints one line that
names the mend and exits with code 2 (docs/exit-codes.md has all codes). Any other error is a bug: its
traceback is shown.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bench.cli import signals, streams
from bench.cli.codes import Code
from bench.errors import BenchError, out_of_memory

_HERE = Path(__file__).resolve().parents[1]
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MENDS = {
    **dict.fromkeys(_FULL, "make room there, or name another place (--results, --cache, --out)"),
    **dict.fromkeys(
        (errno.EEXIST, errno.ENOTDIR),
        "something there is not a folder; name another place (--results, --cache, --out)",
    ),
    errno.ENAMETOOLONG: "choose a shorter name (--results, --cache, --out)",
    errno.ELOOP: "its links lead round in a circle; name another place (--results, --cache, --out)",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`)",
    errno.EIO: "check the disk, or name another place (--results, --cache, --out)",
}
_LEAVE = 10.0  # seconds that the interpreter gets to end
_ELSE = "mend that, or name another place (--results, --cache, --out)"


def main() -> None:
    """Run the command ``bench`` and exit with its code."""
    streams.prepare()
    signals.heed()
    try:
        try:
            code = _run()
            streams.flush()
        except KeyboardInterrupt:
            code = _say("interrupted; what was finished is kept", Code.INTERRUPTED)
        except Exception as error:
            if streams.unread(error):
                code = Code.UNREAD
            elif message := _message(error):
                code = _say(message, Code.REFUSED)
                if out_of_memory(error):  # cleaning up may fail for want of memory too, which needs no word
                    sys.unraisablehook = lambda _: None
            else:
                raise
    finally:
        streams.silence()
        signals.let_go()
    _limit_end(_LEAVE, code)
    sys.exit(code)


def _limit_end(seconds: float, code: Code | int) -> None:
    """Limit the time that the interpreter takes to end.

    Without the limit it would wait for ever for a thread that a plugin began and does not end.
    """
    main = threading.main_thread()

    def leave() -> None:
        main.join()  # from here on, the interpreter waits for the other threads
        time.sleep(seconds)
        _say("a thread of a plugin or a library does not end; bench ends without it", Code.GOOD)
        streams.leave(code)

    if any(not thread.daemon and thread is not main for thread in threading.enumerate()):
        threading.Thread(target=leave, daemon=True).start()


def _run() -> int:
    """Run the command and return its exit code.

    Typer turns Ctrl-C and a closed pipe into an exit; here they are raised again. While a shell completes an
    unfinished command (Tab), nothing is printed or raised that is no completion.
    """
    completes = "_BENCH_COMPLETE" in os.environ
    try:
        from bench.cli import complete
        from bench.cli.app import app

        complete.rejoin(os.environ)
        app(prog_name="bench")
    except Exception:
        if completes:
            return Code.GOOD
        raise
    except SystemExit as end:
        for hidden in _hidden(end):
            if isinstance(hidden, KeyboardInterrupt | BrokenPipeError):
                raise hidden from None
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return Code.GOOD


def _hidden(end: SystemExit) -> Iterator[BaseException]:
    """Yield the errors that led to an exit: the one that was being handled, then its causes."""
    error = end.__context__
    while error is not None:
        yield error
        error = error.__cause__


def _say(line: str, code: Code) -> Code:
    """Print a line to standard error and return ``code``."""
    from bench.cli import say

    with suppress(OSError):  # where standard error is full or gone, the code must do
        say.secho(f"bench: {line}", fg="red", err=True)
    return code


def _message(error: Exception) -> str:
    """Return the line that tells the user of an error; empty for an error that a user cannot mend."""
    if isinstance(error, BenchError):
        return str(error)
    if line := out_of_memory(error):
        return line
    if isinstance(error, OSError):
        return _of_system(error)
    if isinstance(error, UnicodeEncodeError):
        text = error.object[error.start : error.end]
        name = error.object[max(0, error.start - 40) : error.end + 40].splitlines()[0]
        if any("\ud800" <= sign <= "\udfff" for sign in text):
            return f"'{name}' holds a name that is not UTF-8; rename that file or folder"
    if isinstance(error, RuntimeError) and "home directory" in str(error):
        return "a path begins with '~' and a user who has no home folder here; write the path out"
    return ""


def _of_system(error: OSError) -> str:
    """Return the line for an error of the operating system; empty if it is a bug of the program.

    An error about a file of the user, or about a full disk or the like, is the user's to mend. Any other
    error without a file, or about a file of the program itself, is a bug.
    """
    reason = (error.strerror or str(error)).lower()
    if not isinstance(error.filename, str | bytes):
        return f"{reason}; {_MENDS[error.errno]}" if error.errno in _MENDS else ""
    place = error.filename if isinstance(error.filename, str) else error.filename.decode(errors="replace")
    return "" if Path(place).absolute().is_relative_to(_HERE) else f"{place}: {reason}; {_mend(error, place)}"


def _mend(error: OSError, place: str) -> str:
    if (
        error.errno in (errno.EACCES, errno.EPERM)
        and os.path.lexists(place)
        and not os.access(place, os.R_OK)
    ):
        return "make it readable, or name another file"
    return _MENDS.get(error.errno or 0, _ELSE)
