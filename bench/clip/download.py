"""Download weights.

No other module of the program downloads anything, and only ``bench weights get`` calls this one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.clip import weights
from bench.clip.weights import QUICK
from bench.errors import BenchError, MissingWeights
from bench.files import write_json
from bench.names import nearest


def fetch(name: str) -> Path:
    """Download the weights that ``name`` (ARCH or ARCH/TAG) means, and return their path in the weights
    folder.

    Weights that are already there are not downloaded again. Raises BenchError for an unknown tag or a failed
    download.
    """
    from open_clip import pretrained

    arch, _, tag = name.partition("/")
    arch = weights.architecture(arch).removesuffix(QUICK)
    tag = (tag or "openai").lower().replace("-", "_")
    if here := weights.stored(arch, tag):
        return here[0]
    settings = pretrained.get_pretrained_cfg(arch, tag)
    if not settings:
        tags = pretrained.list_pretrained_tags_by_model(arch)
        hint = nearest(tag, tags) or f"; it has {', '.join(tags) or 'none'}"
        raise BenchError(f"{arch} has no pretrained weights '{tag}'{hint}")
    home = weights.folder() / arch / tag
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=".download-") as scratch:
        try:
            file = Path(pretrained.download_pretrained(settings, cache_dir=scratch)).resolve(strict=True)
            named = pretrained.download_pretrained(settings, cache_dir=scratch)
        # The hub and urllib raise many kinds of errors, and each means that there is no file.
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BenchError(
                f"could not download {arch}/{tag}: {reason}. "
                "On a machine without network, copy a file here and name it: "
                f"--backbone {arch}{QUICK if settings.get('quick_gelu') else ''}@FILE"
            ) from error
        target = home / Path(named).name
        shutil.move(file, target)
    write_json(home / weights.RECORD, record(arch, tag, target, settings))
    if _uses_hub_tokenizer(arch):
        hub_tokenizer(arch, fetch=True)
    return target


def record(arch: str, tag: str, file: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what is known about downloaded weights.

    With it later runs can name them without torch and network.
    """
    return {
        "arch": arch,
        "tag": tag,
        "file": file.name,
        "sha256": weights.file_hash(file),
        "quick_gelu": bool(settings.get("quick_gelu", False)),
        "preprocess": {
            k: settings[k] for k in ("mean", "std", "interpolation", "resize_mode") if k in settings
        },
    }


def _uses_hub_tokenizer(arch: str) -> bool:
    from open_clip import get_model_config

    text = get_model_config(arch)["text_cfg"]
    return bool(text.get("hf_tokenizer_name") or text.get("hf_model_name"))


def hub_tokenizer(arch: str, fetch: bool) -> Any:
    """Return a tokeniser that open_clip keeps on a hub, from the weights folder.

    ``fetch`` allows to download it. Raises BenchError if a package is missing, and MissingWeights if the
    tokeniser is not on this machine.
    """
    from open_clip import get_tokenizer

    cache_dir = str(weights.folder() / "tokenizers")
    try:
        with network(fetch):
            return get_tokenizer(arch, cache_dir=cache_dir)
    except ImportError as error:
        raise BenchError(
            f"the tokeniser of {arch} needs another package: pip install transformers"
        ) from error
    except (OSError, ValueError) as error:
        message = f"the tokeniser of {arch} is not on this machine: run `bench weights get {arch}`"
        raise MissingWeights(message) from error


@contextmanager
def network(allowed: bool) -> Iterator[None]:
    """Forbid or allow the hub client to use the network during the block."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = not allowed
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
