"""A run's curves as one HTML page without scripts or other files: `python curves.py RUN…`."""

import html
import json
import sys
from pathlib import Path

COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a")
WIDTH, HEIGHT, LEFT, BOTTOM = 560, 220, 56, 24
SKIPPED = {"kind", "stage", "step", "stage_step", "seconds", "cpu_seconds"}


def nice(value: float) -> str:
    return f"{value:.3g}"


def chart(name: str, series: dict, stages: list) -> str:
    """`series`: label to [(step, value)]. The axis is logarithmic where all values are above 0 and span a decade."""
    import math

    points = [p for s in series.values() for p in s]
    low, high = min(v for _, v in points), max(v for _, v in points)
    last = max(max(x for x, _ in points), 1)
    logarithmic = low > 0 and high / low > 10
    f = math.log10 if logarithmic else float
    bottom, top = f(low), f(high)
    span = (top - bottom) or 1.0
    x = lambda step: LEFT + (WIDTH - LEFT - 8) * step / last
    y = lambda value: 8 + (HEIGHT - BOTTOM - 8) * (1 - (f(value) - bottom) / span)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{html.escape(name)}">']
    for i in range(5):
        level = bottom + span * i / 4
        value = 10**level if logarithmic else level
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{y(value) + 4:.1f}" text-anchor="end">{nice(value)}</text>')
    for begin, label in stages:
        parts.append(f'<line x1="{x(begin):.1f}" x2="{x(begin):.1f}" y1="8" y2="{HEIGHT - BOTTOM}" stroke="#57606a" stroke-dasharray="3 3"/>')
        parts.append(f'<text x="{x(begin) + 3:.1f}" y="18" fill="#57606a">{html.escape(label)}</text>')
    parts.append(f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" text-anchor="end">step {last}</text>')
    for (label, s), colour in zip(series.items(), COLOURS * 3):
        line = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in s)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if len(s) < 60:
            parts += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="2" fill="{colour}"/>' for a, b in s]
    key = " ".join(f'<span style="color:{c}">■ {html.escape(l)} {nice(s[-1][1])}</span>' for (l, s), c in zip(series.items(), COLOURS * 3))
    return f"<figure><figcaption><b>{html.escape(name)}</b> {key}</figcaption>{''.join(parts)}</svg></figure>"


def page(log: list, title: str) -> str:
    stages, tables = [], {}
    for line in log:
        if not stages or stages[-1][1] != line["stage"]:
            stages.append((line["step"] if stages else 0, line["stage"]))
        for name, value in line.items():
            if name not in SKIPPED:
                label = "training" if line["kind"] == "train" else "held out"
                tables.setdefault(name, {}).setdefault(label, []).append((line["step"], value))
    charts = "".join(chart(name, series, stages) for name, series in tables.items())
    last = log[-1]
    done = next((l for l in reversed(log) if "seconds" in l), {})
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title><style>body{{font:14px system-ui;"
        "margin:2em;color:#1f2328;background:#fff}main{display:flex;flex-wrap:wrap;gap:1em}figure{margin:0}"
        "svg text{font-size:11px}span{margin-left:.6em}</style>"
        f"<h1>{html.escape(title)}</h1><p>Step {last['step']}, {done.get('seconds', 0) / 60:.1f} minutes. Lines are means between "
        f"two records; weights of held-out values are the running average.</p><main>{charts}</main></html>\n"
    )


def write(run: Path) -> None:
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    if log:
        (run / "curves.html").write_text(page(log, f"Training {run.resolve().name}"))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write(Path(name))
