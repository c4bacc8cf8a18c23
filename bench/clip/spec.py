"""Resolve a backbone's name to a model and to the file of its weights. This module imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.clip import config as configuration
from bench.clip import weights
from bench.clip.weights import QUICK, Preprocess
from bench.errors import BenchError, MissingWeights
from bench.files import digest
from bench.names import canonical
from bench.paths import from_home

POCKET = ("pocket-rn", "pocket-vit")
_VARIANTS = frozenset(
    {"ls_init_value", "block_type", "qk_norm", "scaled_cosine_attn"}
    | {"scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"}
)


@dataclass(frozen=True)
class BackboneSpec:
    """The model and its weights file: all that a key or a plan needs, without torch.

    ``family`` is "rn" (ModifiedResNet), "vit" (CLIP's VisionTransformer) or "other" (only ``pooled`` can be
    tapped). ``dtype`` is the precision that the image tower encodes in, by torch's name; it is part of keys
    but not of ``digest``.
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
        """Return the SHA-256 of all that decides the outputs: file content, architecture and activation."""
        return digest([self.weights_hash, self.config, self.quick_gelu])


def family(config: dict[str, Any]) -> str:
    """Return the kind of image tower that an architecture describes: "rn", "vit" or "other"."""
    vision = config["vision_cfg"]
    if vision.get("timm_model_name") or "multimodal_cfg" in config:
        return "other"
    if isinstance(vision.get("layers"), list | tuple):
        return "rn"
    plain = vision.get("pool_type", "tok") == "tok" and not vision.get("attentional_pool")
    return "vit" if plain and not unlike_clip(vision) else "other"


def unlike_clip(tower: dict[str, Any]) -> bool:
    """Return whether a tower's description asks for transformer blocks other than CLIP's."""
    return any(tower.get(key) for key in _VARIANTS)


def resolve(name: str, allow_torchscript: bool = False) -> BackboneSpec:
    """Resolve a name to a backbone, without torch.

    - ``pocket-rn``, ``pocket-vit``: the embedded backbones.
    - ``RN50``, ``ViT-B-16``, any ``ARCH``: OpenAI's weights with QuickGELU.
    - ``ARCH/TAG``: the weights that open_clip has under this tag.
    - ``ARCH@FILE``: a file of safetensors or a PyTorch state dict.

    Raises MissingWeights, which names the command that gets the weights. Raises BenchError for an unknown
    name, for a file that would run code, and for a file whose header or configuration is not valid.
    """
    if canonical(name) in POCKET:
        return _pocket(canonical(name))
    arch, at, path = name.partition("@")
    if at:
        return _local(arch, from_home(path), allow_torchscript)
    arch, _, tag = name.partition("/")
    return _downloaded(arch, tag or "openai", allow_torchscript)


def printed(name: str) -> tuple[str, str]:
    """Return the name and the preset that records have of a backbone, whether or not its weights are here.

    Raises BenchError for an unknown architecture.
    """
    if canonical(name) in POCKET:
        return canonical(name), "quick"
    arch, at, path = name.partition("@")
    if at:
        return f"{arch}@{from_home(path).name}", "paper"
    arch, _, tag = name.partition("/")
    base, tag = weights.architecture(arch).removesuffix(QUICK), (tag or "openai").lower().replace("-", "_")
    return (base if tag == "openai" else f"{base}/{tag}"), "paper"


def _pocket(name: str) -> BackboneSpec:
    """Resolve an embedded backbone."""
    file = weights.ASSETS / f"{name}.safetensors"
    if not file.is_file():
        raise MissingWeights(
            f"{name} is not in this installation (no {file}): install fewshot-clip-bench again"
        )
    config = weights.embedded_config(file)
    if config is None:
        raise BenchError(f"{file}: header: no config; install fewshot-clip-bench again")
    return _spec(name, name, name, file, config, preset="quick")


def _local(arch: str, file: Path, allow_torchscript: bool) -> BackboneSpec:
    """Resolve a user's own weights file."""
    weights.regular(file)
    config = weights.embedded_config(file)
    if config is None:
        arch = weights.architecture(arch)
        config = configuration.of_file(weights.architectures()[arch])
    settings = configuration.beside(file)
    # Models with a sigmoid loss (SigLIP) were trained on squashed images, with pixels scaled to [-1, 1].
    if not settings and "init_logit_bias" in config:
        settings = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "resize_mode": "squash"}
    return _spec(f"{arch}@{file.name}", arch, "", file, config, settings, allow_torchscript=allow_torchscript)


def _downloaded(arch: str, tag: str, allow_torchscript: bool) -> BackboneSpec:
    """Resolve weights that ``bench weights get`` has downloaded."""
    arch = weights.architecture(arch)
    tag = tag.lower().replace("-", "_")
    base = arch.removesuffix(QUICK)
    label = base if tag == "openai" else f"{base}/{tag}"
    here = weights.stored(base, tag)
    if here is None:
        named = f"{base}{QUICK}" if tag == "openai" else arch
        mend = f"run `bench weights get {label}`, or name a file of them: --backbone {named}@FILE"
        raise MissingWeights(f"the weights of {label} are not on this machine: {mend}")
    file, record = here
    quick = record.quick_gelu
    if arch.endswith(QUICK) and not quick:
        raise BenchError(f"{label} was trained with exact GELU: write {label}, without '{QUICK}'")
    if quick and base + QUICK in weights.architectures():
        arch = base + QUICK
    config = configuration.of_file(weights.architectures()[arch]) | {"quick_gelu": quick}
    return _spec(label, arch, tag, file, config, record.preprocess, allow_torchscript=allow_torchscript)


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
