"""Tokens, video model and the reward, on small synthetic videos."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relam_jax.diffusion.bins import centres, encode, make_bins
from relam_jax.diffusion.entropy import make_entropy, unveiled_per_step
from relam_jax.diffusion.fit import NATS, DiffusionConfig, clip_windows, make_judge, windows
from relam_jax.diffusion.novelty import make_rnd
from relam_jax.diffusion.pay import VideoPay
from relam_jax.diffusion.store import load_video_model, save_video_model
from relam_jax.diffusion.vqvae import VQConfig, make_vqvae
from relam_jax.training.config import TrainConfig
from tests.diffusion.conftest import FRAMES, demonstration, draw, places, wander

HELD_OUT = range(100, 106)


def test_windows_are_a_stride_apart_and_begin_with_the_first_frame():
    np.testing.assert_array_equal(windows(8, 2, 3)[[0, 3, 6]], [[0, 0, 1], [0, 1, 4], [1, 4, 7]])
    first, second = clip_windows([3, 4], 1, 1)
    np.testing.assert_array_equal(first, [[0, 1], [1, 2]])
    np.testing.assert_array_equal(second, [[3, 4], [4, 5], [5, 6]])


def test_tokens_tell_more_than_the_mean_frame(config, fitted):
    model, judge = fitted[0], make_judge(config)
    frames = np.concatenate([demonstration(seed) for seed in HELD_OUT]).astype(float)
    tokens = judge.tokens(model, jnp.asarray(frames, jnp.uint8))
    assert tokens.shape == (len(frames), 64) and len(np.unique(tokens)) > 10
    seen = np.asarray(judge.vqvae.decode(model.codec, tokens))
    mean = np.concatenate([demonstration(seed) for seed in range(16)]).mean(0)
    assert ((seen - frames) ** 2).mean() < 0.5 * ((mean - frames) ** 2).mean()


def test_both_losses_fall(fitted):
    codec, denoiser = (fitted[1][name] for name in ("codec", "denoiser"))
    assert codec[-1]["loss"] < 0.5 * codec[0]["loss"]
    assert denoiser[-1]["loss"] < 0.5 * denoiser[0]["loss"]
    assert denoiser[-1]["validation_error"] < denoiser[0]["validation_error"]


def paid(config, model, clips, kind):
    """Mean standardised reward of each clip, as an environment's frames are paid."""
    quiet = DiffusionConfig(**{**vars(config), "novelty": 0.0})
    frames = np.stack(clips)
    pay = VideoPay(model, quiet, frames[:, 0], 1, 0, kind)
    never = np.zeros(len(clips), bool)
    return np.mean([pay.pay(frames[:, t], never) for t in range(1, FRAMES)], axis=0)


@pytest.mark.parametrize("kind", NATS)
def test_the_reward_ranks_a_demonstration_above_a_reversed_and_a_random_one(
    config, fitted, fitted_to_places, kind
):
    of_places = kind == "keypoint_diffusion"
    model, show = (fitted_to_places, places) if of_places else (fitted[0], draw)
    shown = paid(config, model, [demonstration(seed, show) for seed in HELD_OUT], kind)
    reverse = paid(config, model, [demonstration(seed, show)[::-1] for seed in HELD_OUT], kind)
    chance = paid(config, model, [wander(seed, show) for seed in HELD_OUT], kind)
    means = {"demonstration": shown.mean(), "reversed": reverse.mean(), "random": chance.mean()}
    assert abs(means["demonstration"]) < 0.5, means
    assert means["demonstration"] > means["reversed"] + 0.3, means
    assert means["demonstration"] > means["random"] + 0.3, means


def test_entropy_of_a_known_model_is_exact():
    """Positions independent of each other and of the past: their entropies add up, whatever is
    drawn; and a position that copies another once that is unveiled has none left."""
    logits = jax.random.normal(jax.random.key(0), (4, 5))
    exact = -(jax.nn.softmax(logits) * jax.nn.log_softmax(logits)).sum(-1)
    entropy = make_entropy(lambda _, z, past: jnp.broadcast_to(logits, (len(z), 4, 5)), 5, 2, 1)
    past = jnp.zeros((3, 2, 4), jnp.int32)
    np.testing.assert_allclose(entropy({}, past), exact.mean(), rtol=1e-5)
    true = jnp.array([[0, 1, 2, 3], [4, 4, 4, 4], [1, 0, 1, 0]])
    log_p = np.asarray(jax.nn.log_softmax(logits))[np.arange(4), true]
    np.testing.assert_allclose(entropy({}, past, true), -log_p.mean(-1), rtol=1e-5)

    def copies(_, z, past):
        known = z.min(-1)
        sure = jnp.where(jax.nn.one_hot(known, 5)[:, None] > 0, 0.0, -1e9)
        return jnp.broadcast_to(jnp.where((known < 5)[:, None, None], sure, 0.0), (len(z), 4, 5))

    one_at_a_time = make_entropy(copies, 5, 4, 3)({}, past)
    np.testing.assert_allclose(one_at_a_time, np.log(5) / 4, rtol=1e-5)
    same = make_entropy(copies, 5, 4, 1)({}, past, jnp.full((3, 4), 2))
    np.testing.assert_allclose(same, np.log(5) / 4, rtol=1e-5)


def test_every_position_is_unveiled_once():
    assert (
        unveiled_per_step(64, 6) == [11, 10, 11, 11, 10, 11] and sum(unveiled_per_step(5, 8)) == 5
    )


def test_paying_is_one_trace_and_goes_on_bit_for_bit(config, fitted):
    frames = np.stack([wander(seed) for seed in range(4)])
    pay = VideoPay(fitted[0], config, frames[:, 0], 2, 0)
    never, some = np.zeros(4, bool), np.array([True, False, True, False])
    for t in range(1, 4):
        pay.pay(frames[:, t], never)
    pay.begin(some, frames[:, 4])
    past = np.asarray(pay.past)
    assert (past[some] == past[some][:, :1]).all() and (past[~some] != past[~some][:, :1]).any()
    assert pay._advance._cache_size() == pay._begin._cache_size() == 1
    kept = jax.tree.map(np.asarray, pay.state())
    one = [np.asarray(pay.pay(frames[:, t], never)) for t in range(5, 8)]
    other = VideoPay(fitted[0], config, frames[:, 9], 2, 1)
    other.set_state(kept)
    two = [np.asarray(other.pay(frames[:, t], never)) for t in range(5, 8)]
    np.testing.assert_array_equal(one, two)


def test_success_is_worth_what_the_config_says(config, fitted):
    frames = np.stack([demonstration(0)] * 2)
    paying = DiffusionConfig(**{**vars(config), "sparse": 2.0})
    pay = VideoPay(fitted[0], paying, frames[:, 0], 1, 0)
    got = pay.pay(frames[:, 1], np.array([False, True]))
    np.testing.assert_allclose(got[1] - got[0], 2, rtol=1e-5)


def test_what_was_often_seen_is_no_longer_new():
    rnd, rng = make_rnd(16, 1e-3), np.random.default_rng(0)
    known, new = rng.normal(size=(2, 8, 16)).astype(np.float32)
    update = jax.jit(rnd.update)
    state, first = update(rnd.init(jax.random.key(0)), known)
    for _ in range(300):
        state, last = update(state, known)
    assert last.mean() < 0.2 * update(state, new)[1].mean()
    assert state.count == 301 * 8 and np.isfinite(first).all()


def test_a_saved_model_is_the_same_and_others_are_refused(
    config, fitted, fitted_to_places, tmp_path
):
    save_video_model(tmp_path, fitted[0], config, 3)
    again = load_video_model(tmp_path, config, 3)
    for a, b in zip(jax.tree.leaves(fitted[0]), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    save_video_model(tmp_path / "places", fitted_to_places, config, 3, "keypoint_diffusion")
    again = load_video_model(tmp_path / "places", config, 3, "keypoint_diffusion")
    np.testing.assert_array_equal(fitted_to_places.codec.high, again.codec.high)
    with pytest.raises(ValueError, match="stride: 3 → 1"):
        load_video_model(tmp_path, config, 1)
    with pytest.raises(ValueError, match="no video model at"):
        load_video_model(tmp_path / "none", config, 3)


def test_bins_go_on_beyond_the_demonstrations_and_what_is_outside_is_in_the_last():
    bins = make_bins([np.array([[0.2, 0.5], [0.4, 0.5]], np.float32)])
    np.testing.assert_allclose(bins.low, [0.15, 0.495], atol=1e-6)
    tokens = encode(bins, jnp.array([[0.151, 0.5], [0.3001, 2.0], [-1.0, 0.0]]))
    np.testing.assert_array_equal(tokens, [[0, 32], [32, 63], [0, 0]])
    np.testing.assert_allclose(centres(jnp.array([0, 63]))[:, 0], [-1, 1])


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="have no 8 patches a side"):
        make_vqvae(VQConfig(), 60)
    with pytest.raises(ValueError, match=r"--diffusion\.history must be at least 1"):
        TrainConfig(reward="diffusion", diffusion=DiffusionConfig(history=0)).check()


def test_the_published_size_makes_a_reward():
    judge = make_judge(DiffusionConfig(size="published"))
    frames = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.uint8)
    codec = jax.eval_shape(judge.vqvae.init, jax.random.key(0), frames)
    assert codec.codebook.shape == (1024, 64)
    past = jax.ShapeDtypeStruct((2, 2, 64), jnp.int32)
    params = jax.eval_shape(
        judge.denoiser.init, jax.random.key(0), past.update(shape=(2, 64)), past
    )
    assert sum(name.startswith("Block") for name in params["params"]) == 16
