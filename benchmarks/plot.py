"""The picture of encode.py's and seq2seq.py's results: a panel a model and set, a bar for each library and threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

OURS = "polyformer"
COLOURS = {OURS: ("#d1495b", "#8f2438")}
OTHER = ("#8fb8d8", "#3d6f96")  # one thread, more threads


def draw(results: list[dict[str, Any]], file: Path, what: str = "sentence vectors") -> None:
    """Write the picture; longest bar on top. what: is counted."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    models = list(dict.fromkeys(part["model"] for part in results))
    sets = list(dict.fromkeys(part["set"] for part in results))
    if not results:
        return
    figure, axes = plt.subplots(
        len(models), len(sets), figsize=(5.2 * len(sets), 4.2 * len(models)), squeeze=False, layout="constrained"
    )
    for row, model in enumerate(models):
        for column, name in enumerate(sets):
            parts = [part for part in results if part["model"] == model and part["set"] == name]
            panel(axes[row][column], parts)
            axes[row][column].set_title(f"{model}: {name}", fontsize=11)
    figure.suptitle(f"{what} a second, float32 on a CPU (longer is better)")
    figure.savefig(file, dpi=120)
    plt.close(figure)


def panel(axis: Any, parts: list[dict[str, Any]]) -> None:
    """Bars of one model and set, a group for each library."""
    rates: dict[str, dict[int, float]] = {}
    for part in parts:
        for name, entry in part["libraries"].items():
            if "texts/s" in entry and not entry["wrong"]:
                rates.setdefault(name, {})[part["threads"]] = entry["texts/s"]
    order = sorted(rates, key=lambda name: max(rates[name].values()))
    threads = sorted({part["threads"] for part in parts})
    height = 0.8 / max(len(threads), 1)
    for place, name in enumerate(order):
        for i, count in enumerate(threads):
            if (rate := rates[name].get(count)) is not None:
                colour = COLOURS.get(name, OTHER)[min(i, 1)]
                y = place + (i - (len(threads) - 1) / 2) * height
                axis.barh(y, rate, height * 0.92, color=colour)
                axis.text(rate, y, f" {rate:.0f}" if rate >= 20 else f" {rate:.1f}", va="center", fontsize=8)
    axis.set_yticks(range(len(order)), order)
    axis.margins(x=0.15)
    axis.set_xlabel(f"texts/s; light: {threads[0]} thread" + (f", dark: {threads[-1]} threads" if threads[1:] else ""))
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
