"""The page docs/methods.md, made from the registry and the docstrings of the methods.

python -m tests.docs.methods_page            writes the page
python -m tests.docs.methods_page --check    ends with 1 where the page is not what would be written
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bench.cli import method_docs
from bench.interface import Facts, Method
from bench.names import value_text
from bench.recipe import PIXELS, POOLED, PREPROJ, Recipe, points
from bench.registry import builtin

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "methods.md"
# The families in the page's order, by file. A file that is in none is listed under the last heading.
FAMILIES = {
    "Zero-shot classifiers": ("zero_shot", "cupl"),
    "Linear classifiers on image features": (
        "linear_probe",
        "linear_probe_sgd",
        "wise_ft",
        "lp_plus_plus",
        "clap",
        "gda",
    ),
    "Learned prompts": ("coop", "cocoop", "prograd"),
    "Adapters and caches": ("clip_adapter", "taskres", "tip_adapter", "ape", "calip"),
    "Images and prompts together": ("cross_modal",),
    "Fine-tuned towers": ("safe", "safe_a", "safe_layer4", "prolip", "clip_lora", "wise_ft_full"),
}
OTHERS = "Other methods"
HEAD = """# Methods

<!-- made by python -m tests.docs.methods_page from the docstrings in methods/: change them, not this page -->

Every method of the program, by family. The specification of each is in [the protocol](protocol/index.md), and
[adding a method](adding-a-method.md) says how to write another one. The command line shows the same:

```console
$ bench list methods
$ bench list settings tip-adapter
$ bench cite tip-adapter
```

In the tables below,

- *needs* names the towers a method works on, the features of test images that it reads
  ([taps](architecture.md#words)), its prompt sets, and the methods whose fitted state it reads;
- *validation* says what few-shot validation chooses under the protocol `recipe`;
- *cost* is a class. *none*: nothing is trained. *low*: the method works on one stored vector per image.
  *medium*: it works on several stored vectors per image. *high*: a whole tower runs at every step;
- *a change causes* is *a refit* if another value of the setting needs another fit, and *no refit* if the
  value acts on the fitted method;
- s is the scale of CLIP's logits, K the number of classes, N the number of support images, and C the width of
  an embedding. Lengths and numbers of configurations are those of the preset `paper` at 16 shots.
"""
_CITED = re.compile(r"\bprotocol (\d+(?:\.\d+)*(?:(?:, | and )\d+(?:\.\d+)*)*)")
_TOWERS = {"rn": "ResNet", "vit": "ViT", "other": "other towers"}


@cache
def _anchors() -> dict[str, str]:
    """Return the page and anchor, as a link from docs/, of every anchor of the protocol."""
    pages = sorted((ROOT / "docs" / "protocol").glob("*.md"))
    found = [(anchor, page.name) for page in pages for anchor in _ids(page.read_text("utf-8"))]
    return {anchor: f"protocol/{page}#{anchor}" for anchor, page in found}


def _ids(text: str) -> list[str]:
    return re.findall(r'<a id="([^"]+)">', text)


def linked(text: str) -> str:
    """Return a text whose citations of the protocol, as in ``protocol 12.3`` and ``(A7)``, are links."""

    def sections(cited: re.Match[str]) -> str:
        return "protocol " + re.sub(
            r"\d+(?:\.\d+)*", lambda n: f"[{n[0]}]({_anchors()['p' + n[0].replace('.', '-')]})", cited[1]
        )

    text = _CITED.sub(sections, text)
    return re.sub(r"\bA(\d+)\b", lambda letter: f"[{letter[0]}]({_anchors()[f'p17-a{letter[1]}']})", text)


def cell(text: str) -> str:
    """Return a text that can stand in a table."""
    return linked(text).replace("|", "\\|")


def recipe_of(method: Method) -> tuple[Recipe, Facts]:
    """Return a method's recipe at 16 shots on ten classes, with the preset ``paper``."""
    facts = Facts(16, 10, 160, 10, "default", method.towers[0], "paper")
    return method.recipe(method.settings, facts), facts


def needs(method: Method) -> str:
    """Return towers, features, text and fitted methods that a method needs."""
    towers = (
        "all towers" if len(method.towers) == len(_TOWERS) else " or ".join(map(_TOWERS.get, method.towers))
    )  # type: ignore[arg-type]
    features = " and ".join(f"`{tap}`" for tap in method.taps)
    text = (
        "prompts " + " or ".join(f"`{name}`" for name in method.prompts)
        if method.uses_prompts
        else "texts of its own"
    )
    after = "".join(f"; a fitted [`{name}`](#{slug(name)})" for name in method.after)
    return f"{towers}; features {features}; {text}{after}" + ("" if method.uses_labels else "; no labels")


def slug(name: str) -> str:
    """Return the anchor that GitHub and MkDocs give to a heading."""
    return re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-")


def trains(method: Method, recipe: Recipe) -> str:
    """Return what is trained or solved."""
    if what := method_docs.described(type(method)).parts.get("Trains"):
        return what
    if recipe.optim is not None:
        return "see above"
    return "nothing" + ("; a closed form is solved" if type(method).solve is not Method.solve else "")


def training(recipe: Recipe) -> str:
    """Return optimiser, length and number of configurations; empty where nothing trains by gradients."""
    if recipe.optim is None:
        return ""
    length = f"{recipe.steps:,} steps" if recipe.steps is not None else f"{recipe.epochs} epochs"
    count = len(points({**recipe.grid, **recipe.static}))
    name = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD"}[recipe.optim.name]
    return f"{name}, {length}" + (f", {count} configurations" if count > 1 else "")


def validation(recipe: Recipe) -> str:
    """Return what few-shot validation chooses."""
    axes = {**recipe.grid, **recipe.static, **recipe.search}
    chosen = [f"`{name}`" for name, values in axes.items() if len(values) > 1]
    if recipe.optim is not None and recipe.select == "best":
        chosen.insert(0, "the checkpoint")
    return f"chooses {', '.join(chosen)}" if chosen else "not used"


def cost(method: Method, recipe: Recipe, facts: Facts) -> str:
    """Return the class of a method's cost and its reason."""
    if PIXELS in method.taps:
        return "high: a whole tower runs at every step"
    if method.learned_text(method.settings, facts) is not None:
        return "high: the text tower runs at every step"
    wide = [tap for tap in method.taps if tap not in (POOLED, PREPROJ)]
    if wide:
        return f"medium: works on stored `{wide[0]}` features"
    if recipe.optim or recipe.support or recipe.search:
        return f"low: works on stored `{method.taps[0]}` features"
    return "none"


def section(method: Method) -> Iterator[str]:
    """Yield the Markdown lines of one method."""
    said, (recipe, facts) = method_docs.described(type(method)), recipe_of(method)
    yield f"### {method.name}\n"
    yield f"**{method.title}**" + (f", {method.cite}." if method.cite else ".") + "\n"
    for text in said.paragraphs:
        yield linked(text) + "\n"
    rows = {
        "source": said.parts.get("Source", method.cite),
        "needs": needs(method),
        "trains": trains(method, recipe),
        "training": training(recipe),
        "validation": validation(recipe),
        "cost": cost(method, recipe, facts),
        "deviates": said.parts.get("Deviates", ""),
        "note": method.note,
    }
    yield "| | |\n|---|---|"
    for name, text in rows.items():
        if text:
            yield f"| {name} | {cell(text)} |"
    yield ""
    settings = method_docs.settings(method)
    if settings:
        yield "| setting | default | a change causes | meaning | presets and datasets |"
        yield "|---|---|---|---|---|"
    for row in settings:
        yield (
            f"| `{row['name']}` | {cell(value_text(row['default']))} "
            f"| {'a refit' if row['refits'] else 'no refit'} | {cell(row['meaning'])} "
            f"| {cell('; '.join(method_docs.changes(row)))} |"
        )
    if settings:
        yield ""


def families() -> dict[str, list[Method]]:
    """Return the program's own methods by family; methods of installed packages are left out."""
    found: dict[str, list[Method]] = {name: [] for name in (*FAMILIES, OTHERS)}
    registry = builtin()
    by_file: dict[str, list[Method]] = {}
    for key, method in registry.methods.items():
        if not registry.digests[key]:
            by_file.setdefault(Path(registry.sources[key]).stem, []).append(method)
    for name, files in FAMILIES.items():
        for file in files:
            found[name] += by_file.pop(file)
    found[OTHERS] += [method for methods in by_file.values() for method in methods]
    return {name: methods for name, methods in found.items() if methods}


def page() -> str:
    """Return the whole page."""
    lines = [HEAD, "| method | what it does | validation | cost |\n|---|---|---|---|"]
    for methods in families().values():
        for method in methods:
            said, (recipe, facts) = method_docs.described(type(method)), recipe_of(method)
            what = said.paragraphs[0].partition(". ")[0].rstrip(".") if said.paragraphs else method.title
            lines.append(
                f"| [`{method.name}`](#{slug(method.name)}) | {cell(what)} | {cell(validation(recipe))} "
                f"| {cost(method, recipe, facts).partition(':')[0]} |"
            )
    for family, methods in families().items():
        lines.append(f"\n## {family}\n")
        for method in methods:
            lines += section(method)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def main(arguments: list[str]) -> int:
    """Write the page; with ``--check`` compare it instead and return 1 where it differs."""
    made = page()
    if arguments == ["--check"]:
        same = PAGE.is_file() and PAGE.read_text("utf-8") == made
        print(f"{PAGE}: {'as it should be' if same else 'run  python -m tests.docs.methods_page'}")
        return 0 if same else 1
    PAGE.write_text(made, encoding="utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
