"""Records → anticipation model: the first half of experiments/train.py by itself.

    python experiments/fit_anticipation.py --task drawer_open --out runs/model

Takes the arguments of experiments/train.py, whose runs share the model by `--anticipation`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from train import parse

from relam_jax import cli
from relam_jax.training.config import TrainConfig


def fitted(model: Path, config: TrainConfig) -> bool:
    """Whether the anticipation model is there: config.json is written last.

    Raises:
        ValueError: it was fitted with other settings.
    """
    if not (model / "config.json").exists():
        return False
    saved = model / "settings.json"
    found = json.loads(saved.read_text()) if saved.exists() else {}
    # a model of a version before a field existed was fitted as the field's default says
    found = {part: old | found.get(part, {}) for part, old in settings(TrainConfig()).items()}
    if not saved.exists() or found != settings(config):
        raise ValueError(f"{model} was fitted with other settings: delete it, or use another --out")
    return True


def settings(config: TrainConfig) -> dict[str, dict]:
    """What an anticipation model depends on besides its data, as JSON gives it back."""
    parts = {name: asdict(getattr(config, name)) for name in ("selection", "keyframes", "fit")}
    return json.loads(json.dumps(parts))


def main() -> None:
    """Command line."""
    from relam_jax.anticipation.fit_task import learn_anticipation
    from relam_jax.keypoints.tfrecord import write_atomic
    from relam_jax.training.provenance import append_provenance

    config, _ = parse(sys.argv[1:])
    out = config.run_folder
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "settings.json", json.dumps(settings(config), indent=2).encode())
    append_provenance(out)
    learn_anticipation(config.records_folder, out, config.selection, config.keyframes, config.fit)


if __name__ == "__main__":
    cli.run(main)
