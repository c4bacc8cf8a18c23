"""Make standard output and error safe to write to, whatever the terminal and whoever writes.

The streams are open, accept every character whatever their encoding, and are quiet when their reader has
gone. Of what anybody writes, libraries, warnings and tracebacks included, only printable characters, line
breaks, tabs, colours and bold reach the terminal; everything else becomes an escape. ``bench.cli.say``
escapes colours in names too.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import select
import sys
from contextlib import suppress
from typing import IO, Any

from bench.names import harmless

PLAIN = "bench-plain-ascii"  # names an encoding and an error handler
# Signs in the program's own texts, as ASCII writes them; letters of names become escapes instead.
_SIGNS = {
    **dict.fromkeys("─━┄┈╌╍┉═", "-"),
    **dict.fromkeys("│┃┆┊", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╯╰╷╶╵╴╸╺━┏┓┗┛┡┩╇", "+"),
    **dict.fromkeys("‘’", "'"),
    **dict.fromkeys("“”„", '"'),
    **dict.fromkeys("–−", "-"),
    **{"±": "+-", "×": "x", "→": "->", "…": "...", "—": "--", "•": "*", "≤": "<=", "≥": ">=", "†": "+"},
}


def prepare() -> None:
    """Give every stream a place to write to, and a way to write what its encoding lacks.

    An ASCII stream gets an encoding of another name, because click would write UTF-8 to ``ascii``.
    """
    if PLAIN not in _registered:
        codecs.register(lambda name: _PLAIN_ASCII if name.replace("_", "-") == PLAIN else None)
        codecs.register_error(PLAIN, _plain)
        _registered.add(PLAIN)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed before we began
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            ascii_ = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=PLAIN if ascii_ else None, errors=PLAIN)
            if not hasattr(stream, _WRITE):
                setattr(stream, _WRITE, stream.write)
                stream.write = _Guard(stream.write)  # type: ignore[method-assign]
    _null_before.update(number for number in _NUMBERS if _is_null(number))


_ASCII = codecs.lookup("ascii")
_PLAIN_ASCII = codecs.CodecInfo(
    _ASCII.encode,
    _ASCII.decode,
    _ASCII.streamreader,
    _ASCII.streamwriter,
    _ASCII.incrementalencoder,
    _ASCII.incrementaldecoder,
    PLAIN,
)
_registered: set[str] = set()
_NUMBERS = (1, 2)  # the file descriptors of standard output and error
_null_before: set[int] = set()  # those that wrote to the null device when the command began


def _is_null(number: int) -> bool:
    try:
        return os.path.samestat(os.fstat(number), os.stat(os.devnull))
    except OSError:  # closed
        return False


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replace what cannot be encoded: known signs by ASCII, everything else by an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    escaped = (
        _SIGNS.get(sign) or sign.encode("ascii", "backslashreplace").decode()
        for sign in error.object[error.start : error.end]
    )
    return "".join(escaped), error.end


_WRITE = "bench_unguarded_write"  # attribute that keeps the stream's own function
_STYLE = re.compile(r"(\x1b\[[0-9;]*m)")


class _Guard:
    """A replacement for a stream's ``write`` that lets only harmless characters through."""

    def __init__(self, write: Any) -> None:
        self.write = write

    def __call__(self, text: str, /) -> int:
        """Write a text, and return its length."""
        if text.isprintable():
            self.write(text)
        else:
            pieces = _STYLE.split(text)  # every second one is a style
            pieces[::2] = (harmless(piece, keep="\n\t") for piece in pieces[::2])
            self.write("".join(pieces))
        return len(text)


class _Unguarded:
    """A standard stream whose ``write`` is the original one, without escapes."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.write = stream, getattr(stream, _WRITE, stream.write)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def unguarded(stream: IO[str]) -> IO[str]:
    """Return a standard stream for a bar, which moves the cursor; the bar's own texts must be harmless."""
    return _Unguarded(stream)  # type: ignore[return-value]


def flush() -> None:
    """Write what waits in the streams. Raises OSError if that fails."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def unread(error: BaseException) -> bool:
    """Return whether an error says that a standard stream has lost its reader, as a pipe to ``head`` does."""
    if not isinstance(error, BrokenPipeError):
        return False
    if any(_is_null(number) and number not in _null_before for number in _NUMBERS):
        return True  # rich, which prints the help, points a stream without a reader to the null device
    look = select.poll()
    for number in _NUMBERS:
        look.register(number, 0)
    return any(state & (select.POLLERR | select.POLLHUP) for _, state in look.poll(0))


def leave(code: int) -> None:
    """Write what waits in the streams, show the terminal's cursor, and end the process at once."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, RuntimeError):  # a full disk, a closed stream, one in use
            stream.flush()
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\x1b[?25h")
    os._exit(code)


def silence() -> None:
    """Give the interpreter's last flush a place to write to, even where a stream is full or gone."""
    for number, stream in ((1, sys.__stdout__), (2, sys.__stderr__)):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
