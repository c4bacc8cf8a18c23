"""Few-shot CLIP adaptation under one leak-free protocol.

This package holds the program and its public Python functions. ``bench.measure(methods="safe",
datasets="digits", shots=1)`` measures methods and returns a DataFrame of results; ``bench.load_results()``
returns one of results on disk. ``bench.table(frame, "1").text("md")`` and ``bench.compare(frame, "safe",
"tip-adapter-f").verdict`` read such a frame. ``bench.load("shop.clf").predict(paths)`` uses a saved
classifier. ``bench.Method`` is the base class of methods. docs/python.md shows each of them. Importing this
package imports nothing else: a name loads its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# No name here is a module's: importing ``bench.report``, say, makes that package an attribute of ``bench``.
_FACE = {
    "Method": ("bench.interface", "Method"),
    "check": ("bench.report.gate.check", "check"),
    "compare": ("bench.report.compare", "compare"),
    "html_report": ("bench.report.html.page", "report"),
    "load": ("bench.classifier.model", "load"),
    "load_results": ("bench.report.frame", "load_results"),
    "measure": ("bench.cli.measure", "measure"),
    "plot": ("bench.report.figures.plot", "plot"),
    "table": ("bench.report.tables", "table"),
}
__all__ = sorted(_FACE)


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module 'bench' has no attribute '{name}'")
    module, attribute = _FACE[name]
    return getattr(import_module(module), attribute)
