import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relam_jax.report.along import reward_along
from relam_jax.reward.distance import keypoint_distance
from relam_jax.reward.shaping import SHAPING
from relam_jax.reward.stage_machine import (
    Goal,
    RewardConfig,
    is_means,
    keypoint_reward,
    stage_motion,
    start_stage,
    success_threshold,
)

FORMS = tuple(SHAPING)
V, E, K, S = 2, 2, 3, 4
THETA = 0.02


def straight_plan(stages=3):
    """Subgoals of a rigid scene that moves right by 0.2 a stage; stages beyond `stages` repeat the
    last."""
    rng = np.random.default_rng(0)
    start = rng.uniform(0.1, 0.3, (V, E, K, 2)).astype(np.float32)
    moved = (
        0.2 * np.minimum(np.arange(1, S + 1), stages)[:, None, None, None, None] * np.array([1, 0])
    )
    goal = Goal(
        jnp.asarray(start + moved, jnp.float32),
        jnp.ones((V, E, K), bool),
        jnp.int32(stages),
        jnp.full((S, V, E), THETA),
        jnp.full((S, V, E), THETA),
        jnp.zeros((S, V, E)),
        jnp.ones((S, V, E)),
    )
    return jnp.asarray(start), goal


def run(positions, goal, config, visibility=None):
    """Rewards and stages along a path of scene positions; the first is the start."""
    seen = (
        jnp.ones((len(positions), V, E, K), bool) if visibility is None else jnp.asarray(visibility)
    )
    along = reward_along(jnp.stack(positions), seen, goal, config)
    return np.asarray(along.reward), np.asarray(along.stage)


def at(start, xs):
    return [start + jnp.array([x, 0.0]) for x in xs]


@pytest.mark.parametrize("form", FORMS)
def test_shaping_falls_from_one_to_about_zero(form):
    x = jnp.linspace(0, 1, 101)
    y = SHAPING[form](x)
    assert y[0] == pytest.approx(1.0)
    assert (jnp.diff(y) <= 0).all() and 0 <= y[-1] <= 0.06


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dense", ["mean", "worst"])
def test_passing_a_stage_never_lowers_the_reward_and_progress_pays(form, dense):
    start, goal = straight_plan()
    rewards, stages = run(
        at(start, np.linspace(0, 0.6, 121)), goal, RewardConfig(form=form, dense=dense)
    )
    assert stages[-1] == 3 and rewards[-1] == pytest.approx(1.0)
    passing = np.flatnonzero(np.diff(stages) > 0)
    assert len(passing) >= 2
    assert (rewards[passing + 1] >= rewards[passing] - 1e-6).all()
    assert (np.diff(rewards) >= -1e-6).all()


@pytest.mark.parametrize("form", FORMS)
def test_hovering_before_or_oscillating_across_the_threshold_never_beats_going_on(form):
    start, goal = straight_plan()
    config, steps = RewardConfig(form=form), 60
    towards = list(np.linspace(0, 0.2 - THETA - 1e-3, 10))
    hover = towards + [0.2 - THETA - 1e-3] * (steps - 10)
    oscillate = towards + [0.2 - THETA + (1e-3 if t % 2 else -5e-3) for t in range(steps - 10)]
    go_on = towards + list(np.linspace(0.2 - THETA, 0.6, 30)) + [0.6] * (steps - 40)
    gained = {
        n: run(at(start, xs), goal, config)[0].sum()
        for n, xs in {"hover": hover, "oscillate": oscillate, "go_on": go_on}.items()
    }
    assert gained["go_on"] > gained["oscillate"] + 1e-3 and gained["go_on"] > gained["hover"] + 1e-3


@pytest.mark.parametrize("form", FORMS)
def test_no_step_pays_less_than_an_early_end(form):
    start, goal = straight_plan()
    rng = np.random.default_rng(1)
    rewards, _ = run(at(start, np.cumsum(rng.normal(0, 0.05, 50))), goal, RewardConfig(form=form))
    assert (rewards >= 0).all(), "with a negative reward, ending the episode would be optimal"


def test_hidden_entities_keep_their_last_distance():
    start, goal = straight_plan()
    path = at(start, [0.0, 0.1, 0.15, 0.15])
    hidden = np.ones((4, V, E, K), bool)
    hidden[2] = False
    rewards, _stages = run(path, goal, RewardConfig(), hidden)
    assert rewards[1] == rewards[0], "nothing is seen: the reward stands"
    assert rewards[2] > rewards[1] and np.isfinite(rewards).all()


@pytest.mark.parametrize("points", [1.0, np.nan])
def test_everything_hidden_from_the_first_frame_is_finite_and_passes_nothing(points):
    start, goal = straight_plan()
    path = [points * x for x in at(start, [0.0, 0.2, 0.2])]
    rewards, stages = run(path, goal, RewardConfig(), np.zeros((3, V, E, K), bool))
    assert np.isfinite(rewards).all() and (np.asarray(stages) == 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_points_that_are_not_finite_count_as_hidden(bad):
    start, goal = straight_plan()
    path = at(start, [0.0, 0.1, 0.1])
    path[2] = path[2].at[0, 0, 0, 0].set(bad)
    rewards, _ = run(path, goal, RewardConfig())
    assert rewards[1] == pytest.approx(rewards[0], rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(K)), st.integers(0, 1000))
def test_the_order_of_the_points_does_not_matter(order, seed):
    rng = np.random.default_rng(seed)
    points, target = (jnp.asarray(rng.uniform(size=(V, E, K, 2)), jnp.float32) for _ in range(2))
    seen = jnp.asarray(rng.uniform(size=(V, E, K)) > 0.3)
    last, order = jnp.ones((V, E)), jnp.asarray(order)
    a = keypoint_distance(points, seen, target, last)
    b = keypoint_distance(points[:, :, order], seen[:, :, order], target[:, :, order], last)
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_worst_entity_gates_the_stage():
    start, goal = straight_plan()
    near = start + jnp.array([0.2, 0.0])
    only_gripper = start.at[:, 0].set(near[:, 0])
    assert run([start, only_gripper], goal, RewardConfig())[1].tolist() == [0]
    assert run([start, near], goal, RewardConfig())[1].tolist() == [1]


def test_padding_entities_do_not_count():
    start, goal = straight_plan()
    goal = goal._replace(valid=goal.valid.at[:, 1].set(False))
    moved = start.at[:, 0].add(jnp.array([0.2, 0.0]))
    assert run([start, moved], goal, RewardConfig())[1].tolist() == [1]


def test_bonuses():
    start, goal = straight_plan(stages=2)
    config = RewardConfig(stage_bonus=0.5, final_bonus=2.0)
    rewards, stages = run(at(start, [0.0, 0.2, 0.3, 0.4, 0.3]), goal, config)
    assert stages.tolist() == [1, 1, 2, 1]
    assert rewards[0] == pytest.approx(1 / 2 + float(SHAPING[config.form](1.0)) / 2 + 0.5, abs=1e-5)
    assert rewards[2] == pytest.approx(1 + 2.0, abs=1e-5), "the last subgoal is held"
    assert rewards[3] < 1, "and lost again"


def test_a_subgoal_that_is_gone_by_beside_counts_once_the_next_is_nearer():
    start, goal = straight_plan(stages=2)
    beside = [start + jnp.array([x, 0.04]) for x in (0.0, 0.15, 0.19, 0.21, 0.25, 0.4)]
    wide = goal._replace(reach=3 * goal.threshold)
    assert run(beside, wide, RewardConfig())[1].tolist() == [0, 0, 1, 1, 1]
    assert run(beside, goal, RewardConfig())[1].tolist() == [0] * 5
    far = [point + jnp.array([0.0, 0.05]) for point in beside]
    assert run(far, wide, RewardConfig())[1].tolist() == [0] * 5


def test_what_has_moved_on_by_itself_has_met_its_subgoal_but_the_effector_must_be_at_its_own():
    start, goal = straight_plan(stages=2)
    ahead = goal._replace(reach=goal.reach.at[:, :, 1].set(jnp.inf))
    alone = start.at[:, 1].add(jnp.array([0.35, 0.0]))  # 0.15 past its subgoal, 0.05 from the next
    hand_too = alone.at[:, 0].add(jnp.array([0.2, 0.0]))
    assert run([start, alone, hand_too], ahead, RewardConfig())[1].tolist() == [0, 1]
    assert run([start, alone, hand_too], goal, RewardConfig())[1].tolist() == [0, 0]
    back = hand_too.at[:, 1].add(jnp.array([-0.35, 0.15]))
    assert run([start, back], ahead, RewardConfig())[1].tolist() == [0], "moved, but not on"


def test_an_effector_that_has_come_as_near_as_it_can_is_let_pass_after_a_time():
    start, goal = straight_plan(stages=2)
    patient = goal._replace(late=goal.late.at[:, :, 0].multiply(2))
    path = [start, *[(start + jnp.array([0.2, 0.0])).at[:, 0, :, 1].add(1.55 * THETA)] * 25]
    config = RewardConfig(patience=10)
    stages = run(path, patient, config)[1]
    assert np.flatnonzero(np.diff(stages)).tolist() == [15], "1.6 θ_s in the 17th step"
    assert run(path, goal, config)[1].max() == 0, "an object is not"
    assert run(path, patient, RewardConfig(patience=0))[1].tolist() == [0] + [1] * 24


def test_the_last_subgoal_draws_on_inside_its_threshold_and_is_lost_outside():
    start, goal = straight_plan(stages=1)
    rewards, stages = run(at(start, [0.0, 0.19, 0.195, 0.2, 0.1]), goal, RewardConfig())
    assert stages.tolist() == [1, 1, 1, 0]
    assert rewards[0] < rewards[1] < rewards[2] == pytest.approx(1.0)


def test_the_effector_is_a_means_where_another_entity_is_to_move():
    start = jnp.full((V, E, K, 2), 0.2)
    step = jnp.array([[0.1, 0.0], [0.1, 0.05], [0.0, 0.05]])  # of (gripper, object) a stage
    subgoals = start + jnp.cumsum(step, axis=0)[:, None, :, None, None]
    motion = stage_motion(start, subgoals)
    np.testing.assert_allclose(motion[:, 0], step * 2**0.5, rtol=1e-5)
    means = is_means(motion, np.array([True, False]), RewardConfig())
    assert means[:, 0].tolist() == [[False, False], [True, False], [True, False]]


def test_weights_count_in_the_dense_term():
    start, goal = straight_plan(stages=1)
    only_object = start.at[:, 1].add(jnp.array([0.2, 0.0]))
    plain = run([start, only_object], goal, RewardConfig(form="linear"))[0][0]
    weighted = goal._replace(weight=goal.weight.at[:, :, 0].set(0.25))
    assert plain == pytest.approx(0.5, abs=1e-5)
    paid = run([start, only_object], weighted, RewardConfig(form="linear"))[0][0]
    assert paid == pytest.approx(0.8, abs=1e-5)


def test_threshold_follows_the_error_of_the_plan():
    config = RewardConfig(success_factor=3.0, success_floor=0.01, success_cap=0.03)
    error = jnp.array([0.0, 0.005, 0.1]).reshape(3, 1, 1)
    threshold = success_threshold(error, jnp.ones_like(error), config).ravel()
    np.testing.assert_allclose(threshold, [0.01, 0.015, 0.03], rtol=1e-6)


def test_what_is_to_move_must_have_gone_half_its_way():
    error = jnp.array([0.001, 0.001, 0.004, 0.001, 0.006]).reshape(5, 1, 1)
    motion = jnp.array([0.03, 0.1, 0.02, 0.009, 0.017]).reshape(5, 1, 1)
    threshold = success_threshold(error, motion, RewardConfig()).ravel()
    # half of 0.03; the floor; three times the error, above half the way; stands still; may do so
    np.testing.assert_allclose(threshold, [0.015, 0.02, 0.012, 0.04, 0.04], rtol=1e-6)


def test_batch_is_one_trace():
    start, goal = straight_plan()
    traces, config = [], RewardConfig()

    @jax.jit
    def step(state, points):
        traces.append(1)
        seen = jnp.ones((5, V, E, K), bool)
        return jax.vmap(lambda s, p, v: keypoint_reward(s, p, v, goal, config))(state, points, seen)

    batch = jnp.tile(start, (5, 1, 1, 1, 1))
    state = jax.vmap(lambda p: start_stage(p, jnp.ones((V, E, K), bool), goal, config))(batch)
    for _ in range(4):
        reward, state = step(state, batch)
    assert reward.shape == (5,) and len(traces) == 1
