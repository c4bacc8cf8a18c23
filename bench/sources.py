"""What a method's source is: of a plugin in its key, of the program's own methods in their records.

A plugin's source is its file, the modules that it imports from its own folder, and the program's methods that
it builds on. One digest of them is in the fit key, so that an edited plugin is never answered from old
records. Imports are read from the source, so that those inside functions count too. What a plugin reads by
itself, data files and modules that it imports by a string, is not seen: it must raise its ``version`` when
they change.
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
# By method class; a plugin that is loaded anew has another class.
_codes: dict[type, str] = {}
_tops: dict[type, set[str]] = {}
# Of a syntax tree: what computes nothing, and the nodes whose first statement may be a docstring.
_ASIDE = ("ctx", "kind", "type_comment", "annotation", "returns")
_WITH_DOCSTRING = ("Module", "ClassDef", "FunctionDef", "AsyncFunctionDef")


def digest_of(file: Path) -> str:
    """SHA-256 (hex) of a plugin's modules, by place in its folder, and of the methods that they build on."""
    root, modules = _root(file), own_modules(file)
    parts = {part.relative_to(root).as_posix(): sha256_file(part) for part in modules}
    return digest(
        {**parts, **{f"{METHODS}.{part.stem}": sha256_file(part) for part in methods_below(modules)}}
    )


def code_of(method: object) -> str:
    """The digest of the code in the file that a method's class stands in.

    It is recorded with every fit and in no key, so that an edited method of the program shows as drifted. It
    is empty where there is no file, or where what stands in it now is no Python any more.
    """
    cls = type(method)
    if cls not in _codes:
        file = inspect.getsourcefile(sys.modules[cls.__module__])
        try:
            _codes[cls] = code_digest(Path(file).read_bytes()) if file else ""
        # it may have been edited since it was loaded, and no record may fail for that
        except (OSError, SyntaxError, ValueError, RecursionError):
            _codes[cls] = ""
    return _codes[cls]


def code_digest(source: bytes) -> str:
    """SHA-256 (hex) of what a file computes.

    Comments, layout, docstrings and annotations are left out, but for those of a class's fields, which make a
    data class. Of imports those are left out that say where in the program, or for types alone, a name comes
    from. Raises SyntaxError for what is no Python.
    """
    tree = ast.parse(source)
    return digest([_code(tree), sorted(_imported(tree))])


def _code(node: Any, inside: str = "") -> Any:
    """A syntax tree as nested lists of what matters; ``inside``: the kind of node around a list of nodes."""
    if isinstance(node, list):
        return [_code(item, inside) for item in node if not _imports_only(item)]
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.AnnAssign) and node.value is not None and not _is_field(node, inside):
        node = ast.Assign([node.target], node.value)
    kind = type(node).__name__
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and kind in _WITH_DOCSTRING and value and _is_text(value[0]):
            value = value[1:]
        if kind == "JoinedStr":  # some versions of Python put empty texts between the parts of an f-string
            value = [part for part in value if not (isinstance(part, ast.Constant) and part.value == "")]
        if name in _ASIDE and not (name == "annotation" and kind == "AnnAssign"):
            continue
        code = None if value is None else _code(value, kind)
        if code is not None and code != []:
            fields.append([name, code])
    return [kind, fields]


def _is_field(node: ast.AnnAssign, inside: str) -> bool:
    """Whether an annotated assignment may make a field of a data class."""
    return inside == "ClassDef" and "ClassVar" not in ast.unparse(node.annotation)


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
        return "TYPE_CHECKING" in ast.unparse(node.test) and all(map(_imports_only, node.body))
    return isinstance(node, ast.Import | ast.ImportFrom)


def _imported(node: ast.AST) -> Iterator[str]:
    """What imports bind that is neither a type nor a name of the program under its own name."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _imports_only(child):
            continue
        yield from _imported(child)
        module = f"{child.module}." if isinstance(child, ast.ImportFrom) else ""
        root = module.partition(".")[0]
        for alias in child.names if isinstance(child, ast.Import | ast.ImportFrom) else ():
            bound = alias.asname or alias.name
            typed = root in ("__future__", "typing", "collections") or module + alias.name == "torch.Tensor"
            if root == "bench" and bound != alias.name:
                yield f"{alias.name} as {bound}"
            elif root != "bench" and not typed and f"{module}{alias.name}" != "torch":
                yield f"{module}{alias.name} as {bound}"


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
    """The program's methods that a file imports, as ``bench.methods.x`` or, in a lone plugin, as ``.x``."""
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


def tops(file: Path) -> set[str]:
    """The top-level names of a plugin's own modules besides itself."""
    return {name.partition(".")[0] for name in names(file)}


def tops_of(method: object) -> set[str]:
    """The top-level names of the modules that belong to a method, of an installed package its own."""
    cls = type(method)
    if cls not in _tops:
        top = cls.__module__.partition(".")[0]
        file = getattr(sys.modules.get(cls.__module__), "__file__", None)
        _tops[cls] = {top} if top != "bench" or file is None else tops(Path(file))
    return _tops[cls]


def names(file: Path) -> dict[str, Path]:
    """What Python calls a plugin's own modules besides itself, once their folder is on its path."""
    root, parts = _root(file), {}
    for part in own_modules(file):
        at = part.relative_to(root).with_suffix("")
        if part != file.resolve() and at.parts != ("__init__",):
            parts[".".join(at.parts[:-1] if at.name == "__init__" else at.parts)] = part
    return parts


def _root(file: Path) -> Path:
    """The folder of a plugin's own modules: the file's, or what holds the outermost package around it."""
    folder = file.resolve().parent
    while (folder / "__init__.py").is_file() and folder.parent != folder:
        folder = folder.parent
    return folder


def _parsed(file: Path) -> ast.Module:
    """The file's syntax tree, empty where it does not parse: loading it says so."""
    try:
        return ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
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
    """The files that importing ``a.b.c`` from ``place`` runs: packages on the way, and the module."""
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
