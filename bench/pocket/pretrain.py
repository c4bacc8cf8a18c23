"""Pre-train an embedded CLIP: one command from public icon packages to weights.

    npm install --ignore-scripts --prefix npm PACKAGES     (without them it prints this line)
    python -m bench.pocket.pretrain --npm npm --arch rn --minutes 60 --out pocket-rn.safetensors

Contrastive training (image to text and back) on composed scenes, and an auxiliary classifier over all concepts that is
dropped at the end: it speeds the image tower up, for which 127 negatives are few. Runs on a CPU or a GPU; ``--minutes``
or ``--steps`` set the length, and a run by ``--steps`` repeats exactly on the same machine. A ``.log.jsonl`` beside the
weights keeps losses and zero-shot accuracy on artists that are never trained on; a ``.resume.safetensors`` keeps where the
run stands, and the same command goes on from there after a stop.

Legend: B batch, n known tokens, L text length, C embedding width, K concepts.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

from bench.pocket import checkpoint, compose, numerals, probe
from bench.pocket.arch import ARCH
from bench.pocket.captions import COLOURS, TEXTURES, caption, templates, vocabulary
from bench.pocket.iconsets import Concept, Glyphs, concepts, heldout_glyphs, training_glyphs
from bench.pocket.weights import export, load_into

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LR = {"rn": 2e-3, "vit": 1e-3}
UNASKED = 0.15  # how often a concept that no dataset asks for comes, against one that is asked for


class Learner:
    """A CLIP with a token table cut to the vocabulary, its optimiser and its random streams."""

    def __init__(
        self,
        config: dict[str, Any],
        known: Sequence[Concept],
        glyphs: Glyphs,
        lr: float,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.config, self.known, self.lr, self.device = config, known, lr, torch.device(device)
        self.tokenizer = open_clip.get_tokenizer("RN50")
        texts = list(vocabulary(known))
        self.ids_n = torch.unique(self.tokenizer(texts))
        self.row_of = torch.zeros(config["text_cfg"]["vocab_size"], dtype=torch.long)
        self.row_of[self.ids_n] = torch.arange(len(self.ids_n))
        with torch.random.fork_rng(devices=[]):  # open_clip initialises from the global generator
            torch.manual_seed(seed)
            model = CLIP(**config)
            model.token_embedding = torch.nn.Embedding(len(self.ids_n), config["text_cfg"]["width"])
            torch.nn.init.normal_(model.token_embedding.weight, std=0.02)
            prototypes_KC = torch.randn(len(known), config["embed_dim"])
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.prototypes_KC = torch.nn.Parameter(prototypes_KC.to(self.device))
        named = list(self.model.named_parameters())
        decay = [p for name, p in named if p.ndim > 1 and "embedding" not in name]
        rest = [p for name, p in named if not (p.ndim > 1 and "embedding" not in name)]
        groups = [{"params": decay, "weight_decay": 0.05}, {"params": [*rest, self.prototypes_KC], "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))
        self.gen = torch.Generator(self.device).manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.pixels = torch.from_numpy(glyphs.pixels).permute(0, 3, 1, 2).contiguous().to(self.device)
        self.drawings = [np.flatnonzero(glyphs.concept == k) for k in range(len(known))]
        share = np.array([1.0 if c.asked else UNASKED for c in known]) * np.array([len(d) > 0 for d in self.drawings])
        self.share = share / share.sum()

    def start_from(self, path: Path) -> int:
        """Take over a file's weights; returns how many tokens are new. The auxiliary classifier starts at the concepts' texts."""
        new = load_into(self.model, self.ids_n, path)
        with torch.no_grad():
            names = [templates(c)[0].format(c.alias or c.name) for c in self.known]
            self.prototypes_KC.copy_(torch.cat([self.text(names[i : i + 128]) for i in range(0, len(names), 128)]))
        return new

    def text(self, texts: Sequence[str]) -> Tensor:
        """Unit text embeddings (B, C); the causal tower needs no position after the last EOT."""
        ids_BL = self.tokenizer(list(texts))
        eot_B = ids_BL.argmax(1)
        ids_BL = ids_BL[:, : int(eot_B.max()) + 1]
        length, model = ids_BL.shape[1], self.model
        x = model.token_embedding(self.row_of[ids_BL].to(self.device)) + model.positional_embedding[:length]
        x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
        return F.normalize(x[torch.arange(len(x)), eot_B.to(self.device)] @ model.text_projection, dim=-1)

    def image(self, scenes_B3SS: Tensor) -> Tensor:
        """Unit image embeddings (B, C) of scenes in [0, 1]."""
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (MEAN, STD))
        x = ((scenes_B3SS - mean) / std).contiguous(memory_format=torch.channels_last)
        return F.normalize(self.model.encode_image(x).float(), dim=-1)

    def batch(self, size: int) -> tuple[Tensor, list[str], Tensor, Tensor]:
        """Scenes, captions, concept rows (B,), and a (B, B) mask of captions that are true of another scene too."""
        rows = self.rng.choice(len(self.known), size, replace=False, p=self.share)
        glyph_B = torch.tensor([self.rng.choice(self.drawings[k]) for k in rows], device=self.device)
        here = [self.known[k] for k in rows]
        hue = torch.tensor([c.flag for c in here], device=self.device)
        main = compose.restyle(compose.glyph_batch(self.pixels, glyph_B), hue, self.gen)
        other_B = torch.randint(len(self.pixels), (size,), generator=self.gen, device=self.device)
        others = compose.glyph_batch(self.pixels, other_B)
        side = self.config["vision_cfg"]["image_size"]
        scenes, texture, colour = compose.compose(main, others, side, self.gen)
        colours, texts, broad = list(COLOURS), [], []
        for c, t, k in zip(here, texture.tolist(), colour.tolist(), strict=True):
            text, by_category = caption(c, TEXTURES[t], colours[k], self.rng)
            texts.append(text)
            broad.append(by_category)
        same = np.array([[a.category == b.category for b in here] for a in here])
        also_true = torch.from_numpy(same & np.array(broad)[None] & ~np.eye(size, dtype=bool))
        return scenes, texts, torch.from_numpy(rows).to(self.device), also_true.to(self.device)

    def step(self, size: int, progress: float, done: int) -> dict[str, float]:
        """One optimiser step; learning rate: 100 warm-up steps, then a cosine in ``progress``."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr * min(1, (done + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * min(progress, 1))) + 1e-6
        scenes, texts, rows_B, also_true = self.batch(size)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            image_BC, text_BC = self.image(scenes), self.text(texts).float()
        logits = self.model.logit_scale.exp().clamp(max=100) * image_BC @ text_BC.T
        logits = logits.masked_fill(also_true, -1e4)  # such pairs are neither positive nor negative
        y = torch.arange(size, device=self.device)
        loss = (F.cross_entropy(logits, y) + F.cross_entropy(logits.T, y)) / 2
        aux = F.cross_entropy(16 * image_BC @ F.normalize(self.prototypes_KC, dim=-1).T, rows_B)
        self.optimiser.zero_grad()
        (loss + aux).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        return {"loss": loss.item(), "aux": aux.item()}


def pretrain(
    learner: Learner,
    out: Path,
    facts: dict[str, Any],
    batch: int,
    minutes: float = 0,
    steps: int = 0,
    every: float = 300,
    tasks: Sequence[probe.Task] = (),
) -> dict[str, Any]:
    """Train for ``steps`` or ``minutes``, writing ``out``, where it stands and a line of its log every ``every`` seconds.

    A run that was stopped goes on from what it last wrote. Returns the last line: step, seconds, mean losses since the line
    before, zero-shot accuracy (%) by task. Raises BenchError where another run's state lies beside ``out``.
    """
    state_file = out.with_suffix(".resume.safetensors")
    asked = {**facts, "batch": batch, "minutes": minutes, "steps": steps, "lr": learner.lr}
    done, last = checkpoint.resume(state_file, learner, asked)
    start = time.monotonic() - last
    seen: list[dict[str, float]] = []
    while True:
        spent = time.monotonic() - start
        progress = done / steps if steps else spent / (60 * minutes)
        if spent - last > every or progress >= 1:
            last = spent
            mean = {k: round(float(np.mean([s[k] for s in seen])), 4) for k in (seen[0] if seen else {})}
            line = {"step": done, "seconds": round(spent), **mean, "zero_shot": probe.zero_shot(learner, tasks)}
            with out.with_suffix(".log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
            state = learner.model.state_dict()
            export(state, learner.ids_n, learner.config, {**facts, "steps": done, "seconds": round(spent)}, out)
            seen = []
            if progress >= 1:
                state_file.unlink(missing_ok=True)
                return line
            checkpoint.write(state_file, learner, asked, done, spent)
        seen.append(learner.step(batch, progress, done))
        done += 1


def main() -> None:
    """The command line."""
    p = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    p.add_argument("--npm", type=Path, required=True, help="folder with node_modules/ of the icon packages")
    p.add_argument("--datasets", type=Path, default=Path(__file__).parents[2] / "datasets", help="the suite's TOMLs")
    p.add_argument("--arch", choices=list(ARCH), required=True)
    p.add_argument("--minutes", type=float, default=60)
    p.add_argument("--steps", type=int, default=0, help="a fixed number of steps instead of --minutes")
    p.add_argument("--init", type=Path, help="weights to go on from")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--lr", type=float, help="peak learning rate")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--every", type=float, default=300, help="seconds between checkpoints")
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    icons = concepts(a.npm, a.datasets)
    drawn, digits = training_glyphs(a.npm, icons), numerals.digit_glyphs(len(icons))
    glyphs = Glyphs(np.concatenate([drawn.pixels, digits.pixels]), np.concatenate([drawn.concept, digits.concept]))
    known = [*icons, *numerals.CONCEPTS]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    learner = Learner(ARCH[a.arch], known, glyphs, a.lr or LR[a.arch], a.seed, device)
    new = learner.start_from(a.init) if a.init else len(learner.ids_n)
    print(f"{len(glyphs.concept)} drawings, {len(known)} concepts, {len(learner.ids_n)} tokens, {new} new", flush=True)
    held = {artist: heldout_glyphs(a.npm, icons, artist) for artist in ("openmoji", "twemoji")}
    tasks = probe.tasks(a.datasets, icons, held, ARCH[a.arch]["vision_cfg"]["image_size"])
    facts = {"name": f"pocket-{a.arch}", "seed": a.seed, "batch": a.batch, "init": a.init.name if a.init else "random"}
    pretrain(learner, a.out, facts, a.batch, a.minutes, a.steps, a.every, tasks)


if __name__ == "__main__":
    main()
