"""Where the wheel keeps what lies beside the package in a checkout: methods, datasets, committed results."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

INSIDE = ("methods", "datasets", "results/paper", "results/pocket", "results/baselines")


class Layout(BuildHookInterface[Any]):
    """Maps each folder of ``INSIDE`` to ``bench/<folder>``; an editable install reads them where they are.

    In a checkout ``bench/methods`` is a link to ``methods/``. A source archive does not hold it, so an
    editable install of one makes it.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            link = Path(self.root) / "bench" / "methods"
            if not os.path.lexists(link):
                link.symlink_to(Path("..", "methods"))
            return
        folders = [folder for folder in INSIDE if (Path(self.root) / folder).is_dir()]
        build_data["force_include"].update({folder: f"bench/{folder}" for folder in folders})
