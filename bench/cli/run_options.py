"""This module holds the options of ``bench run`` with their help, in the groups that the help shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import complete
from bench.names import KEEP_STATES, PROTOCOLS

WHAT = "What to measure"
WHERE = "Files and folders"
PLAN = "Plan and earlier results"
MACHINE = "Machine"

Suite = Annotated[
    str,
    typer.Option(
        help="Measure what this suite lists: a name of `bench list suites` or a TOML file. The other "
        "options of this group replace parts of it.",
        rich_help_panel=WHAT,
        autocompletion=complete.suites,
    ),
]
Methods = Annotated[
    str | None,
    typer.Option(
        help="Methods, as in zero-shot,safe. `bench list methods` shows all.",
        rich_help_panel=WHAT,
        autocompletion=complete.methods,
    ),
]
Datasets = Annotated[
    str | None,
    typer.Option(
        help="Datasets, as in digits,./pets: names of `bench list datasets`, image folders, TOML files.",
        rich_help_panel=WHAT,
        autocompletion=complete.datasets,
    ),
]
Shots = Annotated[
    str | None,
    typer.Option(
        help="Numbers of training images per class, as in 1,4,16; with --folds: all.", rich_help_panel=WHAT
    ),
]
Folds = Annotated[
    int | None,
    typer.Option(
        help="Cut all labelled images into so many folds, as in 5. Every fold is tested once, by a fit on "
        "all images of the others. The number of the fold takes the place of the seed.",
        rich_help_panel=WHAT,
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(help="Seeds, as in 1,2,3. Every seed draws other training images.", rich_help_panel=WHAT),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        help="CLIP models, as in pocket-rn,RN50; also ARCH/TAG as open_clip names them, or ARCH@FILE with "
        "your own weights (default: the suite's for embedded datasets, else RN50).",
        rich_help_panel=WHAT,
        autocompletion=complete.backbones,
    ),
]
Prompts = Annotated[
    str | None,
    typer.Option(
        help="Prompt sets for every method, as in hand,cupl (default: each method's own).",
        rich_help_panel=WHAT,
        autocompletion=complete.prompts,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        help="Training budget: paper or quick (default: quick for the pocket models, else paper).",
        rich_help_panel=WHAT,
        autocompletion=complete.presets,
    ),
]
Protocol = Annotated[
    str,
    typer.Option(
        help=f"What chooses hyper-parameters: {', '.join(PROTOCOLS[:-1])} or {PROTOCOLS[-1]}.",
        rich_help_panel=WHAT,
        autocompletion=complete.protocols,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Set a method's setting, as in safe.lr=0.001. Give the option again to set more.",
        rich_help_panel=WHAT,
        autocompletion=complete.settings,
    ),
]
Sweep = Annotated[
    list[str] | None,
    typer.Option(
        help="Measure several values of a setting, as in safe.beta=0:1:0.1 (start:stop:step) or "
        "safe.beta=0.5,0.7. Give the option again to sweep more.",
        rich_help_panel=WHAT,
        autocompletion=complete.settings,
    ),
]
Targets = Annotated[
    bool | None,
    typer.Option(
        help="Evaluate on a dataset's shifted test sets too (default: as the suite says).",
        rich_help_panel=WHAT,
    ),
]
Plugin = Annotated[
    list[Path] | None,
    typer.Option(
        help="Python file with a method of your own. Give the option again to load more.",
        rich_help_panel=WHAT,
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(envvar="BENCH_DATA", help="Folder that holds the datasets' folders.", rich_help_panel=WHERE),
]
PromptDir = Annotated[
    Path | None,
    typer.Option(help="Folder of CuPL or CaFo sentence files.", rich_help_panel=WHERE),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        help="Folder of stored features (default: $BENCH_CACHE, else the user's cache).",
        rich_help_panel=WHERE,
    ),
]
Results = Annotated[Path, typer.Option(help="Folder to write the records to.", rich_help_panel=WHERE)]
KeepStates = Annotated[
    str,
    typer.Option(
        help=f"Which fitted tensors stay on disk: {', '.join(KEEP_STATES[:-1])} or {KEEP_STATES[-1]}. "
        "needed keeps those that other fits build on.",
        rich_help_panel=WHERE,
        autocompletion=complete.keep_states,
    ),
]
KeepLogits = Annotated[
    bool,
    typer.Option(
        "--keep-logits",
        help="Keep the logits of all classes of every test image too, in half precision.",
        rich_help_panel=WHERE,
    ),
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad",
        help="Leave out classes of your own folders that cannot be used, instead of refusing.",
        rich_help_panel=WHERE,
    ),
]
MaxPixels = Annotated[
    str | None,
    typer.Option(
        help="Refuse images with more pixels than this, as in 500M (default: as many as fit into half "
        "of the memory).",
        rich_help_panel=WHERE,
    ),
]
AllowTorchscript = Annotated[
    bool,
    typer.Option(
        "--allow-torchscript",
        help="Load TorchScript weights. They can run any code, so trust their source.",
        rich_help_panel=WHERE,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the plan and run nothing.", rich_help_panel=PLAN),
]
Why = Annotated[
    bool,
    typer.Option(
        "--why",
        help="With --dry-run: say for every cell why it is to do, and which methods changed since.",
        rich_help_panel=PLAN,
    ),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Run again what is already recorded.", rich_help_panel=PLAN)
]
FreshDevice = Annotated[
    bool,
    typer.Option(
        "--fresh-device",
        help="Run again what was recorded on another kind of device (CPU or GPU).",
        rich_help_panel=PLAN,
    ),
]
TimeBudget = Annotated[
    float | None,
    typer.Option(
        help="Minutes after which no new cell starts. A cell still running after another tenth of that "
        "time (at least 30 seconds) is stopped. The same command goes on later.",
        rich_help_panel=PLAN,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda or cuda:N. auto takes a GPU where there is one.",
        rich_help_panel=MACHINE,
        autocompletion=complete.devices,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="Precision of the image tower: fp32, fp16, bf16, or auto, the fastest that agrees with fp32.",
        rich_help_panel=MACHINE,
        autocompletion=complete.run_precisions,
    ),
]
Executor = Annotated[
    str,
    typer.Option(
        help="local: processes of this machine. ray: a Ray cluster.",
        rich_help_panel=MACHINE,
        autocompletion=complete.executors,
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        help="With --executor ray: address of a running cluster (default: start a local one).",
        rich_help_panel=MACHINE,
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number of processes that fit side by side (default: one per GPU; on a CPU 1 to 4, "
        "by cores and amount of work).",
        rich_help_panel=MACHINE,
    ),
]
Join = Annotated[
    bool | None,
    typer.Option(
        help="Train a method's seeds and shots together (default: only on a GPU).",
        rich_help_panel=MACHINE,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Number of processes that decode images (default: chosen by device, cores and amount of work).",
        min=0,
        rich_help_panel=MACHINE,
    ),
]
DenseCache = Annotated[
    bool,
    typer.Option(
        help="Store the dense features of test images on disk, or compute them whenever needed.",
        rich_help_panel=MACHINE,
    ),
]
