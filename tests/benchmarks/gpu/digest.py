"""Tables of what a folder of findings holds, as Markdown: for the digest of a run and for docs/speed.md."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.gpu.steps import STEPS
from tests.benchmarks.gpu.watch import read


def write(out: Path) -> str:
    """Put digest.md beside the findings; its text: how each step ended, then the tables."""
    text = f"{outcomes(out)}\n{tables(out)}"
    (out / "digest.md").write_text(text, encoding="utf-8")
    return text


def outcomes(out: Path) -> str:
    """How each step ended, and why."""
    rows = []
    for step in STEPS:
        known = read(out, step.name)
        if known:
            seconds = f"{known['seconds']:.0f} s" if known.get("seconds") else ""
            beside = f"ran beside {', '.join(known['beside'])}" if known.get("beside") else ""
            why = "; ".join(filter(None, (known.get("error"), beside)))
            rows.append((step.name, step.title, known.get("outcome", ""), seconds, why))
    return table(("step", "what", "outcome", "took", "notes"), rows)


def tables(out: Path) -> str:
    """The findings: a paragraph that says where, then a table of each kind for which there is something."""
    found = {step.name: read(out, step.name).get("found") or {} for step in STEPS}
    parts = [where(found["machine"])]
    for title, made in (
        ("What the device does at the most", _ceilings(found["ceilings"])),
        ("Training SAFE's pooling head", _safe(found["safe"], found["lanes"])),
        ("A replica step of every method", _methods(out / "methods.csv")),
        ("The paper's grid, projected", _hours(found["hours"])),
        ("Encoding: images a second", _encoding(found["images"], found["files"])),
        ("A check on validation", _validation(found["validation"])),
        ("The text tower of learned prompts, recorded", _text(found["text"])),
        ("How many times faster", _ratios(found["ratios"])),
        ("What holds besides", _besides(found)),
    ):
        if made:
            parts.append(f"### {title}\n\n{made}")
    return "\n".join(parts)


def where(machine: dict[str, Any]) -> str:
    """One line: the device, versions, commit, day."""
    if not machine:
        return "Nothing is known of the machine.\n"
    words = [machine.get("device"), machine.get("processor"), f"torch {machine.get('torch')}"]
    words += [f"commit {machine.get('commit')}", machine.get("day")]
    tiny = " Sizes are tiny: the figures say nothing." if machine.get("sizes") == "tiny" else ""
    return f"Measured on {', '.join(str(w) for w in dict.fromkeys(words) if w)}.{tiny}\n"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; numbers in three digits. Empty without rows."""
    lines = ["| " + " | ".join(_cell(c) for c in row) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *lines]) + "\n"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "" if value is None else str(value).replace("|", "/")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


CEILINGS = {
    "fp32_tflops": "products in single precision, TFLOP/s",
    "bf16_tflops": "products in bfloat16, TFLOP/s",
    "copy_GBps": "copies on the device, GB/s read and written",
    "pinned_to_device_GBps": "to the device from pinned memory, GB/s",
    "pageable_to_device_GBps": "to the device from pageable memory, GB/s",
    "device_to_pinned_GBps": "from the device to pinned memory, GB/s",
    "device_to_pageable_GBps": "from the device to pageable memory, GB/s",
    "launch_us": "one small operation launched, µs",
    "launch_in_a_graph_us": "one small operation in a CUDA graph, µs",
}


def _ceilings(found: dict[str, Any]) -> str:
    return table(("what", "measured"), [(CEILINGS[k], found[k]) for k in CEILINGS if k in found])


def _safe(found: dict[str, Any], lanes: dict[str, Any]) -> str:
    rows = []
    for name, r in [*found.items(), *([("RN50, three seeds joined", lanes["joined"])] if lanes else [])]:
        if "replica_steps_per_s" in r:
            plain = r.get("times_plain")
            share, times = _percent(r.get("share_of_roofline")), f"{plain:.0f}x" if plain else ""
            launched = r.get("launched_replica_steps_per_s")
            rows.append((name, r["replica_steps_per_s"], launched, times, share, r.get("peak_GB")))
    head = ("size, replicas", "replica steps a second", "launched, not recorded", "against a plain loop")
    return table((*head, "of the memory roofline", "peak GB"), rows)


def _methods(file: Path) -> str:
    if not file.exists():
        return ""
    with file.open(newline="", encoding="utf-8") as lines:
        found = list(csv.DictReader(lines))
    rows = [
        (
            r["what"],
            r["method"],
            r["fits"],
            r["prepare_s"],
            r["fit_s"],
            r["configurations"],
            r["us_a_step"],
            r["not recorded because"] or {"1": "yes", "0": "no"}.get(r["recorded"], ""),
        )
        for r in found
    ]
    head = ("size", "method", "fits", "prepare, s", "fit, s", "grid points", "µs a replica step", "recorded")
    return table(head, rows)


def _hours(found: dict[str, Any]) -> str:
    if "methods" not in found:
        return ""
    rows: list[Sequence[Any]] = [*found["methods"].items(), ("encoding", found.get("encoding"))]
    if "safe, steps alone" in found:
        rows.append(("(safe, 36 replicas together, no validation)", found["safe, steps alone"]))
    for name, title in (("main", "zero-shot, Tip-Adapter-F, SAFE, SAFE-A"), ("table 1", "all of Table I")):
        if name in found:
            lacks = ", ".join(found[name]["without"])
            said = f"goal: under {found[name]['goal']:g}" + (f"; without {lacks}" if lacks else "")
            rows.append((f"{title} ({said})", found[name]["hours"]))
    return table(("RN50, eleven datasets, five shot counts, three seeds", "hours, projected"), rows)


def _encoding(images: dict[str, Any], files: dict[str, Any]) -> str:
    rows: list[tuple[str, Any]] = []
    for name, r in images.items():
        rows += [(f"{name}, {how}", value) for how, value in r.items()] if isinstance(r, dict) else []
    cores = f" of {files['cores']} cores" if files.get("cores") else ""
    for name, r in files.items():
        if isinstance(r, dict) and "passes_per_s" in r:
            how = next((f", {r[k]} decoding {k}{cores}" for k in ("processes", "threads") if k in r), "")
            rows.append((f"RN50 from {r['images']:,} JPEG files{how}: {name}", r["passes_per_s"]))
    return table(("what", "images a second"), rows)


def _validation(found: dict[str, Any]) -> str:
    rows = [
        (k, r.get("images"), r.get("replicas"), 1e3 * r["seconds"], _percent(r.get("share_of_a_fit")))
        for k, r in found.items()
    ]
    return table(("classes, slices", "images", "replicas", "ms a check", "of a published fit's time"), rows)


def _text(found: dict[str, Any]) -> str:
    rows = [
        (k, f"{r['ratio']:.2f}x", f"{r['launched_ratio']:.2f}x" if "launched_ratio" in r else "")
        for k, r in found.items()
    ]
    return table(("prompts, context vectors", "faster", "launched, not recorded"), rows)


def _ratios(found: dict[str, Any]) -> str:
    rows = [
        (r["name"], r["baseline"], f"{r['ratio']:.3g}x", r.get("note", ""))
        for section in found.values()
        for r in section
    ]
    return table(("what", "against", "ratio", "notes"), rows)


def _besides(found: dict[str, dict[str, Any]]) -> str:
    said: list[tuple[str, Callable[[], str]]] = [
        ("tests", lambda: _tests(found["tests"])),
        ("both devices", lambda: _agreement(found["compare"])),
        ("a capped card", lambda: _capped(found["capped"])),
        ("memory after many fits", lambda: _memory(found["many-fits"])),
        ("a recording that failed", lambda: _recording(found["recording"])),
        ("kernels", lambda: _kernels(found["profile"])),
        ("two processes", lambda: _jobs(found["jobs"])),
        ("every method", lambda: _every({**found["every"]}, {**found["every-vit"]})),
        ("start", lambda: _start(found["start"])),
    ]
    rows = []
    for title, words in said:
        try:
            text = words()
        except (KeyError, TypeError, IndexError):  # a step that was stopped half way
            text = "stopped before it knew"
        if text:
            rows.append((title, text))
    return table(("what", "found"), rows)


def _tests(f: dict[str, Any]) -> str:
    return f"{f['passed']} passed, {len(f['failed'])} failed, {f['skipped']} skipped" if f else ""


def _agreement(f: dict[str, Any]) -> str:
    if not f:
        return ""
    return (
        f"{f['compared']} of {f['cells']} cells compared: accuracies differ by {f['mean_difference']:.2f} "
        f"points in the mean and {f['largest_difference']:.1f} at the most; {f['judged_otherwise']:,} of "
        f"{f['images']:,} images are judged otherwise"
    )


def _capped(f: dict[str, Any]) -> str:
    if not f:
        return ""
    free, capped, same = f["free"], f["capped"], f["agreement"]
    return (
        f"waves: {capped['waves'] or 1} in {capped['seconds']} s, free {free['waves'] or 1} in "
        f"{free['seconds']} s; {same['judged_otherwise']} of {same['images']:,} predictions judged otherwise"
    )


def _memory(f: dict[str, Any]) -> str:
    if not f or not f["after"]:
        return ""
    before, after = f["before"]["allocated_GB"], f["after"]["allocated_GB"]
    return f"{before:.2f} GB allocated before {f.get('fits', 40)} fits, {after:.2f} after"


def _recording(f: dict[str, Any]) -> str:
    if "after" not in f:
        return str(f.get("recorded", ""))
    return "; ".join(f"{k}: {'yes' if good else 'no'}" for k, good in f["after"].items())


def _kernels(f: dict[str, Any]) -> str:
    return "; ".join(
        f"{k}: {r['kernels_a_step']:.0f} a step, none runs {_percent(r['idle_share'])} of the time"
        for k, r in f.items()
    )


def _jobs(f: dict[str, Any]) -> str:
    return f"{f['jobs 2']['seconds']} s with two, {f['jobs 1']['seconds']} s with one" if f else ""


def _every(*found: dict[str, Any]) -> str:
    parts = [f for f in found if f]
    if not parts:
        return ""
    failed = sum(len(f.get("failed", ())) for f in parts)
    methods = sorted({m for f in parts for m in f["methods"]})
    slow = sorted(
        {m for f in parts for m, r in f["methods"].items() if r["eager"] or r["recorded"] < r["fits"]}
    )
    trained = f"; not recorded in every fit, or without steps: {', '.join(slow)}" if slow else ""
    return f"{len(methods)} methods ran, {failed} cells failed{trained}"


def _start(f: dict[str, Any]) -> str:
    if not f:
        return ""
    parts = ", ".join(f"{p['part']} {p['seconds']:.1f} s" for p in f["parts"]["parts"])
    return f"{f['parts']['seconds']:.1f} s to the end of the second cell: {parts}"
