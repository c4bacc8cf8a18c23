"""Names for shell completion: what the shell offers when somebody presses Tab.

A completer gets the unfinished word and returns the words that it may become. It must be quick, so it neither
imports torch nor looks at records. It never prints and never raises: where a plugin is broken or a folder is
missing, there is nothing to offer, and the verb itself says what is wrong. Use a completer as
``typer.Option(autocompletion=complete.methods)``.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout

from bench.names import canonical

Completer = Callable[[str], list[str]]


def methods(incomplete: str) -> list[str]:
    """Complete the last of several method names with commas between them."""
    return _last(incomplete, _methods)


def datasets(incomplete: str) -> list[str]:
    """Complete the last of several dataset names with commas between them.

    Returns nothing for a path such as ``photos/``, so that the shell offers files.
    """
    return _last(incomplete, _datasets)


def backbones(incomplete: str) -> list[str]:
    """Complete the last of several backbones with commas between them.

    Offers the embedded backbones, OpenAI's common ones and those that were downloaded.
    """
    return _last(incomplete, _backbones)


def prompts(incomplete: str) -> list[str]:
    """Complete the last of several prompt sets with commas between them."""
    return _last(incomplete, _prompts)


def suites(incomplete: str) -> list[str]:
    """Complete the name of one suite."""
    return _one(incomplete, _suites)


def protocols(incomplete: str) -> list[str]:
    """Complete the name of one protocol."""
    return _one(incomplete, _protocols)


def presets(incomplete: str) -> list[str]:
    """Complete the name of one preset."""
    return _one(incomplete, _presets)


def method(incomplete: str) -> list[str]:
    """Complete the name of one method."""
    return _one(incomplete, _methods)


def dataset(incomplete: str) -> list[str]:
    """Complete the name of one dataset."""
    return _one(incomplete, _datasets)


def backbone(incomplete: str) -> list[str]:
    """Complete the name of one backbone."""
    return _one(incomplete, _backbones)


def settings(incomplete: str) -> list[str]:
    """Complete ``METHOD.KEY=`` of one setting, as in ``safe.lr=``; values are not completed."""
    return _one(incomplete, _settings)


def _last(text: str, find: Callable[[], Iterable[str]]) -> list[str]:
    """Return ``text`` with its last name completed in every way that names no name twice."""
    before, comma, word = text.rpartition(",")
    given = {canonical(name) for name in before.split(",")}
    return [f"{before}{comma}{name}" for name in _one(word, find) if canonical(name) not in given]


def _one(word: str, find: Callable[[], Iterable[str]]) -> list[str]:
    """Return the found names that begin with ``word``."""
    nowhere = io.StringIO()
    try:
        with redirect_stdout(nowhere), redirect_stderr(nowhere):  # an installed plugin may print
            names = list(find())
    except Exception:  # whatever is broken, Tab says nothing of it: the verb does
        return []
    return [name for name in names if name.startswith(word)]


def _methods() -> Iterable[str]:
    from bench.registry import builtin

    return builtin().names()


def _datasets() -> Iterable[str]:
    from bench.data import catalog

    return catalog.names()


def _backbones() -> Iterable[str]:
    from bench.clip.spec import POCKET
    from bench.clip.weights import stored_names

    return dict.fromkeys((*POCKET, "RN50", "ViT-B-16", *stored_names()))


def _prompts() -> Iterable[str]:
    from bench.prompts import SETS

    return SETS


def _suites() -> Iterable[str]:
    from bench import suite

    return suite.names()


def _protocols() -> Iterable[str]:
    from bench.names import PROTOCOLS

    return PROTOCOLS


def _presets() -> Iterable[str]:
    from bench.plan.settings import PRESETS

    return PRESETS


def _settings() -> Iterable[str]:
    from bench.registry import builtin

    registry = builtin()
    return [f"{name}.{setting}=" for name in registry.names() for setting in registry.get(name).settings]
