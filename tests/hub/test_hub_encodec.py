import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
import soundfile
from golden import encodec_cases

from indep_jax import dependence, measure
from indep_jax.hub import encodec, folders
from indep_jax.inference import load_codec

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parents[1] / "golden" / "encodec.npz"


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
    if "scales" in golden:
        assert relative_error(encoded.scales, golden["scales"]) < 1e-6


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
    from indep_jax.configs import encodec_32khz

    shipped = encodec_32khz.get_config().to_dict()
    del shipped["model"]["init_std"]  # how training begins
    ours = encodec.config_from_hub(hub)
    assert ours["model"] == shipped["model"] | dict(pad_mode="reflect")
    assert ours["quantizer"].pop("bandwidths") == (2.2,)
    assert ours["quantizer"] == {key: shipped["quantizer"][key] for key in ours["quantizer"]}
    assert ours["quantizer"] == dict(codebooks=4, codebook_size=2048)


@pytest.mark.parametrize(
    "field, value",
    [
        ("overlap", None),
        ("norm_type", "batch_norm"),
        ("codebook_dim", 64),
        ("pad_mode", "replicate"),
        ("trim_right_ratio", 0.5),
        ("model_type", "dac"),
    ],
)
def test_unsupported_configuration_is_named(field, value):
    with pytest.raises(ValueError, match=f"^[^\n]*{field}[^\n]*$"):
        encodec.config_from_hub(
            encodec_cases.CASES["causal"] | dict(chunk_length_s=1.0, overlap=0.1) | {field: value}
        )


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


def write_shards(folder, config, shards):
    encodec_cases.write(folder, config, {})
    (folder / "model.safetensors").unlink()
    names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    for name, tensors in zip(names, shards):
        safetensors.numpy.save_file(tensors, folder / name)
    listed = {tensor: name for name, tensors in zip(names, shards) for tensor in tensors}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps(dict(weight_map=listed)))
    return index, [folder / name for name in names]


def test_shards_are_one_model(tmp_path):
    config = encodec_cases.TINY
    tensors = encodec_cases.tensors(config)
    encodec_cases.write(tmp_path / "whole", config, tensors)
    halves = [dict(list(tensors.items())[i::2]) for i in range(2)]
    index, paths = write_shards(tmp_path / "shards", config, halves)
    whole, shards = (encodec.read(tmp_path / name) for name in ("whole", "shards"))
    assert whole[0] == shards[0]
    jax.tree.map(np.testing.assert_array_equal, whole[1], shards[1])

    bias = {BIAS: tensors[BIAS]}
    write_shards(tmp_path / "twice", config, [halves[0] | bias, halves[1] | bias])
    with pytest.raises(ValueError, match=f"^[^\n]*{BIAS} is in model-00000-of[^\n]*$"):
        encodec.read(tmp_path / "twice")
    paths[1].rename(tmp_path / "elsewhere")
    said = f"^{paths[1]}: no such file, which model.safetensors.index.json lists$"
    with pytest.raises(ValueError, match=said):
        encodec.read(tmp_path / "shards")
    index.write_text("{}")
    with pytest.raises(ValueError, match=f"^{index}: has no weight_map of file names$"):
        encodec.read(tmp_path / "shards")


def test_the_codec_of_a_musicgen_folder(tmp_path):
    config = encodec_cases.TINY
    tensors = encodec_cases.tensors(config)
    encodec_cases.write(tmp_path / "codec", config, tensors)
    around = {f"audio_encoder.{name}": value for name, value in tensors.items()}
    around["decoder.lm_heads.0.weight"] = np.ones((2, 2), np.float32)
    musicgen = dict(model_type="musicgen", audio_encoder=config)
    encodec_cases.write(tmp_path / "musicgen", musicgen, around)
    alone, within = (encodec.read(tmp_path / name) for name in ("codec", "musicgen"))
    assert alone[0] == within[0]
    jax.tree.map(np.testing.assert_array_equal, alone[1], within[1])


@pytest.fixture(scope="module")
def chunked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chunked")
    config = encodec_cases.CASES["chunks"]
    encodec_cases.write(folder, config, encodec_cases.tensors(config))
    return load_codec(folder)


def test_chunks_have_levels_and_know_nothing_of_each_other(chunked):
    wave = encodec_cases.wave(encodec_cases.CASES["chunks"])
    encoded, louder = chunked.encode(wave), chunked.encode(2 * wave)
    # Twice in binary changes no digit but those of the level that keeps silence from dividing by 0.
    np.testing.assert_array_equal(encoded.codes, louder.codes)
    np.testing.assert_allclose(2 * encoded.scales, louder.scales, rtol=1e-6)
    np.testing.assert_allclose(2 * chunked.decode(encoded), chunked.decode(louder), rtol=1e-4)
    changed = chunked.encode(np.concatenate([wave[:, :300], 1 - wave[:, 300:]], axis=1))
    np.testing.assert_array_equal(changed.codes[:, :25], encoded.codes[:, :25])
    assert (np.asarray(changed.codes) != encoded.codes)[:, 25:].mean() > 0.5
    blocks = list(
        chunked.encode_long(lambda start, count: wave[0, start : start + count], wave.shape[1])
    )
    codes, scales = (np.concatenate([block[i] for block in blocks]) for i in range(2))
    np.testing.assert_array_equal(codes, np.asarray(encoded.codes)[0])
    np.testing.assert_array_equal(scales, np.asarray(encoded.scales)[0])


@pytest.mark.parametrize("length", [1, 299, 300, 302, 595, 727])  # a last chunk within the overlap
def test_any_length_comes_back_in_chunks(chunked, length):
    wave = encodec_cases.wave(encodec_cases.CASES["chunks"])[:1, :length]
    encoded = chunked.encode(wave)
    decoded = chunked.decode(encoded)
    assert decoded.shape == wave.shape and np.isfinite(decoded).all()
    assert encoded.scales.shape == (1, -(-length // 297))


def test_codes_alone_do_not_decode_in_chunks(chunked):
    encoded = chunked.encode(encodec_cases.wave(encodec_cases.CASES["chunks"]))
    with pytest.raises(ValueError, match="^codes: this codec works in chunks[^\n]*$"):
        chunked.decode(encoded.codes)
    with pytest.raises(ValueError, match=r"^scales: expected [^\n]*\[2, 3\], not \[2, 2\]$"):
        chunked.decode(encoded._replace(scales=encoded.scales[:, :2]))
    with pytest.raises(ValueError, match="^codes: expected 62 frames for 727 samples, not 61$"):
        chunked.decode(encoded._replace(codes=encoded.codes[:, 1:]))


def test_a_bandwidth_is_so_many_codebooks(tmp_path):
    config = encodec_cases.TINY
    encodec_cases.write(tmp_path, config, encodec_cases.tensors(config))
    whole, wave = load_codec(tmp_path), encodec_cases.wave(config)
    assert whole.bandwidths == tuple(config["target_bandwidths"])
    low = load_codec(tmp_path, bandwidth=whole.bandwidths[0])
    assert (low.codebooks, whole.codebooks) == (1, 3)
    assert low.bandwidths == whole.bandwidths[:1]
    codes = low.encode(wave).codes
    np.testing.assert_array_equal(codes, np.asarray(whole.encode(wave).codes)[..., :1])
    np.testing.assert_allclose(low.decode(codes), whole.decode(codes), atol=1e-5)
    with pytest.raises(ValueError, match=r"^[^\n]*bandwidth must be one of [^\n]*, not 7$"):
        load_codec(tmp_path, bandwidth=7)


def test_measure_at_a_bandwidth(tmp_path):
    """As many codebooks are measured as the bandwidth has; the command refuses another."""
    config = encodec_cases.TINY | dict(codebook_size=16)
    rate = config["sampling_rate"] / math.prod(config["upsampling_ratios"])
    config["target_bandwidths"] = [rate * 4 * count / 1000 for count in (2, 3)]
    encodec_cases.write(tmp_path / "codec", config, encodec_cases.tensors(config))
    (tmp_path / "music").mkdir()
    for name in range(3):
        wave = np.random.default_rng(name).uniform(-0.5, 0.5, 32_000)
        soundfile.write(tmp_path / f"music/{name}.wav", wave, 8_000)
    where = str(tmp_path / "codec"), f"folder:{tmp_path}/music", "all"
    for count, bandwidth in zip((2, 3, 3), (*config["target_bandwidths"], None)):
        codec = load_codec(where[0], bandwidth=bandwidth)
        found = measure.measure_tokenizer(codec, *where[1:])
        assert len(dependence.record([found])["tokenizers"][0]["codebooks"]) == count
    for command in ("measure", "evaluate"):
        done = subprocess.run(
            [sys.executable, "-m", f"indep_jax.{command}", f"--codec={where[0]}",
             f"--source={where[1]}", f"--output={tmp_path}/out", "--bandwidth=77"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 2 and "bandwidth must be one of" in done.stderr


def test_published_bandwidths():
    published = dict(model_type="encodec", codebook_size=1024)
    mono = encodec.config_from_hub(published)
    stereo = dict(audio_channels=2, sampling_rate=48_000, target_bandwidths=[3.0, 6.0, 12.0, 24.0])
    stereo = encodec.config_from_hub(published | stereo)
    counts = [
        [encodec.codebooks_at(config, bandwidth) for bandwidth in encodec.bandwidths(config)]
        for config in (mono, stereo)
    ]
    assert counts == [[2, 4, 8, 16, 32], [2, 4, 8, 16]]
    assert (mono["quantizer"]["codebooks"], stereo["quantizer"]["codebooks"]) == (32, 16)


def test_hub_names_come_from_the_cache_when_offline(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="^hf:some/codec: cannot be downloaded and is not in the"):
        load_codec("hf:some/codec")
    config, revision = encodec_cases.TINY, "0" * 40
    model = tmp_path / "models--some--codec"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(revision)
    folder = model / "snapshots" / revision
    encodec_cases.write(folder, config, encodec_cases.tensors(config))
    codec = load_codec("hf:some/codec")
    assert codec.config["origin"] == dict(name="some/codec", license="")
    assert load_codec(folder).config["origin"]["name"] == "some/codec"
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="^hf:some/codec: huggingface_hub is not installed[^\n]*$"):
        load_codec("hf:some/codec")


@pytest.mark.parametrize(
    "path, card, expected",
    [
        ("mine", None, dict(name="mine", license="")),
        ("hf:facebook/encodec_32khz", None, dict(license="cc-by-nc-4.0")),
        ("mine", "---\nlicense: mit\n---\nlicense: gpl\n", dict(name="mine", license="mit")),
        ("mine", "---\nbase_model:\n- a/b\n---\n", dict(name="a/b", license="")),
        ("mine", "license: mit\n", dict(license="")),
        ("mine", "---\nlicense:\ntags: x\n---\n", dict(name="mine", license="")),
        ("mine", "---\nlicense: other\nlicense_name: a-and-b\n---\n", dict(license="a-and-b")),
    ],
)
def test_origin_is_what_the_card_says(path, card, expected, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    if card:
        (folder / "README.md").write_text(card)
    assert folders.origin(path, folder).items() >= expected.items()


LOAD = """
import sys
from pathlib import Path
from indep_jax.hub import encodec
import jax
encodec.read(sys.argv[2])  # what is needed once: modules, the backend

def kilobytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))

Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = kilobytes("VmRSS:")
variables = jax.block_until_ready(encodec.read(sys.argv[1])[1])
size = sum(x.nbytes for x in jax.tree.leaves(variables)) / 1024
print((kilobytes("VmHWM:") - before) / size, size)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_a_model_is_in_memory_once_while_it_loads(tmp_path):
    sizes = dict(num_filters=64, upsampling_ratios=[4, 4, 2], hidden_size=128, codebook_size=2048)
    config = encodec_cases.TINY | sizes | dict(num_lstm_layers=4, codebook_dim=128)
    config["target_bandwidths"] = [19 * 11 * encodec_cases.CODEBOOKS / 1000]
    for name, each in dict(large=config, tiny=encodec_cases.TINY).items():
        encodec_cases.write(tmp_path / name, each, encodec_cases.tensors(each))
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "large"), str(tmp_path / "tiny")],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    peak, size = map(float, done.stdout.split())
    assert size > 70_000  # what Python itself needs meanwhile is small beside it
    assert 0.9 < peak < 1.2
