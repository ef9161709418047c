"""Our codecs, the stereo pair and other people's tokenizers can all be encoded with and measured."""

import types

import numpy as np
import pytest
from golden import encodec_cases
from support.codec_cases import make_codec, music, reader

from indep_jax import inference
from indep_jax.hub.tokenizers import ForeignTokenizer


@pytest.fixture(scope="module")
def mono():
    return make_codec(channels=1)


@pytest.fixture(scope="module")
def chunked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chunked")
    config = encodec_cases.CASES["chunks"]
    encodec_cases.write(folder, config, encodec_cases.tensors(config))
    return inference.load_codec(folder)


def levels(wave):
    """Codes of two codebooks: the mean of 8 samples, and its remainder."""
    frames = np.pad(wave[:, 0], (0, -len(wave) % 8)).reshape(-1, 8).mean(axis=1)
    number = np.clip(np.floor(64 * frames), -32, 31).astype(np.int64) + 32
    return np.stack([number // 8, number % 8], axis=1)


@pytest.fixture
def tokenizer(request, mono, chunked):
    kinds = dict(
        codec=mono,
        chunked=chunked,
        pair=inference.PairedCodec(mono),
        foreign=ForeignTokenizer("levels", 1_000, 8, 2, 8, levels),
    )
    return kinds[request.param]


@pytest.mark.parametrize("tokenizer", ["codec", "chunked", "pair", "foreign"], indirect=True)
def test_every_kind_has_what_a_tokenizer_needs(tokenizer):
    assert isinstance(tokenizer, inference.Tokenizer)
    rate = tokenizer.sample_rate
    wave = music(41.0)[: 31 * rate + 5, : tokenizer.channels]
    blocks = list(tokenizer.encode_long(reader(wave), len(wave)))
    codes = np.concatenate([block.codes for block in blocks])
    assert codes.dtype == np.int32 and codes.shape[1] == tokenizer.codebooks
    assert 0 <= codes.min() and codes.max() < tokenizer.codebook_size
    assert len(np.unique(codes[:, 0])) > 4
    if isinstance(tokenizer, inference.ChunkedCodec):
        assert all(len(block.scales) == 1 for block in blocks)
    else:
        assert len(codes) == np.ceil(len(wave) * tokenizer.frame_rate / rate)
    if tokenizer.code_vectors is not None:
        assert tokenizer.code_vectors.shape[:2] == (tokenizer.codebooks, tokenizer.codebook_size)


def test_what_lacks_an_attribute_is_no_tokenizer():
    attributes = {f: 0 for f in ForeignTokenizer.__dataclass_fields__} | dict(
        channels=1, frame_rate=125.0, code_vectors=None, encode_long=print
    )
    assert isinstance(types.SimpleNamespace(**attributes), inference.Tokenizer)
    for name in set(attributes) - {"hop", "encode"}:
        rest = {key: value for key, value in attributes.items() if key != name}
        assert not isinstance(types.SimpleNamespace(**rest), inference.Tokenizer), name


def test_the_vectors_of_a_pair_are_in_the_order_of_its_codes(mono):
    pair, wave = inference.PairedCodec(mono), music(2.0)[None]
    latents = [
        mono.module.apply(mono.variables, wave[..., side : side + 1], method="latents")[0]
        for side in range(2)
    ]
    codes = np.asarray(pair.encode(wave).codes)[0]
    for side in range(2):
        vectors = [pair.code_vectors[k][codes[:, k]] for k in (side, 2 + side)]
        errors = [np.square(latents[side] - v).sum() for v in (0 * vectors[0], *vectors)]
        assert errors[1] < errors[0]
        residual = latents[side] - vectors[0]
        assert np.square(residual - vectors[1]).sum() < np.square(residual).sum()


def test_a_foreign_tokenizer_encodes_windows_of_30_s():
    tokenizer = ForeignTokenizer("levels", 1_000, 8, 2, 8, levels)
    wave = music(60.0)[:, :1]
    blocks = tokenizer.encode_long(reader(wave, largest=30_000), len(wave))
    codes = np.concatenate([block.codes for block in blocks])
    np.testing.assert_array_equal(codes, levels(wave))


def test_only_our_codecs_have_bandwidths():
    with pytest.raises(ValueError, match="^transformers:dac:x: expected no bandwidth"):
        inference.load_tokenizer("transformers:dac:x", bandwidth=3.0)
