"""Find the names that a shell offers when somebody presses Tab.

A completer gets the unfinished word and returns the words that it may become. It must be quick, so it neither
imports torch nor looks at records. It never prints and never raises: where a plugin is broken or a folder is
missing, there is nothing to offer, and the verb itself says what is wrong. Use a completer as
``typer.Option(autocompletion=complete.methods)``. ``methods``, ``datasets``, ``backbones`` and ``prompts``
complete the last of several names with commas between them, and so does ``removable``; the others complete
one name. The words of a fixed choice stand here once more, because their own modules load slowly; a test
compares them.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextlib import redirect_stderr, redirect_stdout

from bench.names import KEEP_STATES, PROTOCOLS, canonical, value_text

Completer = Callable[[str], list[str]]
Find = Callable[[], Iterable[str]]

_SPLITS = re.compile("[=:@]+")  # bash makes a word of its own of each, even without blanks around it
_BEFORE = "BENCH_COMPLETE_BEFORE"  # what bash keeps before the unfinished word, as ``safe:`` of ``safe:be``


def rejoin(environment: MutableMapping[str, str]) -> None:
    """Put together the words that bash splits at ``=``, ``:`` and ``@`` before Typer reads them.

    Example: of ``--methods=saf`` bash makes three words, and it replaces only the last, ``saf``. Typer then
    gets ``--methods`` and ``saf``. Of ``compare safe:be`` it gets ``compare`` and ``be``, and the completer
    learns from the environment that ``safe:`` stands before it. Other shells split nothing.
    """
    environment.pop(_BEFORE, None)
    if environment.get("_BENCH_COMPLETE") != "complete_bash":
        return
    at = int(environment["COMP_CWORD"])
    pieces = environment["COMP_WORDS"].split("\n")[: at + 1]
    pieces += [""] * (at + 1 - len(pieces))
    last = "" if _SPLITS.fullmatch(pieces[-1]) else pieces[-1]  # bash replaces the name after the sign
    words: list[str] = []
    joins = False
    for piece in pieces:
        sign = bool(_SPLITS.fullmatch(piece))
        if sign and piece == "=" and words[-1].startswith("--") and "=" not in words[-1]:
            words.append("")  # an option's value
            joins = True
        elif words and (sign or joins):
            words[-1] += piece
            joins = sign
        else:
            words.append(piece)
            joins = False
    if words[-1].removesuffix(last).endswith("@"):
        last = f"@{last}"  # this sign bash replaces too
    environment[_BEFORE] = words[-1].removesuffix(last)
    environment["COMP_WORDS"] = "\n".join([*words[:-1], last])
    environment["COMP_CWORD"] = str(len(words) - 1)


def _offered(word: str, find: Find) -> list[str]:
    """Return the found names that begin with ``word``."""
    nowhere = io.StringIO()
    try:
        with redirect_stdout(nowhere), redirect_stderr(nowhere):  # an installed plugin may print
            names = list(find())
    except Exception:  # whatever is broken, the verb says it, and Tab offers nothing
        return []
    return [name for name in names if name.startswith(word)]


def _completer(offer: Callable[[str], list[str]]) -> Completer:
    """Return a completer that hands ``offer`` the whole word, with what bash keeps before it."""

    def completer(incomplete: str) -> list[str]:
        before = os.environ.get(_BEFORE, "")
        return [name.removeprefix(before) for name in offer(before + incomplete)]

    return completer


def _one(find: Find) -> Completer:
    """Return the completer of one name."""
    return _completer(lambda word: _offered(word, find))


def _several(find: Find) -> Completer:
    """Return the completer of a list's last name, which offers no name that is in the list already."""

    def offer(whole: str) -> list[str]:
        before, comma, word = whole.rpartition(",")
        given = {canonical(name) for name in before.split(",")}
        return [f"{before}{comma}{name}" for name in _offered(word, find) if canonical(name) not in given]

    return _completer(offer)


def _assigned(word: str, find: Callable[[], Mapping[str, str]]) -> list[str]:
    """Return what an unfinished ``KEY=VALUE`` may become: keys with a ``=``, or the default of its key.

    A shell puts a blank behind a word that is the only one it may become. The default therefore stands
    beside the only ``KEY=`` that is left: the shell completes what both begin with, and the user types on.
    """
    pairs = [pair.partition("=") for pair in _offered("", lambda: [f"{k}={v}" for k, v in find().items()])]
    left = [f"{key}=" for key, _, _ in pairs if f"{key}=".startswith(word) and f"{key}=" != word]
    shown = [f"{key}={value}" for key, _, value in pairs if left in ([f"{key}="], [])]
    return [*left, *(pair for pair in shown if pair.startswith(word))]


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


def _settings() -> dict[str, str]:
    """Return the defaults of all settings, as ``--set`` reads them, by METHOD.KEY."""
    from bench.registry import builtin

    registry = builtin()
    every = [(name, registry.get(name).settings) for name in registry.names()]
    return {f"{name}.{key}": value_text(value) for name, of in every for key, value in of.items()}


def _sources() -> Iterable[str]:
    """Return the sources of published numbers."""
    import csv

    from bench.paths import results_dir

    files = sorted((results_dir() / "paper").glob("*.csv"))
    rows = (row for file in files for row in csv.DictReader(file.read_text("utf-8").splitlines()))
    return dict.fromkeys(("paper", *sorted({row["source"] for row in rows})))


def _row(word: str) -> list[str]:
    """Return what a word of ``bench compare`` may become: METHOD, METHOD:KEY=VALUE or METHOD@PROMPTS."""
    if "@" in word:
        name = word.partition("@")[0]
        return _offered(word, lambda: [f"{name}@{one}" for one in _prompts()])
    if ":" in word:
        return _assigned(word, lambda: {key.replace(".", ":", 1): v for key, v in _settings().items()})
    return _offered(word, _methods)


methods, method = _several(_methods), _one(_methods)
datasets, dataset = _several(_datasets), _one(_datasets)
backbones, backbone = _several(_backbones), _one(_backbones)
prompts = _several(_prompts)
row = _completer(_row)
setting = _one(_settings)  # METHOD.KEY
settings = _completer(lambda word: _assigned(word, _settings))  # METHOD.KEY=VALUE
suites, presets, protocols = _one(_suites), _one(_presets), _one(lambda: PROTOCOLS)


def _choice(*words: str) -> Completer:
    return _one(lambda: words)


tables = _choice("1", "2", "3", "ablation", "classes")
figures = _choice(
    "shots", "sweep", "beta", "prompts", "cd", "time", "reliability", "confusion", "risk-coverage"
)
table_formats = _choice("console", "md", "latex", "csv", "html", "json")
text_formats, check_formats = _choice("text", "json"), _choice("text", "json", "github")
devices, executors = _choice("auto", "cpu", "cuda"), _choice("local", "ray")
precisions, run_precisions = _choice("fp32", "fp16", "bf16"), _choice("auto", "fp32", "fp16", "bf16")
keep_states, rules = _choice(*KEEP_STATES), _choice("auto", "agreement", "accuracy")
removable = _several(lambda: ("stale", "orphaned"))
kinds = _choice("solved", "trained", "prompt")
over = _choice("draws", "datasets")
metrics = _choice(
    *("top1", "top5", "balanced", "macro-f1", "nll", "nll-after", "brier", "brier-after"),
    *("ece", "ece-after", "ece-cal", "ece-mass", "aurc"),
)
sources = _one(_sources)
part_values, part_fills = _choice("margin", "probability"), _choice("mean", "background")
