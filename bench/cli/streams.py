"""Standard output and error: open, harmless, writable whatever their encoding, quiet without a reader.

Harmless: of what anybody writes, libraries, warnings and tracebacks included, only printable characters, line
breaks, tabs, colours and bold reach the terminal; everything else becomes an escape. ``bench.cli.say`` stops
what a name holds of colours, too.
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

PLAIN = "bench-plain-ascii"  # an encoding and a way to meet errors
# The signs that texts of the program hold; letters of names are written as escapes instead.
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

    ASCII gets an encoding of another name, because click would write UTF-8 to it instead.
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


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Known signs in ASCII, everything else as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    escaped = (
        _SIGNS.get(sign) or sign.encode("ascii", "backslashreplace").decode()
        for sign in error.object[error.start : error.end]
    )
    return "".join(escaped), error.end


_WRITE = "bench_unguarded_write"  # the stream's own way to write
_STYLE = re.compile(r"(\x1b\[[0-9;]*m)")


class _Guard:
    """Writes to a stream what is harmless of a text."""

    def __init__(self, write: Any) -> None:
        self.write = write

    def __call__(self, text: str, /) -> int:
        """As the stream's own; the length is that of the text."""
        if text.isprintable():
            self.write(text)
        else:
            pieces = _STYLE.split(text)  # every second one is a style
            pieces[::2] = (harmless(piece, keep="\n\t") for piece in pieces[::2])
            self.write("".join(pieces))
        return len(text)


class _Unguarded:
    """A stream that is written to as it is; everything else is the stream's own."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.write = stream, getattr(stream, _WRITE, stream.write)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def unguarded(stream: IO[str]) -> IO[str]:
    """A standard stream for a bar, which moves the cursor; the bar's own texts must be harmless."""
    return _Unguarded(stream)  # type: ignore[return-value]


def flush() -> None:
    """Write what waits in the streams; raises OSError where that cannot be done."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()


def unread(error: BaseException) -> bool:
    """Whether an error says that a standard stream has lost its reader: a pipe closed at its other end."""
    if not isinstance(error, BrokenPipeError):
        return False
    look = select.poll()
    for number in (1, 2):
        look.register(number, 0)
    return any(state & (select.POLLERR | select.POLLHUP) for _, state in look.poll(0))


def leave(code: int) -> None:
    """End the process at once, with what waits in the streams written and the terminal's cursor shown."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, RuntimeError):  # a full disk, a closed stream, one in use
            stream.flush()
    with suppress(OSError):
        if os.isatty(2):
            os.write(2, b"\x1b[?25h")
    os._exit(code)


def silence() -> None:
    """Let the interpreter's last flush find a place to write to, whatever has become of the streams."""
    for number, stream in ((1, sys.__stdout__), (2, sys.__stderr__)):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
