"""Find weights on this machine, hash them, and read what they say they are. This module imports no torch."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from bench import typed
from bench.clip import config
from bench.errors import BenchError, MissingWeights
from bench.files import Stamp, sha256_file, stamp, write_json
from bench.names import canonical, nearest
from bench.paths import from_home

ASSETS = Path(__file__).parent / "assets"
RECORD = "weights.json"
QUICK = "-quickgelu"  # ends the name of an architecture with QuickGELU
OPENAI_MEAN, OPENAI_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_SMALL = 32 << 20  # bytes; smaller files are hashed each time, so that no extra file lies beside them
# Tensors may share parts of a file, so they can be larger than it. But a file that unpacks to many times its
# size was made to exhaust memory.
_AT_MOST, _SLACK = 4, 1 << 20
_Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


@dataclass(frozen=True)
class Preprocess:
    """The way from pixels to the tower's input (protocol 1.2): normalisation and resizing."""

    mean: tuple[float, ...] = OPENAI_MEAN
    std: tuple[float, ...] = OPENAI_STD
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Preprocess:
        """Make it from open_clip's ``preprocess_cfg``. The other keys do not concern the evaluation view."""
        default = cls()
        return cls(
            tuple(settings.get("mean") or default.mean),
            tuple(settings.get("std") or default.std),
            settings.get("interpolation") or default.interpolation,
            settings.get("resize_mode") or default.resize_mode,
        )


class Record(Struct, forbid_unknown_fields=True):
    """The notes of ``bench weights get`` about downloaded weights (``weights.json`` beside them).

    ``file`` is a name in the same folder. ``preprocess`` is open_clip's ``preprocess_cfg``.
    """

    arch: str
    tag: str
    file: Annotated[str, Meta(pattern=r"^[\w-][\w.-]*\Z")]
    sha256: _Sha256
    quick_gelu: bool
    preprocess: dict[str, Any]


class _Memo(Struct):
    size: int
    mtime_ns: int
    sha256: _Sha256


def folder() -> Path:
    """Return where downloaded weights lie: ``$BENCH_WEIGHTS``, else the user's cache folder."""
    if chosen := os.environ.get("BENCH_WEIGHTS"):
        return from_home(chosen)
    cache_home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return from_home(cache_home) / "fewshot-clip-bench" / "weights"


@cache
def architectures() -> dict[str, Path]:
    """Map the name of every architecture of open_clip to its JSON file.

    The package is located, not imported.
    """
    package = importlib.util.find_spec("open_clip")
    if package is None or not package.submodule_search_locations:
        raise BenchError("the package open_clip_torch is not installed: pip install open_clip_torch")
    return {
        p.stem: p for p in sorted(Path(package.submodule_search_locations[0], "model_configs").glob("*.json"))
    }


def architecture(name: str) -> str:
    """Return open_clip's spelling of an architecture's name.

    Raises BenchError, with the nearest name, if there is none.
    """
    known = {canonical(n): n for n in architectures()}
    if canonical(name) not in known:
        hint = nearest(name, [*known.values(), "pocket-rn", "pocket-vit"])
        raise BenchError(f"unknown backbone '{name}'{hint}; `bench list backbones` shows the names")
    return known[canonical(name)]


def stored(arch: str, tag: str) -> tuple[Path, Record] | None:
    """Return file and record of downloaded weights, or None.

    The record says what open_clip knows about the tag. Raises Odd for a record with other fields or types.
    """
    home = folder() / arch / tag
    if not (home / RECORD).is_file():
        return None
    try:
        record = typed.json(home / RECORD, Record)
        config.preprocessing(record.preprocess, f"{home / RECORD}: preprocess")
    except typed.Odd as error:
        raise typed.Odd(f"{error}; delete it and get the weights again: bench weights get") from error
    file = home / record.file
    return (file, record) if file.is_file() else None


def stored_names() -> list[str]:
    """Return the names of all downloaded weights, in the form that ``resolve`` takes."""
    records = sorted(folder().glob(f"*/*/{RECORD}"))
    return [p.parts[-3] if p.parts[-2] == "openai" else f"{p.parts[-3]}/{p.parts[-2]}" for p in records]


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    The hash of a large file is kept in a JSON file beside it, together with size and modification time.
    Whoever loads the file compares the hash with the content.
    """
    stat = path.stat()
    if stat.st_size < _SMALL:
        return content_hash(path)
    memo = memo_of(path)
    with contextlib.suppress(OSError, typed.Odd):  # a memo that cannot be read is written again
        kept = typed.json(memo, _Memo)
        if (kept.size, kept.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return kept.sha256
    sha256 = content_hash(path)
    with contextlib.suppress(OSError):  # a read-only folder only costs the time to hash again
        write_json(memo, {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256})
    return sha256


def regular(file: Path) -> Path:
    """Return the file. Raises MissingWeights if there is none, or if it is a folder or a pipe."""
    if not file.is_file():
        what = "is no regular file" if file.exists() else "is not there"
        raise MissingWeights(f"no weights at {file}: it {what}; write ARCH@FILE with the path of a file")
    return file


def memo_of(path: Path) -> Path:
    """Return where the hash of a large file is kept."""
    return path.with_name(path.name + ".sha256.json")


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as this process reads them.

    The file is read again only if its size or times have changed.
    """
    return _hashed(path.absolute(), stamp(path))


@cache
def _hashed(path: Path, _: Stamp) -> str:
    return sha256_file(path)


def embedded_config(path: Path) -> dict[str, Any] | None:
    """Return the architecture in a safetensors file's metadata (key ``config``, open_clip's words), or None.

    Raises BenchError for a header that does not fit the file, and Odd for a configuration that is not valid.
    """
    if path.suffix != ".safetensors":
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:  # this checks the whole header and reads no tensor
            text = (file.metadata() or {}).get("config")
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise BenchError(
            f"{path}: header: not a whole safetensors file ({reason}): fetch or copy it again"
        ) from error
    return config.architecture(text.encode(), f"{path}: header: config") if text else None


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive, which runs code when loaded.

    OpenAI's original files are such. Raises BenchError for a zip archive that is damaged, or that unpacks to
    far more than its size.
    """
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, EOFError) as error:
        raise BenchError(f"{path}: a damaged archive ({error}): fetch or copy it again") from error
    refuse_swollen(path, sum(entry.file_size for entry in entries))
    return any(entry.filename.endswith("/constants.pkl") for entry in entries)


def refuse_swollen(path: Path, holds: int) -> None:
    """Raise BenchError if what a file holds (bytes) is many times its size."""
    size = path.stat().st_size
    if holds > _AT_MOST * size + _SLACK:
        raise BenchError(
            f"{path}: a file of {size / 1e6:.3g} MB that unpacks to {holds / 1e6:.3g} MB is no weights file: "
            "name another one"
        )
