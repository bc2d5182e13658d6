"""Draws a matrix's results. Run by the Python of AIPerf's environment, which has matplotlib.

usage   picture.py FOLDER   reads results.json there, writes picture.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt


def main(folder: Path) -> None:
    rows = [row for row in json.loads((folder / "results.json").read_text())["results"] if row["result"]]
    series: dict[str, list] = {}
    for row in rows:
        series.setdefault(f"{row['model'].rsplit('/', 1)[-1]} · {row['engine']}", []).append(row)
    swept = any(len(found) > 1 for found in series.values())
    figure, axes = plt.subplots(1, 2 + swept, figsize=(6 * (2 + swept), 1.5 + 0.5 * max(4, len(series))))
    best = {name: max(found, key=lambda row: row["result"]["output_tokens_per_s"]) for name, found in series.items()}
    bars(axes[0], "Output tokens per second", {n: r["result"]["output_tokens_per_s"] for n, r in best.items()})
    first = {name: min(row["result"]["ttft_ms"]["mean"] for row in found) for name, found in series.items()}
    bars(axes[1], "Time to first token, ms (mean, best)", first)
    if swept:
        for name, found in series.items():
            ordered = sorted(found, key=lambda row: row["concurrency"])
            rates = [row["result"]["output_tokens_per_s"] for row in ordered]
            axes[2].plot([row["concurrency"] for row in ordered], rates, marker="o", label=name)
        axes[2].set(title="By requests at a time", xlabel="requests at a time", ylabel="output tokens per second")
        axes[2].set_xscale("log", base=2)
        axes[2].set_ylim(bottom=0)
        axes[2].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(folder / "picture.png", dpi=120)


def bars(axis: plt.Axes, title: str, values: dict[str, float]) -> None:
    names = list(values)[::-1]
    drawn = axis.barh(names, [values[name] for name in names], color="#76b900")
    axis.bar_label(drawn, fmt="%.0f", padding=3)
    axis.set_title(title)
    axis.margins(x=0.15)


main(Path(sys.argv[1]))
