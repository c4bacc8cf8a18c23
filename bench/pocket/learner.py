"""Train an embedded CLIP step by step, with its optimiser and its random streams.

The CLIP's token table is cut to the vocabulary.

Legend: B batch, n known tokens, L text length, C embedding width, K concepts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from torch import Tensor

from bench.files import digest
from bench.pocket import compose
from bench.pocket.captions import COLOURS, TEXTURES, caption, templates, vocabulary
from bench.pocket.iconsets import Concept, Glyphs
from bench.pocket.weights import load_into

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
UNASKED = 0.15  # the frequency of a concept that no dataset asks for, relative to one that is asked for


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
        with torch.random.fork_rng(devices=[]):  # because open_clip initialises from the global generator
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
        groups = [
            {"params": decay, "weight_decay": 0.05},
            {"params": [*rest, self.prototypes_KC], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))
        self.gen = torch.Generator(self.device).manual_seed(seed)
        self.rng = np.random.default_rng(seed)
        self.pixels = torch.from_numpy(glyphs.pixels).permute(0, 3, 1, 2).contiguous().to(self.device)
        self.drawings = [np.flatnonzero(glyphs.concept == k) for k in range(len(known))]
        share = np.array([1.0 if c.asked else UNASKED for c in known]) * np.array(
            [len(d) > 0 for d in self.drawings]
        )
        self.share = share / share.sum()

    @property
    def digest(self) -> str:
        """Return the SHA-256 (hex) of what the learner sees and where it computes.

        It sees drawings, tokens and concept shares.
        """
        arrays = (self.pixels.cpu().numpy(), self.ids_n.numpy(), self.share)
        return digest([self.device.type, *(hashlib.sha256(x.tobytes()).hexdigest() for x in arrays)])

    def start_from(self, path: Path) -> int:
        """Take over a file's weights, and return how many tokens are new.

        The auxiliary classifier starts at the text embeddings of the concepts.
        """
        new = load_into(self.model, self.ids_n, path)
        with torch.no_grad():
            names = [templates(c)[0].format(c.alias or c.name) for c in self.known]
            self.prototypes_KC.copy_(
                torch.cat([self.text(names[i : i + 128]) for i in range(0, len(names), 128)])
            )
        return new

    def text(self, texts: Sequence[str]) -> Tensor:
        """Return unit text embeddings (B, C). The causal tower needs no position after the last EOT."""
        ids_BL = self.tokenizer(list(texts))
        eot_B = ids_BL.argmax(1)
        ids_BL = ids_BL[:, : int(eot_B.max()) + 1]
        length, model = ids_BL.shape[1], self.model
        x = model.token_embedding(self.row_of[ids_BL].to(self.device)) + model.positional_embedding[:length]
        x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
        return F.normalize(x[torch.arange(len(x)), eot_B.to(self.device)] @ model.text_projection, dim=-1)

    def image(self, scenes_B3SS: Tensor) -> Tensor:
        """Return unit image embeddings (B, C) of scenes in [0, 1]."""
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (MEAN, STD))
        x = ((scenes_B3SS - mean) / std).contiguous(memory_format=torch.channels_last)
        return F.normalize(self.model.encode_image(x).float(), dim=-1)

    def batch(self, size: int) -> tuple[Tensor, list[str], Tensor, Tensor]:
        """Return scenes, captions, concept rows (B,), and a (B, B) mask.

        The mask marks captions that are true of another scene too.
        """
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
        """Do one optimiser step.

        The learning rate has 100 warm-up steps, and then follows a cosine in ``progress``.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = (
                self.lr * min(1, (done + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * min(progress, 1))) + 1e-6
            )
        scenes, texts, rows_B, also_true = self.batch(size)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            image_BC, text_BC = self.image(scenes), self.text(texts).float()
        logits = self.model.logit_scale.exp().clamp(max=100) * image_BC @ text_BC.T
        logits = logits.masked_fill(also_true, -1e4)  # so these pairs are neither positive nor negative
        y = torch.arange(size, device=self.device)
        loss = (F.cross_entropy(logits, y) + F.cross_entropy(logits.T, y)) / 2
        aux = F.cross_entropy(16 * image_BC @ F.normalize(self.prototypes_KC, dim=-1).T, rows_B)
        self.optimiser.zero_grad()
        torch.autograd.backward(loss + aux)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        return {"loss": loss.item(), "aux": aux.item()}
