"""The report's charts as HTML and inline SVG: no script, no fixed width, colours left to the CSS.

Lines are drawn in a 100 x 100 box that stretches with the page while strokes keep their width;
texts and dots are HTML placed in percent, so they stay crisp and readable on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Point = tuple[float, float]

_POINTS_IN_A_LINE = 240
_SMOOTHING = 0.9
_TICKS = 4
#: Share of a stacked bar below which a part is too narrow for its number.
_LABELLED = 0.04


def interval_bars(bars: Sequence[tuple[str, str, Mapping[str, float]]]) -> str:
    """Horizontal bars from 0 to 100 with whiskers; a bar is (label, css class, interval)."""
    rows = []
    for label, style, interval in bars:
        value, low, high = (_share(interval[end]) for end in ("value", "low", "high"))
        rows.append(
            f'<div class="bar {escape(style)}"><span class="bar-label">{escape(label)}</span>'
            f'<span class="track"><span class="fill" style="width:{value:.2f}%"></span>'
            f'<span class="whisker" style="left:{low:.2f}%;width:{high - low:.2f}%"></span></span>'
            f'<span class="bar-value">{interval["value"]:.1f}</span></div>'
        )
    return "".join(rows)


def stacked_bar(parts: Sequence[tuple[str, str, int]]) -> str:
    """One bar cut into counts; a part is (label, css class, count) and empty parts are left out."""
    total = sum(count for _, _, count in parts) or 1
    pieces = [
        f'<span class="part {escape(style)}" style="flex-grow:{count}" '
        f'title="{escape(label)}: {count} ({100 * count / total:.0f} %)">'
        f"<span>{count if count / total >= _LABELLED else ''}</span></span>"
        for label, style, count in parts
        if count
    ]
    return f'<div class="stack">{"".join(pieces)}</div>'


def line_panel(
    title: str, points: Sequence[Point], *, decimals: int, smooth: bool = False, from_zero: bool
) -> str:
    """A line over training steps; with `smooth` the values are faint behind their running mean."""
    shown = _thin(points)
    steps = [step for step, _ in shown]
    values = [value for _, value in shown]
    left, right = min(steps), max(steps)
    ticks = _ticks(0.0 if from_zero else min(values), max(values))
    bottom, top = ticks[0], ticks[-1]

    def place(step: float, value: float) -> Point:
        across = (step - left) / (right - left) if right > left else 0.5
        return 100.0 * across, 100.0 * (1.0 - (value - bottom) / (top - bottom))

    placed = [place(*point) for point in shown]
    grid = "".join(f"M0 {place(left, tick)[1]:.2f}H100" for tick in ticks)
    lines = [f'<path class="grid" d="{grid}"/>']
    if smooth:
        lines.append(_line("raw", placed))
        placed = [place(step, value) for step, value in _running_mean(shown)]
    lines.append(_line("curve", placed))
    dots = "" if smooth else "".join(
        f'<i class="dot" style="left:{x:.2f}%;top:{y:.2f}%" '
        f'title="step {step:.0f}: {value:.{decimals}f}"></i>'
        for (x, y), (step, value) in zip(placed, shown, strict=True)
    )  # fmt: skip
    labels = "".join(
        f'<span style="top:{place(left, tick)[1]:.2f}%">{_number(tick)}</span>' for tick in ticks
    )
    first, last = points[0][1], points[-1][1]
    return (
        f'<figure class="panel"><figcaption><b>{escape(title)}</b> '
        f"<span>{first:.{decimals}f} → {last:.{decimals}f}</span></figcaption>"
        f'<div class="plot"><div class="y-axis">{labels}</div><div class="area">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}">{"".join(lines)}</svg>{dots}</div>'
        f'<div class="x-axis"><span>step {left:.0f}</span><span>{right:.0f}</span></div></div>'
        "</figure>"
    )


def _line(style: str, placed: Sequence[Point]) -> str:
    path = " ".join(f"{x:.2f},{y:.2f}" for x, y in placed)
    return f'<polyline class="{style}" points="{path}"/>'


def _thin(points: Sequence[Point]) -> list[Point]:
    """At most `_POINTS_IN_A_LINE` points: means of equal runs of neighbours."""
    run = math.ceil(len(points) / _POINTS_IN_A_LINE)
    if run <= 1:
        return list(points)
    runs = [points[start : start + run] for start in range(0, len(points), run)]
    return [
        (sum(step for step, _ in part) / len(part), sum(value for _, value in part) / len(part))
        for part in runs
    ]


def _running_mean(points: Sequence[Point]) -> list[Point]:
    """Exponential running mean, corrected for its start so that it begins at the first value."""
    smoothed, mean, weight = [], 0.0, 0.0
    for step, value in points:
        mean = _SMOOTHING * mean + (1.0 - _SMOOTHING) * value
        weight = _SMOOTHING * weight + (1.0 - _SMOOTHING)
        smoothed.append((step, mean / weight))
    return smoothed


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, a few, that enclose the range."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / _TICKS))
    size = next(power * step for step in (1, 2, 2.5, 5, 10) if power * step >= span / _TICKS)
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return [size * tick for tick in range(first, max(last, first + 1) + 1)]


def _number(value: float) -> str:
    return f"{value:.10g}" if abs(value) >= 1e-9 else "0"


def _share(value: float) -> float:
    return min(max(value, 0.0), 100.0)
