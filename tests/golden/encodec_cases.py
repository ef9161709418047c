"""EnCodec models whose weights come from the names of their parameters alone.

Shared by make_encodec.py, which runs them in torch, and the default tests, which do not have it.
"""

import json
import math
import zlib

import numpy as np
import safetensors.numpy

_SMALL = dict(
    model_type="encodec",
    audio_channels=1,
    codebook_size=32,
    codebook_dim=10,
    hidden_size=10,
    chunk_length_s=None,
    overlap=None,
    normalize=False,
    norm_type="weight_norm",
    trim_right_ratio=1.0,
)
CASES = {
    "odd": dict(
        _SMALL,
        sampling_rate=3_000,
        num_filters=6,
        upsampling_ratios=[5, 2, 3],
        kernel_size=5,
        residual_kernel_size=3,
        last_kernel_size=3,
        num_residual_layers=2,
        dilation_growth_rate=3,
        compress=3,
        num_lstm_layers=1,
        use_causal_conv=False,
        use_conv_shortcut=False,
        pad_mode="reflect",
    ),
    "causal": dict(
        _SMALL,
        sampling_rate=2_400,
        num_filters=4,
        upsampling_ratios=[4, 3, 2],
        kernel_size=7,
        residual_kernel_size=3,
        last_kernel_size=7,
        num_residual_layers=1,
        dilation_growth_rate=2,
        compress=2,
        num_lstm_layers=2,
        use_causal_conv=True,
        use_conv_shortcut=True,
        pad_mode="constant",
    ),
    # As the 48 kHz model: levels, chunks, a last one that is short.
    "chunks": dict(
        _SMALL,
        audio_channels=2,
        sampling_rate=2_000,
        num_filters=4,
        upsampling_ratios=[4, 3],
        kernel_size=7,
        residual_kernel_size=3,
        last_kernel_size=7,
        num_residual_layers=1,
        dilation_growth_rate=2,
        compress=2,
        num_lstm_layers=1,
        use_causal_conv=False,
        use_conv_shortcut=True,
        pad_mode="reflect",
        norm_type="time_group_norm",
        normalize=True,
        chunk_length_s=0.15,
        overlap=0.01,
    ),
}
# Quick to compile; for tests of everything but the numbers.
TINY = CASES["odd"] | dict(
    sampling_rate=600, num_filters=4, compress=2, upsampling_ratios=[3, 2], num_residual_layers=1
)
CODEBOOKS = 3
WAVE_SEED = 0  # one whose codes are varied and far from ties, as make_encodec.py asserts
for _case in (*CASES.values(), TINY):
    _frame_rate = math.ceil(_case["sampling_rate"] / math.prod(_case["upsampling_ratios"]))
    _bits = math.log2(_case["codebook_size"])
    _case["target_bandwidths"] = [_frame_rate * _bits * b / 1000 for b in (1.1, CODEBOOKS + 0.1)]


def spread(config: dict) -> float:
    """Standard deviation of the first codebook's vectors: about that of the latents."""
    return 1.0 if config["norm_type"] == "time_group_norm" else 5.0


def weight(name: str, shape: tuple[int, ...], spread: float = 5.0) -> np.ndarray:
    """The parameter `name` (new spelling of weight norm), float32."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("original0"):
        value = rng.uniform(1.0, 2.0, shape)
    elif name.endswith(".bias"):
        value = rng.normal(0, 0.1, shape)
    elif name.endswith("norm.weight"):
        value = rng.uniform(0.5, 1.5, shape)
    elif "embed" in name:
        codebook = int(name.split(".")[2])
        value = rng.normal(0, spread * 0.7**codebook, shape)
    elif "cluster_size" in name:
        value = rng.uniform(1, 100, shape)
    elif name.endswith("inited"):
        value = np.ones(shape)
    else:
        value = rng.normal(0, math.prod(shape[1:]) ** -0.5, shape)
    return value.astype(np.float32)


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """Every tensor of transformers' EncodecModel, independently of the package's name map."""
    found = {}
    layer = {}

    def conv(stem, inputs, outputs, kernel, transposed=False):
        first, second = (inputs, outputs) if transposed else (outputs, inputs)
        found[f"{stem}.bias"] = (outputs,)
        if config["norm_type"] == "time_group_norm":
            found[f"{stem}.weight"] = (first, second, kernel)
            norm = stem.removesuffix("conv") + "norm"
            found[f"{norm}.weight"] = found[f"{norm}.bias"] = (outputs,)
        else:
            found[f"{stem}.parametrizations.weight.original0"] = (first, 1, 1)
            found[f"{stem}.parametrizations.weight.original1"] = (first, second, kernel)

    def place(side, elu=False):
        layer[side] = layer.get(side, -1) + 1 + elu
        return f"{side}.layers.{layer[side]}"

    def residual(side, width):
        for _ in range(config["num_residual_layers"]):
            stem, hidden = place(side), width // config["compress"]
            conv(f"{stem}.block.1.conv", width, hidden, config["residual_kernel_size"])
            conv(f"{stem}.block.3.conv", hidden, width, 1)
            if config["use_conv_shortcut"]:
                conv(f"{stem}.shortcut.conv", width, width, 1)

    def lstm(side, width):
        stem = place(side)
        for i in range(config["num_lstm_layers"]):
            for part in ("ih", "hh"):
                found[f"{stem}.lstm.weight_{part}_l{i}"] = (4 * width, width)
                found[f"{stem}.lstm.bias_{part}_l{i}"] = (4 * width,)

    width, ratios = config["num_filters"], config["upsampling_ratios"]
    conv(place("encoder") + ".conv", config["audio_channels"], width, config["kernel_size"])
    for ratio in reversed(ratios):
        residual("encoder", width)
        conv(place("encoder", elu=True) + ".conv", width, 2 * width, 2 * ratio)
        width *= 2
    lstm("encoder", width)
    last = config["last_kernel_size"]
    conv(place("encoder", elu=True) + ".conv", width, config["hidden_size"], last)
    conv(place("decoder") + ".conv", config["hidden_size"], width, config["kernel_size"])
    lstm("decoder", width)
    for ratio in ratios:
        stem = place("decoder", elu=True)
        conv(f"{stem}.conv", width, width // 2, 2 * ratio, transposed=True)
        width //= 2
        residual("decoder", width)
    conv(place("decoder", elu=True) + ".conv", width, config["audio_channels"], last)
    for k in range(CODEBOOKS):
        size, dim = config["codebook_size"], config["codebook_dim"]
        stem = f"quantizer.layers.{k}.codebook"
        found[f"{stem}.inited"] = (1,)
        found[f"{stem}.cluster_size"] = (size,)
        found[f"{stem}.embed"] = found[f"{stem}.embed_avg"] = (size, dim)
    return found


def tensors(config: dict) -> dict[str, np.ndarray]:
    found = shapes(config)
    return {name: weight(name, shape, spread(config)) for name, shape in found.items()}


def write(folder, config: dict, values: dict[str, np.ndarray]):
    """A Hugging Face folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    safetensors.numpy.save_file(values, folder / "model.safetensors")


def wave(config: dict) -> np.ndarray:
    """[2, time, channels]: decaying tones, rising noise; 60 frames and a part of one."""
    rng = np.random.default_rng(WAVE_SEED)
    length = 60 * math.prod(config["upsampling_ratios"]) + 7
    time = np.arange(length) / config["sampling_rate"]
    tones = rng.uniform(50, 900, (2, 8, 1))
    starts = rng.uniform(0, 0.5, (2, 8, 1))
    since = time - starts
    notes = np.where(since > 0, np.exp(-4 * np.abs(since)) * np.sin(2 * np.pi * tones * since), 0)
    noise = 0.3 * time * rng.normal(size=(2, time.size))
    mono = 0.4 * notes.sum(1) + noise
    second = 0.5 * mono[::-1] + 0.3 * mono  # some of the other item's
    return np.stack([mono, second][: config["audio_channels"]], axis=-1).astype(np.float32)
