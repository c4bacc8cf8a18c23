"""The pre-training recipe on a few made-up drawings learns, repeats, and writes files that open_clip can
load.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import load_file

from bench.errors import BenchError, MissingData
from bench.pocket import captions, compose, iconsets, numerals
from bench.pocket.arch import ARCH
from bench.pocket.iconsets import SIDE, Concept, Glyphs
from bench.pocket.learner import Learner
from bench.pocket.pretrain import pretrain
from bench.pocket.weights import load_into, metadata

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    "quick_gelu": True,
}
NAMES = ("red square", "green square", "blue square", "red bar", "green bar", "blue bar")


@pytest.fixture(scope="module")
def known() -> list[Concept]:
    flags = [Concept("1f1e6-1f1f9", "Austria", "flag", (), flag=True)]
    return [Concept(f"f{i}", name, name.split()[1], ("thing",)) for i, name in enumerate(NAMES)] + flags


@pytest.fixture(scope="module")
def drawn(known: list[Concept]) -> Glyphs:
    pixels = np.zeros((len(known), SIDE, SIDE, 4), np.uint8)
    for i in range(len(known)):
        height = SIDE if i < 3 else SIDE // 4
        pixels[i, :height, :, i % 3] = 220
        pixels[i, :height, :, 3] = 255
    return Glyphs(pixels, np.arange(len(known)))


def learner(known: list[Concept], drawn: Glyphs, seed: int = 0) -> Learner:
    return Learner(copy.deepcopy(TINY), known, drawn, lr=3e-3, seed=seed)


def test_a_few_steps_learn_and_the_file_loads(tmp_path: Path, known: list[Concept], drawn: Glyphs) -> None:
    out = tmp_path / "tiny.safetensors"
    trained = learner(known, drawn)
    first = trained.step(7, 0, 0)["aux"]
    last = pretrain(trained, out, {"seed": 0}, batch=7, steps=60)
    assert last["step"] == 60 and last["aux"] < 0.8 * first
    assert json.loads((tmp_path / "tiny.log.jsonl").read_text())["step"] == 60

    assert json.loads(metadata(out)["config"]) == TINY and metadata(out)["steps"] == "60"
    state = load_file(out)
    assert state["token_embedding.ids"].dtype == torch.int32
    assert all(v.dtype == torch.float16 for k, v in state.items() if k != "token_embedding.ids")
    model = CLIP(**TINY).eval()
    rows, ids = state.pop("token_embedding.rows"), state.pop("token_embedding.ids").long()
    table = torch.zeros_like(model.token_embedding.weight)
    table[ids] = rows.float()
    missing, unexpected = model.load_state_dict({**state, "token_embedding.weight": table}, strict=False)
    assert not unexpected and set(missing) <= {"attn_mask"}
    texts = ["a photo of a red square.", "a photo of the flag of Austria."]
    with torch.no_grad():
        whole = model.encode_text(open_clip.get_tokenizer("RN50")(texts), normalize=True)
        trained.model.eval()
        cut = trained.text(texts)  # cut at the last EOT, own token rows: the same to fp16
    torch.testing.assert_close(cut, whole, atol=5e-3, rtol=0)


def test_a_run_repeats(known: list[Concept], drawn: Glyphs) -> None:
    def losses(seed: int) -> list[dict[str, float]]:
        one = learner(known, drawn, seed)
        return [one.step(6, 0, i) for i in range(3)]

    first = losses(0)
    assert losses(0) == first
    assert losses(1) != first


class Stopped(Exception):
    pass


def test_a_stopped_run_goes_on_as_if_it_never_had_been(
    tmp_path: Path, known: list[Concept], drawn: Glyphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"seed": 0}
    pretrain(learner(known, drawn), tmp_path / "whole.safetensors", facts, batch=6, steps=6, every=0)

    def stopping(self: Learner, size: int, progress: float, done: int) -> dict[str, float]:
        if done == 4:
            raise Stopped
        return step(self, size, progress, done)

    step, out = Learner.step, tmp_path / "parts.safetensors"
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Learner, "step", stopping)
        pretrain(learner(known, drawn), out, facts, batch=6, steps=6, every=0)
    resume = tmp_path / "parts.resume.safetensors"
    with pytest.raises(BenchError, match="delete it to start anew"):
        pretrain(learner(known, drawn), out, facts, batch=6, steps=7, every=0)
    # the seed's start is overwritten
    last = pretrain(learner(known, drawn, seed=9), out, facts, batch=6, steps=6, every=0)
    assert last["step"] == 6 and not resume.exists()
    whole, parts = load_file(tmp_path / "whole.safetensors"), load_file(out)
    assert whole.keys() == parts.keys() and all(torch.equal(whole[k], parts[k]) for k in whole)


def test_going_on_from_a_file(tmp_path: Path, known: list[Concept], drawn: Glyphs) -> None:
    out = tmp_path / "tiny.safetensors"
    one = learner(known[:-1], drawn)
    pretrain(one, out, {}, batch=6, steps=2)
    two = learner(known, drawn, seed=5)
    assert two.start_from(out) > 0  # Austria's tokens are new
    one.model.eval(), two.model.eval()
    assert torch.allclose(two.prototypes_KC[:1], two.text(["a photo of a red square."]), atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(two.text(["a red square"]), one.text(["a red square"]), atol=5e-3, rtol=0)
    wide = copy.deepcopy(TINY)
    wide["vision_cfg"]["width"] = 48
    other = Learner(wide, known, drawn, lr=1e-3)
    before = other.model.state_dict()["visual.conv1.weight"].clone()
    load_into(other.model, other.ids_n, out)  # another image tower: only the text side is taken
    assert torch.equal(other.model.state_dict()["visual.conv1.weight"], before)
    torch.testing.assert_close(other.model.ln_final.weight, one.model.ln_final.weight, atol=1e-3, rtol=0)


def test_category_captions_are_no_negatives_of_their_category(known: list[Concept], drawn: Glyphs) -> None:
    one = learner(known, drawn)
    checked = 0
    for _ in range(20):
        _, texts, rows_B, also_true = one.batch(7)
        assert not also_true.diagonal().any()
        for i, j in also_true.nonzero().tolist():
            checked += 1
            assert (
                known[rows_B[i]].category == known[rows_B[j]].category
                and known[rows_B[j]].name not in texts[j]
            )
    assert checked


def test_the_vocabulary_covers_every_caption(known: list[Concept]) -> None:
    tokenizer = open_clip.get_tokenizer("RN50")
    everything = [*known, *numerals.CONCEPTS]
    table = set(tokenizer(list(captions.vocabulary(everything))).unique().tolist())
    rng = np.random.default_rng(0)
    texts = [captions.caption(c, "wavy", "gray", rng)[0] for c in everything for _ in range(60)]
    assert set(tokenizer(texts).unique().tolist()) <= table


@pytest.mark.parametrize("flag", [False, True])
def test_flags_keep_their_colours(drawn: Glyphs, flag: bool) -> None:
    pixels = torch.from_numpy(drawn.pixels).permute(0, 3, 1, 2)
    g = compose.glyph_batch(pixels, torch.zeros(200, dtype=torch.long))
    done = compose.restyle(g, torch.full((200,), flag), torch.Generator().manual_seed(0))
    green_and_blue = done[:, 1:3].amax((1, 2, 3))
    assert bool((green_and_blue > 0.05).any()) != flag


def test_scenes_are_images_that_show_the_main_glyph(drawn: Glyphs) -> None:
    pixels = torch.from_numpy(drawn.pixels).permute(0, 3, 1, 2)
    red, blue = (compose.glyph_batch(pixels, torch.full((16,), k)) for k in (0, 2))
    one, texture, colour = compose.compose(red, blue, 64, torch.Generator().manual_seed(3))
    two, *_ = compose.compose(blue, blue, 64, torch.Generator().manual_seed(3))
    assert one.shape == (16, 3, 64, 64) and one.min() >= -1e-5 and one.max() <= 1 + 1e-5
    assert texture.max() < len(captions.TEXTURES) and colour.max() < len(captions.COLOURS)
    changed = (one != two).any(1).float().mean((1, 2))
    assert (changed > 0.34**2 / 2).all()


def test_rasterised_drawings_fill_their_frame() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 72 72">'
        '<rect x="30" y="30" width="10" height="5"/></svg>'
    )
    image = iconsets.rasterise(svg)
    assert image is not None and image.shape == (SIDE, SIDE, 4)
    covered = np.flatnonzero(image[..., 3].max(0) > 128)
    assert covered[0] <= 2 and covered[-1] >= SIDE - 3
    assert iconsets.rasterise('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"></svg>') is None


def test_missing_packages_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"npm install .*noto@"):
        iconsets.concepts(tmp_path, tmp_path)


def test_digits_have_drawings() -> None:
    glyphs = numerals.digit_glyphs(5)
    assert set(glyphs.concept.tolist()) == set(range(5, 15)) and glyphs.pixels.shape[1:] == (SIDE, SIDE, 4)


@pytest.mark.parametrize("arch", list(ARCH))
def test_architectures_fit_open_clip(arch: str) -> None:
    with torch.device("meta"):
        model = CLIP(**ARCH[arch])
    assert model.visual.image_size in (128, (128, 128))
