"""Put numbers and lists into words, in the same way in tables, notes, figures and messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def p_text(p: float) -> str:
    """Write a p-value with three decimals, or ``<0.001`` if these would be 0.000."""
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def p_equation(p: float) -> str:
    """Write a p-value for a sentence: ``p = 0.012`` or ``p <0.001``."""
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def shots_text(n: int) -> str:
    """Write a number of shots: ``16 shots``, ``1 shot``, ``zero-shot``."""
    return f"{n} shot{'s' if n > 1 else ''}" if n else "zero-shot"


def shots_list(numbers: Iterable[int]) -> str:
    """Write numbers of shots: ``1, 2 and 4 shots``."""
    some = sorted(set(numbers))
    return f"{listed([str(n) for n in some], len(some))} shots" if len(some) > 1 else shots_text(some[0])


def seeds_list(seeds: Sequence[int]) -> str:
    """Write seeds: ``seed 1``, ``seeds 1, 2 and 3``."""
    return f"seed{'s' if len(seeds) > 1 else ''} {listed([str(s) for s in seeds], len(seeds))}"


def kept_of(mute: Sequence[int], every: Sequence[int]) -> str:
    """Say which of all seeds keep something, without the ``mute`` ones: ``seed 1 of 1, 2 and 3 keeps``."""
    kept = [s for s in every if s not in mute]
    whole = listed([str(s) for s in every], len(every))
    return f"{seeds_list(kept)} of {whole} {'keeps' if len(kept) == 1 else 'keep'}"


def listed(names: Sequence[str], most: int = 6, noun: str = "methods") -> str:
    """Write names as ``a, b and c``; more than ``most`` are counted instead: ``26 methods``."""
    if len(names) > most:
        return f"{len(names)} {noun}"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def cells_text(cells: Iterable[tuple[str, int]]) -> str:
    """Write (name, shots) pairs as ``a and b at 1 and 2 shots; c at 16 shots``."""
    numbers: dict[str, list[int]] = {}
    for name, n in cells:
        numbers.setdefault(name, []).append(n)
    names: dict[tuple[int, ...], list[str]] = {}
    for name, some in numbers.items():
        names.setdefault(tuple(some), []).append(name)
    return "; ".join(f"{listed(group, len(group))} at {shots_list(some)}" for some, group in names.items())
