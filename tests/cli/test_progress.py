"""What a run shows while it works: stages, their rates, and a time left that has a basis."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytest
from rich.console import Console

from bench.cli import steps as steps_module
from bench.cli.pace import Pace
from bench.cli.progress import Board, clock_text
from bench.cli.steps import Steps
from bench.plan.estimate import Guess
from bench.run.outcome import Ended, Now


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def guesses(recorded: bool = False) -> Mapping[str, Guess]:
    """Two quick cells and four that cost a hundred times as much."""
    quick = {f"q{i}": Guess(("rn", "zero-shot", 0), 0.1, recorded) for i in range(2)}
    return quick | {f"s{i}": Guess(("rn", "safe", 1), 10.0, recorded) for i in range(4)}


def test_quick_cells_do_not_promise_that_the_others_are_quick() -> None:
    """Four slow cells are left, guessed at ten seconds each: the quick ones were no longer than guessed."""
    pace = Pace(guesses(), images=0)
    assert pace.seconds() is None
    pace.cell("q0", None)
    pace.cell("q1", 0.1)
    assert pace.seconds() is None, "a tenth of a second of forty says nothing"
    pace.cell("s0", 20.0)
    assert pace.seconds() == pytest.approx(60.0), "three more as long as the one that was seen"
    pace.begin(0, 3)
    assert pace.seconds() == pytest.approx(20.0)


def test_what_was_seen_scales_what_was_not() -> None:
    """A kind that was never seen takes as much longer than guessed as the others did, nearly."""
    pace = Pace({**guesses(), "other": Guess(("rn", "coop", 1), 10.0, False)}, images=0)
    for key in ("q0", "q1", "s0", "s1", "s2", "s3"):
        pace.cell(key, 3 * pace.left[key].seconds)
    assert pace.seconds() == pytest.approx(10 * (120.6 + 2.51) / (40.2 + 2.51))


def test_earlier_records_are_a_basis_from_the_start() -> None:
    assert Pace(guesses(recorded=True), images=0).seconds() == pytest.approx(40.2)
    assert Pace(guesses(recorded=True), images=100).seconds() is None, "but for images, whose rate is unknown"
    assert Pace(guesses(recorded=True), images=None).seconds() is None


def test_the_first_batch_is_not_charged_and_images_count_by_their_rate() -> None:
    clock = Clock()
    pace = Pace(guesses(recorded=True), images=1000, clock=clock)
    pace.image(0)
    clock.now = 30.0  # the model is loaded
    pace.image(50)
    assert pace.rate() is None and pace.seconds() is None
    clock.now = 31.0
    pace.image(150)
    assert pace.rate() == pytest.approx(100.0) and pace.images == 850
    assert pace.seconds() == pytest.approx(8.5 + 40.2)
    clock.now = 500.0  # cells were done meanwhile
    pace.image(0)
    pace.image(50)
    assert pace.rate() == pytest.approx(100.0) and pace.images == 800


def test_a_failed_cell_is_left_no_more() -> None:
    pace = Pace(guesses(recorded=True), images=0)
    for key in guesses():
        pace.cell(key, None)
    assert pace.seconds() == 0.0


def test_lines_of_a_pipe(capsys: Any) -> None:
    """A line a cell; of a stage with images one as it starts, and one for ten seconds and a tenth of it."""
    clock = Clock()
    board = Board(6, Pace(guesses(), images=8100, clock=clock), clock)
    board.watch(Now("encoding emoji", 0, 8100))
    for second in range(1, 63):
        clock.now = float(second)
        board.watch(Now("encoding emoji", min(8100, 130 * second), 8100))
    board.watch(Now("fitting safe emoji"))
    clock.now = 70.0
    board.advance(Ended("s0", "safe emoji", 8.0), 1, 6)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "encoding emoji: 0 of 8,100 images  (0:00)"
    assert lines[1] == "encoding emoji: 1,300 of 8,100 images, 130 a second  (0:10)"
    assert len(lines) == 1 + 6 + 1 + 1
    assert lines[-2].startswith("fitting safe emoji  (1:02")
    # three more of eight seconds, and two of a tenth of a second by their guess
    assert lines[-1] == "[1/6] safe emoji  (1:10, about 0:24 left)"


def test_a_budget_ends_the_run_before_its_cells_do(capsys: Any) -> None:
    """What is left is what there is time for; less than that is said as without a budget."""
    clock = Clock()
    board = Board(6, Pace(guesses(recorded=True), images=0, clock=clock), clock, deadline=30.0)
    board.advance(Ended("q0", "zero-shot emoji", None), 1, 6)
    clock.now = 12.0
    assert board.left() == "about 0:18 left", "of forty seconds of cells"
    for cell in ("s0", "s1", "s2"):
        board.advance(Ended(cell, "safe emoji", None), 2, 6)
    assert board.left() == "about 0:10 left"
    clock.now = 31.0
    assert board.left() == "about 0:00 left"


def test_many_small_steps_have_a_line_every_ten_seconds(capsys: Any) -> None:
    clock = Clock()
    steps = Steps("emoji", clock)
    for second in range(35):
        clock.now = float(second)
        steps.count("opening images" if second < 25 else "hashing files", second, 100)
    assert capsys.readouterr().err.splitlines() == [
        "emoji: opening images [10/100]  (10 s)",
        "emoji: opening images [20/100]  (20 s)",
        "emoji: hashing files [30/100]  (30 s)",
    ]


def test_a_slow_stage_is_heard_of_every_minute(capsys: Any) -> None:
    clock = Clock()
    board = Board(1, Pace({}, images=10**6, clock=clock), clock)
    for second in range(600):
        clock.now = float(second)
        board.watch(Now("encoding imagenet", second, 10**6))
    assert len(capsys.readouterr().err.splitlines()) == 10


def test_a_terminal_shows_the_stage_and_counts_the_time_down() -> None:
    clock = Clock()
    board = Board(4, Pace(guesses(recorded=True), images=8100, clock=clock), clock)
    board.live = True
    screen = io.StringIO()
    board.progress.live.console = Console(file=screen, width=100, force_terminal=True, highlight=False)

    def shown() -> str:
        console = Console(file=io.StringIO(), width=80)
        console.print(board.progress.get_renderable())
        text: str = console.file.getvalue()  # type: ignore[attr-defined]
        return text

    assert "starting" in shown() and "0/4 cells" in shown() and "left" not in shown()
    for second, done in ((0, 0), (1, 100), (2, 1240)):
        clock.now = float(second)
        board.watch(Now("encoding emoji", done, 8100))
    assert "encoding emoji: 1,240 of 8,100 …" in shown(), "what is long gives way to the numbers"
    assert "about 0:46 left" in shown(), "6,860 images at 1,140 a second, and 40.2 seconds of cells"
    clock.now = 12.0
    assert "about 0:36 left" in shown()
    board.advance(Ended("q0", "zero-shot emoji", None), 1, 4)
    assert "1/4 cells" in shown() and "zero-shot emoji" in shown()
    assert "zero-shot" not in screen.getvalue(), "the bar shows it, no line of its own"
    failed = f"FAILED safe emoji (fit); its record: results/{'long/' * 20}1.json"
    board.advance(Ended("q1", failed, None, failed=True), 2, 4)
    assert f"[2/4] {failed}" in screen.getvalue(), "a line stays, with a path that can be copied"


def test_times_in_words() -> None:
    assert [clock_text(s) for s in (7.9, 750, 3750)] == ["0:07", "12:30", "1:02:30"]


def test_what_was_learnt_of_an_estimate_that_is_far_off_is_said_once() -> None:
    """Six cells at a tenth of what the plan says, of which three are done: 15 of 300 seconds."""
    cells = {f"s{i}": Guess(("rn", "safe", i), 50.0, False) for i in range(6)}
    pace = Pace(cells, expected=300.0, jobs=1)
    for key in ("s0", "s1"):
        pace.cell(key, 5.0)
        assert pace.learnt() is None, "too few cells"
    pace.cell("s2", 5.0)
    learnt = pace.learnt()
    assert learnt is not None and (learnt.cells, learnt.spent, learnt.told) == (3, 15.0, 300.0)
    scale = (15 + 15) / (150 + 15)  # the guesses count for a twentieth of all work
    assert learnt.left == pytest.approx(150 * scale) and learnt.whole == pytest.approx(15 + 150 * scale)
    pace.cell("s3", 5.0)
    assert pace.learnt() is None, "once"


@pytest.mark.parametrize(("told", "seconds"), [(300.0, 50.0), (300.0, 20.0), (None, 5.0), (6.0, 5.0)])
def test_nothing_is_said_of_an_estimate_that_holds(told: float | None, seconds: float) -> None:
    """It is right, off by less than a factor of three or by less than half a minute, or there is none."""
    pace = Pace({f"s{i}": Guess(("rn", "safe", 1), 50.0, True) for i in range(6)}, expected=told)
    for i in range(6):
        pace.cell(f"s{i}", seconds)
        assert pace.learnt() is None


def test_what_was_learnt_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Two at a time: half of what is left by the clock."""
    clock = Clock()
    cells = {f"s{i}": Guess(("rn", "safe", 1), 50.0, False) for i in range(40)}
    board = Board(40, Pace(cells, expected=2000.0, clock=clock), clock)
    board.pace.begin(0, 2)
    for i in range(20):
        board.advance(Ended(f"s{i}", f"safe {i}", 4.0), i + 1, 40)
    said = [line for line in capsys.readouterr().err.splitlines() if "the plan says" in line]
    assert said == [
        "the first 3 cells took 12 seconds: fitting and evaluating take about 3 minutes, 0.08 times what the "
        "plan says; about 74 seconds of it left"
    ]


def test_every_stage_before_the_first_cell_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Also with records to judge from nothing is said of the time left before the images are counted."""
    clock = Clock()
    board = Board(2, Pace(guesses(recorded=True), clock=clock), clock)
    for at, what in enumerate(("loading PyTorch", "loading pocket-rn", "loading pocket-rn", "fitting q0")):
        clock.now = float(at)
        board.watch(Now(what))
    board.advance(Ended("q0", "q0 is done"), 1, 2)
    board.watch(Now("fitting q1"))
    assert capsys.readouterr().err.splitlines() == [
        "loading PyTorch  (0:00)",
        "loading pocket-rn  (0:01)",
        "fitting q0  (0:03)",
        "[1/2] q0 is done  (0:03)",
    ]


def test_planning_says_its_first_dataset_unless_all_is_done_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Steps("planning") as steps:
        steps.soon("set 0", 0, 1)
    assert steps.waits is not None
    steps.waits.join(10)
    assert capsys.readouterr().err == ""

    monkeypatch.setattr(steps_module, "_SOON", 0.0)
    clock = Clock()
    with Steps("planning", clock) as steps:
        for i, at in enumerate((0.0, 4.0, 11.0, 12.0)):
            clock.now = at
            steps.soon(f"set {i}", i, 4)
            if steps.waits is not None:
                steps.waits.join(10)
    assert capsys.readouterr().err.splitlines() == [
        "planning: set 0 [0/4]  (0 s)",
        "planning: set 2 [2/4]  (11 s)",
    ]
