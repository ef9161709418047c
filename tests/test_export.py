"""Export is the inverse of import, bit for bit, or says in one line why it cannot be."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
import soundfile
from golden import encodec_cases, musicgen_cases, text_cases
from hub.test_hub_encodec import fold, relative_error, respell
from support.codec_cases import CONFIG
from tasks.test_lm_task import make_store, shipped, shrink

from indep_jax import data, encode, export
from indep_jax.codec import model as codec_model
from indep_jax.hub import encodec, folders, musicgen
from indep_jax.inference import PairedCodec, load_codec, load_lm
from indep_jax.tasks import build
from indep_jax.training import checkpoints, loop

ROOT = pathlib.Path(__file__).parent.parent


def exported(source, output):
    folders.write(output, *export.codec_content(str(source)))
    return safetensors.numpy.load_file(output / "model.safetensors")


@pytest.mark.parametrize("case", encodec_cases.CASES)
def test_a_hub_folder_comes_back_bit_for_bit(case, tmp_path):
    config = encodec_cases.CASES[case]
    tensors = encodec_cases.tensors(config)
    encodec_cases.write(tmp_path / "theirs", config, tensors)
    old = respell(tensors, "weight_g", "weight_v")
    encodec_cases.write(tmp_path / "old", config, old)
    for name in ("theirs", "old"):
        found = exported(tmp_path / name, tmp_path / f"{name}_again")
        assert found.keys() == tensors.keys()
        for key, tensor in tensors.items():
            np.testing.assert_array_equal(found[key], tensor, err_msg=key, strict=True)
    fields = json.loads((tmp_path / "theirs_again" / "config.json").read_text())
    assert {name: fields[name] for name in config} == config


def test_folded_weights_are_unfolded(tmp_path):
    config = encodec_cases.TINY
    tensors = fold(encodec_cases.tensors(config))
    encodec_cases.write(tmp_path / "folded", config, tensors)
    found = exported(tmp_path / "folded", tmp_path / "out")
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (tmp_path / "out").iterdir())
    assert found.keys() == encodec_cases.shapes(config).keys()
    again = fold(found)
    for name, tensor in tensors.items():
        assert relative_error(again[name], tensor) < 2e-7, name


def write_workdir(folder, config, step=7):
    """A workdir with random averaged weights, as far as a run goes."""
    module = codec_model.from_config(
        config["model"], config["quantizer"]["codebooks"], config["quantizer"]["codebook_size"]
    )
    wave = np.zeros((1, module.hop, module.channels), np.float32)
    shapes = jax.eval_shape(module.init, jax.random.key(0), wave)
    rng = np.random.default_rng(0)

    def draw(tree):
        return jax.tree.map(lambda x: rng.uniform(0.1, 1, x.shape).astype(np.float32), tree)

    state = dict(
        step=np.int32(step),
        params=dict(generator=draw(shapes["params"])),
        collections=dict(codebook=draw(shapes["codebook"])),
        ema=draw(shapes["params"]),
    )
    checkpoints.store_config(folder, config)
    saved = checkpoints.Checkpoints(folder, keep=1)
    saved.save(step, state, {})
    saved.close()


@pytest.mark.parametrize("norm", ["weight_norm", "time_group_norm"])
def test_a_trained_codec_comes_back_bit_for_bit(norm, tmp_path):
    config = CONFIG | dict(
        model=CONFIG["model"] | dict(norm=norm, causal=True),
        loss=dict(independence=dict(kind="dhsic")),
    )
    write_workdir(tmp_path / "run", config)
    exported(tmp_path / "run", tmp_path / "out")
    ours, again = load_codec(tmp_path / "run"), load_codec(tmp_path / "out")
    jax.tree.map(np.testing.assert_array_equal, ours.variables, again.variables)
    assert again.module == ours.module
    card = (tmp_path / "out" / "README.md").read_text()
    assert "The first weights of the codec were random. They were trained for 7 steps" in card
    assert "license" not in card


def test_licence_and_origin_go_with_the_weights(tmp_path):
    config = encodec_cases.TINY
    encodec_cases.write(tmp_path / "start", config, encodec_cases.tensors(config))
    card = "---\nlicense: cc-by-nc-4.0\nbase_model: facebook/encodec_32khz\n---\n"
    (tmp_path / "start" / "README.md").write_text(card)
    expected = dict(name="facebook/encodec_32khz", license="cc-by-nc-4.0")
    # As a run that starts from it keeps its config; then exported, and exported again.
    started = encodec.read_config(tmp_path / "start") | dict(
        origin=folders.origin("start", tmp_path / "start"),
        loss=dict(independence=dict(kind="none")),
    )
    write_workdir(tmp_path / "run", started)
    exported(tmp_path / "run", tmp_path / "out")
    exported(tmp_path / "out", tmp_path / "twice")
    for name in ("out", "twice"):
        text = (tmp_path / name / "README.md").read_text()
        assert text.startswith("---\n") and "licence, cc-by-nc-4.0, holds for these" in text
        assert folders.origin("x", tmp_path / name) == expected
    assert (
        "trained for 7 steps with no independence loss"
        in (tmp_path / "out" / "README.md").read_text()
    )
    (tmp_path / "start" / "README.md").unlink()
    exported(tmp_path / "start", tmp_path / "unknown")
    text = (tmp_path / "unknown" / "README.md").read_text()
    assert "those of start, which do not say their licence" in text and "license:" not in text


@pytest.mark.parametrize(
    "section, field, value",
    [
        ("model", "channels", 3),
        ("model", "lstm_layers", 0),
        ("quantizer", "codebook_size", 48),
        ("quantizer", "codebook_size", 1),
    ],
)
def test_what_transformers_has_no_form_of_is_named(section, field, value):
    config = CONFIG | {section: CONFIG[section] | {field: value}}
    with pytest.raises(ValueError, match=rf"^{section}\.{field} {value}: transformers'[^\n]*$"):
        encodec.config_to_hub(config)


@pytest.mark.parametrize("dropout", [False, True])
def test_bandwidths_are_those_that_transformers_counts_as_many(dropout):
    for size, rate, codebooks in ((2048, 50, 4), (256, 57, 19), (1024, 75, 32), (2, 13, 3)):
        quantizer = dict(codebooks=codebooks, codebook_size=size, dropout=dropout)
        config = CONFIG | dict(
            model=CONFIG["model"] | dict(sample_rate=12 * rate), quantizer=quantizer
        )
        found = encodec.config_to_hub(config)["target_bandwidths"]
        bits = rate * int(np.log2(size))
        counts = [int(1000 * bandwidth // bits) for bandwidth in found]
        assert counts == list(range(1, codebooks + 1))[0 if dropout else -1 :]
        assert counts == [int(np.floor(bandwidth * 1000 / bits)) for bandwidth in found]


def exported_lm(source, output, **options):
    folders.write(output, *export.lm_content(str(source), **options))
    return safetensors.numpy.load_file(output / "model.safetensors")


@pytest.mark.parametrize("stereo", [False, True])
def test_a_musicgen_folder_comes_back_bit_for_bit_and_sounds_the_same(stereo, tmp_path):
    hub, tensors = musicgen_cases.write_complete(tmp_path / "theirs", stereo)
    found = exported_lm(tmp_path / "theirs", tmp_path / "out")
    assert found.keys() == tensors.keys()
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(found[key], tensor, err_msg=key, strict=True)
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    for part in ("text_encoder", "audio_encoder", "decoder"):
        assert {name: fields[part][name] for name in hub[part]} == hub[part], part
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json",
        "tokenizer_config.json", "model.safetensors", "README.md",
    }  # fmt: skip
    card = (tmp_path / "out" / "README.md").read_text()
    assert "those of theirs, which do not say their licence" in card
    # Longer than the 40 frames that the model is made for.
    waves = [
        load_lm(tmp_path / name).generate([text_cases.TEXTS[0]], 0.5, seed=1)
        for name in ("theirs", "out")
    ]
    assert waves[0].shape == (1, 300, 1 + stereo) and np.std(waves[0]) > 0.01
    np.testing.assert_array_equal(*waves)
    if stereo:
        left, right = np.moveaxis(waves[0][0], -1, 0)
        assert np.abs(left - right).max() > 0.01


def write_lm_workdir(folder, theirs, **changes):
    """A workdir of a language model of the sizes of a folder, with weights of its own."""
    config, variables = musicgen.read(theirs)
    config["model"] |= changes
    config |= dict(
        codec=str(theirs),
        text=dict(encoder=str(theirs), max_tokens=20),
        data=dict(segment_seconds=0.3),
    )
    checkpoints.store_config(folder, config)
    saved = checkpoints.Checkpoints(folder, keep=1)
    params = jax.tree.map(lambda x: np.asarray(x) * 0.9, variables["params"])
    saved.save(9, dict(step=np.int32(9), params=params, ema=params), {})
    saved.close()


def test_a_trained_lm_comes_back_bit_for_bit_with_its_codecs_licence(tmp_path):
    musicgen_cases.write_complete(tmp_path / "theirs")
    card = "---\nlicense: cc-by-nc-4.0\nbase_model: facebook/musicgen-small\n---\n"
    (tmp_path / "theirs" / "README.md").write_text(card)
    write_lm_workdir(tmp_path / "run", tmp_path / "theirs")
    exported_lm(tmp_path / "run", tmp_path / "out")
    ours, again = load_lm(tmp_path / "run"), load_lm(tmp_path / "out")
    jax.tree.map(np.testing.assert_array_equal, ours.variables, again.variables)
    jax.tree.map(np.testing.assert_array_equal, ours.codec.variables, again.codec.variables)
    assert again.model == ours.model and again.config["data"] == ours.config["data"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "of the codec were those of facebook/musicgen-small, whose licence, cc-by-nc-4.0" in card
    assert "of the text encoder were those of facebook/musicgen-small" in card
    assert "language model were random. They were trained for 9 steps" in card
    assert folders.origin("x", tmp_path / "out")["license"] == "cc-by-nc-4.0"


@pytest.mark.parametrize(
    "change, said",
    [
        (
            dict(pattern="flattened"),
            "^model.pattern 'flattened': transformers' MusicGen has delay or",
        ),
        (
            dict(positions="rotary"),
            "^model.positions 'rotary': transformers' MusicGen has sinusoidal",
        ),
        (dict(head="depth"), "^model.head 'depth': transformers' MusicGen has linear"),
        (dict(text_dim=0), "^model.text_dim 0: transformers' MusicGen reads a text"),
    ],
)
def test_what_musicgen_has_no_form_of_is_named(change, said):
    model = musicgen.config_from_hub(musicgen_cases.COMPLETE)["model"]
    with pytest.raises(ValueError, match=said):
        musicgen.config_to_hub(model | change)


def test_fine_tuning_an_lm_starts_from_the_weights(tmp_path):
    musicgen_cases.write_complete(tmp_path / "theirs")
    _, start = musicgen.read(tmp_path / "theirs")
    store = make_store(tmp_path / "tokens", [60, 30], size=32)
    config = shrink(shipped("finetune_musicgen"), store)
    with pytest.raises(ValueError, match="^pretrained is empty: give --config.pretrained=PATH"):
        build.build(config)
    config.pretrained = str(tmp_path / "theirs")
    task = build.build(config)
    assert config.text.encoder == config.pretrained and config.origin["name"] == "theirs"
    config.optimizer.learning_rate = 1e-9
    config.steps = 3
    state = loop.run(task, config, tmp_path / "run", max_step=2)
    for params in (state.params, state.ema):  # the average is rounded at each step
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=3e-7, atol=1e-7),
            params, start["params"],
        )  # fmt: skip
    # Resumed: by the same command, which reads no weights.
    task = build.build(config)
    task.pretrained = lambda shardings: pytest.fail("read the weights again")
    again = loop.run(task, config, tmp_path / "run")
    assert int(again.step) == 3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), again.params,
                 start["params"])  # fmt: skip
    config.text.encoder = str(write_other_text(tmp_path / "text"))
    with pytest.raises(ValueError, match="has states of 12 numbers, and .* reads 24$"):
        build.build(config)


def test_a_stereo_lm_is_fine_tuned_on_tokens_of_two_channels_and_exported(tmp_path):
    musicgen_cases.write_complete(tmp_path / "theirs", stereo=True)
    codec = PairedCodec(load_codec(tmp_path / "theirs"))
    rng = np.random.default_rng(0)
    (tmp_path / "music").mkdir()
    for number in range(30):  # enough that the names' hashes give each split some
        soundfile.write(
            tmp_path / "music" / f"{number}.wav", rng.uniform(-0.3, 0.3, (4_000, 2)), 8_000
        )
    source = data.open_source(f"folder:{tmp_path}/music", "all")
    encode.encode(codec, source, str(tmp_path / "tokens"), shard_seconds=100)
    config = shrink(shipped("finetune_musicgen"), tmp_path / "tokens")
    config.update(pretrained=str(tmp_path / "theirs"), codec=str(tmp_path / "theirs"), steps=2)
    config.update(samples=1, sample_seconds=0.3)
    config.data.segment_seconds = 0.3
    task = build.build(config)
    assert config.model.pattern == "stereo_delay" and config.model.codebooks == codec.codebooks == 6
    loop.run(task, config, tmp_path / "run")
    exported_lm(tmp_path / "run", tmp_path / "out")
    waves = [
        load_lm(tmp_path / name).generate([text_cases.TEXTS[0]], 0.3, seed=1)
        for name in ("run", "out")
    ]
    assert waves[0].shape == (1, 180, 2)
    np.testing.assert_array_equal(*waves)


def write_other_text(folder):
    config = text_cases.CASES["t5"] | dict(d_model=12)
    text_cases.write(folder, config, text_cases.tensors(config))
    return folder


def run(tmp_path, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "indep_jax.export", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )


def test_the_command_makes_a_folder_or_nothing(tmp_path):
    config = encodec_cases.TINY
    tensors = encodec_cases.tensors(config)
    encodec_cases.write(tmp_path / "theirs", config, tensors)
    done = run(tmp_path, "--codec=theirs", "--output=deep/out")
    assert done.returncode == 0, done.stderr
    files = {"config.json", "preprocessor_config.json", "model.safetensors", "README.md"}
    assert {path.name for path in (tmp_path / "deep" / "out").iterdir()} == files
    whole = load_codec(tmp_path / "deep" / "out")
    done = run(tmp_path, "--codec=theirs", "--output=half", "--dtype=bfloat16")
    assert done.returncode == 0, done.stderr
    half = load_codec(tmp_path / "half")
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-8)
    jax.tree.map(close, half.variables, whole.variables)

    done = run(tmp_path, "--codec=theirs", "--output=deep/out")
    assert done.returncode == 2 and "deep/out: is there already" in done.stderr
    config = config | dict(codebook_size=48, target_bandwidths=[100 * 6 * 3.1 / 1000])
    encodec_cases.write(tmp_path / "odd", config, encodec_cases.tensors(config))
    done = run(tmp_path, "--codec=odd", "--output=deep/odd")
    assert done.returncode == 2 and "quantizer.codebook_size 48" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"out"}
