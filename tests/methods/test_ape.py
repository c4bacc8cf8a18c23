"""APE against the numbers of its published code (protocol 24.1), and its acceptance tests (24.7)."""

from __future__ import annotations

import itertools

from bench.interface import POOLED, Method, Task, Tensor, points, torch, unit
from bench.methods.ape import WIDTH, criterion, similarity, views
from bench.train import select
from tests.methods.support import close, fixture, make_task, method, score

METHOD = "ape"
Arrays = dict[str, Tensor]


def data_task(ape: Method, data: Arrays, **overrides: object) -> Task:
    """The fixture's inputs and settings as a task."""
    K, P, C = data["prompt_features"].shape
    (sim_weight, var_weight), tops, steps = data["ape_w"], data["search_scale"], data["search_steps"]
    settings: dict[str, object] = {
        "key_views": len(data["views"]),
        "channels": int(data["ape_feat_num"]) * WIDTH // C,
        "sim_weight": float(sim_weight),
        "var_weight": float(var_weight),
    }
    for name, top, number in zip(("beta", "alpha", "gamma"), tops, steps, strict=True):
        settings |= {
            f"{name}_top": float(top),
            f"{name}_steps": int(number),
            f"init_{name}": float(data[f"init_{name}"]),
        }
    return make_task(
        ape,
        data["train_labels"],
        data["prompt_features"].flatten(0, 1),
        class_of=[k for k in range(K) for _ in range(P)],
        features={(POOLED, f"rrc(0.5)#{v}"): x for v, x in enumerate(data["views"])},
        overrides=settings | overrides,
    )


def accuracy(logits_BK: Tensor, y_B: Tensor) -> float:
    return 100 * int((logits_BK.argmax(1) == y_B).sum()) / len(y_B)


def test_the_fit_equals_the_reference() -> None:
    data, ape = fixture("ape"), method(METHOD)
    task = data_task(ape, data)
    close(task.W_KC, data["text_weights"])
    keys_NC = unit(torch.stack([task.features(POOLED, view) for view in views(task.settings)]).mean(0))
    close(keys_NC, data["cache_keys"])
    close(similarity(task.W_KC, keys_NC, task.labels_N), data["similarity"])
    weights: tuple[float, float] = task.settings["sim_weight"], task.settings["var_weight"]
    close(criterion(task.W_KC, keys_NC, task.labels_N, *weights), data["criterion"])
    params = ape.solve(task, ape.prepare(task), task.settings)
    assert torch.equal(params["channels_Q"], data["indices"])
    close(params["keys_NQ"], data["refined_keys"])
    close(params["kl_N"], data["kl"])


def test_search_and_logits_equal_the_reference() -> None:
    data, ape = fixture("ape"), method(METHOD)
    task = data_task(ape, data)
    consts, recipe = ape.prepare(task), ape.recipe(task.settings, task.facts)
    for name in ape.inference:
        close(torch.tensor(recipe.search[name], dtype=torch.float64), data[f"{name}_grid"])
        assert recipe.fixed[name] == float(data[f"init_{name}"])
    val = select.Labelled({POOLED: data["val_features"]}, data["val_labels"])
    fitted = select.fit(ape, recipe, task, consts, {}, val)
    best = {name: fitted.values[name] for name in ape.inference}
    for name, value in best.items():
        close(data["beta_grid"].new_tensor(value), data[f"best_{name}"])
    val_BK = score(ape, task, fitted.params, data["val_features"], **best)
    test_BK = score(ape, task, fitted.params, data["test_features"], **best)
    close(val_BK, data["val_logits_best"])
    close(test_BK, data["test_logits_best"])
    assert accuracy(val_BK, data["val_labels"]) == float(data["best_val_acc"])
    assert accuracy(test_BK, data["test_labels"]) == float(data["test_acc_best"])
    init_BK = score(ape, task, fitted.params, data["test_features"], **recipe.fixed)
    close(init_BK, data["test_logits_init"])
    assert accuracy(init_BK, data["test_labels"]) == float(data["test_acc_init"])
    grid = points(recipe.search)
    logits = [score(ape, task, fitted.params, data["val_features"], **point) for point in grid]
    assert [accuracy(x_BK, data["val_labels"]) for x_BK in logits] == data["search_acc"].flatten().tolist()


def test_without_the_cache_it_is_zero_shot() -> None:
    data, ape = fixture("ape"), method(METHOD)
    task = data_task(ape, data)
    params = ape.solve(task, ape.prepare(task), task.settings)
    zs_BK = score(ape, task, params, data["test_features"], beta=1.0, alpha=0.0, gamma=0.5)
    close(zs_BK, data["test_logits_zs"])


def test_with_all_channels_and_equal_images_it_is_tip_adapter() -> None:
    data, ape, tip = fixture("ape"), method(METHOD), method("tip-adapter")
    mine = data_task(ape, data, channels=WIDTH)
    tips = make_task(
        tip,
        data["train_labels"],
        data["text_weights"],
        features={(POOLED, f"rrc(0.5)#{v}"): x for v, x in enumerate(data["views"])},
        overrides={"key_views": len(data["views"])},
    )
    params = ape.solve(mine, ape.prepare(mine), mine.settings)
    cache = tip.solve(tips, tip.prepare(tips), tips.settings)
    ours = score(ape, mine, params, data["test_features"], beta=3.0, alpha=2.0, gamma=0.0)
    close(ours, score(tip, tips, cache, data["test_features"], beta=3.0, alpha=2.0))


def test_similarity_equals_the_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    y_N = torch.tensor([2, 0, 1, 0, 2, 1])
    W_KC = torch.randn(3, 4, generator=generator).double()
    keys_NC = torch.randn(6, 4, generator=generator).double()
    classes = [torch.cat([W_KC[k : k + 1], keys_NC[y_N == k]]) for k in range(3)]
    products = [a * b for i, j in itertools.permutations(range(3), 2) for a in classes[i] for b in classes[j]]
    close(similarity(W_KC, keys_NC, y_N), torch.stack(products).mean(0))


def test_the_order_of_images_does_not_matter() -> None:
    data, ape = fixture("ape"), method(METHOD)
    order_N = torch.randperm(len(data["train_labels"]), generator=torch.Generator().manual_seed(0))
    shuffled = data | {"train_labels": data["train_labels"][order_N], "views": data["views"][:, order_N]}
    task = data_task(ape, shuffled)
    params = ape.solve(task, ape.prepare(task), task.settings)
    best = {name: float(data[f"best_{name}"]) for name in ape.inference}
    close(score(ape, task, params, data["test_features"], **best), data["test_logits_best"])
