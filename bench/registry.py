"""The registry: methods by name.

Methods come from the folder methods/, from plugins (``--plugin file.py``) and from the entry points of
installed packages, all through one loader. A file that does not load is listed with its reason and does not
hinder the others. This module imports the interface, ``bench.sources`` and the ground. It runs no method.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import io
import re
import sys
import tokenize
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType

from bench import process, sources
from bench.errors import BenchError, said
from bench.files import digest
from bench.interface import DENSE, LAYER3, PIXELS, POOLED, PREPROJ, TOKENS, Method
from bench.names import canonical, few, nearest, quoted, short, shown
from bench.paths import methods_dir
from bench.sources import METHODS

ENTRY_POINTS = "bench.methods"
_SOURCE = "__bench_source__"  # attribute of a loaded plugin: the digest of its source when it was loaded


@dataclass(frozen=True)
class Broken:
    """A source of methods that could not be loaded, with the reason.

    ``source``: a file or an entry point. ``name``: the file's stem or the entry point's name, under which a
    user asks for it.
    """

    source: str
    reason: str
    name: str


def own(file: Path) -> bool:
    """Return whether a file is one of the program's own methods.

    In a key, the ``version`` of such a method stands for its source.
    """
    return file.parent == methods_dir()


def load_file(file: Path) -> ModuleType:
    """Load a method file as the module ``bench.methods.<stem>`` and return it.

    A method of the program is imported in the usual way. A plugin is loaded from its file with the modules of
    its own folder, and loaded again if it was edited since, so that the code that runs is the code in its
    key. Raises BenchError with the reason if the file cannot be imported.
    """
    if not own(file):
        return _plugin(file)
    with _loading(str(file), plugin=False):
        return importlib.import_module(f"{METHODS}.{file.stem}")


@contextmanager
def _loading(source: str, plugin: bool = True, own: Collection[str] = ()) -> Iterator[None]:
    """Import a method in this block: whatever it raises, or changes for the whole process, is a BenchError.

    A KeyboardInterrupt passes through. A random seed that the import sets is put back and is no error.
    ``plugin``: functions that the import replaces are looked for too. ``own``: top-level names of the
    plugin's own modules.
    """
    try:
        with process.kept(plugin, own) as changed:
            yield
    except (KeyboardInterrupt, BenchError):
        raise
    except BaseException as error:
        raise BenchError(f"{shown(source)}: cannot be imported: {said(error)}") from error
    if changed := [name for name in changed if "generator" not in name]:
        raise BenchError(
            f"{shown(source)}: importing it changes {few(changed, between=' and ')} for all methods; "
            "it was put back: take that out of the file"
        )


def _plugin(file: Path) -> ModuleType:
    """Return a plugin's module: the one that is loaded if its source is the same, else a new one.

    It is a module of ``bench.methods``, so that a single file can write ``from .coop import CoOp``.
    """
    name = f"{METHODS}.{file.stem}"
    if (methods_dir() / file.name).exists():
        name += "_" + digest(str(file))[:8]  # a built-in method has the same file name
    for part in sources.own_modules(file):
        _require_text(part)
    source = sources.digest_of(file)
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(file) and getattr(known, _SOURCE, None) == source:
        return known
    _forget(file)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise BenchError(f"{file}: not a Python file; a plugin is one .py file with a Method class")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _loading(str(file), own=sources.tops(file)):
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    setattr(module, _SOURCE, source)
    return module


def _require_text(file: Path) -> None:
    """Raise BenchError if a file is not text in its declared encoding, or UTF-8 if it declares none.

    Python ignores some such bytes, and its errors for others name neither the file nor the mend.
    """
    data = file.read_bytes()
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    except SyntaxError:  # no encoding that Python knows is declared; the import reports a wrong declaration
        encoding = "utf-8"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        at = f"byte {error.start} is 0x{data[error.start]:02x}"
        raise BenchError(f"{file}: not {encoding.upper()} text ({at}): save it as UTF-8") from error
    if "\0" in text:
        raise BenchError(f"{file}: holds zero bytes, as UTF-16 text does: save it as UTF-8")


def _forget(file: Path) -> None:
    """Remove a plugin's own modules from ``sys.modules`` and delete their compiled forms.

    Python compares compiled forms with their source by size and second alone, so that a quick edit could go
    unnoticed. Raises BenchError if a module from another place has the name of one of the plugin's modules,
    because Python holds one module of a name.
    """
    parts = sources.own_modules(file)
    for part in parts:
        with suppress(OSError):
            Path(importlib.util.cache_from_source(str(part))).unlink(missing_ok=True)
    names = sources.names(file)
    for name, module in list(sys.modules.items()):
        place = getattr(module, "__file__", None)
        if place is not None and Path(place) in parts:
            del sys.modules[name]
        elif place is not None and name in names:
            raise BenchError(
                f"{file}: Python has another module '{name}' ({place}) than {names[name]}: "
                "give it another name"
            )


def _methods_in(module: ModuleType) -> list[type[Method]]:
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Method)
        and value.__module__ == module.__name__
        and "name" in vars(value)
    ]


def _check(cls: type[Method], source: str) -> None:
    for attribute in ("name", "title"):
        if not isinstance(getattr(cls, attribute, None), str):
            raise BenchError(f'{source}: class {cls.__name__} needs a line  {attribute} = "..."')
    if not _NAME.fullmatch(cls.name):
        raise BenchError(
            f"{source}: {quoted([cls.name])} cannot name a method: use letters, digits, hyphens and +, "
            "at most 64 of them, as in my-probe"
        )
    for attribute, (want, good) in _FIELDS.items():
        if not good(value := getattr(cls, attribute)):
            raise BenchError(f"{source}: {cls.name}: {attribute} must be {want}, not {_as_written(value)}")
    for function in _FUNCTIONS:
        if not callable(getattr(cls, function)):
            raise BenchError(f"{source}: {cls.name}: {function} must be a function")
    unknown = {key for values in (*cls.presets.values(), *cls.per_dataset.values()) for key in values} - set(
        cls.settings
    )
    if unknown or not set(cls.inference) <= set(cls.settings):
        odd = ", ".join(sorted(unknown | (set(cls.inference) - set(cls.settings))))
        raise BenchError(
            f"{source}: {cls.name}: {odd}: not in settings; "
            "every preset, per_dataset and inference key must be"
        )


def _line(value: object) -> bool:
    """Return whether a value is one line of text, without control characters and halves of characters."""
    return isinstance(value, str) and not any(unicodedata.category(c) in _BREAKS for c in value)


def _names(value: object) -> bool:
    return isinstance(value, tuple | list) and all(map(_line, value))


def _plain(value: object) -> bool:
    """Return whether a value can be in a key: a flag, a number, a word, None, or a tuple of these."""
    if isinstance(value, tuple | list):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _values(value: object) -> bool:
    return isinstance(value, Mapping) and all(_line(k) and _plain(v) for k, v in value.items())


def _rows(value: object) -> bool:
    return isinstance(value, Mapping) and all(_line(k) and _values(v) for k, v in value.items())


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _rows_or_none(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0)


def _as_written(value: object) -> str:
    try:
        return short(shown(repr(value)))
    except Exception:  # a class of the plugin may fail in its own way
        return type(value).__name__


def _some_of(known: Sequence[str]) -> tuple[str, Callable[[object], bool]]:
    want = f"a tuple of names out of {', '.join(known)}"
    return want, lambda value: isinstance(value, tuple | list) and all(v in known for v in value)


_BREAKS = ("Cc", "Cs", "Zl", "Zp")  # categories of Unicode: control, surrogates, line and paragraph breaks
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9+_-]{0,63}")  # underscores are hyphens (bench.names.canonical)
_TEXTS, _NUMBERS = "a tuple of names", "a dictionary of values by name (flags, numbers, words and tuples)"
_FIELDS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "title": ("one line of text", _line),
    "cite": ("one line of text", _line),
    "note": ("one line of text", _line),
    "version": ("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)),
    "uses_labels": ("True or False", _flag),
    "uses_prompts": ("True or False", _flag),
    "fuse": ("True or False", _flag),
    "micro": ("None or a number of rows above 0", _rows_or_none),
    "prompts": (_TEXTS, _names),
    "after": (_TEXTS, _names),
    "inference": (_TEXTS, _names),
    "taps": _some_of((PIXELS, LAYER3, DENSE, TOKENS, PREPROJ, POOLED)),
    "towers": _some_of(("rn", "vit", "other")),
    "settings": (_NUMBERS, _values),
    "presets": ("a dictionary of presets, each a dictionary of values", _rows),
    "per_dataset": ("a dictionary of datasets, each a dictionary of values", _rows),
}
_FUNCTIONS = ("recipe", "learned_text", "prepare", "solve", "init", "losses", "combine", "logits", "sweep")


class Registry:
    """The methods of this process by canonical name, and the sources that did not load.

    ``sources``: the file or entry point of each method. ``digests``: the digest of each method's source for
    its fit key (bench.sources), empty for methods of the program. ``broken``: what did not load, and why.
    """

    def __init__(self) -> None:
        self.methods: dict[str, Method] = {}
        self.sources: dict[str, str] = {}
        self.digests: dict[str, str] = {}
        self.broken: list[Broken] = []

    def add(self, cls: type[Method], source: str, digest: str = "") -> None:
        """Register a method class. Raises BenchError if its name is taken or a field is missing or wrong."""
        _check(cls, source)
        key = canonical(cls.name)
        with _loading(source, plugin=bool(digest)):
            method = cls()
        if key in self.methods and self.sources[key] != source:
            raise BenchError(
                f"{source}: the name '{cls.name}' is taken by {self.sources[key]}; "
                "give the method another name"
            )
        self.methods[key] = method
        self.sources[key] = source
        self.digests[key] = digest

    def add_file(self, file: Path) -> None:
        """Register every method class of a file. Raises BenchError if the file has none or does not load."""
        if not file.is_file():
            what = "not a file; name one Python file" if file.exists() else "no such file"
            raise BenchError(f"--plugin {file}: {what}")
        module = load_file(file.resolve())
        classes = _methods_in(module)
        if not classes:
            raise BenchError(
                f"{file}: no method in it; define a class that derives from bench.Method and has a name"
            )
        for cls in classes:
            self.add(cls, str(file), getattr(module, _SOURCE, ""))

    def get(self, name: str) -> Method:
        """Return the method of that name.

        Raises BenchError with the nearest name, or with the reason why the method's file did not load.
        """
        method = self.methods.get(canonical(name))
        if method is not None:
            return method
        reason = next((b.reason for b in self.broken if canonical(b.name) == canonical(name)), "")
        raise BenchError(
            reason or f"unknown method '{name}'{nearest(name, self.names())}; `bench list methods` shows all"
        )

    def names(self) -> list[str]:
        """Return the names of all methods, sorted."""
        return sorted(m.name for m in self.methods.values())


def _try(registry: Registry, source: str, name: str, add: Callable[[], None]) -> None:
    try:
        add()
    except Exception as error:  # whatever is wrong with one source, the others must work
        registry.broken.append(Broken(shown(source), shown(said(error)), shown(name)))


def _installed(registry: Registry, point: EntryPoint) -> None:
    with _loading(point.value, own=[point.module.partition(".")[0]]):
        cls = point.load()
    if not (inspect.isclass(cls) and issubclass(cls, Method)):
        raise BenchError(f"{point.value}: no method; an entry point names a class that derives from Method")
    file: str | None = None
    with suppress(OSError, TypeError):
        file = inspect.getsourcefile(cls)
    if file is None:
        raise BenchError(
            f"{point.value}: its source file is missing, so records could not show an edit; "
            "install the package with its source"
        )
    registry.add(cls, point.value, sources.digest_of(Path(file)))


@lru_cache(maxsize=1)
def builtin() -> Registry:
    """Return the program's own methods and those of installed packages (entry points ``bench.methods``)."""
    registry = Registry()
    for file in sorted(methods_dir().glob("[!_]*.py")):
        _try(registry, str(file), file.stem, partial(registry.add_file, file))
    try:
        installed = sorted(entry_points(group=ENTRY_POINTS), key=lambda point: (point.name, point.value))
    except Exception as error:  # one package with a damaged list makes all lists unreadable
        reason = f"the entry points of installed packages cannot be read: {said(error)}"
        registry.broken.append(Broken(ENTRY_POINTS, shown(reason), ENTRY_POINTS))
        installed = []
    for point in installed:
        _try(registry, point.value, point.name, partial(_installed, registry, point))
    return registry


def with_plugins(files: tuple[Path, ...] = ()) -> Registry:
    """Return the built-in methods and those of the given plugin files.

    Raises BenchError if one of these files does not load.
    """
    base = builtin()
    registry = Registry()
    registry.methods, registry.sources, registry.broken = (
        dict(base.methods),
        dict(base.sources),
        list(base.broken),
    )
    registry.digests = dict(base.digests)
    for file in files:
        registry.add_file(file)
    return registry
