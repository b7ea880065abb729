"""The report's charts as HTML and inline SVG: no script, no fixed width, colours left to the CSS.

Lines are drawn in a 100 x 100 box that stretches with the page while strokes keep their width;
texts and dots are HTML placed in percent, so they stay crisp and readable on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    spoken = ", ".join(f"{label}: {count}" for label, _, count in parts if count)
    pieces = [
        f'<span class="part {escape(style)}" style="flex-grow:{count}" '
        f'title="{escape(label)}: {count} ({100 * count / total:.0f} %)">'
        f"<span>{count if count / total >= _LABELLED else ''}</span></span>"
        for label, style, count in parts
        if count
    ]
    return f'<div class="stack" role="img" aria-label="{escape(spoken)}">{"".join(pieces)}</div>'


def line_panel(
    title: str, points: Sequence[Point], *, decimals: int, smooth: bool = False, from_zero: bool
) -> str:
    """A line over training steps; with `smooth` the values are faint behind their running mean."""
    shown = _thin(points)
    values = [value for _, value in shown]
    steps = [step for step, _ in shown]
    scale = _Scale(min(steps), max(steps), _ticks(0.0 if from_zero else min(values), max(values)))
    placed = [scale.place(*point) for point in shown]
    lines = []
    if smooth:
        lines.append(_line("raw", placed))
        placed = [scale.place(*point) for point in _running_mean(shown)]
    lines.append(_line("curve", placed))
    said = [f"step {step:.0f}: {value:.{decimals}f}" for step, value in shown]
    dots = "" if smooth else _dots("dot", placed, said)
    summary = f"{points[0][1]:.{decimals}f} → {points[-1][1]:.{decimals}f}"
    ends = (f"step {min(steps):.0f}", f"{max(steps):.0f}")
    return _panel(title, summary, scale, "".join(lines), ends=ends, dots=dots)


def curves_panel(
    title: str,
    curves: Sequence[tuple[str, str, Sequence[Point]]],
    *,
    summary: str,
    ends: tuple[str, str],
    top: float | None = None,
) -> str:
    """Lines from 0 to 100 percent across; a curve is (label, css class, points).

    `ends` stand below the axis. The scale goes from 0 to `top`, or to the highest value.
    """
    highest = max(value for _, _, points in curves for _, value in points)
    scale = _Scale(0.0, 100.0, _ticks(0.0, highest if top is None else top))
    lines = [_line(style, [scale.place(*at) for at in points]) for _, style, points in curves]
    named = "".join(
        f'<li class="{escape(style)}">{escape(label)}</li>' for label, style, _ in curves if label
    )
    legend = f'<ul class="legend lines">{named}</ul>' if len(curves) > 1 else ""
    return _panel(title, summary, scale, "".join(lines), ends=ends, legend=legend)


def dots_panel(
    title: str, dots: Sequence[tuple[float, float, str]], *, summary: str, ends: tuple[str, str]
) -> str:
    """Dots (x, y, what each says), both from 0 to 100 percent, over the diagonal."""
    scale = _Scale(0.0, 100.0, _ticks(0.0, 100.0))
    diagonal = _line("diagonal", [scale.place(0.0, 0.0), scale.place(100.0, 100.0)])
    placed = [scale.place(x, y) for x, y, _ in dots]
    curve = _line("curve", placed)
    said = [text for _, _, text in dots]
    shown = _dots("dot", placed, said)
    return _panel(title, summary, scale, diagonal + curve, ends=ends, dots=shown)


@dataclass(frozen=True)
class _Scale:
    """From values to the 100 x 100 box, whose y grows downwards."""

    left: float
    right: float
    ticks: Sequence[float]

    def place(self, x: float, y: float) -> Point:
        across = (x - self.left) / (self.right - self.left) if self.right > self.left else 0.5
        bottom, top = self.ticks[0], self.ticks[-1]
        return 100.0 * across, 100.0 * (1.0 - (y - bottom) / (top - bottom))

    def height(self, tick: float) -> float:
        return self.place(self.left, tick)[1]


def _panel(
    title: str,
    summary: str,
    scale: _Scale,
    lines: str,
    *,
    ends: tuple[str, str],
    dots: str = "",
    legend: str = "",
) -> str:
    grid = "".join(f"M0 {scale.height(tick):.2f}H100" for tick in scale.ticks)
    labels = "".join(
        f'<span style="top:{scale.height(tick):.2f}%">{_number(tick)}</span>'
        for tick in scale.ticks
    )
    left, right = (escape(end) for end in ends)
    return (
        f'<figure class="panel"><figcaption><b>{escape(title)}</b> '
        f"<span>{escape(summary)}</span></figcaption>"
        f'<div class="plot"><div class="y-axis" aria-hidden="true">{labels}</div><div class="area">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}: {escape(summary)}">'
        f'<path class="grid" d="{grid}"/>{lines}</svg>{dots}</div>'
        f'<div class="x-axis"><span>{left}</span><span>{right}</span></div></div>'
        f"{legend}</figure>"
    )


def _dots(style: str, placed: Sequence[Point], said: Sequence[str]) -> str:
    return "".join(
        f'<i class="{style}" style="left:{x:.2f}%;top:{y:.2f}%" title="{escape(text)}"></i>'
        for (x, y), text in zip(placed, said, strict=True)
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
