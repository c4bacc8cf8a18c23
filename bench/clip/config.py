"""Check the configurations of models in open_clip's words, as data of known keys, types and sizes.

Configurations come inside weights files. So nothing in them may name an address or a path, run anything, or
ask for more memory than a model needs. Every field has a type and a range here, and any other field is
refused. A configuration stays as it was written, because keys of records are made of it. This module imports
no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from bench import typed

# The largest released CLIP has 56 layers, a width of 1792 and 901629 tokens.
Layers = Annotated[int, Meta(ge=1, le=256)]
Width = Annotated[int, Meta(ge=1, le=16384)]
Heads = Annotated[int, Meta(ge=1, le=1024)]
Pixels = Annotated[int, Meta(ge=1, le=2048)]
# This is not tuple[Pixels, Pixels], because msgspec 0.22 crashes on that in a union with a bounded number.
Sides = Annotated[tuple[Pixels, ...], Meta(min_length=2, max_length=2)]
Stages = Annotated[tuple[Layers, ...], Meta(min_length=4, max_length=4)]
Tokens = Annotated[int, Meta(ge=1, le=4096)]
Vocabulary = Annotated[int, Meta(ge=1, le=1 << 21)]
TokenId = Annotated[int, Meta(ge=0)]
Ratio = Annotated[float, Meta(gt=0, le=64)]
Share = Annotated[float, Meta(ge=0, lt=1)]
# The name of a model in timm's registry, never an address or a folder. bench.clip.state looks it up.
Registered = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_]{1,120}(\.[A-Za-z0-9_]{1,120})?\Z")]
# The name of a model on the hub. Only the hub's cache on this machine is read.
OfHub = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?\Z")]
Pooling = Literal["first", "last", "argmax", "eos", "none"]
Colour = tuple[float, float, float]
Spread = tuple[Annotated[float, Meta(gt=0)], Annotated[float, Meta(gt=0)], Annotated[float, Meta(gt=0)]]


class Norm(Struct, forbid_unknown_fields=True):
    """The arguments of layer norms."""

    eps: Annotated[float, Meta(gt=0, lt=1)] = 1e-5


class Activation(Struct, forbid_unknown_fields=True):
    """The arguments of GELU."""

    approximate: Literal["none", "tanh"] = "none"


class Blocks(Struct, forbid_unknown_fields=True, kw_only=True):
    """The fields that image and text towers have in common."""

    mlp_ratio: Ratio = 4.0
    ls_init_value: float | None = None
    final_ln_after_pool: bool = False
    output_tokens: bool = False
    act_kwargs: Activation | None = None
    norm_kwargs: Norm | None = None
    block_type: Literal["default", "custom"] | None = None
    qk_norm: bool = False
    scaled_cosine_attn: bool = False
    scale_heads: bool = False
    scale_attn_inner: bool = False
    scale_attn: bool = False
    scale_fc: bool = False


class Vision(Blocks, forbid_unknown_fields=True, kw_only=True):
    """An image tower: a ViT, a ResNet (four numbers of ``layers``), or one of timm's."""

    layers: Stages | Layers = 12
    width: Width = 768
    head_width: Width = 64
    patch_size: Pixels | None = 16
    image_size: Sides | Pixels = 224
    patch_dropout: Share = 0.0
    attentional_pool: bool | Literal["parallel", "cascade"] = False
    attn_pooler_queries: Tokens = 256
    attn_pooler_heads: Heads = 8
    no_ln_pre: bool = False
    pos_embed_type: Literal["learnable", "sin_cos_2d"] = "learnable"
    pool_type: Literal["tok", "avg", "none"] = "tok"
    timm_model_name: Registered | None = None
    timm_model_pretrained: bool = False  # always ignored, because the weights are in the file
    timm_pool: Annotated[str, Meta(pattern=r"^[a-z_]{0,40}\Z")] = "avg"
    timm_proj: Literal["linear", "mlp", "none", ""] | None = "linear"
    timm_proj_bias: bool = False
    timm_drop: Share = 0.0
    timm_drop_path: Share | None = None


class Text(Blocks, forbid_unknown_fields=True, kw_only=True):
    """A text tower: CLIP's own, or one that the hub describes."""

    context_length: Tokens = 77
    vocab_size: Vocabulary = 49408
    width: Width = 512
    heads: Heads = 8
    layers: Layers = 12
    embed_cls: bool = False
    pad_id: TokenId = 0
    eos_id: TokenId = 2
    no_causal_mask: bool = False
    pool_type: Pooling = "argmax"
    proj_type: Literal["linear", "none"] = "linear"
    proj_bias: bool = False
    hf_tokenizer_name: OfHub | None = None
    tokenizer_mode: Annotated[str, Meta(max_length=40)] | None = None
    tokenizer_kwargs: dict[str, bool | int | str] | None = None  # only the installed open_clip's are used
    hf_model_name: OfHub | None = None
    hf_model_pretrained: bool = True  # always ignored, because the weights are in the file
    hf_proj_type: Literal["linear", "mlp"] | None = "mlp"
    hf_pooler_type: Annotated[str, Meta(pattern=r"^[a-z_]{1,40}\Z")] | None = "mean_pooler"


class Decoder(Text, forbid_unknown_fields=True, kw_only=True):
    """The text decoder of CoCa."""

    dim_head: Width = 64
    n_queries: Tokens = 256
    attn_pooler_heads: Heads = 8


class Architecture(Struct, forbid_unknown_fields=True, kw_only=True):
    """The configuration of a whole model."""

    embed_dim: Width
    vision_cfg: Vision
    text_cfg: Text
    multimodal_cfg: Decoder | None = None
    custom_text: bool = False
    quick_gelu: bool = False
    init_logit_scale: float = 2.6592
    init_logit_bias: float | None = None
    nonscalar_logit_scale: bool = False
    pad_id: TokenId = 0


class Preprocessing(Struct, forbid_unknown_fields=True, kw_only=True):
    """The preparation of images; None means what CLIP does."""

    size: Sides | Pixels | None = None
    mode: Literal["RGB"] = "RGB"
    mean: Colour | None = None
    std: Spread | None = None
    interpolation: Literal["bicubic", "bilinear"] | None = None
    resize_mode: Literal["shortest", "squash"] | None = None
    fill_color: Annotated[int, Meta(ge=0, le=255)] = 0


def architecture(text: bytes, where: str) -> dict[str, Any]:
    """Check a model's configuration (JSON) and return it as it was written.

    ``where`` is the beginning of error messages. Raises Odd for a key that is unknown, of another type, or
    out of range.
    """
    table = typed.decoded(text, dict[str, Any], where)
    typed.known(table, _keys(Architecture), where)
    for part, kind in (("vision_cfg", Vision), ("text_cfg", Text), ("multimodal_cfg", Decoder)):
        if isinstance(inner := table.get(part), dict):
            typed.known(inner, _keys(kind), f"{where}: {part}")
    read = typed.converted(table, Architecture, where)
    sides = read.vision_cfg.image_size
    if isinstance(sides, tuple) and sides[0] != sides[1]:
        raise typed.Odd(
            f"{where}: vision_cfg.image_size: {sides[0]} x {sides[1]}, and images are square here"
        )
    return table


def of_file(file: Path) -> dict[str, Any]:
    """Read the configuration in one of open_clip's own JSON files."""
    return architecture(file.read_bytes(), str(file))


def preprocessing(table: Any, where: str) -> dict[str, Any]:
    """Check open_clip's ``preprocess_cfg`` and return it as it was written. Raises Odd if it is not valid."""
    if isinstance(table, dict):
        typed.known(table, _keys(Preprocessing), where)
    typed.converted(table, Preprocessing, where)
    return dict(table)


def beside(weights: Path) -> dict[str, Any]:
    """Read ``preprocess_cfg`` from the ``open_clip_config.json`` in a weights file's folder.

    The result is empty if there is no such file.
    """
    file = weights.with_name("open_clip_config.json")
    if not file.is_file():
        return {}
    table = typed.json(file, dict[str, Any])  # only the key below is read, so the others may hold anything
    return preprocessing(table.get("preprocess_cfg", {}), f"{file}: preprocess_cfg")


def _keys(kind: type[Struct]) -> tuple[str, ...]:
    return kind.__struct_fields__
