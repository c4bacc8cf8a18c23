"""What is measured, in order of value, and how long each step may take."""

from __future__ import annotations

from dataclasses import dataclass

from bench.errors import BenchError
from bench.names import nearest

HERE = "tests.benchmarks.gpu"


@dataclass(frozen=True)
class Step:
    """One step: ``call`` names its generator of (key, value), as ``module:function``.

    ``limit``: seconds on a GPU, its process's start included. ``beside``: runs in the background, on half of
    the cores, until the end or a step that is ``alone`` or ``closing`` waits for it. ``alone``: nothing may
    run beside it, for its times depend on every core. ``closing``: reads what others left, so time is kept
    for it.
    """

    name: str
    limit: int
    call: str
    title: str
    beside: bool = False
    alone: bool = False
    closing: bool = False


def _step(name: str, limit: int, call: str, title: str, **more: bool) -> Step:
    return Step(name, limit, f"{HERE}.{call}", title, **more)


STEPS = (
    _step("machine", 40, "ceilings:machine", "device, versions, commit"),
    _step("ceilings", 40, "ceilings:ceilings", "products, copies, transfers, launches"),
    _step("safe", 90, "training:safe", "SAFE's step by replicas, plain loop, roofline"),
    _step("files", 60, "encoding:files", "JPEG files to stored features", alone=True),
    _step("images", 60, "encoding:images", "the image tower by layout and precision", alone=True),
    _step("processor", 300, "cells:processor", "the small grid on the processor", beside=True),
    _step("tests", 120, "cells:tests", "the tests marked cuda"),
    _step("grid", 100, "cells:grid", "the small grid on this device"),
    _step("methods", 150, "cells:methods", "every method's replica step at RN50's size"),
    _step("validation", 60, "training:validation", "a validation check by slice size"),
    _step("methods-vit", 110, "cells:methods_vit", "the costly methods' replica step at ViT-B/16's size"),
    _step("lanes", 40, "training:lanes", "three seeds of SAFE's grid joined"),
    _step("capped", 100, "cells:capped", "a card of which 5 GB may be used"),
    _step("start", 90, "cells:start", "what a start costs, part by part", alone=True),
    _step("every", 125, "cells:every", "every method of the suites once"),
    _step("every-vit", 90, "cells:every_vit", "what ViTs have of their own"),
    _step("many-fits", 40, "training:many_fits", "memory after forty fits"),
    _step("recording", 30, "ceilings:broken_recording", "the process after a recording that failed"),
    _step("profile", 60, "training:profile", "kernels of a step, and how long none runs"),
    _step("text", 60, "training:text", "the packed text tower against open_clip's", alone=True),
    _step("ratios", 90, "training:ratio_rows", "ratios to the sequential path and plain loops", alone=True),
    _step("bounds", 60, "bounds:bounds", "short runs recorded, lanes scored in one call: where it pays"),
    _step("jobs", 90, "cells:jobs", "two processes on one device against one", alone=True),
    _step("compare", 30, "cells:compare", "both devices' small grids compared", closing=True),
    _step("hours", 30, "hours:hours", "projected hours of the paper's grid", closing=True),
)


def chosen(only: str) -> list[Step]:
    """The steps named, in their order; all without a name. Raises BenchError for a name that none has.

    Where the grids are compared, both are run.
    """
    words = [w.strip() for w in only.split(",") if w.strip()]
    names = [step.name for step in STEPS]
    for word in words:
        if word not in names:
            raise BenchError(f"no step '{word}'{nearest(word, names)}; --list shows all")
    if "compare" in words:
        words += ["processor", "grid"]
    return [step for step in STEPS if not words or step.name in {*words, "machine"}]
