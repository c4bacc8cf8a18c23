"""The source of a plugin: its file, the modules it imports from its own folder, and the program's methods it
builds on.

One digest of them is in the fit key, so that an edited plugin is never answered from old records. Imports are
read from the source, so that those inside functions count too. What a plugin reads by itself, data files and
modules that it imports by a string, is not seen: it must raise its ``version`` when they change.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.files import digest, sha256_file
from bench.paths import methods_dir

METHODS = "bench.methods"
_ASIDE = ("ctx", "kind", "type_comment", "annotation", "returns")  # of a syntax tree: what computes nothing


def digest_of(file: Path) -> str:
    """SHA-256 (hex) of a plugin's file and modules, by their place in its folder, and of the methods that
    they build on.
    """
    root, modules = _root(file), own_modules(file)
    parts = {part.relative_to(root).as_posix(): sha256_file(part) for part in modules}
    return digest(
        {**parts, **{f"{METHODS}.{part.stem}": sha256_file(part) for part in methods_below(modules)}}
    )


def code_of(method: object) -> str:
    """The digest of the code in the file that a method's class stands in, empty where there is no file.

    It is recorded with every fit and in no key, so that an edited method of the program shows as drifted.
    """
    file = inspect.getsourcefile(sys.modules[type(method).__module__])
    return code_digest(Path(file).read_bytes()) if file else ""


def code_digest(source: bytes) -> str:
    """SHA-256 (hex) of what a file computes, without comments, layout, docstrings, annotations and imports.

    Equal in all versions of Python, so that another one is no drift. Raises SyntaxError for what is none.
    """
    return digest(_code(ast.parse(source)))


def _code(node: Any) -> Any:
    """A syntax tree as nested lists of what matters."""
    if isinstance(node, list):
        return [_code(item) for item in node if not _imports_only(item)]
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        node = ast.Assign([node.target], node.value)
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(value, list) and value and _is_text(value[0]):
            value = value[1:]  # the docstring
        if name not in _ASIDE and value is not None and value != []:
            fields.append([name, _code(value)])
    return [type(node).__name__, fields]


def _is_text(node: ast.AST) -> bool:
    """Whether a statement is a string and nothing else."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _imports_only(node: ast.AST) -> bool:
    """Whether a statement only imports, as the block under ``if TYPE_CHECKING`` does."""
    if isinstance(node, ast.If):
        return not node.orelse and all(map(_imports_only, node.body))
    return isinstance(node, ast.Import | ast.ImportFrom)


def methods_below(modules: Iterable[Path]) -> list[Path]:
    """The program's own methods that modules import, and those that these import, sorted."""
    methods: set[Path] = set()
    waiting = list(modules)
    while waiting:
        file = waiting.pop()
        for name in _named(file):
            below = methods_dir() / f"{name}.py"
            if below.is_file() and below not in methods:
                methods.add(below)
                waiting.append(below)
    return sorted(methods)


def _named(file: Path) -> Iterator[str]:
    """The names of the program's methods that a file imports, as ``bench.methods.x`` or, in a lone plugin, as
    ``.x``.
    """
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            # such a plugin is loaded among the methods
            lone = node.level == 1 and not (file.parent / "__init__.py").is_file()
            base = ".".join(filter(None, (METHODS if lone else "." * node.level, node.module)))
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[2] for name in names if name.startswith(f"{METHODS}."))


def own_modules(file: Path) -> list[Path]:
    """The file itself and what it imports from its own folder (of a package: from the package), sorted."""
    file = file.resolve()
    root = _root(file)
    around = [
        p / "__init__.py" for p in file.parents if p.is_relative_to(root) and (p / "__init__.py").is_file()
    ]
    modules, waiting = {file, *around}, [file, *around]  # loading a module of a package runs the package
    while waiting:
        for other in _imports(waiting.pop(), _root(file)):
            if other not in modules:
                modules.add(other)
                waiting.append(other)
    return sorted(modules)


def names(file: Path) -> dict[str, Path]:
    """What Python calls the own modules of a plugin, besides the plugin itself, once their folder is on its
    path.
    """
    root, parts = _root(file), {}
    for part in own_modules(file):
        at = part.relative_to(root).with_suffix("")
        if part != file.resolve() and at.parts != ("__init__",):
            parts[".".join(at.parts[:-1] if at.name == "__init__" else at.parts)] = part
    return parts


def _root(file: Path) -> Path:
    """The folder that a plugin's own modules lie in: that of the file, or what holds the outermost package
    around it.
    """
    folder = file.resolve().parent
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        folder = folder.parent
    return folder


def _parsed(file: Path) -> ast.Module:
    """The file's syntax tree; an empty one where it does not parse, for then it does not load either, and
    loading says so.
    """
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def _imports(file: Path, root: Path) -> Iterator[Path]:
    """The modules below ``root`` that a file imports, wherever in it the import stands."""
    for node in ast.walk(_parsed(file)):
        if isinstance(node, ast.Import):
            names = [(alias.name, [root, file.parent]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            place = file.parents[node.level - 1] if node.level <= len(file.parents) else root
            names = [(".".join(filter(None, (node.module, alias.name))), [place]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(f"{node.module}.{alias.name}", [root, file.parent]) for alias in node.names]
        else:
            continue
        for name, places in names:
            if name.split(".")[0] == "bench":
                continue  # the program itself, also for a plugin that lies in its checkout
            for place in places:
                if place.is_relative_to(root):
                    yield from _modules(place, name.split("."))


def _modules(place: Path, parts: list[str]) -> Iterator[Path]:
    """The files that importing ``a.b.c`` from ``place`` runs: packages on the way, and the module at the end
    if it is one.
    """
    if (place / "__init__.py").is_file():
        yield place / "__init__.py"
    for part in parts:
        if (place / f"{part}.py").is_file() and not (
            place / part / "__init__.py"
        ).is_file():  # a package comes first
            yield place / f"{part}.py"
            return
        place = place / part
        if not place.is_dir():
            return
        if (place / "__init__.py").is_file():
            yield place / "__init__.py"
