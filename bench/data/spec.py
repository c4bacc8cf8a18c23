"""A dataset's description as data: what ``datasets/*.toml`` may say, checked key by key."""

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
    """A dataset's CuPL sentences, and how a class name becomes their key (datasets 5.6; bench.data.cupl)."""

    files: tuple[str, ...] = ()
    rule: str = "name"
    keys: dict[str, str] = {}
    note: str = ""


class ClassnameRule(Struct, frozen=True):
    """Where class names come from: rule in words, fixed list, renamed or dropped folders, digest to check."""

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
    """What a description may say. What an absent line means is said in ``parse``."""

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


# Known keys by table, for the hint at the nearest one; those of ``options`` are the reader's.
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
    """One dataset as its TOML describes it; nothing here has looked at the disk.

    ``templates`` maps a prompt set's name (``coop``, ``hand`` and, where published, ``mined``) to templates
    with one ``{}``. ``source`` names the dataset whose classifier a test-only (shifted) set is for, else it
    is empty; ``targets`` are such sets seen from the other side. ``folders`` are the dataset folders to try
    under the data root, in order; ``images`` the image folders to try inside each, of which the right one
    holds one of the folders ``holds``, if any are named. ``opening`` is how image files become RGB, None for
    as published; a user's own images have one unless they say otherwise. ``extra`` is the reader's own
    options. ``base`` is the folder of a user's own TOML file, where relative folders start; None in the
    catalog, whose folders start at the data root. ``identity`` tells a user's datasets of one name apart: a
    digest of ``place``, where the description or the folder lies; both are empty in the catalog, where the
    name does.
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
        """The last two parts of ``place``, by which people tell datasets of one name."""
        return "/".join(Path(self.place).parts[-2:])

    def option_values(self, **defaults: Any) -> dict[str, Any]:
        """The reader's options over their defaults.

        Raises Odd for an option that the reader does not know, or of another type than its default: lists
        hold strings, tables strings or lists of them.
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
    """The description in ``file``; ``own``: of a user's own images.

    Raises BenchError for a key unknown, missing or of the wrong type, and for a name or a path with control
    characters.
    """
    try:
        table = typed.toml(file, dict[str, Any])
    except OSError as error:
        raise BenchError(f"{file}: not a readable TOML file: {error}") from error
    try:
        _refuse_controls(table, str(file))
    except RecursionError as error:  # tables of many parts: [a.a.a.a]
        raise typed.Odd(f"{file}: nested too deeply") from error
    return parse(table, str(file), file.resolve().parent, own)


def parse(table: Mapping[str, Any], where: str, base: Path | None = None, own: bool = False) -> DatasetSpec:
    """A DatasetSpec from a parsed TOML table; ``where`` begins the error messages.

    ``own``: of a user's own images, as class folders always are; it decides how images are opened.
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
    for key in _Prompts.__struct_fields__:
        for template in getattr(prompts, key):
            if template.count("{}") != 1:
                raise BenchError(
                    f"{where}: [prompts] {key}: a template holds {{}} exactly once, not {template!r}"
                )
    coop = prompts.coop or prompts.hand or (DEFAULT_TEMPLATE,)
    return {"coop": coop, "hand": prompts.hand or coop}


def _refuse_controls(value: Any, where: str, several_lines: bool = False) -> None:
    """Raise Odd for control characters in a parsed file's strings and keys; some texts have several lines."""
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
