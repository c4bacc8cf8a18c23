"""Stand-ins for modules that others import and seldom use load the real module when one of its names is
used.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from bench.clip.deferred import stand_ins

LATER = {"slowlib": (), "slowlib.part": ("made",)}


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package ``slowlib`` with a part, and ``user``, which imports both."""
    (tmp_path / "slowlib").mkdir()
    (tmp_path / "slowlib" / "__init__.py").write_text("answer = 42\n")
    (tmp_path / "slowlib" / "part.py").write_text(
        "import slowlib\ndef made(x, y=0): return x + y\nelse_ = 5\n"
    )
    (tmp_path / "user.py").write_text(
        "import slowlib\nfrom slowlib.part import made\ndef use(): return made(1, y=2), slowlib.answer\n"
    )
    (tmp_path / "eager.py").write_text("from slowlib.part import made, else_\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("slowlib", "slowlib.part", "user", "eager"):
        sys.modules.pop(name, None)


def test_a_name_loads_its_module_when_it_is_called(library: None) -> None:
    with stand_ins(LATER):
        user = import_module("user")
    assert not {"slowlib", "slowlib.part"} & sys.modules.keys(), "nothing was loaded, and nothing stands in"
    assert user.use() == (3, 42)
    assert sys.modules["slowlib.part"].made is not user.made


def test_any_other_name_loads_it_at_once(library: None) -> None:
    with stand_ins(LATER):
        eager = import_module("eager")
        assert eager.else_ == 5 and sys.modules["slowlib.part"].__file__
    assert eager.made(1) == 1 and sys.modules["slowlib"].answer == 42


def test_what_is_loaded_stays_and_what_is_not_installed_is_missed(library: None) -> None:
    part = import_module("slowlib.part")
    with stand_ins({**LATER, "nowhere_at_all": ()}):
        assert import_module("user").made is part.made
        with pytest.raises(ModuleNotFoundError):
            import_module("nowhere_at_all")
