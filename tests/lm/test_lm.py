"""The language model of codes: causal, a distribution, and sampled as it is written down."""

import functools
import itertools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from indep_jax.dependence import markov
from indep_jax.lm import model as lm
from indep_jax.lm import patterns, sampling, transformer

PATTERNS = [*patterns.PATTERNS, (2, 0, 1, 0)]
CONFIG = dict(
    codebooks=4,
    codebook_size=12,
    pattern="delay",
    dim=16,
    layers=2,
    heads=2,
    ffn_dim=24,
    text_dim=6,
    positions="sinusoidal",
    head="linear",
    depth=dict(dim=8, layers=1, heads=2, ffn_dim=12),
    remat=False,
)


@functools.cache
def tiny(dtype="float32", **changes):
    """(model, variables): small, and with weights so large that its codes vary."""
    model = lm.from_config(CONFIG | changes, dtype)
    rng = np.random.default_rng(1)

    def fill(leaf):
        noise = rng.normal(size=leaf.shape).astype(np.float32)
        return noise * 2 / leaf.shape[-2] ** 0.5 if leaf.ndim > 1 else 1 + 0.3 * noise

    shapes = jax.eval_shape(functools.partial(lm.init, model), jax.random.key(0))
    return model, jax.tree.map(fill, shapes)


@functools.cache
def text(examples=2, length=5):
    """Hidden states of texts of different lengths, and their mask."""
    states = np.random.default_rng(2).normal(size=(examples, length, CONFIG["text_dim"]))
    mask = np.arange(length) < length - np.arange(examples)[:, None]
    return states.astype(np.float32), mask


def random_codes(model, batch, frames, seed=0):
    shape = (batch, frames, model.codebooks)
    return np.random.default_rng(seed).integers(0, model.codebook_size, shape, np.int32)


def padded(schedule, steps):
    """The schedule with steps at its end that emit nothing: one program then does for all."""
    return np.pad(schedule, ((0, steps - len(schedule)), (0, 0)), constant_values=-1)


@functools.cache
def compiled(function, model):
    return jax.jit(functools.partial(function, model))


def apply(model, variables, *arguments):
    return compiled(lm.LM.apply, model)(variables, *arguments)


def jacobian(model, variables, tokens):
    """Derivatives of one number for each logit vector of a sequence."""
    weights = np.random.default_rng(9).normal(size=model.codebook_size)
    return jax.jacrev(lambda v: model.apply(v, tokens)[0] @ weights)(variables)["params"]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("head", lm.HEADS)
def test_a_code_is_predicted_from_exactly_what_was_emitted_before(pattern, head):
    model, variables = tiny(head=head, layers=1)
    # No code occurs twice in a codebook: the gradient of its vector is that of the one place.
    codes = np.stack([np.random.default_rng(k).permutation(3) for k in range(4)], -1)[None]
    schedule = padded(patterns.schedule(pattern, 3, 4), 12)
    tokens, _ = patterns.build(codes.astype(np.int32), schedule, model.special)
    found = compiled(jacobian, model)(variables, tokens)
    tables = [np.asarray(found["embedding"])]
    if head == "depth":  # the last codebook has no vector there
        tables.append(np.asarray(found["depth_embedding"]))
    step_of = patterns.inverse(schedule)
    for s, k in np.ndindex(schedule.shape):
        used = {
            (t, c)
            for t, c in np.ndindex(3, 4)
            if any(c < table.shape[2] and table[s, k, c, codes[0, t, c]].any() for table in tables)
        }
        before = {(t, c) for t, c in np.ndindex(3, 4) if step_of[t, c] < s}
        if head == "depth":
            before |= {(t, c) for t, c in np.ndindex(3, k) if step_of[t, c] == s}
        assert used == before, (s, k)


def nats(model, variables, tokens, mask):
    """The negative log-probability of each sequence, without a text."""
    logits = model.apply(variables, tokens)
    each = jax.vmap(lambda a, b: lm.cross_entropy(a[None], b[None], mask))(logits, tokens)
    return jnp.sum(each * jnp.sum(mask, axis=0), axis=-1)


@pytest.mark.parametrize("pattern", [*patterns.PATTERNS, (2, 0)], ids=str)
@pytest.mark.parametrize("head", lm.HEADS)
def test_the_probabilities_of_all_sequences_sum_to_one(pattern, head):
    model, variables = tiny(head=head, layers=1, codebooks=2, codebook_size=2)
    everything = np.array(list(itertools.product(range(2), repeat=6)), np.int32).reshape(-1, 3, 2)
    schedule = padded(patterns.schedule(pattern, 3, 2), 6)
    tokens, mask = patterns.build(everything, schedule, model.special)
    probabilities = np.exp(-compiled(nats, model)(variables, tokens, mask))
    assert probabilities.max() > 2 / 64  # far from uniform
    np.testing.assert_allclose(probabilities.sum(), 1, rtol=1e-5)


def test_cross_entropy_is_counted_by_codebook():
    rng = np.random.default_rng(0)
    logits, tokens = rng.normal(size=(2, 3, 2, 5)), rng.integers(0, 5, (2, 3, 2))
    mask = np.array([[True, False], [True, True], [False, True]])
    nats = [[], []]
    for b, s, k in np.ndindex(2, 3, 2):
        if mask[s, k]:
            share = np.exp(logits[b, s, k]) / np.exp(logits[b, s, k]).sum()
            nats[k].append(-np.log(share[tokens[b, s, k]]))
    tokens = np.where(mask, tokens, 99)
    found = lm.cross_entropy(jnp.asarray(logits), tokens, mask)
    np.testing.assert_allclose(found, np.mean(nats, axis=1), rtol=1e-6)
    uniform = lm.cross_entropy(jnp.zeros_like(logits), tokens, mask)
    np.testing.assert_allclose(lm.bits_per_frame(uniform), 2 * np.log2(5), rtol=1e-6)


def test_padding_of_a_text_is_not_read_and_nothing_but_padding_is_no_text():
    model, variables = tiny()
    tokens, (states, mask) = random_codes(model, 2, 32), text()
    found = apply(model, variables, tokens, states, mask)
    noise = np.where(mask[..., None], states, 1e3).astype(np.float32)
    np.testing.assert_array_equal(apply(model, variables, tokens, noise, mask), found)
    none = apply(model, variables, tokens, states, np.zeros_like(mask))
    np.testing.assert_allclose(apply(model, variables, tokens), none, atol=1e-5)
    assert np.abs(found - none).mean() > 0.1


def choices(logits, keys, frames, temperature, top_k, top_p):
    """What is drawn from logits [batch, steps, codebooks, size] with keys [batch]."""

    def choose(logits_V, key, frame, codebook):
        key = jax.random.fold_in(jax.random.fold_in(key, frame), codebook)
        return sampling.draw(logits_V[None], key[None], temperature, top_k, top_p)[0]

    over_codebooks = jax.vmap(choose, (0, None, 0, 0))
    over_steps = jax.vmap(over_codebooks, (0, None, 0, None))
    over_batch = jax.vmap(over_steps, (0, 0, None, None))
    return over_batch(logits, keys, frames, jnp.arange(logits.shape[2]))


compiled_choices = jax.jit(choices, static_argnames="top_k")


def chosen(model, variables, codes, *, examples, seed, start=0, guidance=1.0, **settings):
    """What sampling must have chosen at each code [batch, frames, codebooks], given those before.

    All logits in one pass without a cache; `start` is the first frame that the model sees.
    """
    schedule = padded(model.schedule(codes.shape[1]), 32)
    tokens, _ = patterns.build(codes, schedule, model.special)
    states, mask = text()
    uncut = model.clone(pattern="parallel")  # so that one program does for all
    none = apply(uncut, variables, tokens, states, np.zeros_like(mask))
    logits = none + guidance * (apply(uncut, variables, tokens, states, mask) - none)
    keys = [jax.random.fold_in(jax.random.key(seed), example) for example in examples]
    drawn = compiled_choices(logits, jnp.stack(keys), schedule + start, **settings)
    return patterns.revert(np.asarray(drawn), schedule)[0]


CASES = [("linear", pattern) for pattern in PATTERNS] + [
    ("depth", pattern) for pattern in ("parallel", "delay", "flattened")
]


@pytest.mark.parametrize("head, pattern", CASES, ids=str)
def test_sampling_with_the_cache_is_the_whole_pass_without(pattern, head):
    positions = "rotary" if head == "depth" else "sinusoidal"
    model, variables = tiny(pattern=pattern, head=head, positions=positions)
    prompt, (states, mask) = random_codes(model, 2, 3), text()
    settings = dict(seed=5, examples=[4, 9], guidance=2.0, temperature=1.5, top_k=9, top_p=0.9)
    codes = sampling.generate(
        model, variables, 8, text=states, text_mask=mask, prompt=prompt, **settings
    )
    assert codes.shape == (2, 8, 4) and len(np.unique(codes)) > 6
    np.testing.assert_array_equal(codes[:, :3], prompt)
    expected = chosen(model, variables, codes, **settings)
    np.testing.assert_array_equal(codes[:, 3:], expected[:, 3:])
    blocks = list(
        sampling.stream(
            model, variables, 8, text=states, text_mask=mask, prompt=prompt, chunk=3, **settings
        )
    )
    assert len(blocks) > 1
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), codes)


def test_longer_than_the_window_goes_on_from_the_overlap():
    model, variables = tiny()
    settings = dict(seed=3, examples=[1, 2], temperature=1.5, top_k=9, top_p=0.9)
    states, mask = text()
    given = dict(text=states, text_mask=mask, window=6, overlap=2)
    codes = sampling.generate(model, variables, 14, **given, **settings)
    assert codes.shape == (2, 14, 4)
    for start in (0, 4, 8):
        seen = codes[:, start : start + 6]
        new = slice(2 if start else 0, None)
        expected = chosen(model, variables, seen, start=start, **settings)
        np.testing.assert_array_equal(seen[:, new], expected[:, new])
    shorter = sampling.generate(model, variables, 13, **given, **settings)
    np.testing.assert_array_equal(shorter, codes[:, :13])
    blocks = sampling.stream(model, variables, 14, chunk=2, **given, **settings)
    np.testing.assert_array_equal(np.concatenate(list(blocks), axis=1), codes)
    continued = sampling.generate(model, variables, 14, prompt=codes[:, :10], **given, **settings)
    np.testing.assert_array_equal(continued, codes)
    # Of fewer frames than would overlap.
    least = sampling.generate(model, variables, 3, **given | dict(overlap=5), **settings)
    whole = sampling.generate(model, variables, 3, text=states, text_mask=mask, **settings)
    np.testing.assert_array_equal(least, whole)


def test_sampling_lowers_for_every_backend():
    model, variables = tiny(head="depth", positions="rotary")
    states, mask = text()
    platforms = ["cpu", "cuda", "tpu"]
    begin = functools.partial(sampling._begin, model, steps=8, guided=True)
    given = (variables, random_codes(model, 2, 3), states, mask)
    exported = jax.export.export(jax.jit(begin), platforms=platforms)(*given)
    memory, cache = jax.eval_shape(begin, *given)
    tokens, steps = np.zeros((2, 4), np.int32), np.zeros((5, 4), np.int32)
    advance = functools.partial(sampling._advance, model, guided=True, top_k=5)
    after = jax.export.export(jax.jit(advance), platforms=platforms)(
        variables, memory, cache, tokens, np.zeros((5, 2, 4), np.int32), steps < 0, steps,
        jax.random.split(jax.random.key(0), 2), 3.0, 1.0, 0.9,
    )  # fmt: skip
    assert exported.platforms == after.platforms == tuple(platforms)


def test_an_example_is_the_same_alone_and_in_a_batch():
    model, variables = tiny(head="depth")
    states, mask = text(examples=3)
    prompt, examples = random_codes(model, 3, 2), [7, 0, 7]

    def run(rows, length=5):
        return sampling.generate(
            model,
            variables,
            9,
            seed=1,
            examples=examples[rows],
            text=states[rows, :length],
            text_mask=mask[rows, :length],
            prompt=prompt[rows],
            guidance=3.0,
        )

    batch = run(slice(0, 3))
    for i in range(3):
        np.testing.assert_array_equal(run(slice(i, i + 1)), batch[i : i + 1])
    np.testing.assert_array_equal(run(slice(2, 3), length=3), batch[2:])  # without its padding
    assert (batch[0] != batch[2]).any()


def test_one_seed_or_example_is_not_another():
    model, variables = tiny()
    seen = [
        sampling.generate(model, variables, 6, seed=seed, examples=[example]).tobytes()
        for seed, example in ((0, 0), (0, 1), (1, 0), (0, 0))
    ]
    assert len(set(seen)) == 3 and seen[0] == seen[3]


def test_other_settings_run_the_same_program():
    model, variables = tiny()
    run = functools.partial(sampling.generate, model, variables, 6, examples=[0])
    run(seed=0)
    compiled = sampling._advance._cache_size()
    run(seed=1, temperature=0.5, top_p=0.5, prompt=np.zeros((1, 0, 4), np.int32))
    assert sampling._advance._cache_size() == compiled
    greedy = run(seed=0, top_k=1)
    np.testing.assert_array_equal(run(seed=1, top_k=1, temperature=7.0), greedy)
    np.testing.assert_array_equal(greedy, run(seed=2, top_k=0, temperature=1e-4))


@pytest.mark.parametrize("top_k, top_p", [(6, 1.0), (3, 1.0), (6, 0.6), (4, 0.7), (1, 1.0)])
def test_draws_have_the_frequencies_of_the_cut_softmax(top_k, top_p):
    logits, temperature, n = np.array([0.3, 2.0, -1.0, 1.2, 0.9, 0.8]), 1.7, 20_000
    share = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    order = np.argsort(-share)[:top_k]
    kept, total = [], 0.0
    for token in order:
        if total >= top_p * share[order].sum():
            break
        kept.append(token)
        total += share[token]
    expected = np.where(np.isin(np.arange(6), kept), share, 0) / total
    keys = jax.random.split(jax.random.key(0), n)
    drawn = sampling.draw(jnp.tile(logits, (n, 1)), keys, temperature, top_k, top_p)
    found = np.bincount(drawn, minlength=6) / n
    assert (found[expected == 0] == 0).all()
    np.testing.assert_array_less(
        np.abs(found - expected), 4 * np.sqrt(expected * (1 - expected) / n) + 1e-9
    )


def test_rotary_attention_sees_distances_alone():
    q, k = np.random.default_rng(0).normal(size=(2, 1, 7, 2, 8)).astype(np.float32)

    def scores(shift):
        positions = jnp.arange(7) + shift
        rotated = (transformer.rotate(jnp.asarray(x), positions) for x in (q, k))
        return jnp.einsum("bsnh,blnh->bnsl", *rotated)

    np.testing.assert_allclose(scores(0), scores(31), atol=2e-5)
    assert np.abs(scores(0) - jnp.einsum("bsnh,blnh->bnsl", q, k)).max() > 0.1


@pytest.mark.parametrize("steps", [1, 7, 8, 9, 30])
def test_attention_in_blocks_is_the_whole(steps, monkeypatch):
    """Of the last block as of the others, values and gradients, against jax.nn's of all at once."""
    monkeypatch.setattr(transformer, "BLOCK", 8)
    keys = jax.random.split(jax.random.key(steps), 4)
    queries, keys, values, weights = (jax.random.normal(key, (2, steps, 3, 4)) for key in keys)

    def both(attend):
        loss = lambda *args: jnp.sum(weights * attend(*args))
        return attend(queries, keys, values), *jax.grad(loss, (0, 1, 2))(queries, keys, values)

    whole = functools.partial(jax.nn.dot_product_attention, is_causal=True)
    for ours, theirs in zip(both(transformer.causal_attention), both(whole), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_remat_changes_no_gradient_and_bfloat16_little():
    states, mask = text()
    variables = jax.jit(lm.init, static_argnums=0)(tiny(head="depth")[0], jax.random.key(0))
    codes = random_codes(tiny()[0], 2, 5)

    def gradient(dtype="float32", **changes):
        model = lm.from_config(CONFIG | dict(head="depth") | changes, dtype)

        @jax.jit
        @jax.value_and_grad
        def loss(variables):
            return jnp.mean(lm.nats(model, variables, codes, states, mask)) / 10  # 2 x 5 frames

        value, tree = loss(variables)
        assert value.dtype == jnp.float32
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            assert leaf.dtype == jnp.float32 and np.abs(leaf).max() > 0, path
        return np.concatenate([[value], *(np.ravel(leaf) for leaf in jax.tree.leaves(tree))])

    plain = gradient()
    np.testing.assert_allclose(gradient(remat=True), plain, atol=1e-6 * np.abs(plain).max())
    half = gradient("bfloat16")
    np.testing.assert_allclose(half[0], plain[0], rtol=1e-2)
    error = np.linalg.norm(half - plain) / np.linalg.norm(plain)
    assert 1e-4 < error < 5e-2


def test_bfloat16_samples():
    model, variables = tiny("bfloat16", head="depth")
    states, mask = text()
    codes = sampling.generate(
        model, variables, 6, seed=0, examples=[0, 1], text=states, text_mask=mask, guidance=3.0
    )
    assert codes.min() >= 0 and codes.max() < model.codebook_size and len(np.unique(codes)) > 4


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(head="both"), "model.head must be one of"),
        (dict(positions="learned"), "model.positions must be one of"),
        (dict(pattern="zigzag"), "pattern 'zigzag'"),
        (dict(pattern=[0, 1]), r"delays \[0, 1\]: expected 4 integers"),
        (dict(layers=0), "model.layers must be at least 1, not 0"),
        (dict(dim=15), "model.dim must be even, at least 4 and a multiple of 2 for 2 heads"),
        (dict(dim=18, positions="rotary"), "a multiple of 4 for 2 heads, not 18"),
        (dict(head="depth", depth=CONFIG["depth"] | dict(heads=3)), "model.depth.dim must be even"),
        (dict(head="depth", codebooks=1, pattern="delay"), "model.codebooks must be at least 2"),
        (dict(codebook_size=0), "model.codebook_size must be at least 1, not 0"),
    ],
)
def test_a_config_that_cannot_be_is_named(changes, said):
    with pytest.raises(ValueError, match=said):
        lm.from_config(CONFIG | changes)


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(frames=0), "frames: expected at least 1, not 0"),
        (dict(examples=3), "examples: expected integers"),
        (dict(text=np.zeros((1, 2, 6))), "text and text_mask: expected both or none"),
        (
            dict(text=np.zeros((1, 2, 5)), text_mask=np.ones((1, 2))),
            r"text: expected \[1, length, 6\] and a mask of its first two axes, not \[1, 2, 5\]",
        ),
        (dict(guidance=3.0), "guidance 3.0: expected a text"),
        (dict(prompt=np.zeros((1, 9, 4), int)), "prompt: expected .* less than 9 frames"),
        (dict(prompt=np.full((1, 2, 4), 12)), "prompt: expected codes 0 to 11, not 12 to 12"),
        (dict(temperature=0.0), "temperature: expected more than 0, not 0.0; top_k=1 is greedy"),
        (dict(top_k=-1), "top_k: expected at least 0"),
        (dict(top_p=0.0), "top_p: expected more than 0"),
        (dict(chunk=0), "chunk: expected at least 1 step, not 0"),
        (dict(window=4, overlap=4), "overlap: expected less than the window of 4, not 4"),
    ],
)
def test_what_cannot_be_sampled_is_said(changes, said):
    model, variables = tiny()
    with pytest.raises(ValueError, match=said):
        sampling.generate(model, variables, **dict(frames=9, seed=0, examples=[0]) | changes)


def test_trained_models_came_to_their_limits_and_no_further():
    """What studies/lm_limits/lm_limits.py wrote, against the source's entropies as they are computed now."""
    results = pathlib.Path(__file__).parents[2] / "studies/lm_limits/lm_limits.json"
    found, source = json.loads(results.read_text()), markov.Source()
    for name in ("flattened", "depth", "parallel", "delay"):
        joint = name in ("flattened", "depth")
        limit = source.joint_bits if joint else source.factorised_bits(name)
        assert found[name]["bits"] == pytest.approx(limit, abs=0.02), name
    costs = [found[name]["bits"] - found["depth"]["bits"] for name in ("parallel", "delay")]
    for cost, name in zip(costs, ("parallel", "delay")):
        assert cost == pytest.approx(source.conditional_bits(name), abs=0.04) and cost > 0.1
