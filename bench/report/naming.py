"""Name the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bench.names import RECIPE


class Namer:
    """A function that names rows by their method and by whatever else tells its rows apart."""

    def __init__(self, frame: pd.DataFrame) -> None:
        by_method = (
            frame.groupby(["method", "backbone"])[["prompts", "preset"]].nunique().groupby("method").max()
        )
        self.several = {c: by_method[c].gt(1).to_dict() for c in ("prompts", "preset")}
        self.titles = dict(zip(frame["method"], frame["title"], strict=True))
        self.labelled = set(frame[frame["label_prompts"].astype(bool)]["prompts"])

    def __call__(self, key: Mapping[str, Any], variant: bool = True) -> tuple[str, str]:
        """Return two texts that name a row with these coordinates.

        The first is for people, with titles and warnings. The second is for machine-readable forms, with
        plain names.
        """
        method, prompts = str(key["method"]), str(key["prompts"])
        seen, plain = [], []
        if prompts in self.labelled:
            seen.append(f"{prompts}: uses labels")
            plain.append(prompts)
        elif self.several["prompts"].get(method):
            seen.append(prompts)
            plain.append(prompts)
        rest = [str(key["preset"])] if self.several["preset"].get(method) else []
        rest += [str(key["protocol"])] if key["protocol"] != RECIPE else []
        rest += [str(key["variant"])] if variant and key["variant"] else []
        return _joined(self.titles.get(method, method), [*seen, *rest]), _joined(method, [*plain, *rest])


def _joined(name: str, extra: list[str]) -> str:
    if not extra:
        return name
    return f"{name[:-1]}, {', '.join(extra)})" if name.endswith(")") else f"{name} ({', '.join(extra)})"
