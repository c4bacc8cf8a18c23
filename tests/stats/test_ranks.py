"""Rank tests against enumeration, printed tables and scikit-posthocs."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.stats import MAX_METHODS, critical_difference, friedman, holm, not_separated, wilcoxon_holm


def scores(seed: int = 0, datasets: int = 11, methods: int = 5) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    values = (
        rng.random((datasets, 1))
        + 0.05 * np.arange(methods)
        + 0.08 * rng.standard_normal((datasets, methods))
    )
    return pd.DataFrame(values, columns=list("abcdefghijklmn")[:methods])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([]).shape == (0,)
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.2, float("nan")])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_raw_and_bonferroni(p: list[float]) -> None:
    adjusted, raw = holm(p), np.array(p)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(1, raw * len(p)) + 1e-12).all()
    assert adjusted[raw.argmin()] == pytest.approx(min(1, raw.min() * len(p)))
    order = np.argsort(raw, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()


def test_holm_and_wilcoxon_against_the_oracle() -> None:
    posthocs = pytest.importorskip("scikit_posthocs")
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    frame = scores(1)
    ours = wilcoxon_holm(frame)
    long = frame.melt(var_name="method", value_name="score")
    matrix = posthocs.posthoc_wilcoxon(long, val_col="score", group_col="method")
    theirs = [matrix.loc[a, b] for a, b in zip(ours["first"], ours["second"], strict=True)]
    assert ours["p"].to_numpy() == pytest.approx(theirs)
    assert ours["p_holm"].to_numpy() == pytest.approx(multitest.multipletests(theirs, method="holm")[1])


def test_wilcoxon_by_enumeration() -> None:
    frame = pd.DataFrame({"a": [0.50, 0.61, 0.72, 0.40, 0.93], "b": [0.40, 0.63, 0.69, 0.35, 0.50]})
    d = (frame["a"] - frame["b"]).to_numpy()
    ranks = stats.rankdata(np.abs(d))
    observed = abs((np.sign(d) * ranks).sum())
    sums = [abs((np.array(signs) * ranks).sum()) for signs in product((-1, 1), repeat=5)]
    row = wilcoxon_holm(frame).iloc[0]
    assert row["p"] == pytest.approx(np.mean(np.array(sums) >= observed))
    assert (row["wins"], row["losses"]) == (4, 1)
    assert row["median_difference"] == pytest.approx(0.05)


def test_wilcoxon_with_reference_and_equal_methods() -> None:
    frame = scores(2).assign(z=lambda f: f["a"])
    result = wilcoxon_holm(frame, reference="a").set_index("second")
    assert list(result.index) == ["b", "c", "d", "e", "z"]
    assert result.loc["z", "p"] == 1
    with pytest.raises(ValueError, match="no method 'safe'"):
        wilcoxon_holm(frame, reference="safe")


def test_critical_difference_against_demsars_table() -> None:
    # Demsar 2006, table 5a: q at 0.05 for 2 to 10 methods
    table = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
    for k, q in enumerate(table, start=2):
        assert critical_difference(k, 14) == pytest.approx(q * np.sqrt(k * (k + 1) / (6 * 14)), abs=2e-3)
    assert critical_difference(4, 14, level=0.90) == pytest.approx(2.291 * np.sqrt(20 / 84), abs=2e-3)


@pytest.mark.parametrize("k", [12, 27, 60, MAX_METHODS])
def test_the_critical_difference_of_many_methods(k: int) -> None:
    """The range of k standard normal values is at most q with a probability that one integral gives."""
    q = critical_difference(k, 11) / np.sqrt(k * (k + 1) / (6 * 11)) * np.sqrt(2)
    z = np.linspace(-9, 9 + q, 20001)
    density = k * stats.norm.pdf(z) * (stats.norm.cdf(z) - stats.norm.cdf(z - q)) ** (k - 1)
    assert np.trapezoid(density, z) == pytest.approx(0.95, abs=1e-8)


def test_friedman_against_scipy_and_the_oracle() -> None:
    posthocs = pytest.importorskip("scikit_posthocs")
    frame = scores(3, datasets=11, methods=6)
    result = friedman(frame)
    assert result.p == pytest.approx(stats.friedmanchisquare(*frame.to_numpy().T).pvalue)
    assert result.ranks.sum() == pytest.approx(6 * 7 / 2)
    assert result.ranks.index[0] == frame.rank(axis=1, ascending=False).mean().idxmin()
    matrix = posthocs.posthoc_nemenyi_friedman(frame.to_numpy())
    matrix.index = matrix.columns = frame.columns
    for a in frame:
        for b in frame:
            apart = abs(result.ranks[a] - result.ranks[b]) > result.critical_difference
            assert a == b or apart == (matrix.loc[a, b] < 0.05)


def test_groups_are_the_bars_of_a_diagram() -> None:
    frame = scores(4, datasets=30, methods=6)
    result = friedman(frame)
    groups = not_separated(result)
    for a in frame:
        for b in frame:
            close = abs(result.ranks[a] - result.ranks[b]) <= result.critical_difference
            assert a == b or close == any({a, b} <= set(g) for g in groups)
    assert not any(set(g) < set(h) for g in groups for h in groups)


def test_refusals() -> None:
    friedman(pd.DataFrame(np.random.default_rng(0).random((3, MAX_METHODS))))
    with pytest.raises(ValueError, match=f"at most {MAX_METHODS}"):
        friedman(pd.DataFrame(np.random.default_rng(0).random((3, MAX_METHODS + 1))))
    with pytest.raises(ValueError, match="at least 3 methods"):
        friedman(scores(methods=2))
    gap = scores()
    gap.loc[3, "c"] = np.nan
    with pytest.raises(ValueError, match="c on 3"):
        friedman(gap)
    with pytest.raises(ValueError, match="missing"):
        wilcoxon_holm(gap)


def test_equal_everywhere() -> None:
    frame = pd.DataFrame({m: [0.5, 0.6, 0.7] for m in "abc"})
    result = friedman(frame)
    assert (result.p, result.ranks.nunique()) == (1.0, 1)
    assert not_separated(result) == [("a", "b", "c")]


@pytest.mark.slow
def test_signed_ranks_are_those_of_scipy_one_by_one() -> None:
    """With and without ties and zeros, short and long: the way that SciPy takes for each list alone."""
    rng = np.random.default_rng(3)
    for n in (2, 5, 11, 13, 14, 20):
        table = pd.DataFrame({f"m{i}": np.round(rng.normal(size=n), 1 if i % 2 else 9) for i in range(7)})
        table["same"] = table["m0"]
        made = wilcoxon_holm(table)
        for _, line in made.iterrows():
            d = np.round((table[line["first"]] - table[line["second"]]).to_numpy(), 12)
            alone = stats.wilcoxon(d[d != 0]).pvalue if (d != 0).any() else 1.0
            assert line["p"] == pytest.approx(alone, abs=1e-13), (n, line["first"], line["second"])
