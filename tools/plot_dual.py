"""Draws docs/dual_dynamics.png: multipliers on a problem with a known saddle, under Eq. 3 and under Eq. 6.

    python tools/plot_dual.py [--out=docs/dual_dynamics.png]

The problem is that of tools/checks/dual_dynamics.py. Needs matplotlib (the extra `report`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from checks import dual_dynamics as toy
from checks import runs

from fgrpo_jax import command

SHOWN = 600
COLORS = ("tab:blue", "tab:orange", "tab:green")
LABELS = ("λ of mean ≥ 0.75", "λ of mean ≤ 0.4", "λ of mean ≥ 0.5")


def draw(out: Path) -> None:
    """Four panels side by side: each rule on the Lagrangian, then Eq. 6 as published."""
    import matplotlib  # pyright: ignore[reportMissingImports]

    matplotlib.use("Agg")
    from matplotlib import pyplot  # pyright: ignore[reportMissingImports]

    best, _ = toy.saddle()
    panels = {f"{rule}, Lagrangian": toy.train(toy.constraints(**fields)) for rule, fields in toy.RULES.items()}
    panels["linear, Eq. 6 as published"] = toy.train(toy.constraints(), published=True)
    figure, axes = pyplot.subplots(1, len(panels), figsize=(14, 3.2), sharey=True)
    for axis, (title, found) in zip(axes, panels.items(), strict=True):
        for k, (color, label) in enumerate(zip(COLORS, LABELS, strict=True)):
            axis.plot(found.path[:SHOWN, k], color=color, label=label)
            axis.axhline(best[k], color=color, linestyle=":", linewidth=1)
        axis.set(title=title, xlabel="step")
    axes[0].set_ylabel("multiplier (dotted: saddle)")
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=90)


def parser() -> argparse.ArgumentParser:
    """Flags of this tool."""
    out = command.parser(__doc__)
    out.add_argument("--out", type=Path, default=runs.ROOT / "docs/dual_dynamics.png", help="default: %(default)s")
    return out


def main(args: argparse.Namespace) -> None:
    """Draws and says where."""
    draw(args.out)
    print(args.out)


if __name__ == "__main__":
    raise SystemExit(command.run(main, parser()))
