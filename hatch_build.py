"""Where the wheel keeps what lies beside the package in a checkout: methods, datasets, committed results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

INSIDE = ("methods", "datasets", "results/paper", "results/pocket", "results/baselines")


class Layout(BuildHookInterface[Any]):
    """Maps each folder of ``INSIDE`` to ``bench/<folder>``; an editable install reads them where they are."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        folders = [folder for folder in INSIDE if (Path(self.root) / folder).is_dir()]
        build_data["force_include"].update({folder: f"bench/{folder}" for folder in folders})
