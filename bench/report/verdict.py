"""Put a comparison of two methods into words: its first sentence, and the notes below its table."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from bench.metrics import Metric
from bench.names import counted
from bench.report import measures
from bench.report.command import command
from bench.report.gaps import imported_note, mend_import
from bench.report.measures import ACCURACY
from bench.report.pairs import Averaged, Lost, Pair
from bench.report.select import Choice, run_command
from bench.report.wording import cells_text, kept_of, listed, seeds_list, shots_list
from bench.stats import Interval

DRAWS, DATASETS = "draws", "datasets"  # what a comparison treats as a sample, as ``--over`` names it
ENOUGH = 6  # datasets; with fewer, no two-sided signed-rank p can be below 0.05
FOUND = "in at least 4 of 5 repetitions"  # the power of "resolves"
_MENDS = (  # by how many of the two methods were imported
    "`bench run` with --seeds 1,2,3 mends that",
    "`bench run` with --seeds 1,2,3 and an import of these seeds mend that",
    "an import of other seeds mends that",
)


@dataclass(frozen=True)
class Mends:
    """What mends records that do not keep what a metric needs.

    ``choice``: what is compared, for commands. ``methods``: the names of the two methods, without settings.
    ``imported``: which of the two were imported.
    """

    choice: Choice
    methods: tuple[str, str]
    imported: tuple[bool, bool]

    def sentence(self, names: tuple[str, str], sides: Sequence[int], metric: Metric) -> str:
        """Return the mend of the records of these sides (0, 1) in sentences."""
        ran = tuple(dict.fromkeys(self.methods[i] for i in sides if not self.imported[i]))
        came = [names[i] for i in sides if self.imported[i]]
        said = []
        if ran:
            command_ = run_command(replace(self.choice, methods=ran), "--fresh")
            said.append(f"`{command_}` makes the records of {' and '.join(ran)} again with it.")
        if came:
            said.append(f"{' and '.join(came)}: {mend_import(metric)}")
        return " ".join(said)


def none(metric: Metric) -> str:
    """Return what "resolves" says where not even the largest difference would be found so often: ``>100``."""
    return f">{metric.scale * measures.widest(metric):g}"


def sentence(
    names: tuple[str, str],
    shots: Sequence[int],
    cells: Sequence[Averaged],
    whole: Interval,
    resolves: float | None,
    over: str,
    metric: Metric = ACCURACY,
) -> str:
    """Say which method is better, by how much, how sure that is, and what the statement does not cover.

    A metric other than accuracy is named first, with its direction. Example: "By negative log-likelihood
    (lower is better), safe is better than coop by 0.120 nats on emoji ...".
    """
    first, second = names
    once = " with one seed" if all(c.one_draw for c in cells) else ""
    over_shots = f"over {shots_list(shots)}"
    if len(cells) > 1:
        at = f"on average over {len(cells)} datasets"
        at += f" and {over_shots}{once}" if len(shots) > 1 else f" at {shots_list(shots)}{once}"
    elif len(shots) > 1:
        at = f"on {cells[0].dataset}{once}, averaged {over_shots}"
    else:
        at = f"on {cells[0].dataset} at {shots_list(shots)}{once}"
    if whole.low > 0 or whole.high < 0:
        word = "better" if (whole.estimate > 0) != metric.lower_is_better else "worse"
        says = f"{first} is {word} than {second} by {measures.size(metric, whole.estimate)} {at}"
    else:
        gap = measures.with_unit(metric, measures.gap(metric, whole.estimate))
        says = f"{first} and {second} cannot be told apart {at}: the difference is {gap}"
    by = "" if metric is ACCURACY else f"By {metric.title} ({measures.direction(metric)}), "
    reach = _reach(cells, resolves, over, metric)
    return f"{by}{says} (95 % interval {measures.span(metric, whole)}). {reach} {_limits(cells, over)}"


def _reach(cells: Sequence[Averaged], resolves: float | None, over: str, metric: Metric) -> str:
    """Say which difference could be found, or why that is not known."""
    images = counted(sum(c.gaps.shape[1] for c in cells), "test image")
    fewest, most = min(len(c.seeds) for c in cells), max(len(c.seeds) for c in cells)
    seeds = f"{counted(fewest, 'seed')} and " if fewest == most else f"{fewest} to {most} seeds and "
    with_ = f"With {seeds if any(c.draws for c in cells) else ''}{images}"
    if over == DATASETS:
        with_ = f"With {len(cells)} datasets"
    if resolves is not None:
        beyond = resolves > measures.widest(metric)
        which = "no true difference" if beyond else f"a true difference of {measures.size(metric, resolves)}"
        return f"{with_}, {which} would be found {FOUND}, tested at the 5 % level."
    if most == 1:
        return f"{with_}, the interval covers other test images, but no other draws of the support images."
    return f"{with_}, the interval does not cover other draws of the support images on every dataset."


def _limits(cells: Sequence[Averaged], over: str) -> str:
    if over == DATASETS:
        own = "draws and test images" if any(c.draws for c in cells) else "test images"
        return (
            f"The interval covers other datasets of the same kind as these {len(cells)}, with {own} of their "
            "own. This says nothing about datasets of another kind."
        )
    return "This says nothing about other datasets or other classes."


def notes(
    names: tuple[str, str],
    shared: Sequence[Pair],
    cells: Sequence[Averaged],
    ranks: Mapping[int, float],
    lost: Sequence[Lost],
    over: str,
    beyond: bool,
    mends: Mends,
    metric: Metric = ACCURACY,
) -> list[str]:
    """Write the lines below the table: what each column means, and what was left out.

    ``ranks``: the Wilcoxon p-values by number of shots. ``beyond``: whether "resolves" is ``none`` in a row.
    """
    unit = f"in {measures.points(metric)}, " if measures.points(metric) else ""
    # McNemar's test compares right and wrong answers, so it has no column beside another metric.
    mcnemar = ["'McNemar' is the mid-p of McNemar's test for each seed on its own."]
    said = [
        *_on_metric(metric),
        f"Differences and 95 % intervals are {unit}paired by seed and image. {_covers(shared, over)}",
        *_on_averages(over),
        *_on_tests(shared, over, none(metric) if beyond else "", _MENDS[sum(mends.imported)]),
        *(mcnemar if metric is ACCURACY else []),
    ]
    if ranks:
        few = len({p.dataset for p in shared}) < ENOUGH
        hint = f" With fewer than {ENOUGH} datasets it cannot be below 0.05." if few else ""
        said.append(
            "'Wilcoxon' is the p-value of the signed ranks over datasets, "
            f"with Holm's correction over the numbers of shots.{hint}"
        )
    if _unbalanced(shared):
        said.append(
            "The first sentence averages each dataset over the numbers of shots that both methods have "
            "there, on the seeds that it has at all of them; --shots compares at one number."
        )
    dropped = [name for name in dict.fromkeys(p.dataset for p in shared) if name not in _names(cells)]
    if dropped:
        said.append(
            f"The first sentence leaves out {listed(dropped, len(dropped))}: "
            "no seed was run there at every number of shots."
        )
    said += [*_without_partner(names, shared), *_mute(names, shared, mends, metric)]
    said += left_out(names, lost, mends, metric)
    return [*said, *imported_note([name for name, made in zip(names, mends.imported, strict=True) if made])]


def _on_metric(metric: Metric) -> list[str]:
    """Say what numbers of another metric than accuracy are, and how it is defined."""
    if metric is ACCURACY:
        return []
    said = f"{measures.of_metric(metric)}; {measures.direction(metric)}."
    return [" ".join([said, *measures.conventions(metric)])]


def _names(cells: Sequence[Averaged]) -> set[str]:
    return {cell.dataset for cell in cells}


def _covers(shared: Sequence[Pair], over: str) -> str:
    """Say what the intervals cover; over datasets this is said of single datasets only."""
    they = "Those of single datasets" if over == DATASETS else "They"
    if not any(p.shots for p in shared):
        return f"{they} cover other test images of these datasets."
    single = [p.one_draw for p in shared]
    if all(single):
        return f"{they} cover other test images of these datasets, but no other draws of the support images."
    rest = " Rows with one seed cover other test images alone." if any(single) else ""
    return f"{they} cover other draws of the support images and other test images of these datasets.{rest}"


def _on_averages(over: str) -> list[str]:
    if over != DATASETS:
        return []
    return [
        "Averages treat the datasets as a sample: their interval, 'p' and 'resolves' come from Student's t "
        "over the differences of the datasets."
    ]


def _on_tests(shared: Sequence[Pair], over: str, beyond: str, mend: str) -> list[str]:
    """Explain p and "resolves", and say where they are missing. ``mend``: what brings more seeds."""
    hint = f" '{beyond}' means that no difference would be found so often." if beyond else ""
    several = len({p.dataset for p in shared}) > 1
    corrected = (
        ", with Holm's correction over the datasets of one number of shots; the average of each number of "
        "shots is tested alone"
    )
    size = "as many datasets, seeds and images" if over == DATASETS else "as many seeds and images"
    level = "It is tested as 'p' is: at the 5 % level" + (
        ", with Holm's correction on single datasets." if several else "."
    )
    single = [(p.dataset, p.shots) for p in shared if p.one_draw]
    said = []
    if len(single) < len(shared) or over == DATASETS:
        said = [
            f"'p' tests the difference{corrected if several else ''}.",
            f"'resolves' is the smallest true difference that would be found {FOUND} with {size}. "
            f"{level}{hint}",
        ]
    if single:
        if len(single) < len(shared):
            where = f" on {cells_text(single)}"
            where += "" if over == DATASETS else ", nor for an average that contains it"
        else:
            where = " on single datasets" if over == DATASETS else ""
        said.append(
            f"There is no 'p' and no 'resolves'{where}, because one seed says nothing about other draws of "
            f"the support images; {mend}."
        )
    return said


def _without_partner(names: tuple[str, str], shared: Sequence[Pair]) -> list[str]:
    """Name the seeds that only one of the two methods has, by method and seeds."""
    cells: dict[tuple[int, tuple[int, ...]], list[tuple[str, int]]] = {}
    for pair in shared:
        for side, seeds in enumerate(pair.alone):
            if seeds:
                cells.setdefault((side, seeds), []).append((pair.dataset, pair.shots))
    return [
        f"Left out: {seeds_list(seeds)} of {names[side]} on {cells_text(where)}, because {names[1 - side]} "
        f"has no such seed{'' if len(seeds) == 1 else 's'} there."
        for (side, seeds), where in sorted(cells.items())
    ]


def _mute(names: tuple[str, str], shared: Sequence[Pair], mends: Mends, metric: Metric) -> list[str]:
    """Name the seeds that are left out because their records do not keep what the metric needs."""
    cells: dict[tuple[int, tuple[int, ...], tuple[int, ...]], list[tuple[str, int]]] = {}
    for pair in shared:
        for side, seeds in enumerate(pair.mute):
            if seeds:
                every = tuple(sorted({*pair.seeds, *pair.mute[0], *pair.mute[1]}))
                cells.setdefault((side, seeds, every), []).append((pair.dataset, pair.shots))
    if not cells:
        return []
    said = [
        f"{names[side]} on {cells_text(where)}: {kept_of(seeds, every)} what the {metric.title} needs"
        for (side, seeds, every), where in sorted(cells.items())
    ]
    sides = sorted({side for side, _, _ in cells})
    return [f"{'; '.join(said)}. {mends.sentence(names, sides, metric)}"]


def _unbalanced(shared: Sequence[Pair]) -> bool:
    """Return whether datasets differ in their numbers of shots, or numbers of shots in their seeds."""
    shots = {name: {p.shots for p in shared if p.dataset == name} for name in {p.dataset for p in shared}}
    several = len({p.shots for p in shared}) > 1
    return len(set(map(frozenset, shots.values()))) > 1 or (several and len({p.seeds for p in shared}) > 1)


def left_out(
    names: tuple[str, str], lost: Sequence[Lost], mends: Mends, metric: Metric = ACCURACY
) -> list[str]:
    """Say which cells are not compared, and why; nothing if all are."""
    reasons: dict[str, list[tuple[str, int]]] = {}
    for one in lost:
        reasons.setdefault(_reason(names, one, metric), []).append((one.dataset, one.shots))
    if not reasons:
        return []
    said = f"Left out: {'; '.join(f'{cells_text(cells)} ({why})' for why, cells in reasons.items())}."
    sides = [side for side in (0, 1) if any(one.untold[side] for one in lost)]
    return [f"{said} {mends.sentence(names, sides, metric)}" if sides else said]


def _reason(names: tuple[str, str], lost: Lost, metric: Metric) -> str:
    if any(lost.untold):
        whose = [name for name, has in zip(names, lost.untold, strict=True) if has]
        return f"records of {' and '.join(whose)} do not keep what the {metric.title} needs of every image"
    if lost.other_seeds:
        return f"no seed in common: {_own_seeds(names, lost)}"
    failed = [name for name, has in zip(names, lost.failed, strict=True) if has]
    absent = [
        name for name, has, bad in zip(names, lost.seeds, lost.failed, strict=True) if not has and not bad
    ]
    if len(absent) == len(names):
        return "neither has records there"
    said = [
        f"{' and '.join(failed)} failed" if failed else "",
        *(f"{name} has no records" for name in absent),
    ]
    return ", ".join(filter(None, said))


def _own_seeds(names: tuple[str, str], lost: Lost) -> str:
    return ", ".join(f"{name} has {seeds_list(seeds)}" for name, seeds in zip(names, lost.seeds, strict=True))


def nothing_in_common(
    names: tuple[str, str],
    sides: Sequence[pd.DataFrame],
    numbers: Sequence[Sequence[int]],
    lost: Sequence[Lost],
    mends: Mends,
    metric: Metric = ACCURACY,
) -> str:
    """Say why no cell of two methods can be compared, and the mend."""
    first, second = names
    if all(numbers) and not set(numbers[0]) & set(numbers[1]):
        return (
            f"{first} and {second} have no number of shots in common: {first} has {shots_list(numbers[0])}, "
            f"{second} has {shots_list(numbers[1])}; run one of them with the --shots of the other"
        )
    if lost and all(any(one.untold) for one in lost):
        whose = [i for i in (0, 1) if any(one.untold[i] for one in lost)]
        return (
            f"{first} and {second} cannot be compared by the {metric.title}: the records of "
            f"{' and '.join(names[i] for i in whose)} do not keep what it needs of every image. "
            f"{mends.sentence(names, whose, metric)} Or choose another --metric"
        )
    apart = next((one for one in lost if one.other_seeds), None)
    if apart is None:
        return (
            f"{first} and {second} have no complete cell in common; run the missing ones with `bench run`. "
            f"{' '.join(left_out(names, lost, mends, metric))}"
        )
    alike = [one for one in lost if one.other_seeds and one.seeds == apart.seeds]
    where = cells_text((one.dataset, one.shots) for one in alike)
    said = (
        f"{first} and {second} have no seed in common on {where}: {_own_seeds(names, apart)}; "
        f"{_mend(names, sides, alike, mends.choice.results)}"
    )
    return ". ".join([said, *left_out(names, [one for one in lost if one not in alike], mends, metric)])


def _mend(
    names: tuple[str, str], sides: Sequence[pd.DataFrame], lost: Sequence[Lost], results: Sequence[str]
) -> str:
    """Name the command that runs the method of fewer seeds with the seeds of the other one."""
    late = 0 if len(lost[0].seeds[0]) < len(lost[0].seeds[1]) else 1
    rows = sides[late][sides[late]["dataset"].isin([one.dataset for one in lost])]
    row = rows.iloc[0]
    lists = {
        "methods": [row["method"]],
        "datasets": sorted({one.dataset for one in lost}),
        "shots": sorted({one.shots for one in lost}),
        "seeds": lost[0].seeds[1 - late],
        **{column: [row[column]] for column in ("backbone", "prompts", "protocol", "preset")},
    }
    flags = " ".join(f"--{name} {shlex.quote(','.join(map(str, values)))}" for name, values in lists.items())
    settings = f" with the settings of {names[late]} (--set)" if row["variant"] else ""
    return f"run `{command('run', flags, results)}`{settings}"
