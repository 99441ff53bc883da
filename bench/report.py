"""Report: ratios from rounds, as a table and as a plot. Bigger is always better."""

import statistics
from html import escape

# CPU per request, the yardstick's divided by scopegate's, by shape.
TARGETS = {
    ("CPU per request", "1×1"): {"floor": 1.0, "goal": 1.1, "moonshot": 1.25},
    ("CPU per request", "8×8"): {"floor": 1.5, "goal": 2.0, "moonshot": 2.7},
    ("CPU per request", "64×4"): {"floor": 1.2, "goal": 1.5, "moonshot": 1.7},
    ("BatchCheck of 100", "8×8"): {"goal": 20.0},
    ("1000 changes/s beside", "8×8"): {"goal": 0.9},
    ("with a known token: throughput", "1×1"): {"goal": 0.95},
    ("with a known token: throughput", "8×8"): {"goal": 0.85},
    # What a new token costs is at most 1.3 times a bare verification.
    ("a new token: a bare verification's CPU", "8×8"): {"goal": round(1 / 1.3, 2)},
    ("forged tokens beside", "8×8"): {"goal": 0.8},
    ("Unix socket to TCP: throughput", "1×1"): {"goal": 1.0},
    ("Envoy's check: CPU", "8×8"): {"goal": 0.8},
}


# Thousand tokens a second and core, in any shape.
ISSUE_TARGETS = {
    f"thousand tokens a second and core, {version}": {"goal": 5.0}
    for version in ("HTTP/1.1", "HTTP/2")
}


def row(setting, shape, measure, ratios, note=""):
    """One line of the table: what was measured how, and its ratio in every round. With a note,
    which says why it is not what it should be, it is held against no target."""
    return {
        "mode": setting["mode"],
        "pinned": setting["pinned"],
        "shape": shape,
        "measure": measure,
        "ratios": ratios,
        "median": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "targets": {} if note else TARGETS.get((measure, shape)) or ISSUE_TARGETS.get(measure, {}),
        "note": note,
    }


def reached(row):
    """The highest target that the median reaches."""
    if row["note"]:
        return f"not counted: {row['note']}"
    if not row["targets"]:
        return ""
    names = [name for name, target in row["targets"].items() if row["median"] >= target]
    return names[-1] if names else f"below the {next(iter(row['targets']))}"


def place(row):
    return f"{row['mode']}, {'pinned' if row['pinned'] else 'not pinned'}"


def table(rows):
    targets = ("floor", "goal", "moonshot")
    text = []
    for title in dict.fromkeys(map(place, rows)):
        lines = [("shape", "measure", "ratio", "range", *targets, "reached")]
        for row in rows:
            if place(row) == title:
                spread = f"{row['least']:.2f}–{row['most']:.2f}"
                marks = [f"{row['targets'][t]:g}" if t in row["targets"] else "" for t in targets]
                median = f"{row['median']:.2f}"
                lines.append((row["shape"], row["measure"], median, spread, *marks, reached(row)))
        widths = [max(map(len, column)) for column in zip(*lines)]
        text.append(f"\n{title}\n")
        for line in lines:
            text.append("  ".join(map(str.ljust, line, widths)).rstrip())
    return "\n".join(text)


COLOURS = {"CPU per request": "#2f6f9f", "throughput": "#9fc3dc"}
INK = {"CPU per request": "#fff", "throughput": "#222"}
HEIGHT, TOP, BAR, GAP, LEFT = 220, 56, 34, 46, 52


def plot(rows, subtitle):
    """The shapes' ratios as bars, with their range, and the targets as lines."""
    rows = [row for row in rows if row["measure"] in COLOURS]
    panels = list(dict.fromkeys(map(place, rows)))
    shapes = list(dict.fromkeys(row["shape"] for row in rows))
    top = 1.08 * max(
        value for row in rows for value in (row["most"], *row["targets"].values(), 1.0)
    )
    panel = LEFT + len(shapes) * (2 * BAR + GAP)
    width, bottom = max(panel * len(panels) + 20, 640), TOP + HEIGHT

    def y(ratio):
        return bottom - ratio / top * HEIGHT

    def line(x1, y1, x2, y2, colour, style=""):
        return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{colour}" {style}/>'

    def text(x, at, words, style=""):
        return f'<text x="{x:.1f}" y="{at:.1f}" {style}>{escape(words)}</text>'

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {bottom + 88}" '
        f'width="{width}" font-family="system-ui, sans-serif" font-size="12" fill="#222">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        text(12, 20, "Check, against an empty handler on stock tonic (1.0); bigger is better",
             'font-size="13" font-weight="600"'),
    ]
    for number, title in enumerate(panels):
        left = LEFT + number * panel
        out.append(text(left, TOP - 10, title, 'font-weight="600"'))
        for step in range(int(top / 0.5) + 1):
            at = y(step / 2)
            colour = "#888" if step == 2 else "#e4e4e4"
            out.append(line(left - 4, at, left + panel - LEFT - 8, at, colour))
            out.append(text(left - 10, at + 4, f"{step / 2:g}", 'text-anchor="end" fill="#666"'))
        for place_of_shape, shape in enumerate(shapes):
            x = left + place_of_shape * (2 * BAR + GAP) + 14
            out.append(text(x + BAR, bottom + 18, shape, 'text-anchor="middle"'))
            for row in rows:
                if (place(row), row["shape"]) != (title, shape):
                    continue
                bar = x + BAR * list(COLOURS).index(row["measure"])
                middle, at = bar + BAR / 2, y(row["median"])
                out.append(
                    f'<rect x="{bar:.1f}" y="{at:.1f}" width="{BAR - 3}" '
                    f'height="{bottom - at:.1f}" fill="{COLOURS[row["measure"]]}"/>'
                )
                out.append(line(middle, y(row["least"]), middle, y(row["most"]), "#222"))
                out.append(text(middle - 1.5, bottom - 6, f"{row['median']:.2f}",
                                f'text-anchor="middle" font-size="11" fill="{INK[row["measure"]]}"'))
                for name, style in (("floor", 'stroke-dasharray="4 3"'), ("goal", "")):
                    if name in row["targets"]:
                        goal = y(row["targets"][name])
                        out.append(line(bar - 7, goal, bar + BAR + 4, goal, "#c0392b",
                                        f'stroke-width="1.5" {style}'))
    x, at = 14, bottom + 42
    for measure, colour in COLOURS.items():
        out.append(f'<rect x="{x}" y="{at - 10}" width="12" height="12" fill="{colour}"/>')
        out.append(text(x + 18, at, measure))
        x += 130
    for name, style in (("floor", 'stroke-dasharray="4 3"'), ("goal (of CPU per request)", "")):
        out.append(line(x, at - 4, x + 22, at - 4, "#c0392b", f'stroke-width="1.5" {style}'))
        out.append(text(x + 28, at, name))
        x += 74
    out.append(text(14, at + 20, "connections × streams; the median of the rounds, and their range",
                    'fill="#666"'))
    out.append(text(14, at + 36, subtitle, 'fill="#666"'))
    return "\n".join([*out, "</svg>", ""])
