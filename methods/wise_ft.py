"""WiSE-FT in the form of few-shot papers: mix a trained head with the zero-shot head (protocol 7.2).

The image tower is never mixed; ``wise-ft-full`` does that.
"""

from __future__ import annotations

from typing import ClassVar

from bench.interface import Consts, Features, Method, Params, Task, Tensor, Values
from bench.methods.linear_probe_sgd import LinearProbeSgd, LinearProbeSgdZeroShot, zero_shot_rows


def mix(trained_KC: Tensor, zeroshot_KC: Tensor, ratio: float | Tensor) -> Tensor:
    """Return (1 - ratio) trained + ratio zero-shot rows, (K, C), not normalised; ``ratio`` 1 is zero-shot."""
    return (1.0 - ratio) * trained_KC + ratio * zeroshot_KC


class HeadEnsemble(Method):
    """The mixture of the head of a fitted method, ``base``, with the zero-shot rows.

    Nothing is trained. Checkpoint and hyper-parameters stay those with which the unmixed head won on
    validation. Only ``W_KC`` is mixed: a fine-tuned pooling head or a bottleneck of ``base`` keeps its
    weights.

    Settings:
        ratio: share of the zero-shot rows in the mixture, from 0 to 1
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
    """Mix the head of a fitted ``linear-probe-sgd`` half and half with the zero-shot rows.

    It is the row "WiSE-FT" of Tables I and III. Its linear probe starts at random; ``wise-ft-zs`` is the
    sound variant, which starts at the zero-shot rows.

    Source: Wortsman et al. 2022, in the form of Lin et al. 2023 (protocol 7.2).
    Deviates: the original interpolates the whole image tower (``wise-ft-full``). That the start of the
        published rows was random is derived from their numbers.
    """

    name = "wise-ft"
    title = "WiSE-FT (head)"
    cite = "Wortsman et al. 2022; Lin et al. 2023"
    base = LinearProbeSgd
    after = (LinearProbeSgd.name,)


class WiseFtZeroShot(HeadEnsemble):
    """Mix the head of a fitted ``linear-probe-sgd-zs`` half and half with the zero-shot rows.

    Source: Wortsman et al. 2022, in the form of Lin et al. 2023 (protocol 7.2).
    Deviates: the original interpolates the whole image tower (``wise-ft-full``).
    """

    name = "wise-ft-zs"
    title = "WiSE-FT (head, zero-shot init)"
    cite = "Wortsman et al. 2022; Lin et al. 2023"
    base = LinearProbeSgdZeroShot
    after = (LinearProbeSgdZeroShot.name,)
