"""APE: a cache on the channels that distinguish the classes; its images are weighted (protocol 24.1).

Legend: K classes, C embedding width, Q chosen channels, N support images, V views, B images of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.interface import (
    POOLED,
    Consts,
    Facts,
    Features,
    Lines,
    Method,
    Params,
    Recipe,
    Task,
    Tensor,
    Values,
    cosine_logits,
    torch,
    unit,
)
from bench.methods.tip_adapter import search_axis

WIDTH = 1024  # of RN50, for which the numbers of channels were published
START = 0.1  # lower end of the search axes of beta and alpha; that of gamma is 0
EPS = 1e-6  # keeps the logarithm of a probability finite


def views(values: Values) -> tuple[str, ...]:
    """Return the views that a key is averaged over: random crops."""
    crop, number = values["crop"], values["key_views"]
    return tuple(f"rrc({crop})#{v}" for v in range(number))


def similarity(W_KC: Tensor, keys_NC: Tensor, y_N: Tensor) -> Tensor:
    """Return the mean product of two classes in each channel (C,), over all pairs of classes.

    A class is the mean of its text and its keys, so that classes with fewer images count as much as others.
    """
    K = len(W_KC)
    count_K = 1 + torch.bincount(y_N, minlength=K)
    means_KC = W_KC.index_add(0, y_N, keys_NC) / count_K[:, None]
    return (means_KC.sum(0) ** 2 - (means_KC**2).sum(0)) / (K * (K - 1))


def criterion(W_KC: Tensor, keys_NC: Tensor, y_N: Tensor, sim_weight: float, var_weight: float) -> Tensor:
    """Return how well each channel tells classes apart (C,): little similarity, much variance of the text."""
    return var_weight * W_KC.var(0) - sim_weight * similarity(W_KC, keys_NC, y_N)


def surprise(keys_NQ: Tensor, text_KQ: Tensor, y_N: Tensor) -> Tensor:
    """Return the KL divergence (N,) in bits of each image's label from what the text says.

    The cosines have no scale here.
    """
    probs_NK = (keys_NQ @ text_KQ.T).softmax(1)
    label_N = probs_NK.gather(1, y_N[:, None])[:, 0]
    return ((1 + EPS) / (label_N + EPS)).log2()


class Ape(Method):
    """Add a cache on the channels that tell classes apart to the zero-shot logits, without training.

    Channels are chosen for little similarity between classes and much variance of the text. A cached image
    that the text classifies badly weighs more.

    Source: Zhu et al. 2023 (protocol 24.1).
    Deviates: the texts are one prompt set, where the released code averages templates and sentences of its
        own. beta, alpha and gamma are searched on few-shot validation, where it uses the full validation
        split, and on ImageNet the test set; without validation they have its initial values. The number of
        channels follows the embedding width. Classes with unequal numbers of images count the same in the
        similarity. float32 instead of float16.
    Settings:
        key_views: random crops that a key is averaged over
        crop: smallest area of a random crop, as a share of the image
        channels: chosen channels of 1024; at another width the same share, rounded down
        sim_weight: weight of the similarity between classes in the choice of channels
        var_weight: weight of the variance of the text in the choice of channels
        beta_top: upper end of the search for ``beta``, itself excluded; the lower end is 0.1
        alpha_top: upper end of the search for ``alpha``, itself excluded; the lower end is 0.1
        gamma_top: upper end of the search for ``gamma``, itself excluded; the lower end is 0
        beta_steps: number of values on the search axis of ``beta``
        alpha_steps: number of values on the search axis of ``alpha``
        gamma_steps: number of values on the search axis of ``gamma``
        init_beta: ``beta`` without validation
        init_alpha: ``alpha`` without validation
        init_gamma: ``gamma`` without validation
        beta: sharpness of the comparison with the keys; none: searched on validation
        alpha: weight of the cache beside the zero-shot logits; none: searched on validation
        gamma: growth of an image's weight with its divergence; none: searched on validation
    """

    name = "ape"
    title = "APE"
    cite = "Zhu et al. 2023"
    settings = {
        "key_views": 10,
        "crop": 0.5,
        "channels": 800,
        "sim_weight": 0.7,
        "var_weight": 0.3,
        "beta_top": 7.0,
        "alpha_top": 7.0,
        "gamma_top": 1.0,
        "beta_steps": 200,
        "alpha_steps": 20,
        "gamma_steps": 20,
        "init_beta": 1.0,
        "init_alpha": 1.0,
        "init_gamma": 0.1,
        "beta": None,
        "alpha": None,
        "gamma": None,
    }
    per_dataset = {
        "imagenet": {"gamma_top": 0.5, "gamma_steps": 5, "init_alpha": 2.0, "channels": 500},
        "caltech101": {"sim_weight": 0.5, "var_weight": 0.5},
        "dtd": {"init_alpha": 3.0, "channels": 400, "sim_weight": 0.5, "var_weight": 0.5},
        "eurosat": {
            "beta_top": 30.0,
            "alpha_top": 5.0,
            "gamma_top": 1.5,
            "channels": 700,
            "sim_weight": 0.9,
            "var_weight": 0.1,
        },
        "fgvc_aircraft": {
            "beta_top": 20.0,
            "alpha_top": 10.0,
            "init_alpha": 5.0,
            "sim_weight": 0.1,
            "var_weight": 0.9,
        },
        "food101": {"init_alpha": 0.8, "channels": 700, "sim_weight": 0.3, "var_weight": 0.7},
        "oxford_flowers": {"init_alpha": 3.0, "channels": 700, "sim_weight": 0.4, "var_weight": 0.6},
        "oxford_pets": {"init_alpha": 2.0},
        "stanford_cars": {"beta_top": 10.0, "channels": 500, "sim_weight": 0.6, "var_weight": 0.4},
        "sun397": {"beta_top": 10.0},
        "ucf101": {
            "beta_top": 10.0,
            "gamma_top": 1.5,
            "init_alpha": 2.0,
            "channels": 700,
            "sim_weight": 0.3,
            "var_weight": 0.7,
        },
    }
    presets = {"quick": {"key_views": 4, "gamma_steps": 5}}
    inference = ("beta", "alpha", "gamma")

    def recipe(self, settings: Values, facts: Facts) -> Recipe:
        return Recipe(
            support={POOLED: views(settings)},
            search={
                "beta": search_axis(START, settings["beta_top"], settings["beta_steps"]),
                "alpha": search_axis(START, settings["alpha_top"], settings["alpha_steps"]),
                "gamma": search_axis(0.0, settings["gamma_top"], settings["gamma_steps"]),
            },
            fixed={name: settings[f"init_{name}"] for name in self.inference},
        )

    def solve(self, task: Task, consts: Consts, values: Values) -> Params:
        keys_NC = unit(torch.stack([task.features(POOLED, view) for view in views(values)]).mean(0))
        W_KC, y_N = task.W_KC, task.labels_N
        channels: int = values["channels"]
        Q = max(1, channels * W_KC.shape[1] // WIDTH)
        crit_C = criterion(W_KC, keys_NC, y_N, values["sim_weight"], values["var_weight"])
        channels_Q = crit_C.argsort(descending=True, stable=True)[:Q]
        keys_NQ, text_KQ = unit(keys_NC[:, channels_Q]), unit(W_KC[:, channels_Q])
        kl_N = surprise(keys_NQ, text_KQ, y_N)
        return {"channels_Q": channels_Q, "keys_NQ": keys_NQ, "kl_N": kl_N, "y_N": y_N}

    def _terms(self, params: Params, consts: Consts, features: Features) -> tuple[Tensor, Tensor]:
        """Return the zero-shot logits (B, K), and the cosines (B, N) with the keys on the chosen channels."""
        f_BC = features[POOLED]
        f_BQ = unit(unit(f_BC)[:, params["channels_Q"]])
        return cosine_logits(f_BC, consts["W_KC"], consts["scale"]), params["keys_NQ"] @ f_BQ.T

    def _cache(self, params: Params, affinity_NB: Tensor, K: int, gamma: float) -> Tensor:
        """Return the weighted sum (B, K) of the affinities (N, B) over the images of each class."""
        weighted_NB = affinity_NB * (gamma * params["kl_N"]).exp()[:, None]
        sums_KB = weighted_NB.new_zeros(K, weighted_NB.shape[1]).index_add(0, params["y_N"], weighted_NB)
        return sums_KB.T

    def logits(self, params: Params, consts: Consts, features: Features, values: Values) -> Tensor:
        text_BK, cosines_NB = self._terms(params, consts, features)
        beta: float = values["beta"]
        alpha: float = values["alpha"]
        affinity_NB = (beta * (cosines_NB - 1)).exp()
        return text_BK + alpha * self._cache(params, affinity_NB, text_BK.shape[1], values["gamma"])

    def sweep(
        self, params: Params, consts: Consts, features: Features, values: Values, grid: Sequence[Values]
    ) -> Iterator[tuple[Sequence[int], Lines]]:
        text_BK, cosines_NB = self._terms(params, consts, features)
        groups: dict[float, dict[float, list[int]]] = {}
        for i, point in enumerate(grid):
            groups.setdefault(point["beta"], {}).setdefault(point["gamma"], []).append(i)
        for beta, by_gamma in groups.items():
            affinity_NB = (beta * (cosines_NB - 1)).exp()
            for gamma, positions in by_gamma.items():
                cache_BK = self._cache(params, affinity_NB, text_BK.shape[1], gamma)
                alphas = text_BK.new_tensor([grid[i]["alpha"] for i in positions])
                yield positions, Lines(text_BK, cache_BK, alphas)
