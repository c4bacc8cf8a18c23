"""WiSE-FT as in few-shot tables: trained and zero-shot heads mixed, image encoder as is (protocol 7.2)."""

from __future__ import annotations

from typing import ClassVar

from bench.interface import Consts, Features, Method, Params, Task, Tensor, Values
from bench.methods.linear_probe_sgd import LinearProbeSgd, LinearProbeSgdZeroShot, zero_shot_rows


def mix(trained_KC: Tensor, zeroshot_KC: Tensor, ratio: float | Tensor) -> Tensor:
    """(1 - ratio) trained + ratio zero-shot rows, (K, C), not renormalised; ``ratio`` 1 is zero-shot."""
    return (1.0 - ratio) * trained_KC + ratio * zeroshot_KC


class HeadEnsemble(Method):
    """Head-only WiSE-FT of ``base``, whose fitted state it reads: no training, and ``ratio`` needs no refit.

    Hyper-parameters and checkpoint stay those that the un-mixed head won on validation. Only ``W_KC`` is
    mixed: a fine-tuned pooling head or bottleneck of ``base`` keeps its trained weights.
    """

    base: ClassVar[type[Method]]
    settings = {"ratio": 0.5}
    presets = {"quick": {}}
    inference = ("ratio",)

    def prepare(self, task: Task) -> Consts:
        state = task.states[self.base.name]
        return {
            "base": self.base().prepare(task),
            "params": state.params,
            "values": {**self.base.settings, **state.values},
            "zeroshot_KC": zero_shot_rows(task),
        }

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        trained = consts["params"]
        head_KC = mix(trained["W_KC"], consts["zeroshot_KC"], values["ratio"])
        return self.base().logits({**trained, "W_KC": head_KC}, consts["base"], features, consts["values"])


class WiseFt(HeadEnsemble):
    """Rows "WiSE-FT" of Tables I and III: the uni-modal linear probe with random start, mixed half and half.

    That the start was random is derived from the numbers (protocol 7.2); ``wise-ft-zs`` is the sound variant.
    """

    name = "wise-ft"
    title = "WiSE-FT (head)"
    cite = "Wortsman et al. 2022; Lin et al. 2023"
    base = LinearProbeSgd
    after = (LinearProbeSgd.name,)


class WiseFtZeroShot(HeadEnsemble):
    """WiSE-FT of a linear probe that starts at the zero-shot head."""

    name = "wise-ft-zs"
    title = "WiSE-FT (head, zero-shot init)"
    cite = "Wortsman et al. 2022; Lin et al. 2023"
    base = LinearProbeSgdZeroShot
    after = (LinearProbeSgdZeroShot.name,)
