"""A small run folder and its records, made by the project's own writers."""

from dataclasses import replace
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relam_jax.agents.sac import make_sac
from relam_jax.anticipation.model import AnticipationModel, ModelConfig
from relam_jax.anticipation.plan import Anticipation, save_anticipation
from relam_jax.envs.metaworld import MetaWorldEnv
from relam_jax.keypoints.keyframes import KeyframeConfig
from relam_jax.keypoints.records import write_records
from relam_jax.keypoints.selection import SelectionConfig
from relam_jax.logs import RunLog
from relam_jax.report import build
from relam_jax.report.true_progress import true_progress_section
from relam_jax.training.checkpoint import Checkpoints
from relam_jax.training.config import TrainConfig, to_json
from relam_jax.training.loop import over_seeds
from relam_jax.training.provenance import append_provenance
from tests.keypoints.synthetic import record

CLIPS, STAGES, AGENT_STEPS = 6, 3, 5


def write_config(config: TrainConfig) -> Path:
    run = config.run_folder
    run.mkdir(parents=True)
    (run / "config.json").write_text(to_json(config))
    return run


@pytest.fixture(scope="session", autouse=True)
def played_once():
    """Pages about the same model show the same episodes, which take ten seconds to play."""
    played = {}

    def once(run):
        key = (run.anticipation_folder, run.config.task, run.config.shaping)
        if key not in played:
            played[key] = true_progress_section(run)
        return played[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "true_progress_section", once)
        yield


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Six clips of two entities on a bent path, with pictures."""
    folder = tmp_path_factory.mktemp("data")
    grey = np.full((64, 64, 3), 120, np.uint8)
    jpeg = cv2.imencode(".jpg", grey)[1].tobytes()
    records = [replace(record(i, frames=24), first_frames=(jpeg, jpeg)) for i in range(CLIPS)]
    write_records(folder, records)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """An untrained anticipation model of the right shapes."""
    config = ModelConfig(width=16, num_heads=2, num_layers=1)
    shape = (1, 2, 2, 2, 4)
    params = jax.jit(AnticipationModel(config).init)(
        jax.random.key(0), jnp.zeros((*shape, 2)), jnp.ones(shape, bool), jnp.zeros((1, 24))
    )
    anticipation = Anticipation(
        model=config,
        selection=SelectionConfig(num_keypoints=4),
        keyframes=KeyframeConfig(),
        task="drawer_open",
        view_names=("cam0", "cam1"),
        entity_names=("gripper", "object"),
        num_stages=STAGES,
        test_error=(0.1,) * STAGES,
        group_error=(((0.1, 0.1), (0.1, 0.1)),) * STAGES,
        params=params,
    )
    folder = tmp_path_factory.mktemp("anticipation")
    save_anticipation(folder, anticipation)
    (folder / "timing.json").write_text('{"seconds": 12.5}')
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory, data, model):
    """A run with logs, records and model; never evaluated by evaluate.py."""
    config = TrainConfig(
        out=str(tmp_path_factory.mktemp("runs") / "mini"),
        data=str(data),
        anticipation=str(model),
        num_envs=4,
        num_seeds=2,
        eval_episodes=10,
    )
    folder = write_config(config)
    append_provenance(folder)
    log = RunLog(folder)
    for i in range(5):
        share = {"success": 0.2 * i, "success_end": 0.1 * i, "stage": 0.25 * i, "return": 3.0 * i}
        seeds = {"success_seed0": 0.1 * i, "success_seed1": 0.3 * min(i, 3)}
        log.write("eval", 1000 * i, share | seeds | {"minutes": 0.5 * i})
        learned = {"q": 1.0 * i, "alpha": 0.1 * bool(i), "critic_loss": 0.2 * bool(i)}
        speed = {"env_steps_per_second": 200.0, "stepping_share": 0.5, "learning_wait_share": 0.4}
        distances = {"distance_cam0_gripper": 0.1, "distance_cam1_object": 0.05}
        log.write("train", 1000 * i + 500, {"reward": 0.1 * i} | learned | distances | speed)
    log.close()
    return folder


def untrained_policies(out: Path, model: Path, num_seeds: int) -> Path:
    """A run with a checkpoint of policies that have learned nothing."""
    config = TrainConfig(
        out=str(out),
        data="nowhere",
        anticipation=str(model),
        num_seeds=num_seeds,
        action_repeat=3,
        episode_length=3 * AGENT_STEPS,
    )
    run = write_config(config)
    points = 2 * 2 * 4  # views, entities, keypoints
    obs_dim = points * (2 + 2 + 1) + STAGES + 1 + MetaWorldEnv.proprio_dim
    agent = make_sac(config.sac, obs_dim, MetaWorldEnv.action_dim)
    learner = jax.jit(over_seeds(agent.init))(jax.random.split(jax.random.key(0), num_seeds))
    checkpoints = Checkpoints(run)
    checkpoints.save(60, {"learner": learner._asdict()}, config)
    checkpoints.close()
    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory, model):
    """Two seeds' untrained policies in a checkpoint of a run."""
    return untrained_policies(tmp_path_factory.mktemp("trained") / "run", model, 2)
