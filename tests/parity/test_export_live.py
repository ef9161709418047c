"""Folders of transformers to ours and back: 24, 32 and 48 kHz models in small, at every bandwidth."""

import functools
import json

import jax
import numpy as np
import pytest
import soundfile

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import test_musicgen_live as musicgen_live  # noqa: E402
from golden import text_cases  # noqa: E402
from tasks.test_codec_task import shipped, shrink  # noqa: E402
from test_encodec import (  # noqa: E402
    TOLERANCE,
    check_codes,
    fill_codebooks,
    real_music,
    relative_error,
    to_numpy,
    to_torch,
)

from indep_jax import encode, export, measure  # noqa: E402
from indep_jax.data import sources, transforms  # noqa: E402
from indep_jax.hub import folders, tokenizers  # noqa: E402
from indep_jax.inference import Tokenizer, load_codec, load_lm  # noqa: E402
from indep_jax.tasks.codec import CodecTask  # noqa: E402
from indep_jax.training import loop  # noqa: E402

pytestmark = pytest.mark.parity

SMALL = dict(num_filters=8, upsampling_ratios=[4, 3, 2], hidden_size=16, codebook_size=64)
CASES = {
    "24": dict(SMALL, sampling_rate=2_400, target_bandwidths=[1.2, 2.4, 4.8]),
    "32": dict(
        SMALL,
        sampling_rate=3_200,
        target_bandwidths=[3.3],
        use_causal_conv=False,
        use_conv_shortcut=False,
    ),
    "48": dict(
        SMALL,
        sampling_rate=4_800,
        audio_channels=2,
        target_bandwidths=[2.4, 4.8, 9.6],
        use_causal_conv=False,
        norm_type="time_group_norm",
        normalize=True,
        chunk_length_s=1.0,
        overlap=0.01,
    ),
}


def encode_by_torch(model, wave, bandwidth):
    """(codes [frames, codebooks], latents [frames, dim], what encode gave), chunks in a row."""
    latents = []
    handle = model.encoder.register_forward_hook(lambda _, x, y: latents.append(to_numpy(y)[0]))
    with torch.no_grad():
        encoded = model.encode(to_torch(wave), bandwidth=bandwidth)
    handle.remove()
    chunks = [chunk[0].numpy().T for chunk in encoded.audio_codes]
    codes = np.concatenate(chunks)
    return codes[: len(codes) - encoded.last_frame_pad_length], np.concatenate(latents), encoded


@functools.cache
def filled(case):
    """(model of torch, its codebooks filled, music [1, time, channels])."""
    torch.manual_seed(0)
    model = transformers.EncodecModel(transformers.EncodecConfig(**CASES[case])).eval()
    music = real_music(model.config.sampling_rate, model.config.audio_channels, clips=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Freshly drawn, biases drown the sound, and the norms of all channels are alike.
            if name.endswith("original0"):
                parameter.mul_(1.5)
            elif name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("norm.bias"):
                parameter.normal_(0, 0.1)
            elif name.endswith("bias"):
                parameter.mul_(0.3)
        latents = [encode_by_torch(model, clip[None], None)[1] for clip in music]
        fill_codebooks(model, torch.from_numpy(np.concatenate(latents)), np.random.default_rng(0))
        for layer in model.quantizer.layers:
            layer.codebook.embed_avg.mul_(torch.rand_like(layer.codebook.embed_avg))
            layer.codebook.cluster_size.uniform_(0, 9)
    return model, music[:1]


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    model, wave = filled(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    with jax.default_matmul_precision("highest"):
        yield model, wave, folder


@pytest.mark.parametrize("which", [-1, 0], ids=["maximum", "default"])
@pytest.mark.parametrize("seconds", [0.3, 7.77])
def test_codes_scales_and_audio(case, which, seconds):
    model, wave, folder = case
    wave = wave[:, : int(seconds * model.config.sampling_rate) + 1]
    bandwidth = model.config.target_bandwidths[which]
    codes, latents, encoded = encode_by_torch(model, wave, bandwidth if which else None)
    codec = load_codec(folder, bandwidth=bandwidth)
    ours = codec.encode(wave)
    if seconds > 1:
        check_codes(codec, np.asarray(ours.codes)[0], codes, latents)
    with torch.no_grad():
        audio = model.decode(
            encoded.audio_codes,
            encoded.audio_scales,
            last_frame_pad_length=encoded.last_frame_pad_length,
        ).audio_values
    if model.config.normalize:
        scales = np.concatenate([scale.numpy() for scale in encoded.audio_scales], axis=1)
        assert relative_error(ours.scales, scales) < 1e-6
        ours = ours._replace(scales=scales)
    decoded = codec.decode(ours._replace(codes=codes[None]))
    error = relative_error(decoded, to_numpy(audio)[:, : wave.shape[1]])
    print(f"codebooks {codec.codebooks} audio {error:.1e}", end=" ")
    assert error < TOLERANCE


def reload(path, output):
    """transformers' model of what export makes of a codec."""
    folders.write(output, *export.codec_content(str(path)))
    model, info = transformers.EncodecModel.from_pretrained(output, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def test_there_and_back_is_bit_for_bit(case, tmp_path):
    model, _, folder = case
    again = reload(folder, tmp_path / "out")
    theirs, ours = model.state_dict(), again.state_dict()
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        assert tensor.dtype == ours[name].dtype and torch.equal(tensor, ours[name]), name
    theirs, ours = model.config.to_dict(), again.config.to_dict()
    assert {name: ours[name] for name in CASES["48"]} == {n: theirs[n] for n in CASES["48"]}
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "out")
    assert extractor.sampling_rate == model.config.sampling_rate
    assert extractor.chunk_length == model.config.chunk_length


def test_a_trained_codec_is_the_same_in_transformers(tmp_path):
    config = shrink(shipped("encodec_small"), "sample:")
    config.model.update(n_filters=8, dimension=8)
    config.quantizer.update(warmup_steps=8, codebook_size=64, kmeans_batches=4)
    config.loss.independence.kind = "dhsic"
    config.steps = 12
    config.evaluate_seconds = 1.0
    loop.run(CodecTask(config).open(), config, tmp_path / "run")
    model = reload(tmp_path / "run", tmp_path / "out")
    wave = real_music(config.model.sample_rate, 1, clips=1)[:, :-3]
    with jax.default_matmul_precision("highest"):
        codec = load_codec(tmp_path / "run")
        codes, latents, encoded = encode_by_torch(model, wave, None)
        ours = codec.encode(wave)
        differ = (np.asarray(ours.codes)[0] != codes).any(axis=1)
        assert np.unique(codes[:, 0]).size > 8 and differ.mean() <= 0.004
        with torch.no_grad():
            audio = model.decode(encoded.audio_codes, encoded.audio_scales).audio_values
        decoded = codec.decode(codes[None], wave.shape[1])
    error = relative_error(decoded, to_numpy(audio)[:, : wave.shape[1]])
    print(f"frames {len(codes)} differ {differ.sum()} audio {error:.1e}", end=" ")
    assert error < TOLERANCE


def random_tokenizer(kind):
    torch.manual_seed(0)
    if kind == "dac":
        config = transformers.DacConfig(
            encoder_hidden_size=4,
            downsampling_ratios=[2, 4],
            decoder_hidden_size=16,
            n_codebooks=3,
            codebook_size=32,
            sampling_rate=1_600,
        )
        return transformers.DacModel(config)
    config = transformers.MimiConfig(
        sampling_rate=1_600,
        hidden_size=16,
        num_filters=4,
        upsampling_ratios=[4, 2],
        codebook_size=32,
        codebook_dim=8,
        vector_quantization_hidden_dimension=8,
        num_quantizers=3,
        upsample_groups=16,
        num_hidden_layers=1,
        intermediate_size=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        frame_rate=100.0,
    )
    model = transformers.MimiModel(config)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("embed_sum"):
                buffer.normal_()
    return model


@pytest.mark.parametrize("kind", tokenizers.KINDS)
def test_other_tokenizers(kind, tmp_path):
    model = random_tokenizer(kind).eval()
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "music").mkdir()
    rng = np.random.default_rng(0)
    for name, seconds in (("a b", 31.7), ("c", 2.0)):
        noise = 0.1 * rng.standard_normal((int(seconds * 1_600), 2))
        soundfile.write(tmp_path / "music" / f"{name}.wav", noise, 1_600, subtype="FLOAT")
    tokenizer = tokenizers.load(f"transformers:{kind}:{tmp_path / 'model'}")
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.label, tokenizer.codebooks, tokenizer.codebook_size) == ("model", 3, 32)
    source = sources.open_source(f"folder:{tmp_path / 'music'}", "all")
    written = encode.encode_codes(tokenizer, source, str(tmp_path / "codes.npz"))
    with np.load(tmp_path / "codes.npz") as content:
        assert written == 2 and set(content) == {"a b.wav", "c.wav"}
    codes = measure.read_codes(str(tmp_path / "codes.npz"))
    for file, found in zip(source.files, codes, strict=True):
        wave = transforms.read_file(file, 1_600, 1)[: 30 * 1_600]
        with torch.no_grad():
            expected = model.encode(torch.from_numpy(wave.T.copy())[None]).audio_codes[0].numpy().T
        frames = -(-transforms.resampled_frames(file, 1_600) // tokenizer.hop)
        assert found.shape == (frames, 3) and np.issubdtype(found.dtype, np.integer)
        np.testing.assert_array_equal(found[: len(expected)], expected)
        assert all(np.unique(found[:, k]).size > 4 for k in range(3))


def test_tokenizers_that_cannot_be_are_named(tmp_path):
    with pytest.raises(ValueError, match="^tokenizer 'dac:x': expected transformers:dac:PATH or"):
        tokenizers.load("dac:x")
    random_tokenizer("dac").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="config.json: model_type must be 'mimi', not 'dac'$"):
        tokenizers.load(f"transformers:mimi:{tmp_path}")
    (tmp_path / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match=f"^{tmp_path}: transformers cannot load it: [^\n]*$"):
        tokenizers.load(f"transformers:dac:{tmp_path}")


@pytest.mark.parametrize("channels, encoder", [(1, "t5"), (2, "t5"), (1, "minilm")])
def test_a_musicgen_there_and_back_sings_the_same(channels, encoder, tmp_path):
    """Every tensor, and the sound of greedy decoding from a text, by our API and their pipeline."""
    codebooks, frames, text = 3, 200, text_cases.TEXTS[0]
    small = musicgen_live.DECODER
    positions = dict(max_position_embeddings=64) if encoder == "minilm" else {}  # as texts are cut
    config = transformers.MusicgenConfig(
        text_encoder=transformers.AutoConfig.for_model(**text_cases.CASES[encoder] | positions),
        audio_encoder=transformers.EncodecConfig(
            **SMALL | dict(codebook_size=small["vocab_size"], sampling_rate=2_400),
            target_bandwidths=[codebooks * 8 * 0.1],
        ),
        decoder=transformers.MusicgenDecoderConfig(
            **small, num_codebooks=codebooks * channels, audio_channels=channels
        ),
    )
    model = transformers.MusicgenForConditionalGeneration(config)
    with torch.no_grad():
        for layer in model.audio_encoder.quantizer.layers:
            layer.codebook.embed.normal_()
            layer.codebook.cluster_size.fill_(1)
    musicgen_live.pair_of(model, tmp_path / "theirs", 24)
    (tmp_path / "theirs/tokenizer.json").write_text(
        json.dumps(text_cases.tokenizer(text_cases.CASES[encoder]))
    )
    theirs = dict(
        t5=dict(tokenizer_class="T5Tokenizer"),  # which has <pad> without being told
        minilm=dict(tokenizer_class="BertTokenizer", pad_token="[UNK]"),
    )
    (tmp_path / "theirs/tokenizer_config.json").write_text(json.dumps(theirs[encoder]))
    folders.write(tmp_path / "out", *export.lm_content(str(tmp_path / "theirs")))
    again, info = transformers.MusicgenForConditionalGeneration.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(info.values()), info
    theirs, ours = model.state_dict(), again.state_dict()
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        assert torch.equal(tensor, ours[name]), name

    with jax.default_matmul_precision("highest"):
        lm = load_lm(tmp_path / "out")
        wave = np.asarray(lm.generate([text], frames / lm.codec.frame_rate, top_k=1))[0]
    sing = transformers.pipeline("text-to-audio", str(tmp_path / "out"))
    found = sing(text, generate_kwargs=dict(do_sample=False, max_length=frames + codebooks))
    assert found["sampling_rate"] == 2_400
    expected = np.asarray(found["audio"]).reshape(channels, -1).T
    assert wave.shape == expected.shape == (frames * 24, channels)
    error = relative_error(wave[None], expected[None])
    print(f"audio {error:.1e}", end=" ")
    assert error < TOLERANCE
