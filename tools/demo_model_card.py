#!/usr/bin/env python3
"""Figures of a demo model's card: draws loss.svg and prints the tables of its runs and of its routing as Markdown.

    demo_model_card.py [--model models/austen-moe]     the numbers are those of tests/data/golden/MODEL.json
"""

import argparse
import json
import math
import pathlib
import statistics

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 20, 44
LOW, HIGH = 3.6, 4.8  # held-out loss shown; the first evaluations lie above
COLOURS = ("#9db4c8", "#b9c49a", "#d3b48f", "#b3402a")  # the last one for the model
GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "golden"


def draw_loss(runs):
    last_step = max(row[0] for run in runs for row in run["curve"])

    def x(step):
        return LEFT + (WIDTH - LEFT - RIGHT) * step / last_step

    def y(loss):
        return TOP + (HEIGHT - TOP - BOTTOM) * (HIGH - loss) / (HIGH - LOW)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
             f'font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    for tick in range(round(LOW * 5), round(HIGH * 5) + 1):
        loss = tick / 5
        parts.append(f'<path d="M{LEFT} {y(loss):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
                     f'<text x="{LEFT - 8}" y="{y(loss) + 4:.1f}" text-anchor="end">{loss:.1f}</text>')
    for step in range(0, last_step + 1, 1000):
        parts.append(f'<text x="{x(step):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{step}</text>')
    for index, (run, colour) in enumerate(zip(runs, COLOURS[-len(runs):], strict=True)):
        points = " ".join(f"{x(step):.1f},{y(loss):.1f}" for step, _, loss in run["curve"] if loss <= HIGH)
        label_y = TOP + 16 + 20 * index
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
                     f'<path d="M{WIDTH - RIGHT + 16} {label_y - 4}h20" stroke="{colour}" stroke-width="2"/>'
                     f'<text x="{WIDTH - RIGHT + 42}" y="{label_y}">{run["name"]}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">step</text>'
                 f'<text x="14" y="{(TOP + HEIGHT - BOTTOM) / 2}" text-anchor="middle" '
                 f'transform="rotate(-90 14 {(TOP + HEIGHT - BOTTOM) / 2})">held-out loss, nats per token</text></svg>')
    return "\n".join(parts) + "\n"


def runs_table(runs):
    lines = ["| run | dropout | token noise | weight decay | learning rate | steps | held-out loss | perplexity |",
             "|-|-|-|-|-|-|-|-|"]
    for run in runs:
        step, loss = min(((row[0], row[2]) for row in run["curve"]), key=lambda point: point[1])
        s = run["settings"]
        lines.append(f"| {run['name']} | {s['dropout']:.2f} | {s['token_noise']:.2f} | {s['weight_decay']} "
                     f"| {s['learning_rate']} | {step} | {loss:.3f} | {math.exp(loss):.1f} |")
    return "\n".join(lines) + "\n"


def routing_table(rows_per_expert, first_layer):
    lines = ["| layer | min | median | max | max / mean |", "|-|-|-|-|-|"]
    for layer, rows in enumerate(rows_per_expert, first_layer):
        lines.append(f"| {layer} | {min(rows)} | {statistics.median(rows):.0f} | {max(rows)} "
                     f"| {max(rows) / statistics.mean(rows):.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, default=pathlib.Path("models/austen-moe"))
    arguments = parser.parse_args()
    log = json.loads((arguments.model / "training_log.json").read_text())
    (arguments.model / "loss.svg").write_text(draw_loss(log["runs"]))
    golden = json.loads((GOLDEN / f"{arguments.model.resolve().name}.json").read_text())
    config = json.loads((arguments.model / "config.json").read_text())
    print(f"perplexity {golden['ppl']:.2f} over {golden['num_tokens']} tokens\n")
    print(runs_table(log["runs"]))
    print(routing_table(golden["rows_per_expert"], config.get("first_k_dense_replace", 0)))


if __name__ == "__main__":
    main()
