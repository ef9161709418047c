"""The hook for independence losses with a network of their own, on the smallest of them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tasks.test_codec_task import changed, music, shipped, shrink, start  # noqa: F401  a fixture

from indep_jax.independence import loss as independence
from indep_jax.tasks import codec_steps, losses
from indep_jax.tasks.codec import CodecTask
from indep_jax.training import loop


class Linear:
    """Predicts the second codebook's vectors from the first's; the codec makes that harder."""

    def init(self, config, key, streams):
        return dict(map=jax.random.normal(key, (streams.shape[-1],) * 2))

    def apply(self, config, params, key, streams, segments, active):
        error = jnp.mean(jnp.square(streams[:, :, 1] - streams[:, :, 0] @ params["map"]))
        return -error, error


@pytest.fixture
def config(music, monkeypatch):  # noqa: F811
    monkeypatch.setitem(losses.KINDS, "linear", Linear())
    config = shrink(shipped("encodec_small"), music)
    config.loss.independence.update(
        kind="linear", share=0.0, weight=3.0, delay=True, condition=1, streams="codes"
    )
    return config


def test_the_network_and_the_encoder_get_their_gradients(config):
    task, state, batch = start(config)
    key = jax.random.key(1)
    without, _ = jax.jit(task.programs["codec"])(state, batch, key)
    after, metrics = jax.jit(task.programs["codec_independence"])(state, batch, key)
    params, codebook = state.params["generator"], state.collections["codebook"]

    @partial(jax.grad, argnums=(0, 1), has_aux=True)
    def expected(critic, encoder):
        latents = codec_steps.encode(config, {**params, "encoder": encoder}, batch["audio"])
        streams = codec_steps.independence_streams(config, codebook, latents)
        streams = independence.prepare(config.loss.independence, streams)
        error = Linear().apply(config, critic, None, streams, None, None)[1]
        return error, error

    (of_critic, of_encoder), error = jax.jit(expected)(state.critic["params"], params["encoder"])
    np.testing.assert_allclose(metrics["critic"], error, rtol=1e-5)
    np.testing.assert_allclose(metrics["independence"], -error, rtol=1e-5)
    share = 1 - config.optimizer.betas[0]  # of a gradient in Adam's first moment
    moment = after.critic["opt_state"][0].mu["map"]
    np.testing.assert_allclose(moment, share * of_critic["map"], rtol=1e-4, atol=1e-7)
    assert changed(state.critic["params"], after.critic["params"])
    assert not changed(state.critic, without.critic)  # no term, no step of its network

    mu, mu_without = (s.opt_state["generator"][0].mu["encoder"] for s in (after, without))
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(mu))
    for a, b, g in zip(*map(jax.tree.leaves, (mu, mu_without, of_encoder)), strict=True):
        np.testing.assert_allclose(a - b, -3.0 * share * g, atol=1e-5 * scale)


def test_an_interrupted_run_equals_the_undisturbed_one(config, tmp_path):
    config.update(steps=4, save_every=100)
    config.loss.independence.update(macro_batch=2, every=2)
    expected = loop.run(CodecTask(config).open(), config, tmp_path / "whole")
    for stop in (3, 4):
        state = loop.run(CodecTask(config).open(), config, tmp_path / "parts", max_step=stop)
    assert expected.critic is not None and not changed(expected, state)
