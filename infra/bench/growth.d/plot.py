"""A table in Markdown and a plot in SVG of what an operation costs as something grows; both axes are logarithmic."""

import math
import sys

COLOURS = ("#1b6ca8", "#c8553d", "#588b3f", "#7a4fa3", "#a67c00")
WIDTH, HEIGHT, LEFT, BELOW = 640, 360, 64, 44


class Series:
    """Points of one line."""

    def __init__(self, name):
        self.name, self.points = name, []

    def add(self, size, micros):
        self.points.append((size, micros))
        print(f"  {self.name}: {size:,} → {micros:,.0f} µs", file=sys.stderr)


def write(out, name, axis, series):
    """The table to standard output and to NAME.md, the plot to NAME.svg."""
    text = table(axis, series)
    print(text)
    with open(f"{out}/{name}.md", "w", encoding="utf-8") as file:
        file.write(text)
    with open(f"{out}/{name}.svg", "w", encoding="utf-8") as file:
        file.write(svg(axis, series))


def table(axis, series):
    names = [one.name for one in series]
    lines = [f"| {axis} | " + " | ".join(f"{name}, µs (× first)" for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    for n, (size, _) in enumerate(series[0].points):
        cells = [f"{one.points[n][1]:,.0f} ({one.points[n][1] / one.points[0][1]:.2f})" for one in series]
        lines.append(f"| {size:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def svg(axis, series):
    points = [point for one in series for point in one.points]
    xs, ys = [math.log10(x) for x, _ in points], [math.log10(y) for _, y in points]
    low_x, high_x = min(xs), max(max(xs), min(xs) + 1)
    low_y, high_y = math.floor(min(ys)), math.ceil(max(ys) + 1e-9)
    across = lambda x: LEFT + (math.log10(x) - low_x) / (high_x - low_x) * (WIDTH - LEFT - 16)
    up = lambda y: HEIGHT - BELOW - (math.log10(y) - low_y) / (high_y - low_y) * (HEIGHT - BELOW - 20 - 16 * len(series))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 8}" text-anchor="middle">{axis}</text>',
    ]
    for power in range(low_y, high_y + 1):
        y = up(10.0**power)
        parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - 16}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10**power:,} µs</text>')
    for size in sorted({x for x, _ in points}):
        parts.append(f'<text x="{across(size):.1f}" y="{HEIGHT - BELOW + 16}" text-anchor="middle">{size:,}</text>')
    for n, one in enumerate(series):
        colour = COLOURS[n % len(COLOURS)]
        line = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in one.points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{LEFT + 8}" y="{18 + 16 * n}" fill="{colour}">{one.name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    out, name, axis, label = sys.argv[1:]
    one = Series(label)
    for line in sys.stdin:
        size, micros = line.split()
        one.add(int(size), float(micros))
    write(out, name, axis, [one])
