"""From a weights file to an open_clip model: reading without running code, QuickGELU guard, name fitting."""

from __future__ import annotations

import pickle
from contextlib import suppress
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from bench.clip import weights
from bench.clip.download import network
from bench.clip.spec import BackboneSpec
from bench.errors import BenchError

State = dict[str, Tensor]
_ARCHIVE_EXTRAS = ("input_resolution", "context_length", "vocab_size")


def build(spec: BackboneSpec) -> Any:
    """The open_clip model that a spec describes, weights loaded, fp32, on the CPU.

    Raises BenchError where the file is not the one that the spec was made of.
    """
    if weights.content_hash(spec.file) != spec.weights_hash:
        with suppress(OSError):
            weights.memo_of(spec.file).unlink(missing_ok=True)
        raise BenchError(
            f"{spec.file} was changed or damaged since it was hashed (SHA-256 {spec.weights_hash[:12]}): "
            "fetch or copy it again, or run again to use it as other weights"
        )
    state, from_archive = read(spec)
    refuse_exact_gelu(spec, state, from_archive)
    model = _model(spec)
    _fill(model, state, spec)
    return model


def read(spec: BackboneSpec) -> tuple[State, bool]:
    """A file's tensors in fp32, and whether it is laid out like OpenAI's TorchScript archives.

    PyTorch files are read with ``weights_only``: anything but tensors and plain containers is a BenchError.
    """
    if spec.file.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(spec.file)
    elif spec.torchscript:
        # torch leaves ``jit.load`` untyped, and nothing else reads such a file
        archive = torch.jit.load(str(spec.file), map_location="cpu")  # type: ignore[no-untyped-call]
        state = dict(archive.state_dict())
    else:
        try:
            content = torch.load(spec.file, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            reason = str(error).splitlines()[0]
            raise BenchError(
                f"{spec.file} is not a plain state dict ({reason}): save it as safetensors"
            ) from error
        state = content.get("state_dict", content) if isinstance(content, dict) else {}
    state = {name.removeprefix("module."): t for name, t in state.items() if isinstance(t, Tensor)}
    extras = [state.pop(name, None) for name in _ARCHIVE_EXTRAS]
    if "token_embedding.rows" in state:
        state["token_embedding.weight"] = _whole_table(state, spec)
    return state, all(extra is not None for extra in extras)


def _whole_table(state: State, spec: BackboneSpec) -> Tensor:
    """Token rows that training touched, put into a table whose other rows are zero."""
    rows, ids = state.pop("token_embedding.rows"), state.pop("token_embedding.ids")
    table = rows.new_zeros(spec.config["text_cfg"]["vocab_size"], rows.shape[1])
    table[ids.long()] = rows
    return table


def refuse_exact_gelu(spec: BackboneSpec, state: State, from_archive: bool = False) -> None:
    """Raise BenchError if OpenAI's weights are about to be built with exact GELU (protocol 1.4, 21.14).

    They are known by their tag, by the archive's extra entries, by the hashes OpenAI publishes, or by their
    format: linear weights hold half-precision values while LayerNorms and embeddings do not (protocol 2.4).
    """
    if spec.quick_gelu:
        return
    if spec.pretrained == "openai" or from_archive or _published(spec.weights_hash) or _half_released(state):
        base = spec.arch.removesuffix("-quickgelu")
        raise BenchError(
            f"{spec.name} looks like OpenAI's weights, which need QuickGELU "
            f"(exact GELU spoils the text tower silently): name the architecture {base}-quickgelu"
        )


def _published(weights_hash: str) -> bool:
    from open_clip import pretrained

    urls = (
        pretrained.get_pretrained_url(m, "openai") for m in pretrained.list_pretrained_models_by_tag("openai")
    )
    return weights_hash in {url.split("/")[-2] for url in urls if "/" in url}


def _half_released(state: State) -> bool:
    def is_half(t: Tensor) -> bool:
        return bool((t.half().to(t.dtype) == t).all())

    linear = [
        t
        for n, t in state.items()
        if n.startswith("transformer.resblocks.") and n.endswith(".mlp.c_fc.weight")
    ]
    full = [state[n] for n in ("token_embedding.weight", "positional_embedding") if n in state]
    return bool(linear and full) and all(map(is_half, linear)) and not any(map(is_half, full))


def _model(spec: BackboneSpec) -> Any:
    """An open_clip model of the spec's architecture with fresh weights; nothing is fetched."""
    from open_clip import coca_model, model

    config = deepcopy(spec.config)
    custom = config.pop("custom_text", False) or bool(config["text_cfg"].get("hf_model_name"))
    kind = coca_model.CoCa if "multimodal_cfg" in config else model.CustomTextCLIP if custom else model.CLIP
    if config["vision_cfg"].get("timm_model_name"):
        config["vision_cfg"]["timm_model_pretrained"] = False
    if config["text_cfg"].get("hf_model_name"):
        config["text_cfg"]["hf_model_pretrained"] = False
    if not config["text_cfg"].get("hf_model_name"):
        return kind(**(config | {"quick_gelu": spec.quick_gelu}))
    try:  # these text towers are described by files of the hub's cache
        with network(False):
            return kind(**(config | {"quick_gelu": spec.quick_gelu}))
    except (ImportError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BenchError(
            f"cannot build the text tower of {spec.name} ({reason}): pip install transformers"
        ) from error


def _fill(model: Any, state: State, spec: BackboneSpec) -> None:
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    wanted = model.state_dict()
    for name in ("logit_scale", "logit_bias"):
        if name in state and name in wanted:
            state[name] = state[name].reshape(wanted[name].shape)
    state.pop("text.transformer.embeddings.position_ids", None)
    wrong = sorted(n for n in wanted.keys() | state.keys() if n not in wanted or n not in state)
    wrong += sorted(n for n in wanted.keys() & state.keys() if wanted[n].shape != state[n].shape)
    if wrong:
        raise BenchError(
            f"{spec.file} does not fit the architecture {spec.arch} "
            f"({len(wrong)} tensors differ, first {wrong[0]}): "
            "name the architecture it was trained with, ARCH@FILE"
        )
    model.load_state_dict(state)
