"""A CLIP behind a narrow face: named without torch (``resolve``), built once (``load``), frozen for good.

Legend: B batch, T tokens, D tower width, C embedding width, P prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.clip import weights
from bench.clip.weights import Preprocess
from bench.errors import BenchError, MissingWeights
from bench.files import digest, read_json
from bench.lazy import torch
from bench.names import canonical

if TYPE_CHECKING:
    from torch import Tensor

    from bench.clip.heads import PoolingHead
    from bench.clip.text import TextTower

POCKET = ("pocket-rn", "pocket-vit")
# parameters of an image tower; below, decoding takes longer than what folding its norms would save
FOLDED_FROM = 10_000_000
QUICK = "-quickgelu"
_VARIANTS = frozenset(
    {"ls_init_value", "block_type", "qk_norm", "scaled_cosine_attn"}
    | {"scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"}
)


@dataclass(frozen=True)
class BackboneSpec:
    """Which model, and the file its weights are in; everything a key or a plan needs, without torch.

    ``family`` is "rn" (ModifiedResNet), "vit" (CLIP's VisionTransformer) or "other" (only ``pooled`` can be
    tapped). ``dtype`` is what the image tower computes in while it encodes, by torch's name; part of keys,
    not of ``digest``.
    """

    name: str
    arch: str
    pretrained: str
    file: Path
    weights_hash: str
    family: str
    quick_gelu: bool
    preset: str
    image_size: int
    preprocess: Preprocess = field(default_factory=Preprocess)
    torchscript: bool = False
    dtype: str = "float32"
    config: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides the model's outputs: the file's bytes, the architecture, the
        activation.
        """
        return digest([self.weights_hash, self.config, self.quick_gelu])


def family(config: dict[str, Any]) -> str:
    """The kind of image tower an architecture describes: "rn", "vit" or "other"."""
    vision = config["vision_cfg"]
    if vision.get("timm_model_name") or "multimodal_cfg" in config:
        return "other"
    if isinstance(vision.get("layers"), list | tuple):
        return "rn"
    plain = vision.get("pool_type", "tok") == "tok" and not vision.get("attentional_pool")
    return "vit" if plain and not unlike_clip(vision) else "other"


def unlike_clip(tower: dict[str, Any]) -> bool:
    """Whether a tower's description asks for transformer blocks other than CLIP's."""
    return any(tower.get(key) for key in _VARIANTS)


def resolve(name: str, allow_torchscript: bool = False) -> BackboneSpec:
    """The backbone a name means. (no torch)

    ``pocket-rn``, ``pocket-vit``: embedded. ``RN50``, ``ViT-B-16``, any ``ARCH``: OpenAI's weights with
    QuickGELU. ``ARCH/TAG``: open_clip's pretrained tag. ``ARCH@FILE``: safetensors or a PyTorch state dict.
    Raises MissingWeights naming the command that gets them, BenchError for an unknown name or a file that
    runs code.
    """
    if canonical(name) in POCKET:
        return _pocket(canonical(name))
    arch, at, path = name.partition("@")
    if at:
        return _local(arch, Path(path).expanduser(), allow_torchscript)
    arch, _, tag = name.partition("/")
    return _downloaded(arch, tag or "openai", allow_torchscript)


def _pocket(name: str) -> BackboneSpec:
    file = weights.ASSETS / f"{name}.safetensors"
    if not file.is_file():
        raise MissingWeights(
            f"{name} is not in this installation (no {file}): install fewshot-clip-bench again"
        )
    return _spec(name, name, name, file, weights.embedded_config(file) or {}, preset="quick")


def _local(arch: str, file: Path, allow_torchscript: bool) -> BackboneSpec:
    if not file.is_file():
        raise MissingWeights(f"no weights file at {file}: write ARCH@FILE with the path of an existing file")
    config = weights.embedded_config(file)
    if config is None:
        arch = weights.architecture(arch)
        config = read_json(weights.architectures()[arch])
    beside = file.parent / "open_clip_config.json"
    settings = read_json(beside).get("preprocess_cfg", {}) if beside.is_file() else {}
    if (
        not settings and "init_logit_bias" in config
    ):  # sigmoid-trained models see pixels scaled to [-1, 1], squashed
        settings = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "resize_mode": "squash"}
    return _spec(f"{arch}@{file.name}", arch, "", file, config, settings, allow_torchscript=allow_torchscript)


def _downloaded(arch: str, tag: str, allow_torchscript: bool) -> BackboneSpec:
    arch = weights.architecture(arch)
    tag = tag.lower().replace("-", "_")
    base = arch.removesuffix(QUICK)
    label = base if tag == "openai" else f"{base}/{tag}"
    found = weights.stored(base, tag)
    if found is None:
        named = f"{base}{QUICK}" if tag == "openai" else arch
        mend = f"run `bench weights get {label}`, or name a file of them: --backbone {named}@FILE"
        raise MissingWeights(f"the weights of {label} are not on this machine: {mend}")
    file, record = found
    quick = bool(record["quick_gelu"])
    if arch.endswith(QUICK) and not quick:
        raise BenchError(f"{label} was trained with exact GELU: write {label}, without '{QUICK}'")
    if quick and base + QUICK in weights.architectures():
        arch = base + QUICK
    config = read_json(weights.architectures()[arch]) | {"quick_gelu": quick}
    return _spec(label, arch, tag, file, config, record["preprocess"], allow_torchscript=allow_torchscript)


def _spec(
    name: str,
    arch: str,
    pretrained: str,
    file: Path,
    config: dict[str, Any],
    settings: dict[str, Any] | None = None,
    preset: str = "paper",
    allow_torchscript: bool = False,
) -> BackboneSpec:
    torchscript = weights.is_torchscript(file)
    if torchscript and not allow_torchscript:
        raise BenchError(
            f"{file} is a TorchScript archive, which runs code when loaded: add --allow-torchscript"
        )
    size = config["vision_cfg"].get("image_size", 224)
    return BackboneSpec(
        name=name,
        arch=arch,
        pretrained=pretrained,
        file=file,
        weights_hash=weights.file_hash(file),
        family=family(config),
        quick_gelu=bool(config.get("quick_gelu", False)),
        preset=preset,
        image_size=size if isinstance(size, int) else size[0],
        preprocess=Preprocess.of(settings or {}),
        torchscript=torchscript,
        config=config,
    )


def load(
    spec: BackboneSpec, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> Backbone:
    """Build the model on ``device``, in eval mode and without gradients.

    ``dtype`` is the image tower's precision while it encodes (default: the spec's; fp16 or bf16 are meant for
    CUDA). The text tower, the pooling head and what a method trains of the tower stay fp32. Raises BenchError
    if the file does not fit the architecture, or if OpenAI's weights would be built with exact GELU (protocol
    21.14).
    """
    from bench.clip import state

    return Backbone(spec, state.build(spec), torch.device(device), dtype or getattr(torch, spec.dtype))


class Backbone:
    """A frozen CLIP: taps of the image tower, text features, the pooling head and the text tower as
    functions.
    """

    def __init__(self, spec: BackboneSpec, model: Any, device: torch.device, dtype: torch.dtype) -> None:
        from bench.clip import heads, towers

        self.spec, self.device, self.dtype = spec, device, dtype
        self.family, self.image_size = spec.family, spec.image_size
        self.mean, self.std = spec.preprocess.mean, spec.preprocess.std
        self.model = model.eval().requires_grad_(False).to(device)
        self.scale = float(self.model.logit_scale.detach().double().exp())
        self.taps = towers.TAPS[spec.family]
        self._head = heads.of_tower(self.model.visual, spec.family) if spec.family != "other" else None
        # Halves are too coarse to train: the model's own tower stays in single precision where encoding has a
        # copy.
        self.model.visual.to(dtype if self._head is None else torch.promote_types(dtype, torch.float32))
        if device.type == "cpu" and spec.family != "vit":
            self.model.visual.to(memory_format=torch.channels_last)

    @property
    def width(self) -> int:
        """C, the width of the shared embedding space."""
        return int(self.spec.config["embed_dim"])

    @property
    def head(self) -> PoolingHead:
        """The pooling head; BenchError for a tower that has none (SigLIP's MAP, timm trunks)."""
        from bench.clip import heads

        return self._head or heads.of_tower(self.model.visual, "other")

    def encode_images(self, x_BCHW: Tensor, taps: Sequence[str] = ("pooled",)) -> dict[str, Tensor]:
        """Raw features of normalised images (B, 3, S, S) at every requested tap, from one forward pass.

        ``pixels`` (B, 3, S, S), ``layer3`` (B, D/2, s, s), ``dense`` (B, T, D), ``tokens`` (B, T, C),
        ``preproj`` (B, D), ``pooled`` (B, C), never unit-normalised. Raises BenchError for a tap this tower
        does not have, and for a precision that the device does not compute in.
        """
        from bench.clip import towers

        if unknown := sorted(set(taps) - self.taps):
            raise BenchError(
                f"{self.spec.name} has no tap {', '.join(unknown)} (it has {', '.join(sorted(self.taps))}): "
                "choose a CLIP ResNet or ViT backbone, or methods that need only these"
            )
        x_BCHW = x_BCHW.to(self.device, torch.promote_types(self.dtype, torch.float32), non_blocking=True)
        try:
            with torch.no_grad():
                return towers.encode(self.model, self._head, self.family, x_BCHW, taps, self._trunk)
        except RuntimeError as error:
            if "not implemented for" not in str(
                error
            ):  # PyTorch's words for a precision that an operator lacks
                raise
            raise BenchError(
                f"this PyTorch has no {self.dtype} on {self.device.type} ({error}): use --precision fp32"
            ) from error

    @cached_property
    def _trunk(self) -> Any:
        """The image tower that encodes: the model's own, or a copy in lower precision or, large on a
        processor, without norms.
        """
        from bench.clip import towers

        visual = self.model.visual
        lower = self._head is not None and self.dtype.itemsize < torch.float32.itemsize
        exact = self.device.type == "cpu" and self.dtype == torch.float32
        large = exact and self.family == "rn" and sum(p.numel() for p in visual.parameters()) >= FOLDED_FROM
        with torch.inference_mode(
            False
        ):  # this may be the first use, inside inference mode; the copy outlives it
            return (
                towers.lowered(visual, self.family, self.dtype)
                if lower
                else towers.folded(visual)
                if large
                else visual
            )

    @cached_property
    def text(self) -> TextTower:
        """The causal text tower as a function of embedded prompts; BenchError where the model has another
        kind.
        """
        from bench.clip import text

        return text.of_model(self.model, self.spec)

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Raw text features (P, C), fp32, prompts cut at their end token, in chunks."""
        from bench.clip import tokens

        return tokens.encode_prompts(self, prompts)
