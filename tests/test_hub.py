import json
from pathlib import Path

import jax
import numpy as np
import pytest
from golden import encodec_cases

from indep_jax.hub import encodec
from indep_jax.loading import load_codec

GOLDEN = Path(__file__).parent / "golden" / "encodec.npz"


def relative_error(ours, theirs):
    assert ours.shape == theirs.shape
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    return np.sqrt(np.mean((ours - theirs) ** 2) / np.mean(theirs**2))


@pytest.mark.parametrize("case", encodec_cases.CASES)
def test_outputs_are_those_of_transformers(case, tmp_path):
    config = encodec_cases.CASES[case]
    encodec_cases.write(tmp_path, config, encodec_cases.tensors(config))
    golden = {key.split("/")[1]: value for key, value in np.load(GOLDEN).items() if case in key}
    wave = encodec_cases.wave(config)
    with jax.default_matmul_precision("highest"):
        codec = load_codec(tmp_path)
        encoded = codec.encode(wave)
        np.testing.assert_array_equal(encoded.codes, golden["codes"])
        assert relative_error(codec.decode(encoded), golden["audio"]) < 1e-5


def test_intermediates_are_those_of_transformers(tmp_path):
    config = encodec_cases.CASES["odd"]
    encodec_cases.write(tmp_path, config, encodec_cases.tensors(config))
    golden = {key.split("/")[1]: value for key, value in np.load(GOLDEN).items() if "odd" in key}
    codec = load_codec(tmp_path)

    @jax.jit
    def run(variables, wave, codes):
        intermediates = dict(capture_intermediates=True, mutable=["intermediates"])
        latents, encoder = codec.module.apply(variables, wave, method="latents", **intermediates)
        _, decoder = codec.module.apply(variables, codes, method="decode", **intermediates)
        return dict(
            latents=latents,
            residual=encoder["intermediates"]["encoder"]["residual_0_0"]["__call__"][0],
            lstm=decoder["intermediates"]["decoder"]["lstm"]["__call__"][0],
        )

    with jax.default_matmul_precision("highest"):
        found = run(codec.variables, encodec_cases.wave(config), golden["codes"])
    for name, value in found.items():
        assert relative_error(value, golden[name]) < 1e-5, name


def respell(tensors, gain_name, direction_name):
    stem = "parametrizations.weight.original"
    return {
        name.replace(f"{stem}0", gain_name).replace(f"{stem}1", direction_name): value
        for name, value in tensors.items()
    }


def fold(tensors):
    folded = {}
    for name, value in tensors.items():
        if name.endswith("original1"):
            stem = name.removesuffix("parametrizations.weight.original1")
            gain = tensors[f"{stem}parametrizations.weight.original0"].astype(np.float64)
            length = np.sqrt(np.sum(value.astype(np.float64) ** 2, (1, 2), keepdims=True))
            folded[f"{stem}weight"] = (gain * value / length).astype(np.float32)
        elif not name.endswith("original0"):
            folded[name] = value
    return folded


def test_every_spelling_of_weight_norm_is_the_same_model(tmp_path):
    config = encodec_cases.TINY
    new = encodec_cases.tensors(config)
    spellings = dict(new=new, old=respell(new, "weight_g", "weight_v"), folded=fold(new))
    for name, tensors in spellings.items():
        encodec_cases.write(tmp_path / name, config, tensors)
    new_config, new_variables = encodec.read(tmp_path / "new")
    old_config, old_variables = encodec.read(tmp_path / "old")
    assert old_config == new_config
    jax.tree.map(np.testing.assert_array_equal, old_variables, new_variables)
    wave = encodec_cases.wave(config)
    folded = load_codec(tmp_path / "folded")
    assert folded.config["model"]["norm"] == "none"
    assert new_config["model"]["norm"] == "weight_norm"
    codec = load_codec(tmp_path / "new")
    ours, theirs = (c.decode(c.encode(wave)) for c in (folded, codec))
    assert relative_error(ours, theirs) < 1e-4


def test_codebook_buffers_become_moving_averages(tmp_path):
    config = encodec_cases.CASES["odd"]
    tensors = encodec_cases.tensors(config)
    encodec_cases.write(tmp_path, config, tensors)
    _, variables = encodec.read(tmp_path)
    buffers = dict(embed="embed", average="embed_avg", count="cluster_size")
    for ours, theirs in buffers.items():
        for k in range(encodec_cases.CODEBOOKS):
            np.testing.assert_array_equal(
                variables["codebook"][ours][k], tensors[f"quantizer.layers.{k}.codebook.{theirs}"]
            )


@pytest.mark.parametrize("spelling", ["old", "new", "folded"])
def test_name_map_holds_every_parameter_once(spelling):
    model = encodec.config_from_hub(encodec_cases.CASES["odd"])["model"]
    table = encodec.name_map(model, 3, spelling)
    assert len({entry.theirs for entry in table}) == len(table)
    assert len({(entry.ours, entry.index) for entry in table}) == len(table)


def test_name_map_is_transformers_own_names_and_shapes(tmp_path):
    for config in encodec_cases.CASES.values():
        expected = encodec_cases.shapes(config)
        encodec_cases.write(tmp_path, config, encodec_cases.tensors(config))
        ours, variables = encodec.read(tmp_path)
        table = encodec.name_map(ours["model"], encodec_cases.CODEBOOKS, "new")
        for entry in table:
            value = variables
            for part in entry.ours.split("/"):
                value = value[part]
            assert entry.their_shape(value.shape) == expected.pop(entry.theirs)
        assert all(encodec.is_buffer(name) for name in expected)


def test_published_32khz_configuration():
    hub = dict(
        model_type="encodec",
        audio_channels=1,
        chunk_length_s=None,
        codebook_dim=128,
        codebook_size=2048,
        compress=2,
        dilation_growth_rate=2,
        hidden_size=128,
        kernel_size=7,
        last_kernel_size=7,
        norm_type="weight_norm",
        normalize=False,
        num_filters=64,
        num_lstm_layers=2,
        num_residual_layers=1,
        overlap=None,
        pad_mode="reflect",
        residual_kernel_size=3,
        sampling_rate=32000,
        target_bandwidths=[2.2],
        trim_right_ratio=1.0,
        upsampling_ratios=[8, 5, 4, 4],
        use_causal_conv=False,
        use_conv_shortcut=False,
    )
    from configs import encodec_32khz

    shipped = encodec_32khz.get_config().to_dict()
    del shipped["model"]["init_std"]  # how training begins
    ours = encodec.config_from_hub(hub)
    assert ours["model"] == shipped["model"] | dict(pad_mode="reflect")
    assert ours["quantizer"] == {key: shipped["quantizer"][key] for key in ours["quantizer"]}
    assert ours["quantizer"] == dict(codebooks=4, codebook_size=2048)


@pytest.mark.parametrize(
    "field, value",
    [
        ("normalize", True),
        ("chunk_length_s", 1.0),
        ("norm_type", "time_group_norm"),
        ("codebook_dim", 64),
        ("pad_mode", "replicate"),
        ("trim_right_ratio", 0.5),
        ("model_type", "dac"),
    ],
)
def test_unsupported_configuration_is_named(field, value):
    with pytest.raises(ValueError, match=f"^[^\n]*{field}[^\n]*$"):
        encodec.config_from_hub(encodec_cases.CASES["causal"] | {field: value})


def _without(tensors, name):
    return {key: value for key, value in tensors.items() if key != name}


GAIN = "encoder.layers.0.conv.parametrizations.weight.original0"
BIAS = "decoder.layers.0.conv.bias"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: _without(t, BIAS), f"missing {BIAS}"),
        (lambda t: _without(t, GAIN), f"missing {GAIN}"),
        (lambda t: t | {"encoder.extra": np.ones(3, np.float32)}, "left over encoder.extra"),
        (lambda t: t | {BIAS: np.ones(5, np.float32)}, rf"{BIAS} has shape \(5,\), not \(16,\)"),
        (
            lambda t: t | {"quantizer.layers.3.codebook.embed": np.ones((32, 10), np.float32)},
            "left over quantizer.layers.3.codebook.embed",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_listed(change, message, tmp_path):
    config = encodec_cases.TINY
    tensors = encodec_cases.tensors(config)
    encodec_cases.write(tmp_path, config, tensors)
    encodec.read(tmp_path)
    encodec_cases.write(tmp_path, config, change(tensors))
    with pytest.raises(ValueError, match=f"^[^\n]*model.safetensors: [^\n]*{message}[^\n]*$"):
        encodec.read(tmp_path)


def test_weights_that_cannot_be_read_are_named(tmp_path):
    config = encodec_cases.CASES["odd"]
    encodec_cases.write(tmp_path, config, encodec_cases.tensors(config))
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="model.safetensors: not a whole safetensors file"):
        encodec.read(tmp_path)
    weights.unlink()
    with pytest.raises(ValueError, match="model.safetensors: no such file"):
        encodec.read(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"never read")
    with pytest.raises(ValueError, match=r"pickle \(.bin\), which is never opened"):
        encodec.read(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config)[:-5])
    with pytest.raises(ValueError, match="config.json: not JSON"):
        encodec.read(tmp_path)
