"""Ratios with bounds: a Markdown table and a plot."""

import math
from dataclasses import dataclass
from html import escape

# Two-sided 95 % points of Student's t for 1 to 30 degrees of freedom.
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110,
       2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)
FIGURES = ("rate", "p50", "p99", "p999", "cpu")


@dataclass
class Result:
    """The samples of a scenario by target, in the order they were started."""

    scenario: object
    rows: dict

    def ratios(self):
        """(label, reference, {figure: (mean, low, high)}) for Sidekey beside every other target, or for all beside the first."""
        ours = [label for label in self.rows if "sidekey" in label]
        for mine in ours:
            for other in (label for label in self.rows if label not in ours):
                pairs = list(zip(self.rows[mine], self.rows[other]))
                yield mine, other, {f: bounds([(getattr(a, f), getattr(b, f)) for a, b in pairs]) for f in FIGURES}

    def added(self):
        """(label, reference, {figure: (mean, low, high)}) in milliseconds, for Sidekey before what is also asked without it."""
        labels = list(self.rows)
        for mine in (label for label in labels[1:] if "sidekey" in label and labels[0] in ("direct", "gateway")):
            pairs = list(zip(self.rows[mine], self.rows[labels[0]]))
            yield mine, labels[0], {f: interval([getattr(a, f) - getattr(b, f) for a, b in pairs]) for f in ("p50", "p99")}


def bounds(pairs):
    """Geometric mean of the ratios and its 95 % bounds; None where a figure is not measured (no CPU of a proxy that is not there)."""
    if any(a <= 0 or b <= 0 for a, b in pairs):
        return None
    return tuple(math.exp(x) for x in interval([math.log(a / b) for a, b in pairs]))


def interval(values):
    """Mean and its 95 % bounds."""
    mean = sum(values) / len(values)
    error = math.sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - 1) / len(values))
    reach = T95[min(len(values) - 2, len(T95) - 1)] * error
    return mean, mean - reach, mean + reach


def markdown(results, arguments):
    lines = [
        f"{arguments.rounds} rounds of {arguments.seconds} s. Ratio of Sidekey to the other, geometric mean (95 % bounds).",
        "Throughput: more is better. Latencies and CPU per request: less is better.",
        "",
        "| scenario | Sidekey | beside | throughput | p50 | p99 | p99.9 | CPU per request |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for mine, other, figures in result.ratios():
            shown = " | ".join(cell(figures[figure]) for figure in FIGURES)
            lines.append(f"| {result.scenario.name} | {mine.removeprefix('sidekey ')} | {other} | {shown} |")
    lines += ["", "Added by Sidekey, in milliseconds (95 % bounds); of streams, to each chunk.", "", "| scenario | Sidekey | without | p50 | p99 |",
              "|---|---|---|---|---|"]
    for result in results:
        for mine, other, figures in result.added():
            shown = " | ".join("{:.3f} ({:.3f} to {:.3f})".format(*figures[figure]) for figure in ("p50", "p99"))
            lines.append(f"| {result.scenario.name} | {mine.removeprefix('sidekey ')} | {other} | {shown} |")
    lines += ["", "| scenario | target | per second | p50 ms | p99 ms | p99.9 ms | CPU us |", "|---|---|---|---|---|---|---|"]
    for result in results:
        for label, samples in result.rows.items():
            median = [sorted(getattr(s, f) for s in samples)[len(samples) // 2] for f in FIGURES]
            lines.append(f"| {result.scenario.name} | {label} | {median[0]:.0f} | " + " | ".join(f"{m:.3g}" for m in median[1:]) + " |")
    return "\n".join(lines) + "\n"


def cell(bound):
    return "–" if bound is None else f"{bound[0]:.2f} ({bound[1]:.2f}–{bound[2]:.2f})"


def svg(results):
    """Throughput ratios, one row each, on a logarithmic axis from 1/4 to 4."""
    rows = [(f"{r.scenario.name}: {mine} / {other}", f["rate"]) for r in results for mine, other, f in r.ratios() if f["rate"]]
    left, width, step = 380, 420, 22
    height = 50 + step * len(rows)
    x = lambda ratio: left + width * (math.log2(min(max(ratio, 0.25), 4)) + 2) / 4
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 30}" height="{height}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for tick in (0.25, 0.5, 1, 2, 4):
        colour = "#333" if tick == 1 else "#ccc"
        parts.append(f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="24" y2="{height - 16}" stroke="{colour}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="16" text-anchor="middle">{tick:g}</text>')
    for number, (label, (mean, low, high)) in enumerate(rows):
        y = 40 + step * number
        parts.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(label)}</text>')
        parts.append(f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}" stroke="#2563eb" stroke-width="3"/>')
        parts.append(f'<circle cx="{x(mean):.1f}" cy="{y}" r="4" fill="#2563eb"><title>{mean:.2f}</title></circle>')
    return "\n".join(parts + ["</svg>"]) + "\n"
