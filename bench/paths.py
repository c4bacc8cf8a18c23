"""Where the program's own data lies, inside an installed package or beside it in a checkout; users' paths."""

from __future__ import annotations

from pathlib import Path

from bench.errors import BenchError

_PACKAGE = Path(__file__).resolve().parent


def _beside_or_inside(name: str) -> Path:
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def from_home(path: str) -> Path:
    """A path that a user wrote, ``~`` and ``~name`` resolved. Raises BenchError for an unknown home."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise BenchError(
            f"{path}: this machine knows no home folder of that name; write the path out"
        ) from error


def datasets_dir() -> Path:
    """The folder of dataset descriptions (one TOML each) and their prompt data."""
    return _beside_or_inside("datasets")


def methods_dir() -> Path:
    """The folder of methods, one Python file each.

    It is ``bench/methods``, in a checkout a link to ``../methods``; the path is what the link leads to.
    Raises BenchError where the link is none: git and some archives write its text into a file instead.
    """
    inside = _PACKAGE / "methods"
    if not inside.is_dir():
        raise BenchError(
            f"{inside} has to be a link to the folder methods/: run  ln -sfn ../methods '{inside}'"
        )
    return inside.resolve()


def as_known(text: str) -> str:
    """A text that may name files of methods, with the folder that people know instead of the link to it."""
    return text.replace(str(_PACKAGE / "methods"), str(methods_dir()))


def results_dir() -> Path:
    """The folder of results that come with the program: published numbers, pocket records, baselines."""
    return _beside_or_inside("results")
