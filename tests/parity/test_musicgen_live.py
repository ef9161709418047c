"""Our language model against transformers' MusicGen: same weights, all logits, greedy decoding."""

import types
from typing import NamedTuple

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from golden import make_musicgen  # noqa: E402
from transformers.modeling_outputs import BaseModelOutput  # noqa: E402

from indep_jax.hub import musicgen  # noqa: E402
from indep_jax.lm import model as lm  # noqa: E402
from indep_jax.lm import patterns, sampling  # noqa: E402

pytestmark = pytest.mark.parity

TOLERANCE = 1e-5  # largest difference over the RMS of the logits
SIZE, FRAMES = 256, 200
DECODER = dict(
    vocab_size=SIZE,
    pad_token_id=SIZE,
    bos_token_id=SIZE,
    num_hidden_layers=3,
    ffn_dim=96,
    num_attention_heads=4,
    hidden_size=48,
)
CHANNELS = dict(mono=dict(num_codebooks=4), stereo=dict(num_codebooks=6, audio_channels=2))
TEXT = dict(d_model=20, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=9)


class Pair(NamedTuple):
    """The same weights on both sides, and texts of different lengths."""

    theirs: transformers.PreTrainedModel
    ours: lm.LM
    variables: dict
    states: np.ndarray  # [2, length, text_dim]
    mask: np.ndarray  # [2, length]


def pair_of(theirs, folder, text_dim) -> Pair:
    """Fills `theirs` with weights whose greedy output varies, and reads them as ours."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            spread = 1.2 / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 0.3
            spread = 0.5 if "embed_tokens" in name else spread
            noise = spread * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise + ("norm.weight" in name))
    theirs.eval().save_pretrained(folder)
    config, variables = musicgen.read(folder)
    states = np.random.default_rng(0).normal(size=(2, 7, text_dim)).astype(np.float32)
    mask = np.arange(7) < np.array([[7], [4]])
    return Pair(theirs, lm.from_config(config["model"]), variables, states, mask)


@pytest.fixture(scope="module", params=CHANNELS)
def whole(request, tmp_path_factory):
    """A MusicgenForConditionalGeneration; its T5 and EnCodec are there, but not called."""
    config = transformers.MusicgenConfig(
        text_encoder=transformers.T5Config(**TEXT),
        audio_encoder=transformers.EncodecConfig(num_filters=2, hidden_size=4, codebook_size=8),
        decoder=transformers.MusicgenDecoderConfig(**DECODER, **CHANNELS[request.param]),
    )
    model = transformers.MusicgenForConditionalGeneration(config)
    with jax.default_matmul_precision("highest"):
        yield pair_of(model, tmp_path_factory.mktemp("whole"), TEXT["d_model"])


@pytest.fixture(scope="module", params=CHANNELS)
def decoder(request, tmp_path_factory):
    config = transformers.MusicgenDecoderConfig(**DECODER, **CHANNELS[request.param])
    model = transformers.MusicgenForCausalLM(config)
    with jax.default_matmul_precision("highest"):
        yield pair_of(model, tmp_path_factory.mktemp("decoder"), DECODER["hidden_size"])


def table(pair):
    fields = {name: getattr(pair.ours, name) for name in ("codebooks", "layers", "dim", "text_dim")}
    return musicgen.name_map(fields, musicgen.PREFIXES[pair.theirs.config.model_type])


def compare_logits(pair, run):
    """run: (input ids [batch * codebooks, steps], states, mask) -> their logits."""
    pattern = dict(mono="delay", stereo="stereo_delay")
    stereo = pair.ours.codebooks == 6
    assert pair.ours.pattern == pattern["stereo" if stereo else "mono"]
    shape = (2, 300, pair.ours.codebooks)
    codes = np.random.default_rng(1).integers(0, SIZE, shape, np.int32)
    tokens, _ = patterns.build(codes, pair.ours.schedule(300), pair.ours.special)
    ours = jax.jit(pair.ours.apply)(pair.variables, tokens, pair.states, pair.mask)
    # What their inputs are, ours make of the tokens: special before the first step.
    inputs = np.concatenate([np.full_like(tokens[:, :1], SIZE), tokens[:, :-1]], axis=1)
    inputs = torch.from_numpy(inputs.swapaxes(1, 2).reshape(-1, inputs.shape[1])).long()
    with torch.no_grad():
        theirs = run(inputs, torch.from_numpy(pair.states), torch.from_numpy(pair.mask).long())
    theirs = theirs.numpy().reshape(2, -1, *theirs.shape[1:]).swapaxes(1, 2)
    assert ours.shape == theirs.shape
    error = np.abs(ours - theirs).max() / np.sqrt(np.mean(theirs**2))
    print(f"logits {error:.1e}", end=" ")
    assert error < TOLERANCE


def test_logits_are_those_of_the_whole(whole):
    def run(inputs, states, mask):
        text = BaseModelOutput(last_hidden_state=states)
        arguments = dict(encoder_outputs=text, attention_mask=mask, decoder_input_ids=inputs)
        return whole.theirs(**arguments).logits

    compare_logits(whole, run)


def test_logits_are_those_of_the_decoder(decoder):
    def run(inputs, states, mask):
        arguments = dict(encoder_hidden_states=states, encoder_attention_mask=mask)
        return decoder.theirs(inputs, **arguments).logits

    compare_logits(decoder, run)


def check_names(pair):
    entries = table(pair)
    theirs = [name for name in pair.theirs.state_dict() if musicgen.has_counterpart(name)]
    assert sorted(entry.theirs for entry in entries) == sorted(theirs)
    places = [(entry.ours, entry.index) for entry in entries]
    assert len(set(places)) == len(places)
    count = sum(pair.theirs.get_parameter(name).numel() for name in theirs)
    assert count == sum(leaf.size for leaf in jax.tree.leaves(pair.variables))


def test_every_tensor_of_the_whole_is_used_once(whole):
    check_names(whole)


def test_every_tensor_of_the_decoder_is_used_once(decoder):
    check_names(decoder)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_greedy_codes_are_theirs(whole, guidance, monkeypatch):
    decoded = types.SimpleNamespace
    monkeypatch.setattr(
        whole.theirs.audio_encoder,
        "decode",
        lambda codes, audio_scales: decoded(audio_values=codes[0]),
        raising=True,
    )
    states, mask = torch.from_numpy(whole.states), torch.from_numpy(whole.mask).long()
    if guidance != 1:
        states, mask = (torch.cat([x, torch.zeros_like(x)]) for x in (states, mask))
    channels = whole.theirs.config.decoder.audio_channels
    theirs = whole.theirs.generate(
        torch.zeros((2, 7), dtype=torch.long),
        encoder_outputs=BaseModelOutput(last_hidden_state=states),
        attention_mask=mask,
        guidance_scale=guidance,
        do_sample=False,
        pad_token_id=SIZE,
        bos_token_id=SIZE,
        decoder_start_token_id=SIZE,
        max_length=FRAMES + whole.ours.codebooks // channels,
    )
    theirs = theirs.numpy().swapaxes(1, 2)
    if channels == 2:  # they come as all of the left channel, then all of the right
        theirs = theirs.reshape(2, FRAMES, 2, -1).swapaxes(2, 3).reshape(2, FRAMES, -1)
    compare_greedy(whole, theirs, guidance)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_greedy_codes_of_the_decoder_are_theirs(decoder, guidance):
    theirs = make_musicgen.greedy(decoder.theirs, decoder.states, decoder.mask, FRAMES, guidance)
    compare_greedy(decoder, theirs, guidance)


def compare_greedy(pair, theirs, guidance):
    """theirs: codes [batch, frames, codebooks]."""
    assert len(np.unique(theirs)) >= 50 and len(np.unique(theirs[:, -50:])) >= 30
    ours = sampling.generate(
        pair.ours,
        pair.variables,
        FRAMES,
        seed=0,
        examples=[0, 1],
        text=pair.states,
        text_mask=pair.mask,
        guidance=guidance,
        top_k=1,
    )
    np.testing.assert_array_equal(ours, theirs)
