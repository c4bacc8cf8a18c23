"""The command line: one file per verb, thin; torch is imported only inside a verb.

``main`` is the one place where errors become messages. What a user can mend is one line that names the mend
and exit code 2 (docs/exit-codes.md has all codes); anything else is a bug and shows its traceback.
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
        "there is something else than a folder; name another place (--results, --cache, --out)",
    ),
    errno.ENAMETOOLONG: "choose a shorter name (--results, --cache, --out)",
    errno.ELOOP: "its links lead round in a circle; name another place (--results, --cache, --out)",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`)",
    errno.EIO: "check the disk, or name another place (--results, --cache, --out)",
}
_LEAVE = 10.0  # seconds that the interpreter gets for its end
_ELSE = "mend that, or name another place (--results, --cache, --out)"


def main() -> None:
    """Entry point of the command ``bench``: runs it and exits with its code."""
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
                if out_of_memory(error):  # what libraries do at the end may lack memory too: all is said
                    sys.unraisablehook = lambda _: None
            else:
                raise
    finally:
        streams.silence()
        signals.let_go()
    _no_longer_than(_LEAVE, code)
    sys.exit(code)


def _no_longer_than(seconds: float, code: Code | int) -> None:
    """Let the interpreter's end last no longer: it would wait for ever for a thread that a plugin left."""
    main = threading.main_thread()

    def leave() -> None:
        main.join()  # the interpreter is at its end now, and waits for the others
        time.sleep(seconds)
        _say("a thread that a plugin or a library has begun does not end, and is left behind", Code.GOOD)
        streams.leave(code)

    if any(not thread.daemon and thread is not main for thread in threading.enumerate()):
        threading.Thread(target=leave, daemon=True).start()


def _run() -> int:
    """Run the command; its exit code. Typer ends the process for everything: what it hid is raised again."""
    from bench.cli.app import app

    try:
        app()
    except SystemExit as end:
        for hidden in _hidden(end):
            if isinstance(hidden, KeyboardInterrupt | BrokenPipeError):
                raise hidden from None
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return Code.GOOD


def _hidden(end: SystemExit) -> Iterator[BaseException]:
    """The errors that an exit was made of: the one that it came while handling, and that one's causes."""
    error = end.__context__
    while error is not None:
        yield error
        error = error.__cause__


def _say(line: str, code: Code) -> Code:
    from bench.cli import say

    with suppress(OSError):  # standard error is full or gone: the code says it alone
        say.secho(f"bench: {line}", fg="red", err=True)
    return code


def _message(error: Exception) -> str:
    """What the user is told of an error, empty where it is none that a user can mend."""
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
    """What the user is told where the system refused a file of theirs, or where it has no more to give.

    The latter may name no file. Otherwise no file, or one of the program itself, means a bug.
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
