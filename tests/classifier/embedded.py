"""Fitted methods on the embedded towers, with recipes of a few steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch

from bench.classifier.cell import of_fit
from bench.classifier.file import Classifier
from bench.classifier.module import Whole
from bench.contract import lab as labs
from bench.features.decode import Block, InputFormat, render_block
from bench.features.forward import normaliser
from bench.registry import builtin

Fitted = Callable[[str, str], labs.Measured]


@pytest.fixture(scope="session")
def fitted() -> Iterator[Fitted]:
    """A function of a method's name and a tower's family ("rn", "vit"); what it made is made once."""
    known: dict[tuple[str, str], labs.Measured] = {}
    registry = builtin()
    with labs.open_lab() as lab:
        pocket = replace(lab, towers={"rn": "pocket-rn", "vit": "pocket-vit"})

        def measured(name: str, family: str) -> labs.Measured:
            if (name, family) not in known:
                method = registry.get(name)
                known[name, family] = labs.measure(pocket, method, registry, family, "uneven")
            return known[name, family]

        yield measured


def whole_of(m: labs.Measured, temperature: float = 1.0) -> Whole:
    """The fitted method and its tower as one module."""
    backbone = m.lab.session.backbone(m.fit.backbone)
    consts = m.method.prepare(m.task())
    return Whole(backbone, m.method, m.state.params, consts, m.values(), temperature)


def classifier_of(m: labs.Measured, temperature: float = 1.0) -> Classifier:
    """The fitted method as a person takes it home."""
    consts, session = m.method.prepare(m.task()), m.lab.session
    return of_fit(m.fit, m.fit.evaluations[0], m.state, consts, temperature, session, builtin())


def pixels_of(m: labs.Measured) -> torch.Tensor:
    """The normalised pixels (n, 3, S, S) of the test images."""
    backbone = m.lab.session.backbone(m.fit.backbone)
    how = backbone.spec.preprocess
    form = InputFormat(backbone.image_size, how.interpolation, how.resize_mode)
    block = Block(tuple(m.fit.dataset.test.paths), ("eval",))
    pixels = render_block(m.fit.dataset.source, form, block)[:, 0]
    return normaliser(backbone)(torch.from_numpy(pixels)).contiguous()
