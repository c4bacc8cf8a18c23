"""Measure how pre-training goes, by zero-shot accuracy on artists that are never trained on.

This is a rough and quick measure for the log, in the trainer's own scenes. The suite has other images, and
only those count.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.pocket import compose
from bench.pocket.iconsets import Concept, Glyphs, code
from bench.pocket.learner import Learner


@dataclass(frozen=True)
class ProbeSet:
    """Scenes (N, 3, S, S) uint8 with labels (N,), and one prompt per class."""

    name: str
    prompts: tuple[str, ...]
    scenes: torch.Tensor
    labels: torch.Tensor


def probe_sets(
    datasets: Path, known: Sequence[Concept], held: Mapping[str, Glyphs], side: int, views: int = 2
) -> list[ProbeSet]:
    """Make one set per dataset of drawn classes, with ``views`` scenes per drawing and held-out artist."""
    row_of = {c.code: i for i, c in enumerate(known)}
    out = []
    for path in sorted(datasets.glob("*.toml")):
        spec = tomllib.loads(path.read_text(encoding="utf-8"))
        classes = spec.get("options", {}).get("glyphs", {})
        if not classes:
            continue
        gen, scenes, labels = torch.Generator().manual_seed(7), [], []
        for glyphs in held.values():
            place = {int(c): i for i, c in enumerate(glyphs.concept)}
            pixels = torch.from_numpy(glyphs.pixels).permute(0, 3, 1, 2)
            pairs = [
                (place[row_of[code(c)]], label)
                for label, codes in enumerate(classes.values())
                for c in ([codes] if isinstance(codes, str) else codes)
                if row_of.get(code(c)) in place
            ]
            rows = torch.tensor([i for i, _ in pairs]).repeat(views)
            main = compose.glyph_batch(pixels, rows)
            others = compose.glyph_batch(pixels, torch.randint(len(pixels), (64,), generator=gen))
            scenes.append(
                (compose.compose(main, others, side, gen)[0] * 255).round().clamp(0, 255).to(torch.uint8)
            )
            labels.append(torch.tensor([label for _, label in pairs]).repeat(views))
        template = spec["prompts"]["hand"][0]
        prompts = tuple(template.format(name) for name in classes)
        out.append(ProbeSet(spec["name"], prompts, torch.cat(scenes), torch.cat(labels)))
    return out


@torch.no_grad()
def zero_shot(learner: Learner, sets: Sequence[ProbeSet]) -> dict[str, float]:
    """Return the mean per-class accuracy (%) on each set."""
    learner.model.eval()
    out = {}
    for probe in sets:
        w_KC = learner.text(probe.prompts)
        scenes = torch.split(probe.scenes, 128)
        parts = [learner.image(part.to(learner.device).float() / 255) for part in scenes]
        hits = (torch.cat(parts) @ w_KC.T).argmax(1).cpu().eq(probe.labels)
        per_class = [hits[probe.labels == k].float().mean() for k in torch.unique(probe.labels)]
        out[probe.name] = round(100 * float(torch.stack(per_class).mean()), 1)
    learner.model.train()
    return out
