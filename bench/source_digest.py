"""Compute the digest of what a Python file computes: comments, docstrings and layout do not count.

``code_digest`` takes source text and returns a digest. A record keeps the digest of its method's file, so
that an edit under the same version shows. ``bench.pocket.plans`` keeps the digest of the code that draws
scenes. This module reads no file and imports only ``bench.files``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from bench.files import digest

# Fields of a syntax tree that compute nothing, and the nodes whose first statement may be a docstring.
_ASIDE = ("ctx", "kind", "type_comment", "annotation", "returns")
_WITH_DOCSTRING = ("Module", "ClassDef", "FunctionDef", "AsyncFunctionDef")


def code_digest(source: bytes) -> str:
    """Return the SHA-256 (hex) of what a file computes.

    Comments, layout, docstrings and annotations do not count; annotations of a class's fields do, because
    they make a data class. Imports do not count if they are for types alone, or if they only say where in the
    program a name comes from. Raises SyntaxError if the source is not Python.
    """
    tree = ast.parse(source)
    return digest([_code(tree), sorted(_imported(tree))])


def _code(node: Any, inside: str = "") -> Any:
    """Return the parts of a syntax tree that compute something, as nested lists.

    ``inside``: the kind of node around a list of nodes.
    """
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
        if kind == "JoinedStr":  # some versions of Python put empty texts into f-strings
            value = [part for part in value if not (isinstance(part, ast.Constant) and part.value == "")]
        if name in _ASIDE and not (name == "annotation" and kind == "AnnAssign"):
            continue
        code = None if value is None else _code(value, kind)
        if code is not None and code != []:
            fields.append([name, code])
    return [kind, fields]


def _is_field(node: ast.AnnAssign, inside: str) -> bool:
    """Return whether an annotated assignment may make a field of a data class."""
    return inside == "ClassDef" and "ClassVar" not in ast.unparse(node.annotation)


def _is_text(node: ast.AST) -> bool:
    """Return whether a statement is a string and nothing else."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _imports_only(node: ast.AST) -> bool:
    """Return whether a statement only imports, as a block under ``if TYPE_CHECKING`` does."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test) and all(map(_imports_only, node.body))
    return isinstance(node, ast.Import | ast.ImportFrom)


def _imported(node: ast.AST) -> Iterator[str]:
    """Yield the names that imports bind, except types and names of the program under their own name."""
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
