"""Compose scenes for pre-training, in batches on any device.

A scene is a textured background, a few small distractors, and one main glyph that covers 0.34 to 0.98 of the
side; a few scenes are pale. Half of the scenes are calm, because with strong textures and clutter from the
first step, training makes no progress for hundreds of steps.

Legend: B batch, L some rows of it, N drawings, G glyph side, S scene side. Glyphs are premultiplied RGBA (B,
4, G, G) in [0, 1], scenes RGB (B, 3, S, S).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from bench.pocket.captions import COLOURS, TEXTURES

# The share of the side that the main glyph covers. One scene in five has a small glyph.
SMALL, LARGE = (
    (0.34, 0.5),
    (0.5, 0.98),
)
SLOTS = 4  # the most distractors in a scene


def glyph_batch(pixels_N4GG: torch.Tensor, rows_B: torch.Tensor) -> torch.Tensor:
    """Return rows of a table of straight-alpha uint8 drawings as premultiplied floats."""
    g_B4GG = pixels_N4GG[rows_B].float() / 255
    g_B4GG[:, :3] *= g_B4GG[:, 3:]
    return g_B4GG


def restyle(g_B4GG: torch.Tensor, keep_hue_B: torch.Tensor, gen: torch.Generator) -> torch.Tensor:
    """Change drawings into what other artists might have drawn.

    The changes are gray, swapped channels, mirroring, tint, black outlines and bare lines. ``keep_hue_B``
    marks drawings whose colours and handedness have a meaning (flags): only their tone and outlines change.
    """
    n, dev = len(g_B4GG), g_B4GG.device
    free_B = ~keep_hue_B
    u_B = _uniform(n, gen, dev)
    rgb, alpha = g_B4GG[:, :3], g_B4GG[:, 3:]
    rgb = torch.where(_column((u_B < 0.1) & free_B), rgb.mean(1, keepdim=True).expand_as(rgb), rgb)
    rgb = torch.where(_column((u_B > 0.96) & free_B), rgb.flip(1), rgb)
    tint = torch.where(free_B[:, None], 0.25, 0.06) * (2 * _uniform((n, 3), gen, dev) - 1)
    gain = (0.8 + 0.4 * _uniform((n, 1), gen, dev)) * (1 + tint)
    g = torch.cat([(rgb * gain[:, :, None, None]).minimum(alpha), alpha], 1)
    g = torch.where(_column((_uniform(n, gen, dev) < 0.3) & free_B), g.flip(3), g)
    v_B = _uniform(n, gen, dev)
    lined = (v_B < 0.55).nonzero()[:, 0]
    for rows, width in ((lined[::2], 3), (lined[1::2], 5)):
        if len(rows):
            bare_L = _column((v_B[rows] < 0.06) & free_B[rows])
            g[rows] = _outlined(g[rows], bare_L, width)
    return g


def compose(
    main_B4GG: torch.Tensor, others: torch.Tensor, side: int, gen: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return scenes (B, 3, S, S) in [0, 1] with their texture and colour rows (B,).

    ``others`` (M, 4, G, G) are the drawings that distractors are taken from.
    """
    n, dev = len(main_B4GG), main_B4GG.device
    busy_B = _uniform(n, gen, dev) < 0.5
    scene, tone_B3, texture_B, colour_B = background(busy_B, side, gen)
    for _ in range(SLOTS):
        rows = (_uniform(n, gen, dev) < torch.where(busy_B, 0.45, 0.1)).nonzero()[:, 0]
        if len(rows):
            glyph = others[torch.randint(len(others), (len(rows),), generator=gen, device=dev)]
            angle, radius = (
                2 * math.pi * _uniform(len(rows), gen, dev),
                0.6 + 0.35 * _uniform(len(rows), gen, dev),
            )
            scale, turn = 0.12 + 0.18 * _uniform(len(rows), gen, dev), _uniform(len(rows), gen, dev) - 0.5
            scene[rows] = _paste(scene[rows], glyph, scale, turn, angle.cos() * radius, angle.sin() * radius)
    small_B = _uniform(n, gen, dev) < 0.2
    t_B = _uniform(n, gen, dev)
    scale = torch.where(
        small_B, SMALL[0] + (SMALL[1] - SMALL[0]) * t_B, LARGE[0] + (LARGE[1] - LARGE[0]) * t_B
    )
    x, y = ((2 * _uniform(n, gen, dev) - 1) * (1 - scale) for _ in range(2))
    squeeze_B2 = 1 + 0.35 * _uniform((n, 2), gen, dev) * (_uniform((n, 2), gen, dev) < 0.35)
    scene = _paste(scene, main_B4GG, scale, (_uniform(n, gen, dev) - 0.5) * 0.6, x, y, squeeze_B2)
    pale_B = _uniform(n, gen, dev) < 0.12
    contrast = _column(
        torch.where(pale_B, 0.35 + 0.5 * _uniform(n, gen, dev), 0.85 + 0.15 * _uniform(n, gen, dev))
    )
    return tone_B3 + contrast * (scene - tone_B3), texture_B, colour_B


def background(busy_B: torch.Tensor, side: int, gen: torch.Generator) -> tuple[torch.Tensor, ...]:
    """Return backgrounds (B, 3, S, S) in two tones of a named colour, plain if ``busy_B`` is false.

    The first tone (B, 3, 1, 1), texture rows and colour rows (B,) are returned with them. Patterns have half
    the resolution.
    """
    n, dev, half = len(busy_B), busy_B.device, side // 2
    palette = torch.tensor(list(COLOURS.values()), device=dev)
    colour_B = torch.randint(len(palette), (n,), generator=gen, device=dev)
    texture_B = torch.randint(len(TEXTURES), (n,), generator=gen, device=dev) * busy_B
    one = (palette[colour_B] + (_uniform((n, 3), gen, dev) - 0.5) * 0.15).clamp(0, 1)[:, :, None, None]
    sign = torch.where(one.mean(1, keepdim=True) > 0.5, -1.0, 1.0)
    two = (one + sign * (0.1 + 0.25 * _column(_uniform(n, gen, dev)))).clamp(0, 1)
    line = torch.linspace(-1, 1, half, device=dev)
    y, x = torch.meshgrid(line, line, indexing="ij")
    angle, f, phase = (k * _uniform((n, 1, 1), gen, dev) for k in (math.pi, 5.0, 2 * math.pi))
    f = f + 4
    u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    noise = F.interpolate(_uniform((n, 1, half // 2, half // 2), gen, dev), size=(half, half))[:, 0]
    mix = torch.zeros(n, half, half, device=dev)
    patterns: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "striped": lambda r: _square(u[r] * f[r] * 3 + phase[r]),
        "dotted": lambda r: (torch.sin(u[r] * f[r] * 2.2) * torch.sin(v[r] * f[r] * 2.2) > 0.45).float(),
        "checkered": lambda r: (_square(u[r] * f[r] * 2) + _square(v[r] * f[r] * 2) == 1).float(),
        "gradient": lambda r: (u[r] * 0.5 + 0.5).clamp(0, 1),
        "noisy": lambda r: noise[r],
        "wavy": lambda r: _square((u[r] + 0.15 * torch.sin(v[r] * f[r])) * f[r] * 3 + phase[r]),
        "gridded": lambda r: (_sine(u[r] * f[r]).minimum(_sine(v[r] * f[r])) < 0.18).float(),
    }
    for name, make in patterns.items():
        rows = (texture_B == TEXTURES.index(name)).nonzero()[:, 0]
        if len(rows):
            mix[rows] = make(rows)
    mix = F.interpolate(mix[:, None], size=(side, side))
    return one * (1 - mix) + two * mix, one, texture_B, colour_B


def _paste(
    scene_B3SS: torch.Tensor,
    glyph_B4GG: torch.Tensor,
    scale_B: torch.Tensor,
    turn_B: torch.Tensor,
    x_B: torch.Tensor,
    y_B: torch.Tensor,
    squeeze_B2: torch.Tensor | None = None,
) -> torch.Tensor:
    """Lay premultiplied glyphs on scenes: scale as a share of the side, turn in radians, centre in [-1, 1].

    ``squeeze_B2`` says how many times narrower and lower than its frame each glyph is, because the
    proportions of artists differ.
    """
    c, s = torch.cos(turn_B) / scale_B, torch.sin(turn_B) / scale_B
    matrix = torch.stack(
        [torch.stack([c, -s, s * y_B - c * x_B], 1), torch.stack([s, c, -s * x_B - c * y_B], 1)], 1
    )
    if squeeze_B2 is not None:
        matrix = matrix * squeeze_B2[:, :, None]
    side = scene_B3SS.shape[-1]
    grid = F.affine_grid(matrix, [len(scene_B3SS), 4, side, side], align_corners=False)
    over = F.grid_sample(glyph_B4GG, grid, align_corners=False)
    return scene_B3SS * (1 - over[:, 3:]) + over[:, :3]


def _outlined(g_B4GG: torch.Tensor, bare_B: torch.Tensor, width: int) -> torch.Tensor:
    """Draw black lines of ``width`` px along silhouettes and tone edges, as in cartoons.

    ``bare_B`` marks drawings of which only the lines stay.
    """
    rgb, alpha, pad = g_B4GG[:, :3], g_B4GG[:, 3:], width // 2
    wide = F.max_pool2d(alpha, width, 1, pad)
    ring = (wide + F.max_pool2d(-alpha, width, 1, pad)).clamp(0, 1)
    tone = rgb.mean(1, keepdim=True)
    edge = torch.maximum(
        ring, (F.max_pool2d(tone, width, 1, pad) + F.max_pool2d(-tone, width, 1, pad) > 0.25).float()
    )
    return torch.cat(
        [torch.where(bare_B, torch.zeros_like(rgb), rgb * (1 - edge)), torch.where(bare_B, edge, wide)], 1
    )


def _sine(t: torch.Tensor) -> torch.Tensor:
    return torch.sin(2.5 * t).abs()


def _square(t: torch.Tensor) -> torch.Tensor:
    return (torch.sin(t) > 0).float()


def _column(value_B: torch.Tensor) -> torch.Tensor:
    return value_B[:, None, None, None]


def _uniform(shape: int | tuple[int, ...], gen: torch.Generator, dev: torch.device) -> torch.Tensor:
    return torch.rand(shape, generator=gen, device=dev)
