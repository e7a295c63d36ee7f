"""Small pictures as inline SVG: intervals against a margin, distributions, lines over time.

Colours come from the page's style by class, so that a picture follows light, dark and print. What a picture
shows is also said in its `title`, or stands beside it in figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from eval.page.markup import Html, joined, tag
from eval.types import Interval, Spread

_FOREST = (240, 30)
_BARS = (260, 86)
_SPARK = (120, 28)
_LINE = (420, 190)
_EDGE = 8
"""Room at both sides of a picture, so that nothing that lies on its border is cut."""


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to coordinates within `width`."""

    low: float
    high: float
    width: float

    def at(self, value: float) -> float:
        """Values outside lie on the border."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return _EDGE + share * (self.width - 2 * _EDGE)


@dataclass(frozen=True, slots=True)
class Bar:
    """An interval to draw: against `same`, where nothing has changed, and a limit, beyond which is harm: on
    its left where more is better, on its right where more is worse."""

    interval: Interval
    same: float = 0.0
    limit: float | None = None
    more_is_better: bool = True

    @property
    def ends(self) -> tuple[float, ...]:
        limit = () if self.limit is None else (self.limit,)
        return (self.same, self.interval.low, self.interval.mean, self.interval.high, *limit)


def scale_of(bars: Iterable[Bar]) -> Scale:
    """One scale for bars that are to be compared by eye. What has no end is drawn to the border."""
    known = [end for bar in bars for end in bar.ends if math.isfinite(end)] or [0.0]
    room = 0.05 * (max(known) - min(known)) or 0.01
    return Scale(min(known) - room, max(known) + room, _FOREST[0])


def unit_scale() -> Scale:
    """For values that are shares."""
    return Scale(0, 1, _FOREST[0])


def forest(bar: Bar, scale: Scale, state: str) -> Html:
    """The interval and its mean; what lies beyond the limit is shaded."""
    width, height = _FOREST
    middle, found = height / 2, bar.interval
    low, high = scale.at(found.low), scale.at(found.high)
    return tag(
        "svg",
        tag("title", f"{found.mean:.3f}, from {found.low:.3f} to {found.high:.3f}"),
        _harm(scale.at(bar.limit), bar.more_is_better) if bar.limit is not None else None,
        _upright(scale.at(bar.same), "zero"),
        *(
            tag("line", x1=start, x2=end, y1=middle - tall, y2=middle + tall, class_=f"interval {state}")
            for start, end, tall in ((low, high, 0), (low, low, 4), (high, high, 4))
        ),
        tag("circle", cx=scale.at(found.mean), cy=middle, r=4, class_=f"mean {state}"),
        viewBox=f"0 0 {width} {height}",
        class_="forest",
        role="img",
    )


def _harm(limit: float, left: bool) -> Html:
    width, height = _FOREST
    start, end = (0.0, limit) if left else (limit, float(width))
    shade = tag("rect", x=start, y=0, width=end - start, height=height, class_="harm")
    return joined(shade, _upright(limit, "margin"))


def _upright(x: float, class_: str) -> Html:
    return tag("line", x1=x, x2=x, y1=0, y2=_FOREST[1], class_=class_)


def histogram(spread: Spread) -> Html:
    """Baseline and candidate side by side in each bin; of one run alone, its bars fill the bins."""
    width, height = _BARS
    both = any(spread.candidate)
    floor, top = height - 16, 14
    most = max(*spread.baseline, *spread.candidate)
    step = (width - 2 * _EDGE) / len(spread.baseline)
    thick = (step - 2) / (2 if both else 1)
    bars = []
    for side, counts in enumerate((spread.baseline, spread.candidate)):
        for index, count in enumerate(counts):
            if count:
                tall = max(1.0, count / most * (floor - top))
                x = _EDGE + index * step + 1 + side * thick
                name = ("before", "after")[side]
                bars.append(tag("rect", x=x, y=floor - tall, width=thick, height=tall, class_=name))
    return tag(
        "svg",
        tag("title", f"{spread.metric}: how many cases have which value"),
        *bars,
        tag("line", x1=_EDGE, x2=width - _EDGE, y1=floor, y2=floor, class_="zero"),
        _label(_EDGE, 8, f"{most} cases", "start"),
        _label(_EDGE, height - 3, f"{spread.low:g}", "start"),
        _label(width - _EDGE, height - 3, _end(spread.high), "end"),
        viewBox=f"0 0 {width} {height}",
        class_="histogram",
        role="img",
    )


def _end(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def sparkline(values: Sequence[float]) -> Html:
    """Oldest left, the last one marked. The scale is the values' own, but never finer than a hundredth."""
    width, height = _SPARK
    low, high = min(values), max(values)
    if high - low < 0.01:
        low, high = low - 0.005, high + 0.005
    across = Scale(0, max(1, len(values) - 1), width)
    up = Scale(low, high, height)
    points = [(across.at(index), height - up.at(value)) for index, value in enumerate(values)]
    return tag(
        "svg",
        tag("title", ", ".join(f"{value:.3g}" for value in values)),
        _polyline(points, "trend"),
        tag("circle", cx=points[-1][0], cy=points[-1][1], r=3, class_="last"),
        viewBox=f"0 0 {width} {height}",
        class_="spark",
        role="img",
    )


def evidence_line(times: Sequence[float], values: Sequence[float], threshold: float) -> Html:
    """E-values over seconds since the beginning, on a logarithmic scale, and the threshold that rejects."""
    width, height = _LINE
    floor = height - 24
    logs = [math.log10(max(value, 1e-6)) for value in values]
    limit = math.log10(threshold)
    across = Scale(0, max(1.0, *times), width)
    up = Scale(min(-1.0, *logs), max(limit + 0.5, *logs), floor)
    points = [(across.at(time), floor - up.at(log)) for time, log in zip(times, logs, strict=True)]
    powers = range(math.ceil(up.low), math.floor(up.high) + 1)
    shown = [power for power in powers if power % max(1, len(powers) // 5) == 0]
    return tag(
        "svg",
        tag("title", f"e-value over time; {threshold:g} rejects"),
        *(_level(floor - up.at(power), f"{10.0**power:g}", "grid") for power in shown),
        _level(floor - up.at(limit), f"threshold {threshold:g}", "margin"),
        _polyline(points, "trend"),
        *(tag("circle", cx=x, cy=y, r=2.5, class_="last") for x, y in points),
        _label(_EDGE, height - 6, "0 s", "start"),
        _label(width - _EDGE, height - 6, f"{max(times):.0f} s", "end"),
        viewBox=f"0 0 {width} {height}",
        class_="line",
        role="img",
    )


def _level(y: float, label: str, class_: str) -> Html:
    """A line across. A limit has its label apart from those of the scale, where the evidence is still low."""
    across = tag("line", x1=_EDGE, x2=_LINE[0] - _EDGE, y1=y, y2=y, class_=class_)
    return tag("g", across, _label(_EDGE + (50 if class_ == "margin" else 0), y - 3, label, "start"))


def _polyline(points: Sequence[tuple[float, float]], class_: str) -> Html:
    return tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=class_)


def _label(x: float, y: float, text: str, anchor: str) -> Html:
    return tag("text", text, x=x, y=y, text_anchor=anchor)
