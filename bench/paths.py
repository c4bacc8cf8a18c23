"""Find the folders of the program's own data, and resolve paths that users write.

The folders datasets/, methods/ and results/ lie inside an installed package. In a checkout they lie beside
the package. This module imports only ``bench.errors``, and it opens no file.
"""

from __future__ import annotations

from pathlib import Path

from bench.errors import BenchError

_PACKAGE = Path(__file__).resolve().parent


def _beside_or_inside(name: str) -> Path:
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def from_home(path: str) -> Path:
    """Return the path that a user wrote, with ``~`` and ``~name`` resolved.

    Raises BenchError if there is no home folder of that name.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise BenchError(
            f"{path}: this machine knows no home folder of that name; write the path out"
        ) from error


def datasets_dir() -> Path:
    """Return the folder of dataset descriptions (one TOML each) and their prompt data."""
    return _beside_or_inside("datasets")


def methods_dir() -> Path:
    """Return the folder of methods, one Python file each.

    It is ``bench/methods``. In a checkout that is a link to ``../methods``, and the returned path is where
    the link leads. Raises BenchError if the link is a plain file: git without links and some archives write
    its text into a file.
    """
    inside = _PACKAGE / "methods"
    if not inside.is_dir():
        raise BenchError(
            f"{inside} has to be a link to the folder methods/: run  ln -sfn ../methods '{inside}'"
        )
    return inside.resolve()


def as_known(text: str) -> str:
    """Return a text in which files of methods are named by the folder methods/ instead of the link to it."""
    return text.replace(str(_PACKAGE / "methods"), str(methods_dir()))


def results_dir() -> Path:
    """Return the folder of results that come with the program (published numbers, records, baselines)."""
    return _beside_or_inside("results")
