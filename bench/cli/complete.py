"""Find the names that a shell offers when somebody presses Tab.

A completer gets the unfinished word and returns the words that it may become. It must be quick, so it neither
imports torch nor looks at records. It never prints and never raises: where a plugin is broken or a folder is
missing, there is nothing to offer, and the verb itself says what is wrong. Use a completer as
``typer.Option(autocompletion=complete.methods)``. ``methods``, ``datasets``, ``backbones`` and ``prompts``
complete the last of several names with commas between them; the others complete one name.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout

from bench.names import PROTOCOLS, canonical

Completer = Callable[[str], list[str]]
Find = Callable[[], Iterable[str]]


def _offered(word: str, find: Find) -> list[str]:
    """Return the found names that begin with ``word``."""
    nowhere = io.StringIO()
    try:
        with redirect_stdout(nowhere), redirect_stderr(nowhere):  # an installed plugin may print
            names = list(find())
    except Exception:  # whatever is broken, the verb says it, and Tab offers nothing
        return []
    return [name for name in names if name.startswith(word)]


def _one(find: Find) -> Completer:
    """Return the completer of one name."""

    def completer(incomplete: str) -> list[str]:
        return _offered(incomplete, find)

    return completer


def _several(find: Find) -> Completer:
    """Return the completer of a list's last name, which offers no name that is in the list already."""

    def completer(incomplete: str) -> list[str]:
        before, comma, word = incomplete.rpartition(",")
        given = {canonical(name) for name in before.split(",")}
        return [f"{before}{comma}{name}" for name in _offered(word, find) if canonical(name) not in given]

    return completer


def _methods() -> Iterable[str]:
    from bench.registry import builtin

    return builtin().names()


def _datasets() -> Iterable[str]:
    from bench.data import catalog

    return catalog.names()


def _backbones() -> Iterable[str]:
    """Return the embedded backbones, OpenAI's common ones and those that were downloaded."""
    from bench.clip.spec import POCKET
    from bench.clip.weights import stored_names

    return dict.fromkeys((*POCKET, "RN50", "ViT-B-16", *stored_names()))


def _prompts() -> Iterable[str]:
    from bench.prompts import SETS

    return SETS


def _suites() -> Iterable[str]:
    from bench import suite

    return suite.names()


def _presets() -> Iterable[str]:
    from bench.plan.settings import PRESETS

    return PRESETS


def _keys() -> Iterable[str]:
    from bench.registry import builtin

    registry = builtin()
    return [f"{name}.{key}" for name in registry.names() for key in registry.get(name).settings]


methods, method = _several(_methods), _one(_methods)
datasets, dataset = _several(_datasets), _one(_datasets)
backbones, backbone = _several(_backbones), _one(_backbones)
prompts = _several(_prompts)
suites, presets, protocols = _one(_suites), _one(_presets), _one(lambda: PROTOCOLS)
setting = _one(_keys)  # METHOD.KEY
settings = _one(lambda: [f"{key}=" for key in _keys()])  # METHOD.KEY=, before a value of the user's choice
tables = _one(lambda: ("1", "2", "3", "ablation"))
figures = _one(lambda: ("shots", "sweep", "beta", "prompts", "cd", "time"))
table_formats = _one(lambda: ("console", "md", "latex", "csv", "html", "json"))
devices = _one(lambda: ("auto", "cpu", "cuda"))
