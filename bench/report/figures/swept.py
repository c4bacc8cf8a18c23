"""Find sweeps of a setting in the records: the value in each record, the rows, and the command for more.

The rows of a sweep differ in one setting. Rows whose variant names the setting have another value than the
method's own. The plain rows have the method's own value, which their records say.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from bench.errors import BenchError
from bench.names import canonical, nearest
from bench.records import store
from bench.records.types import EvaluationRecord, Failure
from bench.report import select
from bench.report.figures.scale import text
from bench.report.select import Choice

Kind = Literal["fit", "inference"]


class Setting(NamedTuple):
    """A setting by its name, and the method it belongs to (None: each method that is shown)."""

    name: str
    owner: str | None = None

    def key(self, method: str) -> str:
        """Return the name by which variants of ``method`` call the setting."""
        return self.name if self.owner in (None, method) else f"{self.owner}.{self.name}"

    def of(self, method: str) -> str:
        """Return the method to which the setting belongs where ``method`` is shown."""
        return self.owner or method


def setting_of(named: str, frame: pd.DataFrame) -> Setting:
    """Read ``lr`` or ``safe.lr`` as a setting. Raises BenchError for a method without records."""
    owner, dot, name = named.strip().rpartition(".")
    if not dot:
        return Setting(name.replace("-", "_"))
    known = {canonical(m): m for m in frame["method"].unique()}
    if canonical(owner) not in known:
        raise BenchError(f"--setting {named}: no records of method '{owner}'{nearest(owner, known.values())}")
    return Setting(name.replace("-", "_"), known[canonical(owner)])


def rows(frame: pd.DataFrame, choice: Choice, setting: Setting) -> tuple[pd.DataFrame, list[str]]:
    """Return the evaluations of a sweep on each dataset's own test images, failed ones too, and notes.

    There are two more columns: ``value`` is that of the setting (None if the method chooses it or searches
    several), and ``plain`` says whether it is the method's own. Raises BenchError, with the command that
    makes a sweep, if nothing is swept.
    """
    own, notes = select.for_figures(frame[frame["target"] == frame["dataset"]], choice)
    key = own["method"].map(setting.key) + "="
    names = [v.startswith(k) and ", " not in v for v, k in zip(own["variant"], key, strict=True)]
    swept = own[names]
    if not len(swept):
        raise BenchError(
            f"no records of a sweep of {setting.name}; {advice(own, choice, setting)}; "
            f"these records have sweeps of: {', '.join(there(own)) or 'nothing'}"
        )
    select.one_backbone(swept)
    for method, some in swept.groupby("method"):
        select.require_one(some, "prompts", f"several prompt sets have a sweep of {method}.{setting.name}")
    place = ["method", "dataset", "shots", "prompts"]
    here = pd.MultiIndex.from_frame(own[place]).isin(pd.MultiIndex.from_frame(swept[place]))
    plain = own[here & (own["variant"] == "")]
    more = [f", {k}" in f", {v}" and ", " in v for v, k in zip(own["variant"], key, strict=True)]
    if any(more):
        others = sorted(own[more]["variant"].unique())
        notes = [*notes, f"Left out: rows that change more than {setting.name} ({'; '.join(others)})."]
    both = pd.concat([plain.assign(plain=True), swept.assign(plain=False)])
    held = [values(p, setting.of(m)) for p, m in zip(both["path"], both["method"], strict=True)]
    known = [setting.name in some for some in held]
    if not all(known):
        notes = [*notes, f"Left out: records that do not say what {setting.name} was."]
    both["value"] = [one(some.get(setting.name)) for some in held]
    both["value"] = both["value"].astype(object).where(both["value"].notna(), None)
    both["text"] = ["" if v is None else text(v) for v in both["value"]]
    # A value may be there twice: somebody set it before it became the method's own.
    both = both[known].drop_duplicates([*place, "seed", "text"])
    return both.reset_index(drop=True), notes


def there(frame: pd.DataFrame) -> list[str]:
    """List ``method.setting`` for all settings that were swept alone."""
    pairs = frame[["method", "variant"]].drop_duplicates().itertuples(index=False)
    alone = ((m, v.partition("=")[0]) for m, v in pairs if v and ", " not in v)
    return sorted({k if "." in k else f"{m}.{k}" for m, k in alone if k != "precision"})


def values(path: str, owner: str) -> dict[str, Any]:
    """Return all settings of a method by name, as the record at ``path`` and the fits behind it have them.

    An inference-time value that the fit chose by validation is None.
    """
    file = Path(path)
    record = store.read(file)
    fit = next((f for f in store.behind(file, record) if f.cell.method == owner), None) if record else None
    early = dict(fit.parts.settings) if fit else {}
    if not isinstance(record, EvaluationRecord | Failure) or record.cell.method != owner:
        return early
    if isinstance(record, Failure):
        return {**(record.parts.settings if record.parts else early), **record.values}
    return {**early, **{k: record.parts.values.get(k, v) for k, v in record.values.items()}}


def one(value: Any) -> Any:
    """Return a setting's value if it has exactly one, as ``0.1`` or the grid ``[0.1]`` does; else None."""
    if isinstance(value, list | tuple):
        return value[0] if len(value) == 1 else None
    return None if isinstance(value, dict) else value


def kind(frame: pd.DataFrame, choice: Choice, setting: Setting) -> tuple[str, Kind, Any]:
    """Return the first method that has the setting, when the setting acts, and its value in a plain row.

    If no plain row has it, the value is that of any row. The methods looked at are the setting's owner, the
    chosen ones, or all. Raises BenchError, with the nearest name, if none of them has the setting.
    """
    asked = {canonical(m) for m in ([setting.owner] if setting.owner else choice.methods)}
    good = frame[frame["status"] == "ok"].sort_values("variant", kind="stable")  # plain rows first
    if asked:
        good = good[good["method"].map(canonical).isin(asked)]
    known: dict[str, None] = {}
    for method, some in good.groupby("method"):
        late = some[[setting.name in held for held in some["values"]]]
        row = (late if len(late) else some).iloc[0]
        mine = values(row["path"], str(method))
        if setting.name in mine:
            acts: Kind = "inference" if setting.name in row["values"] else "fit"
            return str(method), acts, mine[setting.name]
        known |= dict.fromkeys(mine)
    who = setting.owner or (" or ".join(choice.methods) if choice.methods else "no recorded method")
    has = "has a setting" if who == "no recorded method" else "has no setting"
    raise BenchError(f"{who} {has} '{setting.name}'{nearest(setting.name, known)}")


def advice(frame: pd.DataFrame, choice: Choice, setting: Setting) -> str:
    """Name the command that makes a sweep, and what it costs: a value of a trained setting costs a fit."""
    method, acts, value = kind(frame, choice, setting)
    cost = "without fitting again" if acts == "inference" else "with a fit for every value"
    sweep = shlex.join(["--methods", method, "--sweep", f"{method}.{setting.name}={_others(value)}"])
    return f"`{select.run_command(choice, sweep)}` makes one, {cost}"


def _others(value: Any) -> str:
    """Return values to try beside a method's own one, joined by commas."""
    if isinstance(value, list | tuple) and len(value) > 1:
        return ",".join(map(str, value))
    own = one(value)
    if isinstance(own, bool):
        return "true,false"
    if isinstance(own, int) and own > 1:
        return f"{own // 2},{own},{2 * own}"
    if isinstance(own, float) and own > 0:
        return ",".join(map(text, (own / 10, own, own * 10)))
    return f"{own},OTHER" if isinstance(own, str) else "0,1,2"
