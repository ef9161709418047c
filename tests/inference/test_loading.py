import json
import math

import jax
import numpy as np
import pytest
from golden import encodec_cases
from support.codec_cases import CONFIG

from indep_jax import inference
from indep_jax.codec import model as codec_model
from indep_jax.training import checkpoints


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    config = encodec_cases.TINY
    encodec_cases.write(folder, config, encodec_cases.tensors(config))
    return folder


@pytest.fixture(scope="module")
def codec(hub_folder):
    return inference.load_codec(hub_folder)


def test_properties(codec):
    config = encodec_cases.TINY
    assert codec.sample_rate == config["sampling_rate"]
    assert codec.channels == 1
    assert codec.frame_rate == config["sampling_rate"] / math.prod(config["upsampling_ratios"])
    assert (codec.codebooks, codec.codebook_size) == (encodec_cases.CODEBOOKS, 32)
    assert codec.code_vectors.shape == (encodec_cases.CODEBOOKS, 32, 10)


@pytest.mark.parametrize("length", [1, 5, 6, 7, 157])
def test_any_length_comes_back(codec, length):
    wave = np.random.default_rng(length).normal(size=(2, length, 1)).astype(np.float32)
    encoded = codec.encode(wave)
    assert encoded.codes.shape == (2, math.ceil(length / 6), 3)
    assert encoded.codes.dtype == np.int32
    assert encoded.scales is None and encoded.length == length
    decoded = codec.decode(encoded)
    assert decoded.shape == wave.shape
    assert np.isfinite(decoded).all()
    np.testing.assert_array_equal(codec.encode(wave).codes, encoded.codes)
    np.testing.assert_array_equal(codec.decode(encoded.codes, length), decoded)
    assert codec.decode(encoded.codes).shape[1] == math.ceil(length / 6) * 6


def test_one_mono_waveform_without_axes(codec):
    wave = np.sin(np.arange(100, dtype=np.float32))
    np.testing.assert_array_equal(codec.encode(wave).codes, codec.encode(wave[None, :, None]).codes)


def test_leading_codebooks_alone_decode(codec):
    codes = np.random.default_rng(0).integers(32, size=(1, 20, 3))
    embed = codec.code_vectors.at[2].set(0)
    codebook = codec.variables["codebook"] | dict(embed=embed)
    first_two = inference.LoadedCodec(codec.config, codec.variables | dict(codebook=codebook))
    expected = np.asarray(first_two.decode(codes))
    assert np.abs(expected - codec.decode(codes)).max() > 1e-2 * np.abs(expected).max()
    np.testing.assert_allclose(
        codec.decode(codes[..., :2]), expected, atol=1e-4 * np.abs(expected).max()
    )


@pytest.mark.parametrize("shape", [(1, 10, 2), (1, 0, 1), (10, 1), (0,)])
def test_a_wave_of_another_shape_is_refused(codec, shape):
    with pytest.raises(ValueError, match=r"^wave: expected \[batch, time, 1\][^\n]*$"):
        codec.encode(np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    "codes, length, message",
    [
        (np.zeros((1, 4, 4), int), None, "codes: expected .batch, frames, up to 3"),
        (np.zeros((4, 3), int), None, "codes: expected .batch, frames, up to 3"),
        (np.zeros((1, 4, 3)), None, "codes: expected integers, not float64"),
        (np.full((1, 4, 3), 32), None, "codes: expected 0 to 31, not 32 to 32"),
        (np.full((1, 4, 3), -1), None, "codes: expected 0 to 31, not -1 to -1"),
        (np.zeros((1, 4, 3), int), 25, "length: expected at most 24 samples, not 25"),
    ],
)
def test_codes_that_cannot_be_are_refused(codec, codes, length, message):
    with pytest.raises(ValueError, match=f"^{message}[^\n]*$"):
        codec.decode(codes, length)


def test_wrong_paths_are_named(tmp_path):
    expected = "expected a workdir of indep_jax.train or a Hugging Face EnCodec folder"
    with pytest.raises(ValueError, match=f"^{tmp_path}/nothing: no such folder; {expected}$"):
        inference.load_codec(tmp_path / "nothing")
    with pytest.raises(ValueError, match=f"^{tmp_path}: has no config.json; {expected}$"):
        inference.load_codec(tmp_path)
    config_path = tmp_path / "config.json"
    config_path.write_text("{")
    with pytest.raises(ValueError, match=f"^{config_path}: not JSON [^\n]*$"):
        inference.load_codec(tmp_path)
    for other in ("[]", '{"task": "lm"}'):
        config_path.write_text(other)
        with pytest.raises(ValueError, match=f"^{config_path}: describes no codec; {expected}$"):
            inference.load_codec(tmp_path)
    config_path.write_text('{"model_type": "t5"}')
    with pytest.raises(ValueError, match=f"^{config_path}: model_type must be 'encodec'[^\n]*$"):
        inference.load_codec(tmp_path)
    config_path.write_text(json.dumps(CONFIG))
    with pytest.raises(ValueError, match=f"^{tmp_path}: no checkpoint[^\n]*$"):
        inference.load_codec(tmp_path)


def test_workdir_gives_the_moving_average_of_the_last_checkpoint(tmp_path):
    module = codec_model.from_config(CONFIG["model"], 2, 16)
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 12, 2), np.float32))

    def state(seed):
        rng = np.random.default_rng(seed)

        def draw(tree):
            return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), tree)

        return dict(
            step=np.int32(seed),
            params=dict(generator=draw(shapes["params"]), discriminator=dict(bias=np.ones(2))),
            collections=dict(codebook=draw(shapes["codebook"])),
            ema=draw(shapes["params"]),
        )

    checkpoints.store_config(tmp_path, CONFIG)
    saved = checkpoints.Checkpoints(tmp_path, keep=2)
    for step in (1, 2):
        saved.save(step, state(step), {})
    saved.close()
    last = state(2)
    variables = dict(params=last["ema"], codebook=last["collections"]["codebook"])
    codec = inference.load_codec(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, codec.variables, variables)
    assert (codec.sample_rate, codec.channels, codec.codebooks) == (4_000, 2, 2)

    warming = state(3)
    warming["collections"]["codebook"]["count"] *= 0
    saved = checkpoints.Checkpoints(tmp_path, keep=2)
    saved.save(3, warming, {})
    saved.close()
    with pytest.raises(ValueError, match="step 3 is within the warm-up"):
        inference.load_codec(tmp_path)
