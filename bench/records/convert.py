"""Convert records of schema 1 to schema 2: the same numbers under the keys that a run would give them today.

Schema 1 did not record the preprocessing of images, so it is looked up by the backbone's name. If the weights
of the backbone are not on this machine, the record can still be read, but no run gives its key. So a run
makes that cell again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

import msgspec

from bench.errors import BenchError
from bench.names import canonical
from bench.records.codec import NO_JSON, Unreadable, sealed
from bench.records.keys import EvaluationKey, FitKey
from bench.records.types import EvaluationRecord, Failure, FitRecord, Record
from bench.typed import said

SCHEMA = 1
UNKNOWN = "unknown"
# In schema 1 the fit that a prompt set was made with had this role, and this method always made it.
_TUNED, _TUNED_BY = "prompts", "linear-probe-sgd-zs"
_SENTENCES = "cupl"  # the one prompt set of schema 1 that had no templates

T = TypeVar("T")
Raw = dict[str, Any]
Fetch = Callable[[Mapping[str, Any], str, str], "Raw | None"]


def fields_of(data: bytes | msgspec.Raw) -> Raw:
    """Return the fields of a record of schema 1. Raises Unreadable if the bytes are no JSON object."""
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except NO_JSON as error:
        raise Unreadable(f"not a record of schema {SCHEMA} ({said(error)})") from error


class Converter:
    """The converter of one results folder's records.

    ``fetch(cell, method, key)`` returns the old record of the fit that a method made for a cell under this
    old key, or None.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._keys: dict[str, str] = {}

    def record(self, raw: Raw) -> Record:
        """Return one record in the present schema. Raises Unreadable if it is not one of schema 1."""
        try:
            if raw["status"] == "failed":
                return sealed(self._failure(raw))
            return sealed(self._fit(raw) if raw["kind"] == "fit" else self._evaluation(raw))
        except (KeyError, TypeError, ValueError, AttributeError, *NO_JSON) as error:
            if isinstance(error, Unreadable):
                raise
            raise Unreadable(f"not a record of schema {SCHEMA} ({type(error).__name__}: {error})") from error

    def key(self, cell: Mapping[str, Any], method: str, old: str) -> str:
        """Return the new key of a fit, given its old key.

        A fit whose record is gone keeps the old key, which no run asks for.
        """
        if old not in self._keys:
            raw = self._fetch(cell, method, old)
            self._keys[old] = (
                self._parts(raw).digest() if raw is not None and "recipe" in raw.get("parts", {}) else old
            )
        return self._keys[old]

    def _parts(self, raw: Raw) -> FitKey:
        parts, cell = raw["parts"], raw["cell"]
        reads = _reads(parts)
        return FitKey(
            method=parts.get("method", cell["method"]),
            version=parts["version"],
            settings=parts.get("settings", {}),
            recipe=parts.get("recipe", {}),
            dataset=parts.get("dataset", ""),
            draw=parts.get("draw", ""),
            shots=cell["shots"],
            seed=cell["seed"],
            weights=parts.get("weights", ""),
            preprocessing=_preprocessing(cell["backbone"]),
            prompts=parts.get("prompts", ""),
            protocol=cell["protocol"],
            encode_dtype=parts.get("encode_dtype", "float32"),
            after={role: self.key(cell, reads[role], key) for role, key in parts.get("after", {}).items()},
            source=_source(cell["method"], raw.get("provenance", {}).get("source", "")),
            sentences=self._sentences(cell, parts),
        )

    def _sentences(self, cell: Raw, parts: Raw) -> bool:
        """Return whether the texts were not made from templates.

        A prompt set that was made with a fit has the texts of that fit.
        """
        if below := parts.get("after", {}).get(_TUNED):
            made_with = self._fetch(cell, _TUNED_BY, below)
            return made_with is not None and made_with["cell"]["prompts"] == _SENTENCES
        return bool(cell["prompts"] == _SENTENCES)

    def _fit(self, raw: Raw) -> FitRecord:
        parts = self._parts(raw)
        same = (
            "cell",
            "title",
            "changed",
            "values",
            "step",
            "val_accuracy",
            "curve",
            "budget",
            "seconds",
            "peak_memory",
            "notes",
            "prompts_use_labels",
            "prompts_also",
            "has_state",
        )
        plain: Raw = {k: raw[k] for k in same if k in raw}
        more = {"key": parts.digest(), "parts": msgspec.to_builtins(parts), "reads": _reads(raw["parts"])}
        return _typed("fit", {**plain, **more, "provenance": _provenance(raw)}, FitRecord)

    def _evaluation(self, raw: Raw) -> EvaluationRecord:
        cell = raw["cell"]
        fit = self.key(cell, cell["method"], raw["fit"])
        own = self._fetch(cell, cell["method"], raw["fit"]) or {}
        # Schema 1 kept the values that were used. The key holds None for a value that the fit chose.
        asked = {
            k: None if k in own.get("values", {}) and k not in raw["changed"] else v
            for k, v in raw["values"].items()
        }
        parts = EvaluationKey(fit=fit, target=raw["target_digest"], values=asked)
        plain: Raw = {
            k: raw[k]
            for k in ("cell", "target", "n", "top1", "top5", "values", "changed", "seconds")
            if k in raw
        }
        more = {"key": parts.digest(), "fit": fit, "parts": msgspec.to_builtins(parts)}
        return _typed("evaluation", {**plain, **more, "provenance": _provenance(raw)}, EvaluationRecord)

    def _failure(self, raw: Raw) -> Failure:
        cell, of = raw["cell"], raw["kind"]
        plain: Raw = {
            k: raw[k]
            for k in ("cell", "error", "traceback", "title", "target", "values", "changed")
            if k in raw
        }
        if of == "fit":
            parts = self._parts(raw)
            plain |= {"key": parts.digest(), "fit": parts.digest(), "parts": msgspec.to_builtins(parts)}
        else:
            plain |= {"key": raw["key"], "fit": self.key(cell, cell["method"], raw["fit"])}
        # Schema 1 did not record the stage that failed, so the most likely one is taken.
        plain |= {"of": of, "stage": "fit" if of == "fit" else "evaluate", "provenance": _provenance(raw)}
        return _typed("failure", plain, Failure)


def _typed(kind: str, plain: Raw, type_: type[T]) -> T:
    return msgspec.convert({"kind": kind, "schema": 2, **plain}, type_)


def _reads(parts: Mapping[str, Any]) -> dict[str, str]:
    """Return the methods of the fits that a fit builds on, by role.

    In schema 1 a role was the method's name, except for the fit that a prompt set was made with.
    """
    return {role: _TUNED_BY if role == _TUNED else role for role in parts.get("after", {})}


def _provenance(raw: Raw) -> Raw:
    """Return the provenance, with the time of writing (ms) as its order, because schema 1 had none."""
    said = dict(raw.get("provenance", {}))
    if written := said.get("written"):
        said["order"] = max(0, round(datetime.fromisoformat(written).timestamp() * 1000))
    return said


@lru_cache
def _preprocessing(backbone: str) -> str:
    from bench.clip.backbone import resolve
    from bench.features.key import prepared

    try:
        return prepared(resolve(backbone, allow_torchscript=True))
    except BenchError:
        return UNKNOWN


@lru_cache
def _is_builtin(method: str) -> bool:
    """Return whether the program itself has a method of that name."""
    from bench.registry import builtin

    return method in {
        m.name for m in builtin().methods.values() if not builtin().digests.get(canonical(m.name))
    }


def _source(method: str, recorded: str) -> str:
    """Return what stands for a method's source in the key, or "" for the program's own methods.

    The digest of schema 1 covered only one file of a plugin, so the result equals no digest of today, and a
    run makes the plugin's cells again.
    """
    return "" if _is_builtin(method) else f"schema {SCHEMA}: {recorded}"
