"""Does a trained policy, with its anticipation model, stand what it was not trained on?

    python experiments/robustness.py --run runs/x --factors camera light friction

Each factor at each of its levels, one at a time, from the same initial states never trained on:
camera, light, colour, texture, physics (friction, mass, size), noise, blur, occluder. Writes
runs/x/robustness.json, a row a shift, and as a table robustness.md; killed, the same command goes
on where it was. Then experiments/report.py shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from relam_jax import cli


@dataclass(frozen=True)
class Args:
    """Arguments of the command line."""

    run: Path
    """Run folder of experiments/train.py."""
    factors: tuple[str, ...] = ()
    """Factors or groups of them, with spaces or commas between (default: all)."""
    keypoints: Literal["projected", "tracked"] | None = None
    """Where the policy's keypoints come from (default: as in training)."""
    episodes: int = 30
    """Episodes a seed and shift, the same initial states for each."""
    env_steps: int | None = None
    """Length of an episode (default: the benchmark's own, 500 in Meta-World)."""
    out: Path | None = None
    """Result file (default: robustness.json in the run folder)."""


def main() -> None:
    """Command line."""
    args = tyro.cli(Args, description=__doc__)
    from relam_jax.envs.shifts import Shift, choose_factors, why_not
    from relam_jax.keypoints.tfrecord import write_atomic
    from relam_jax.report.robustness import FILE, measure_robustness
    from relam_jax.report.shift_map import robustness_markdown

    factors = tuple(name for word in args.factors for name in word.split(",") if name)
    try:
        table = measure_robustness(
            args.run, factors, args.keypoints, args.episodes, args.env_steps, args.out
        )
    except KeyboardInterrupt:
        print("interrupted: the same command goes on where it was")
        raise SystemExit(130) from None
    source = args.keypoints or table["training_keypoints"]
    for row in table["rows"]:
        if row["keypoints"] == source and row["factor"] in ("none", *choose_factors(factors)):
            rate, met = row["success"], row["stages_met"]["mean"]
            print(
                f"{row['factor']:16} {Shift(row['factor'], row['level']).label:>8}  "
                f"success {rate['mean']:4.0%} (95 % CI {rate['low']:.0%} to {rate['high']:.0%}), "
                f"{met:.0%} of the subgoals met"
            )
    for name in choose_factors(factors):
        if reason := why_not(name, source, table["simulator"]):
            print(f"{name:16}        –  does not apply: {reason}")
    out = args.out or args.run / FILE
    write_atomic(out.with_suffix(".md"), robustness_markdown(out).encode())
    print(f"written to {out}, and as a table to {out.with_suffix('.md')}")


if __name__ == "__main__":
    cli.run(main)
