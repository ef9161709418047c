"""Our codec against transformers' EncodecModel: same weights, real music, every layer."""

import functools
import math
from typing import NamedTuple

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from transformers.models.encodec import modeling_encodec  # noqa: E402

from indep_jax.data import pipeline, sources  # noqa: E402
from indep_jax.hub import encodec  # noqa: E402
from indep_jax.inference import LoadedCodec, load_codec  # noqa: E402

pytestmark = pytest.mark.parity

TOLERANCE = 1e-5  # RMS of the difference over RMS
NEAR_TIE = 1e-4  # relative difference of squared distances, in float64

TRUE_SIZE = dict(
    sampling_rate=32_000,
    num_filters=64,
    upsampling_ratios=[8, 5, 4, 4],
    hidden_size=128,
    codebook_size=2048,
    target_bandwidths=[2.2],
    use_causal_conv=False,
    use_conv_shortcut=False,
)
ODD = dict(
    sampling_rate=3_150,
    num_filters=9,
    upsampling_ratios=[7, 3, 3],
    hidden_size=11,
    codebook_size=64,
    kernel_size=5,
    residual_kernel_size=5,
    last_kernel_size=3,
    num_residual_layers=2,
    dilation_growth_rate=3,
    compress=3,
    num_lstm_layers=1,
    use_causal_conv=False,
    use_conv_shortcut=False,
)
STEREO = ODD | dict(audio_channels=2, upsampling_ratios=[2, 9], compress=1, num_lstm_layers=3)
CAUSAL = dict(
    sampling_rate=2_400,
    num_filters=8,
    upsampling_ratios=[4, 3, 2],
    hidden_size=16,
    codebook_size=64,
    use_causal_conv=True,
    use_conv_shortcut=True,
)
CODEBOOKS = 4
CASES = dict(true=TRUE_SIZE, odd=ODD, stereo=STEREO, causal=CAUSAL)


class Pair(NamedTuple):
    """The same model on both sides, the audio it is tried on, and what torch makes of it."""

    torch_model: transformers.EncodecModel
    codec: LoadedCodec
    wave: np.ndarray  # [1, time, channels]
    latents: np.ndarray  # [frames, dim], torch's
    codes: np.ndarray  # [frames, codebooks], torch's


def real_music(sample_rate: int, channels: int, clips: int) -> np.ndarray:
    """Ten seconds from the middle of each of some clips, [clips, time, channels]."""
    source = sources.open_source("sample:", "all")
    return pipeline.excerpts(
        source, seconds=10.0, sample_rate=sample_rate, channels=channels, items=clips
    )["audio"]


def to_torch(x_BxTxC):
    return torch.from_numpy(np.array(x_BxTxC)).swapaxes(1, 2)


def to_numpy(x):
    return x.detach().numpy().swapaxes(1, 2)


def fill_codebooks(model, latents_NxD, rng):
    """Code vectors between neighbouring frames' residuals of real audio.

    Not half way: what two neighbours leave of that is opposite, and the code vectors between
    those would be 0 but for rounding, again and again.
    """
    residual = latents_NxD
    for layer in model.quantizer.layers:
        size = layer.codebook.embed.shape[0]
        chosen = torch.from_numpy(rng.choice(len(residual) - 1, size, replace=False))
        weight = torch.from_numpy(rng.uniform(0.2, 0.8, (size, 1)).astype(np.float32))
        layer.codebook.embed.copy_(torch.lerp(residual[chosen], residual[chosen + 1], weight))
        layer.codebook.embed_avg.copy_(layer.codebook.embed)
        layer.codebook.cluster_size.fill_(1.0)
        residual = residual - layer.codebook.decode(layer.codebook.encode(residual))


@functools.cache
def filled(case: str):
    """(model, ten seconds of music [1, time, channels]) of torch, its codebooks filled."""
    fields = dict(CASES[case])
    if "target_bandwidths" not in fields:
        frames = math.ceil(fields["sampling_rate"] / math.prod(fields["upsampling_ratios"]))
        bits = math.log2(fields["codebook_size"]) * frames / 1000
        fields["target_bandwidths"] = [1.5 * bits, (CODEBOOKS + 0.5) * bits]
    config = transformers.EncodecConfig(**fields)
    torch.manual_seed(0)
    model = transformers.EncodecModel(config).eval()
    music = real_music(config.sampling_rate, config.audio_channels, clips=5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Freshly drawn weights drown the sound in biases: all frames would be alike.
            if name.endswith("original0"):
                parameter.mul_(1.5)
            elif name.endswith("bias"):
                parameter.mul_(0.3)
        latents = [model.encoder(to_torch(clip[None]))[0].T for clip in music]
        fill_codebooks(model, torch.cat(latents), np.random.default_rng(0))
    return model, music[:1]


@pytest.fixture(
    scope="module",
    params=[(case, mode) for case in CASES for mode in ("reflect", "constant")],
    ids="-".join,
)
def pair(request, tmp_path_factory):
    case, pad_mode = request.param
    model, wave = filled(case)
    model.config.pad_mode = pad_mode
    for module in model.modules():
        if isinstance(module, modeling_encodec.EncodecConv1d):
            module.pad_mode = pad_mode
    with torch.no_grad():
        latents = model.encoder(to_torch(wave))
        bandwidth = model.config.target_bandwidths[-1]
        codes = model.encode(to_torch(wave), bandwidth=bandwidth).audio_codes
    folder = tmp_path_factory.mktemp("encodec")
    model.save_pretrained(folder)
    with jax.default_matmul_precision("highest"):
        codec = load_codec(folder)
        assert codec.config["model"]["pad_mode"] == pad_mode
        assert codec.codebooks == model.config.num_quantizers == CODEBOOKS
        yield Pair(model, codec, wave, to_numpy(latents)[0], codes[0, 0].numpy().T)


def relative_error(ours, theirs):
    assert ours.shape == theirs.shape
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return np.sqrt(np.mean((ours - theirs) ** 2) / np.mean(theirs**2))


def check_codes(codec, ours, theirs, latents):
    """Codes [frames, codebooks] are varied, and equal but where two vectors are equally near."""
    assert ours.shape == theirs.shape
    frames = len(ours)
    for k in range(codec.codebooks):
        distinct = np.unique(theirs[:, k]).size
        assert distinct >= min(100, codec.codebook_size // 2), (k, distinct)
    embed = np.asarray(codec.code_vectors, np.float64)
    excluded = 0
    for t in np.flatnonzero((ours != theirs).any(axis=1)):
        k = np.flatnonzero(ours[t] != theirs[t])[0]
        residual = latents[t].astype(np.float64)
        residual -= sum(embed[i][theirs[t, i]] for i in range(k))
        distances = np.sum((residual - embed[k]) ** 2, axis=1)
        chosen = distances[[ours[t, k], theirs[t, k]]]
        assert chosen.max() - distances.min() < NEAR_TIE * distances.min(), (t, k, chosen)
        excluded += 1
    print(f"frames {frames} excluded {excluded}", end=" ")
    assert excluded <= max(2, 2 * frames // 500)


def test_codes_are_equal_up_to_near_ties(pair):
    ours = np.asarray(pair.codec.encode(pair.wave).codes)[0]
    assert len(ours) >= 10 * pair.codec.frame_rate
    check_codes(pair.codec, ours, pair.codes, pair.latents)


def test_audio_is_equal(pair):
    with torch.no_grad():
        theirs = pair.torch_model.decode(torch.from_numpy(pair.codes.T.copy())[None, None], [None])
    length = pair.wave.shape[1] - 1  # not whole frames
    ours = pair.codec.decode(pair.codes[None], length)
    error = relative_error(ours, to_numpy(theirs.audio_values)[:, :length])
    print(f"audio {error:.1e}", end=" ")
    assert error < TOLERANCE


def modules(pair) -> dict[str, str]:
    """Path of every convolution, residual block and LSTM stack of ours, by torch's name."""
    found = {}
    for entry in encodec.name_map(pair.codec.config["model"], pair.codec.codebooks, "new"):
        ours, theirs = entry.ours.removeprefix("params/"), entry.theirs
        if theirs.endswith(".conv.bias"):
            found[theirs.removesuffix(".conv.bias")] = ours.removesuffix("/bias")
        if ".block.1." in theirs:
            found[theirs.split(".block.")[0]] = ours.split("/conv_0")[0]
        if ".lstm." in theirs:
            found[theirs.split(".lstm.")[0]] = ours.split("/layer_")[0]
    return found


def compare_layers(pair, side, method, x) -> dict[str, float]:
    """Relative error of every layer's output; torch's are compared as they appear."""

    def run(variables, x):
        return pair.codec.module.apply(
            variables, x, method=method, capture_intermediates=True, mutable=["intermediates"]
        )[1]["intermediates"]

    seen = jax.jit(run)(pair.codec.variables, x)
    errors = {}

    def hook(name, path):
        def compare(module, inputs, output):
            node = seen
            for part in path.split("/"):
                node = node[part]
            errors[name] = relative_error(node["__call__"][0], to_numpy(output))

        return compare

    handles = [
        pair.torch_model.get_submodule(name).register_forward_hook(hook(name, path))
        for name, path in modules(pair).items()
        if name.startswith(side)
    ]
    with torch.no_grad():
        getattr(pair.torch_model, side)(to_torch(x))
    for handle in handles:
        handle.remove()
    # Everything between the layers compared here is an ELU or a sum.
    kinds = (
        modeling_encodec.EncodecLSTM,
        modeling_encodec.EncodecConv1d,
        modeling_encodec.EncodecConvTranspose1d,
        modeling_encodec.EncodecResnetBlock,
    )
    layers = getattr(pair.torch_model, side).named_modules(prefix=side)
    assert set(errors) == {name for name, module in layers if isinstance(module, kinds)}
    return errors


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_every_layer_is_equal(pair, side):
    # Three seconds and a part of a frame: every layer's output is in memory at once.
    if side == "encoder":
        wave = pair.wave[:, : 3 * pair.codec.sample_rate + 1]
        errors = compare_layers(pair, side, "latents", wave)
    else:
        codes = pair.codes[: round(3 * pair.codec.frame_rate)]
        vectors = pair.codec.code_vectors[np.arange(CODEBOOKS), codes].sum(axis=1)[None]
        errors = compare_layers(pair, side, "synthesize", vectors)
    worst = max(errors, key=errors.get)
    print(f"{side} {len(errors)} layers, worst {errors[worst]:.1e} ({worst})", end=" ")
    assert errors[worst] < TOLERANCE, errors


def test_quantizer_is_equal(pair):
    quantized = pair.codec.module.apply(pair.codec.variables, pair.latents[None], method="quantize")
    same = (np.asarray(quantized.codes)[0] == pair.codes).all(axis=1)
    assert same.mean() > 0.99
    residual = torch.from_numpy(pair.latents)
    errors = {}
    with torch.no_grad():
        for k, layer in enumerate(pair.torch_model.quantizer.layers):
            vectors = layer.codebook.decode(layer.codebook.encode(residual))
            errors[f"input {k}"] = relative_error(quantized.inputs[0, same, k], residual[same])
            errors[f"vector {k}"] = relative_error(quantized.vectors[0, same, k], vectors[same])
            residual = residual - vectors
        total = pair.torch_model.quantizer.decode(torch.from_numpy(pair.codes.T.copy())[:, None])
    errors["output"] = relative_error(quantized.output[0, same], to_numpy(total)[0, same])
    print(f"quantizer worst {max(errors.values()):.1e}", end=" ")
    assert max(errors.values()) < TOLERANCE, errors
