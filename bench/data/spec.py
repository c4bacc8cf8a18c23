"""Define the description of a dataset as data.

This module says what a file ``datasets/*.toml`` may contain, and checks every key and type in it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from bench import typed
from bench.data import opening
from bench.data.opening import Opening
from bench.errors import BenchError
from bench.names import shown

_PARAGRAPHS = (
    "get",
    "licence",
    "note",
    "rule",
)  # texts that may have several lines; names and paths have one
OWN_READER = "folder"
DEFAULT_TEMPLATE = "a photo of a {}."
_Counted = Annotated[int, Meta(ge=0, le=10**12)]


class CuplRule(Struct, frozen=True):
    """A dataset's CuPL files, and the rule that turns a class name into its key there (datasets 5.6).

    ``bench.data.cupl`` applies the rule.
    """

    files: tuple[str, ...] = ()
    rule: str = "name"
    keys: dict[str, str] = {}
    note: str = ""


class ClassnameRule(Struct, frozen=True):
    """The origin of a dataset's class names: a rule, and what it is applied with.

    ``rule`` is the rule in words, ``names`` a fixed list. ``rename`` and ``drop`` change or leave out classes
    by their folder's name. ``sha256`` is the digest that the final names must have, empty for no check.
    """

    rule: str = ""
    names: tuple[str, ...] = ()
    rename: dict[str, str] = {}
    drop: tuple[str, ...] = ()
    sha256: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""


class _Prompts(Struct, frozen=True):
    coop: tuple[str, ...] = ()
    hand: tuple[str, ...] = ()


class _Counts(Struct, frozen=True):
    classes: _Counted = 0
    train: _Counted = 0
    val: _Counted = 0
    test: _Counted = 0


class _Layout(Struct, frozen=True):
    folders: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()


class _Table(Struct, frozen=True):
    """All keys that a description may have. ``parse`` says what a missing key means."""

    name: str = ""
    title: str | None = None
    kind: str = "own images"
    reader: str = OWN_READER
    recipe_as: str = "default"
    source: str = ""
    targets: tuple[str, ...] = ()
    licence: str = ""
    get: str = ""
    folder: str = ""
    prompts: _Prompts = _Prompts()
    counts: _Counts = _Counts()
    cupl: CuplRule = CuplRule()
    layout: _Layout = _Layout()
    images: dict[str, Any] = {}  # read by bench.data.opening
    classnames: ClassnameRule = ClassnameRule()
    options: dict[str, Any] = {}  # read by the reader, through ``DatasetSpec.option_values``


# The known keys of each table, so that an error can suggest the nearest one. Those of ``options`` are the
# reader's.
_KEYS: dict[str, tuple[str, ...]] = {
    "prompts": _Prompts.__struct_fields__,
    "counts": _Counts.__struct_fields__,
    "cupl": CuplRule.__struct_fields__,
    "layout": _Layout.__struct_fields__,
    "images": opening.KEYS,
    "classnames": ClassnameRule.__struct_fields__,
}


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset as its TOML file describes it. Nothing here has been looked up on disk.

    ``templates`` maps the name of a prompt set (``coop``, ``hand`` and, where published, ``mined``) to
    templates with one ``{}`` each. ``source`` is set for a test-only (shifted) set alone: it names the
    dataset whose classifier the set tests. ``targets`` is the reverse: it names the shifted sets of this
    dataset.

    ``folders`` are the dataset folders to try under the data root, in order. ``images`` are the image folders
    to try inside each. If ``holds`` names folders, only an image folder that has one of them is taken.
    ``opening`` says how image files become RGB; None means "as published". A user's own images have an
    ``opening`` unless their description says otherwise. ``extra`` holds the options of the reader.

    ``base`` is the folder of a user's own TOML file, from which relative folders start. In the catalog it is
    None, because relative folders start at the data root there. ``identity`` tells a user's datasets of one
    name apart: it is a digest of ``place``, the path of the description or the folder. In the catalog both
    are empty, because names are unique.
    """

    name: str
    title: str
    kind: str
    reader: str
    templates: Mapping[str, tuple[str, ...]]
    recipe_as: str = "default"
    source: str = ""
    targets: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    images: tuple[str, ...] = ("",)
    holds: tuple[str, ...] = ()
    licence: str = ""
    get: str = ""
    cupl: CuplRule | None = None
    classnames: ClassnameRule = field(default_factory=ClassnameRule)
    extra: Mapping[str, Any] = field(default_factory=dict)
    base: Path | None = None
    place: str = ""
    identity: str = ""
    opening: Opening | None = None

    @property
    def short_place(self) -> str:
        """Return the last two parts of ``place``, by which people tell datasets of one name apart."""
        return "/".join(Path(self.place).parts[-2:])

    def option_values(self, **defaults: Any) -> dict[str, Any]:
        """Return the reader's options, each at its default unless the description sets it.

        Raises Odd if the reader does not know an option, or if the option has another type than its default.
        A list holds strings; a table holds strings or lists of strings.
        """
        where = f"{self.name}: [options]"
        typed.known(self.extra, defaults, where)
        return defaults | {
            name: typed.converted(
                value, _OPTIONS.get(type(defaults[name]), type(defaults[name])), f"{where} {name}"
            )
            for name, value in self.extra.items()
        }


_OPTIONS: dict[type, Any] = {list: list[str], dict: dict[str, str | list[str]]}


def read_toml(file: Path, own: bool = False) -> DatasetSpec:
    """Read the description in ``file``; ``own`` says that it describes a user's own images.

    Raises BenchError for a key that is unknown, missing or of the wrong type, and for a name or a path with
    control characters.
    """
    try:
        table = typed.toml(file, dict[str, Any])
    except OSError as error:
        raise BenchError(f"{file}: cannot be read ({error}): check the path and its permissions") from error
    try:
        _refuse_controls(table, str(file))
    except RecursionError as error:  # a table can nest without end: [a.a.a.a]
        raise typed.Odd(f"{file}: nested too deeply") from error
    return parse(table, str(file), file.resolve().parent, own)


def parse(table: Mapping[str, Any], where: str, base: Path | None = None, own: bool = False) -> DatasetSpec:
    """Make a DatasetSpec from a parsed TOML table; ``where`` is the beginning of error messages.

    ``own`` says that the images are a user's own, as class folders always are. It decides how they are
    opened.
    """
    typed.known(table, _Table.__struct_fields__, where)
    for name, keys in _KEYS.items():
        if isinstance(inner := table.get(name), dict):
            typed.known(inner, keys, f"{where}: [{name}]")
    read = typed.converted(table, _Table, where)
    if not read.name:
        raise BenchError(f'{where}: needs a line  name = "..."')
    counts, own = table.get("counts", {}), own or read.reader == OWN_READER
    return DatasetSpec(
        name=read.name,
        title=read.name if read.title is None else read.title,
        kind=read.kind,
        reader=read.reader,
        templates=_templates(read.prompts, where),
        recipe_as=read.recipe_as,
        source=read.source,
        targets=read.targets,
        counts={key: getattr(read.counts, key) for key in counts},
        folders=read.layout.folders or ((read.folder,) if read.folder else ()),
        images=read.layout.images or ("",),
        holds=read.layout.holds,
        licence=read.licence,
        get=read.get.strip(),
        cupl=read.cupl if table.get("cupl") else None,
        classnames=read.classnames,
        extra=read.options,
        base=base,
        opening=opening.parse(read.images, f"{where}: [images]", own),
    )


def _templates(prompts: _Prompts, where: str) -> dict[str, tuple[str, ...]]:
    """Return the templates of each prompt set. ``coop`` and ``hand`` stand in for each other if one is
    absent.
    """
    for key in _Prompts.__struct_fields__:
        for template in getattr(prompts, key):
            if template.count("{}") != 1:
                raise BenchError(
                    f"{where}: [prompts] {key}: a template holds {{}} exactly once, not {template!r}"
                )
    coop = prompts.coop or prompts.hand or (DEFAULT_TEMPLATE,)
    return {"coop": coop, "hand": prompts.hand or coop}


def _refuse_controls(value: Any, where: str, several_lines: bool = False) -> None:
    """Raise Odd if a string or a key of a parsed file has control characters.

    With ``several_lines`` a text may hold line breaks and tabs, as those of ``_PARAGRAPHS`` may.
    """
    if isinstance(value, str):
        allowed = "\n\t" if several_lines else ""
        if any(unicodedata.category(c) == "Cc" and c not in allowed for c in value):
            raise typed.Odd(f"{where}: control characters in '{shown(value)[:80]}'")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _refuse_controls(key, where)
            _refuse_controls(inner, f"{where}: {key}", key in _PARAGRAPHS)
    elif isinstance(value, list):
        for inner in value:
            _refuse_controls(inner, where, several_lines)
