"""Several processes share a store: sets in use stay, images are encoded once, nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from feature_fakes import TinyTower, dataset
from test_store import KEY, PATHS, ROOT, fill
from typer.testing import CliRunner

from bench import files
from bench.cli.cache import app
from bench.cli.codes import Code
from bench.features import users
from bench.features.encode import Wanted, encode, keys
from bench.features.store import Cleared, FeatureStore

pytestmark = pytest.mark.skipif(users.fcntl is None, reason="needs advisory locks")
HERE = Path(__file__).parent


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "store")


class Other:
    """Another process with the store open, which runs ``code``."""

    def __init__(self, root: Path, code: str) -> None:
        before = f"import os, sys, time; sys.path.insert(0, {str(HERE)!r}); from test_store import *"
        script = f"{before}\nfrom bench import files\nstore = FeatureStore(Path({str(root)!r}))\n{code}"
        self.process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)

    def says(self, word: str) -> bool:
        assert self.process.stdout
        return self.process.stdout.readline().decode().strip() == word


Start = Callable[[str], Other]


@pytest.fixture
def other(store: FeatureStore) -> Iterator[Start]:
    made: list[Other] = []

    def start(code: str) -> Other:
        made.append(Other(store.root, code))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.communicate(timeout=30)


SAY = "print('there', flush=True); time.sleep(60)"


def test_clear_leaves_alone_what_a_living_process_reads(store: FeatureStore, other: Start) -> None:
    pooled = replace(KEY, tap="pooled")
    fill(store)
    fill(store, key=pooled)
    store.close()
    reader = other(f"store.read(KEY, PATHS); {SAY}")
    assert reader.says("there")
    done = CliRunner().invoke(app, ["clear", "--yes", "--cache", str(store.root)])
    assert done.exit_code == Code.INCOMPLETE
    assert "freed 0.0 MB" in done.output and f"running commands use: '{KEY.folder[:20]}" in done.output
    assert [s.key for s in store.feature_sets()] == [KEY], "what nobody uses has gone"
    reader.process.kill()
    reader.process.wait(30)
    done = CliRunner().invoke(app, ["clear", "--yes", "--cache", str(store.root)])
    assert done.exit_code == Code.GOOD and store.feature_sets() == []


def test_clear_leaves_alone_what_a_living_process_writes(store: FeatureStore, other: Start) -> None:
    writer = other(f"w = store.writer(KEY, PATHS).__enter__(); w.write(0, rows(PATHS[:5])); {SAY}")
    assert writer.says("there")
    assert [s.key for s in store.clear().left] == [KEY]
    assert list(store.root.rglob("*.partial"))
    writer.process.kill()
    writer.process.wait(30)
    assert store.clear().left == () and not list(store.root.rglob("*.partial"))


def test_a_store_of_this_process_that_is_closed_holds_nothing(store: FeatureStore) -> None:
    fill(store)
    mine = FeatureStore(store.root)
    mine.read(KEY, PATHS)
    store.close()
    cleaner = FeatureStore(store.root)
    assert [s.key for s in cleaner.clear().left] == [KEY]
    mine.close()
    assert cleaner.clear().left == ()


def test_without_locks_clear_deletes_and_says_so(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)

    def none(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(users.fcntl, "fcntl", none)
    done = CliRunner().invoke(app, ["clear", "--yes", "--cache", str(store.root)])
    assert done.exit_code == Code.GOOD and "has no file locks" in done.output
    assert FeatureStore(store.root).clear() == Cleared(0, ())


def test_a_store_of_several_users_lets_all_of_them_lock(store: FeatureStore) -> None:
    before = os.umask(0o077)
    try:
        store.root.mkdir()
        fill(store)
        assert (store.root / users.FILE).stat().st_mode & 0o777 == 0o600, "nobody else may write here"
        store.close()
        store.root.chmod(0o777)
        fill(store, key=replace(KEY, tap="pooled"))
        assert (store.root / users.FILE).stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)


@pytest.mark.slow
def test_a_file_of_locks_that_is_read_only_still_says_what_is_in_use(
    store: FeatureStore, other: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a second user has it."""
    fill(store)
    store.close()
    original = os.open

    def refuse(path, how, *mode, **places) -> int:
        if Path(path).name == users.FILE and how & os.O_RDWR:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, how, *mode, **places)

    monkeypatch.setattr(os, "open", refuse)
    reader = other(f"store.read(KEY, PATHS); {SAY}")
    assert reader.says("there")
    assert [s.key for s in store.clear().left] == [KEY]
    reader.process.kill()
    reader.process.wait(30)
    with store.encoding(KEY, print):
        waiter = other(WAITER)
        assert waiter.says("waits"), "it shares what it cannot have alone"
    assert waiter.says("goes on")
    assert store.users.works and store.clear().left == ()


WAITER = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with store.encoding(KEY, lambda: print('waits', flush=True)):
        print('goes on', flush=True)
except KeyboardInterrupt:
    print('interrupted', flush=True)
"""


def test_a_process_that_waits_goes_on_when_the_other_dies_or_is_interrupted(
    store: FeatureStore, other: Start
) -> None:
    encoder = other(f"alone = store.encoding(KEY, print); alone.__enter__(); {SAY}")
    assert encoder.says("there")
    first, second = other(WAITER), other(WAITER)
    assert first.says("waits")
    assert second.says("waits")
    first.process.send_signal(signal.SIGINT)
    assert first.says("interrupted")
    os.kill(encoder.process.pid, signal.SIGKILL)
    assert second.says("goes on")
    assert second.process.wait(30) == 0


def test_another_dataset_waits_for_nobody(store: FeatureStore, other: Start) -> None:
    encoder = other(f"alone = store.encoding(KEY, print); alone.__enter__(); {SAY}")
    assert encoder.says("there")
    said: list[str] = []
    with store.encoding(replace(KEY, dataset="ef" * 32), lambda: said.append("waits")):
        pass
    assert said == []


KILLED = (
    "handle, name = files._begun(Path({0!r})); handle.write(b'x'); handle.flush(); os.kill(os.getpid(), 9)"
)


def test_temporary_files_of_dead_writers_are_swept_and_no_others(
    store: FeatureStore, other: Start, tmp_path: Path
) -> None:
    fill(store)
    folder = store.root / KEY.folder
    for place in (folder / "x.json", store.root / "images" / "ab" / "y.json"):
        place.parent.mkdir(parents=True, exist_ok=True)
        assert other(KILLED.format(str(place))).process.wait(60) == -signal.SIGKILL
    mine, name = files._begun(folder / "mine.json")
    (folder / ".notes.tmp").write_text("not ours")
    assert len(list(store.root.rglob(".*.tmp"))) == 4
    store.tidy()
    assert sorted(p.name for p in store.root.rglob(".*.tmp")) == sorted([Path(name).name, ".notes.tmp"])
    mine.close()
    store.tidy()
    assert [p.name for p in store.root.rglob(".*.tmp")] == [".notes.tmp"]
    assert store.missing(KEY, PATHS) == []


def test_a_file_that_is_swept_before_it_is_locked_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, swept = files.lock, []

    def late(file, wait=True) -> None:
        if not swept:
            swept.append(file.name)
            (found,) = tmp_path.glob(".a.json.*.tmp")
            found.unlink()
        original(file, wait)

    monkeypatch.setattr(files, "lock", late)
    files.write_bytes(tmp_path / "a.json", b"{}")
    assert swept and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_write_new_never_replaces(tmp_path: Path) -> None:
    for text in (b"first", b"second"):
        files.write_new(tmp_path / "name", text)
    assert [p.name for p in tmp_path.iterdir()] == ["name"]
    assert (tmp_path / "name").read_bytes() == b"first"


def test_the_values_are_the_same_in_any_company(tmp_path: Path) -> None:
    """Rows encoded in two visits are those of one visit, bit for bit."""
    tower, images = TinyTower(), dataset(tmp_path)
    paths = [f"{i}.png" for i in range(45)]
    once, twice = FeatureStore(tmp_path / "once"), FeatureStore(tmp_path / "twice")
    views = {"eval": ["dense", "pooled"], "flip": ["pooled"]}
    encode(tower, images, [Wanted(paths, views)], once)
    encode(tower, images, [Wanted(paths[7:12], {"eval": ["dense"]})], twice)
    encode(tower, images, [Wanted(paths[::-2], views)], twice)
    encode(tower, images, [Wanted(paths, views)], twice)
    for view, taps in views.items():
        for tap in taps:
            key = keys(tower, images)(tap, view)
            assert once.read(key, paths).tobytes() == twice.read(key, paths).tobytes()
