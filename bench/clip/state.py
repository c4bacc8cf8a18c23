"""Turn a weights file into an open_clip model, without running code from the file.

Nothing in the file is trusted. What it holds is bounded by its size. The model that its configuration
describes is first laid out without memory and compared with the tensors. No number may be infinite, and
OpenAI's weights are never built with exact GELU.
"""

from __future__ import annotations

import re
from contextlib import suppress
from copy import deepcopy
from typing import Any
from warnings import catch_warnings

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bench.clip import deferred, weights
from bench.clip.download import network
from bench.clip.spec import BackboneSpec
from bench.errors import BenchError
from bench.names import shown

State = dict[str, Tensor]
_ARCHIVE_EXTRAS = ("input_resolution", "context_length", "vocab_size")
_ROWS, _IDS, _TABLE = "token_embedding.rows", "token_embedding.ids", "token_embedding.weight"
_BYTE_PAIRS = 49408  # tokens of OpenAI's vocabulary
_GLOBAL = re.compile(r"GLOBAL (\S+)")  # in torch's error: what a pickle wants to call
_FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}
_EIGHTHS = {torch.float8_e4m3fn, torch.float8_e5m2}
_SCALED = (Tensor.mul, Tensor.div, Tensor.__mul__, Tensor.__truediv__, Tensor.__rmul__)
_FILLED = (Tensor.normal_, torch.nn.init.normal_, Tensor.triu_)
_WHOLE = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}


def build(spec: BackboneSpec) -> Any:
    """Build the open_clip model that a spec describes, with its weights, in fp32, on the CPU.

    Raises BenchError if the file is not the one that the spec was made of, cannot be read, holds anything but
    finite numbers, or does not fit the architecture.
    """
    if weights.content_hash(spec.file) != spec.weights_hash:
        with suppress(OSError):
            weights.memo_of(spec.file).unlink(missing_ok=True)
        raise BenchError(
            f"{spec.file} was changed or damaged since it was hashed (SHA-256 {spec.weights_hash[:12]}): "
            "fetch or copy it again, or run again to use it as other weights"
        )
    state, from_archive = read(spec)
    _refuse_others(state, spec)
    state = _with_whole_table(state, spec)
    _refuse_infinite(state, spec)
    refuse_exact_gelu(spec, state, from_archive)
    model = _model(spec)
    model.load_state_dict(_renamed(model, state))
    return model


def read(spec: BackboneSpec) -> tuple[State, bool]:
    """Return a file's tensors as they are stored, and whether they are laid out as OpenAI's TorchScript
    archives.

    PyTorch files are read with ``weights_only``. Raises BenchError if a file holds anything but tensors and
    plain containers, or a tensor that takes more memory than the file can hold.
    """
    weights.regular(spec.file)
    try:
        content = _content(spec)
    except BenchError:
        raise
    except Exception as error:  # damaged and hostile files make the readers raise nearly every kind
        reason = _reason(error)
        raise BenchError(
            f"{spec.file} is not a plain state dict ({reason}): save it as safetensors"
        ) from error
    inner = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(inner, dict):
        raise BenchError(f"{spec.file} is not a plain state dict (it holds none): save it as safetensors")
    state = {
        name.removeprefix("module."): x
        for name, x in inner.items()
        if isinstance(name, str) and isinstance(x, Tensor)
    }
    for name, x in state.items():
        if x.layout is not torch.strided or x.dtype not in _FLOATS | _EIGHTHS | _WHOLE or x.is_meta:
            raise BenchError(
                f"{spec.file}: {shown(name)}: not a tensor of plain numbers ({x.dtype}, {x.layout}): save it "
                "as float32 or float16"
            )
    weights.refuse_swollen(spec.file, sum(x.numel() * x.element_size() for x in state.values()))
    extras = [state.pop(name, None) for name in _ARCHIVE_EXTRAS]
    return state, all(extra is not None for extra in extras)


def _content(spec: BackboneSpec) -> Any:
    """Return the whole content of the file by the reader of its format."""
    if spec.file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(spec.file)
    if spec.torchscript:  # ``resolve`` has refused such a file unless the user allowed it
        # torch gives ``jit.load`` no types, and nothing else reads such a file.
        archive = torch.jit.load(str(spec.file), map_location="cpu")  # type: ignore[no-untyped-call]
        return dict(archive.state_dict())
    with catch_warnings(action="ignore"):  # they are about how the file was written, which does not matter
        return torch.load(spec.file, map_location="cpu", weights_only=True)


def _reason(error: Exception) -> str:
    """Say in short what is wrong. Torch's own words end in advice on how to run what such a file asks for."""
    if found := _GLOBAL.search(str(error)):
        return shown(f"it holds more than tensors: {found[1]}")[:300]
    kind = type(error).__name__
    if kind == "UnpicklingError":
        return "damaged, or it holds more than tensors"
    words = (str(error).strip() or kind).splitlines()[0]
    if not isinstance(error, RuntimeError) and words != kind:
        words = f"{kind}: {words}"
    return shown(words)[:300]


def _with_whole_table(state: State, spec: BackboneSpec, device: str = "cpu") -> State:
    """Return the state with a whole token table, if the file has only the rows that training touched.

    The other rows are zero. On the device "meta" the table takes no memory. Raises BenchError if rows and ids
    do not belong together.
    """
    if _ROWS not in state:
        return state
    state = dict(state)
    rows, ids = state.pop(_ROWS), state.pop(_IDS, None)
    tokens = spec.config["text_cfg"].get("vocab_size", _BYTE_PAIRS)
    if tokens > _BYTE_PAIRS:
        raise BenchError(f"{spec.file}: {_ROWS}: only for OpenAI's {_BYTE_PAIRS} tokens, not {tokens}")
    if (
        ids is None
        or rows.ndim != 2
        or ids.shape != rows.shape[:1]
        or ids.is_floating_point()
        or len(set(ids.tolist())) != len(ids)
        or (len(ids) > 0 and not 0 <= int(ids.min()) <= int(ids.max()) < tokens)
    ):
        raise BenchError(f"{spec.file}: {_IDS}: must name another token for each row of {_ROWS}")
    state[_TABLE] = torch.zeros(tokens, rows.shape[1], dtype=rows.dtype, device=device)
    if device != "meta":
        state[_TABLE][ids.long()] = rows
    return state


def _refuse_infinite(state: State, spec: BackboneSpec) -> None:
    """Raise BenchError for the first tensor with a number that is not a number (NaN) or infinite."""
    for name, x in state.items():
        if not x.is_floating_point() or not x.numel():
            continue
        low, high = (x.float() if x.dtype in _EIGHTHS else x).aminmax()  # one NaN makes both NaN
        if not (low.isfinite() and high.isfinite()):
            raise BenchError(
                f"{spec.file}: {shown(name)}: holds numbers that are not finite, because the file is damaged "
                "or its training diverged: fetch or copy it again, or use other weights"
            )


def refuse_exact_gelu(spec: BackboneSpec, state: State, from_archive: bool = False) -> None:
    """Raise BenchError if OpenAI's weights are about to be built with exact GELU (protocol 1.4, 21.14).

    They are recognised by their tag, by the archive's extra entries, by the hashes that OpenAI publishes, or
    by their format: linear weights hold half-precision values, while LayerNorms and embeddings do not
    (protocol 2.4).
    """
    if spec.quick_gelu:
        return
    if spec.pretrained == "openai" or from_archive or _published(spec.weights_hash) or _half_released(state):
        base = spec.arch.removesuffix("-quickgelu")
        raise BenchError(
            f"{spec.name} looks like OpenAI's weights, which need QuickGELU "
            f"(exact GELU silently gives wrong text features): name the architecture {base}-quickgelu"
        )


def _published(weights_hash: str) -> bool:
    """Return whether OpenAI publishes weights of this hash."""
    pretrained = deferred.open_clip().pretrained
    urls = (
        pretrained.get_pretrained_url(m, "openai") for m in pretrained.list_pretrained_models_by_tag("openai")
    )
    return weights_hash in {url.split("/")[-2] for url in urls if "/" in url}


def _half_released(state: State) -> bool:
    """Return whether linear weights fit into half precision and embeddings do not, as in OpenAI's files."""

    def is_half(t: Tensor) -> bool:
        return bool((t.half().to(t.dtype) == t).all())

    linear = [
        t
        for n, t in state.items()
        if n.startswith("transformer.resblocks.") and n.endswith(".mlp.c_fc.weight")
    ]
    full = [state[n] for n in ("token_embedding.weight", "positional_embedding") if n in state]
    return bool(linear and full) and all(map(is_half, linear)) and not any(map(is_half, full))


def _model(spec: BackboneSpec, device: str = "cpu") -> Any:
    """Make an open_clip model of the spec's architecture with fresh weights. Nothing is downloaded.

    On the device "meta" it takes no memory. Raises BenchError for a description that cannot be built here.
    """
    deferred.open_clip()
    from open_clip import coca_model, model

    config = deepcopy(spec.config)
    custom = config.pop("custom_text", False) or bool(config["text_cfg"].get("hf_model_name"))
    kind = coca_model.CoCa if "multimodal_cfg" in config else model.CustomTextCLIP if custom else model.CLIP
    if name := config["vision_cfg"].get("timm_model_name"):
        _refuse_unregistered(name, spec)
        config["vision_cfg"]["timm_model_pretrained"] = False
    if config["text_cfg"].get("hf_model_name"):
        config["text_cfg"]["hf_model_pretrained"] = False
    try:  # some text towers are described by files of the hub's cache
        with network(False), _Outline(), torch.device(device):
            return kind(**(config | {"quick_gelu": spec.quick_gelu}))
    except Exception as error:  # constructors raise many kinds for sizes that do not fit together
        reason = _reason(error)
        if config["text_cfg"].get("hf_model_name"):
            raise BenchError(
                f"cannot build the text tower of {spec.name} ({reason}): pip install transformers"
            ) from error
        raise BenchError(
            f"{spec.file}: cannot build the architecture {spec.arch} ({reason}): name another, or correct "
            "its config"
        ) from error


class _Outline(TorchFunctionMode):
    """A mode in which constructors that fill or scale tensors do nothing on the device "meta".

    torch's own way to do this imports its compiler and SymPy, which takes seconds in every process that loads
    a model.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``; for functions that fill or scale, only return a tensor of the same shape."""
        if func is torch.randn and torch.device((kwargs or {}).get("device") or "cpu").type == "meta":
            return torch.empty(*args, **(kwargs or {}))
        tensor: Any = args[0] if args else (kwargs or {}).get("tensor")
        if func in _FILLED and tensor.is_meta:
            return tensor
        if func in _SCALED and tensor.is_meta and isinstance(args[-1], float):
            return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        return func(*args, **(kwargs or {}))


def _refuse_unregistered(name: str, spec: BackboneSpec) -> None:
    """Raise BenchError unless the installed timm has this image tower, so that timm is asked for no other."""
    import timm

    if not timm.is_model(name.partition(".")[0]):
        raise BenchError(
            f"{spec.file}: config: vision_cfg.timm_model_name: the installed timm has no '{name}'"
        )


def _renamed(model: Any, state: State) -> State:
    """Return the tensors under the model's own names, and single numbers in the model's shape."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    state = dict(convert_state_dict(model, state))
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    wanted = model.state_dict()
    for name in ("logit_scale", "logit_bias"):
        if name in state and name in wanted and state[name].numel() == 1:
            state[name] = state[name].reshape(wanted[name].shape)
    state.pop("text.transformer.embeddings.position_ids", None)
    return state


def _refuse_others(state: State, spec: BackboneSpec) -> None:
    """Raise BenchError if tensors are unexpected, missing or of another shape than in the architecture."""
    if reason := _too_many_layers(state, spec) or _differences(state, spec):
        raise BenchError(
            f"{spec.file} does not fit the architecture {spec.arch} ({reason}): "
            "name the architecture it was trained with, ARCH@FILE"
        )


def _too_many_layers(state: State, spec: BackboneSpec) -> str:
    """Say which tower has more layers than the file has tensors.

    This comes first, because even an outline of very many layers takes long.
    """
    for part, other in (("vision_cfg", "timm_model_name"), ("text_cfg", "hf_model_name")):
        tower = spec.config[part]
        layers = 0 if tower.get(other) else tower.get("layers", 0)
        count = layers if isinstance(layers, int) else sum(layers)
        if count > len(state):
            return f"{part} has {count} layers, but the file holds only {len(state)} tensors"
    return ""


def _differences(state: State, spec: BackboneSpec) -> str:
    """Say how the tensors differ from an outline of the model; empty if they do not."""
    outline = _model(spec, "meta")
    try:
        state = _renamed(outline, _with_whole_table(state, spec, "meta"))
    except (KeyError, IndexError, AttributeError, RuntimeError) as error:  # names that promise more tensors
        return f"its tensors are named as in another model, {type(error).__name__}: {_reason(error)}"
    wanted = outline.state_dict()
    wrong = sorted(n for n in wanted.keys() | state.keys() if n not in wanted or n not in state)
    wrong += sorted(n for n in wanted.keys() & state.keys() if not _fits(wanted[n], state[n]))
    return f"{len(wrong)} tensors differ, first {shown(wrong[0])}" if wrong else ""


def _fits(wanted: Tensor, given: Tensor) -> bool:
    return wanted.shape == given.shape and (given.is_floating_point() or not wanted.is_floating_point())
