"""A damaged or foreign file that a pre-training run would go on from is refused with one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import save_file

from bench.errors import BenchError
from bench.pocket import checkpoint
from bench.pocket.weights import load_into

GOOD = {"asked": "{}", "numpy": "{}", "done": "3", "spent": "1.5"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"asked": "{"}, "asked: "),
        ({"asked": "[]"}, "asked: Expected `object`"),
        ({"asked": '{"seed": 1}'}, "belongs to a run with"),
        ({"numpy": "3"}, "numpy: Expected `object`"),
        ({"done": "-1"}, "done: "),
        ({"done": "1.5"}, "done: Expected `int`"),
        ({"spent": "NaN"}, "spent: "),
        ({"spent": '"1"'}, "spent: Expected `float`"),
        ({"done": None}, "required field `done`"),
        ({}, "is not a saved training state"),  # and no tensors
    ],
)
def test_where_a_run_stood(changes: dict[str, str | None], says: str, tmp_path: Path) -> None:
    file = tmp_path / "x.resume.safetensors"
    facts = {k: v for k, v in (GOOD | changes).items() if v is not None}
    save_file({"a": torch.ones(1)}, file, facts)
    with pytest.raises(BenchError, match=says) as error:
        checkpoint.resume(file, cast(Any, torch.nn.Module()), {})
    assert "\n" not in str(error.value) and "x.resume.safetensors" in str(error.value)


def test_no_file_is_a_start_and_a_torn_one_is_told(tmp_path: Path) -> None:
    file = tmp_path / "x.resume.safetensors"
    assert checkpoint.resume(file, cast(Any, None), {}) == (0, 0.0)
    file.write_bytes(b"torn")
    with pytest.raises(BenchError, match="delete it to start anew"):
        checkpoint.resume(file, cast(Any, None), {})


def test_weights_to_go_on_from(tmp_path: Path) -> None:
    model = torch.nn.ModuleDict({"token_embedding": torch.nn.Embedding(2, 3)})
    ids_n, file = torch.arange(2), tmp_path / "x.safetensors"
    good = {"token_embedding.rows": torch.ones(1, 3), "token_embedding.ids": torch.ones(1, dtype=torch.int32)}
    save_file(good, file)
    assert load_into(model, ids_n, file) == 1
    for odd in ({"a": torch.ones(1)}, good | {"b": torch.ones(1)}):
        save_file(odd, file)
        with pytest.raises(BenchError, match=r"x.safetensors cannot be used as start weights"):
            load_into(model, ids_n, file)
    file.write_bytes(b"torn")
    with pytest.raises(BenchError, match=r"x.safetensors cannot be used as start weights"):
        load_into(model, ids_n, file)
