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

TOP_KEYS = ("name", "title", "kind", "reader", "recipe_as", "source", "targets", "licence", "get", "folder")
TABLES: dict[str, tuple[str, ...] | None] = {
    "prompts": ("coop", "hand"),
    "counts": ("classes", "train", "val", "test"),
    "cupl": ("files", "rule", "keys", "note"),
    "layout": ("folders", "images", "holds"),
    "images": opening.KEYS,
    "classnames": ("rule", "names", "rename", "drop", "sha256"),
    "options": None,  # the reader's own settings, checked by the reader through ``DatasetSpec.option_values``
}
_PARAGRAPHS = (
    "get",
    "licence",
    "note",
    "rule",
)  # texts that may have several lines; names and paths have one
OWN_READER = "folder"
DEFAULT_TEMPLATE = "a photo of a {}."


class _Counts(Struct):
    classes: Annotated[int, Meta(ge=0, le=10**12)] = 0
    train: Annotated[int, Meta(ge=0, le=10**12)] = 0
    val: Annotated[int, Meta(ge=0, le=10**12)] = 0
    test: Annotated[int, Meta(ge=0, le=10**12)] = 0


class _Cupl(Struct):
    files: list[str] = []
    rule: str = "name"
    keys: dict[str, str] = {}
    note: str = ""


class _Classnames(Struct):
    rule: str = ""
    names: list[str] = []
    rename: dict[str, str] = {}
    drop: list[str] = []
    sha256: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""


@dataclass(frozen=True)
class CuplRule:
    """A dataset's CuPL sentences, and how a class name becomes their key (datasets 5.6; bench.data.cupl)."""

    files: tuple[str, ...] = ()
    rule: str = "name"
    keys: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class ClassnameRule:
    """Where class names come from: rule in words, fixed list, renamed or dropped folders, digest to check."""

    rule: str = ""
    names: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    sha256: str = ""


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
    classnames: ClassnameRule = ClassnameRule()
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
    typed.known(table, (*TOP_KEYS, *TABLES), where)
    for key in TOP_KEYS:
        _typed(table, key, list if key == "targets" else str, where)
    parts: dict[str, dict[str, Any]] = {}
    for name, keys in TABLES.items():
        _typed(table, name, dict, where)
        parts[name] = table.get(name, {})
        if keys is not None:
            typed.known(parts[name], keys, f"{where}: [{name}]")
    if not table.get("name"):
        raise BenchError(f'{where}: needs a line  name = "..."')
    for key, value in parts["counts"].items():
        if type(value) is not int or value < 0:
            raise BenchError(f"{where}: [counts] {key} must be a whole number, not {value!r}")
    typed.converted(parts["counts"], _Counts, f"{where}: [counts]")
    layout, folder, reader = parts["layout"], table.get("folder"), table.get("reader", OWN_READER)
    folders = _strings(layout, "folders", where) or ((folder,) if folder else ())
    return DatasetSpec(
        name=table["name"],
        title=table.get("title", table["name"]),
        kind=table.get("kind", "own images"),
        reader=reader,
        templates=_templates(parts["prompts"], where),
        recipe_as=table.get("recipe_as", "default"),
        source=table.get("source", ""),
        targets=_strings(table, "targets", where),
        counts=dict(parts["counts"]),
        folders=folders,
        images=_strings(layout, "images", where) or ("",),
        holds=_strings(layout, "holds", where),
        licence=table.get("licence", ""),
        get=table.get("get", "").strip(),
        cupl=_cupl(parts["cupl"], where) if parts["cupl"] else None,
        classnames=_classnames(parts["classnames"], where),
        extra=dict(parts["options"]),
        base=base,
        opening=opening.parse(parts["images"], f"{where}: [images]", own or reader == OWN_READER),
    )


def _templates(table: Mapping[str, Any], where: str) -> dict[str, tuple[str, ...]]:
    given = {key: _strings(table, key, f"{where}: [prompts]") for key in table}
    for key, templates in given.items():
        for template in templates:
            if template.count("{}") != 1:
                raise BenchError(
                    f"{where}: [prompts] {key}: a template holds {{}} exactly once, not {template!r}"
                )
    coop = given.get("coop") or given.get("hand") or (DEFAULT_TEMPLATE,)
    return {"coop": coop, "hand": given.get("hand") or coop}


def _cupl(table: Mapping[str, Any], where: str) -> CuplRule:
    read = typed.converted(table, _Cupl, f"{where}: [cupl]")
    return CuplRule(tuple(read.files), read.rule, read.keys, read.note)


def _classnames(table: Mapping[str, Any], where: str) -> ClassnameRule:
    read = typed.converted(table, _Classnames, f"{where}: [classnames]")
    return ClassnameRule(read.rule, tuple(read.names), read.rename, tuple(read.drop), read.sha256)


def _strings(table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise BenchError(f"{where}: {key} must be a list of strings")
    return tuple(value)


def _typed(table: Mapping[str, Any], key: str, kind: type, where: str) -> None:
    if key in table and not isinstance(table[key], kind):
        words: dict[type, str] = {str: "text in quotes", list: "a list of strings", dict: "a table"}
        word = words[kind]
        raise BenchError(f"{where}: {key} must be {word}, not {table[key]!r}")


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
