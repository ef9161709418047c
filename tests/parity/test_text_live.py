"""Our text encoders against transformers': same weights, padded or not."""

import json

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from golden import text_cases  # noqa: E402
from support.minilm import fetched  # noqa: E402

from indep_jax.hub import minilm as hub_minilm  # noqa: E402
from indep_jax.hub import t5 as hub_t5  # noqa: E402
from indep_jax.inference import load_text  # noqa: E402
from indep_jax.text.minilm import MiniLM  # noqa: E402
from indep_jax.text.t5 import T5Encoder  # noqa: E402

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4  # of states whose standard deviation is of order 1

T5 = dict(vocab_size=500, d_model=64, d_kv=12, d_ff=96, num_layers=4, num_heads=6)
BERT = dict(vocab_size=500, hidden_size=64, num_hidden_layers=4, num_attention_heads=8,
            intermediate_size=96, max_position_embeddings=200)  # fmt: skip
CASES = dict(
    t5=lambda: transformers.T5EncoderModel(transformers.T5Config(**T5)),
    t5_gated=lambda: transformers.T5EncoderModel(
        transformers.T5Config(**T5, feed_forward_proj="gated-gelu")
    ),
    t5_whole=lambda: transformers.T5ForConditionalGeneration(transformers.T5Config(**T5)),
    minilm=lambda: transformers.BertModel(transformers.BertConfig(**BERT)),
)


def pair(case, folder):
    """(torch model, our module, our variables) with the same weights, written and read."""
    torch.manual_seed(0)
    model = CASES[case]().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # As initialised, norms are ones, biases zeros, and but for T5's own, which is not
            # scaled, attention is nearly uniform.
            if "norm" in name.lower() or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif case == "minilm" or "relative_attention_bias" in name:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    hub, kind = (hub_minilm, MiniLM) if case == "minilm" else (hub_t5, T5Encoder)
    config, variables = hub.read(folder)
    return model.encoder if case == "t5_whole" else model, kind(**config), variables


def torch_states(model, ids, mask):
    with torch.no_grad():
        return model(
            input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask).long()
        ).last_hidden_state.numpy()


@pytest.mark.parametrize("case", CASES)
def test_states(case, tmp_path):
    model, module, variables = pair(case, tmp_path)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 500, (4, 150))
    mask = np.arange(150) < np.array([150, 97, 12, 1])[:, None]
    apply = jax.jit(module.apply)
    with jax.default_matmul_precision("highest"):
        ours = np.asarray(apply(variables, ids, mask))
        theirs = torch_states(model, ids, mask)
        assert theirs[mask].std() > 0.3
        np.testing.assert_allclose(ours[mask], theirs[mask], atol=TOLERANCE)
        for row, length in enumerate(mask.sum(1)):
            alone, all_of_it = ids[row : row + 1, :length], np.ones((1, length), bool)
            ours_alone = np.asarray(apply(variables, alone, all_of_it))[0]
            np.testing.assert_allclose(ours_alone, ours[row, :length], atol=TOLERANCE)
            theirs_alone = torch_states(model, alone, all_of_it)[0]
            np.testing.assert_allclose(ours_alone, theirs_alone, atol=TOLERANCE)


TEXTS = [*text_cases.CAPTIONS, ""]


def test_real_minilm():
    """all-MiniLM-L6-v2 as its command fetches it, tokenizer included."""
    folder = fetched()
    conditioner = load_text("minilm", max_tokens=32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.BertModel.from_pretrained(folder).eval()
    with jax.default_matmul_precision("highest"):
        states, mask = conditioner(TEXTS)
    assert states.shape == (len(TEXTS), 32, 384)
    theirs = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=32,
                       return_tensors="pt")  # fmt: skip
    their_mask = theirs["attention_mask"].numpy().astype(bool)
    np.testing.assert_array_equal(mask[:3], their_mask[:3])
    assert not mask[3].any()
    with torch.no_grad():
        expected = model(**theirs).last_hidden_state.numpy()
    np.testing.assert_allclose(states[:3][mask[:3]], expected[:3][mask[:3]], atol=TOLERANCE)
    # It tells meanings apart: the mean state of a paraphrase is nearer than that of another text.
    meanings = ["a slow hymn on brass instruments", "a quick dance on the violin"]
    vectors = []
    for text in [TEXTS[0], *meanings]:
        states, mask = conditioner([text])
        vectors.append(np.asarray(states)[mask].mean(0))
    cosine = [np.dot(vectors[0], v) / np.linalg.norm(v) for v in vectors[1:]]
    assert cosine[0] > cosine[1]


def test_published_t5_base_fields():
    """The fields of T5-base as transformers writes them give its published size."""
    hub = json.loads(transformers.T5Config(
        vocab_size=32_128, d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12
    ).to_json_string(use_diff=False))  # fmt: skip
    module = T5Encoder(**hub_t5.config_from_hub(hub))
    shapes = jax.eval_shape(
        module.init, jax.random.key(0), *(jax.ShapeDtypeStruct((1, 1), d) for d in ("int32", bool))
    )
    with torch.device("meta"):
        theirs = transformers.T5EncoderModel(transformers.T5Config.from_dict(hub))
    count = sum(parameter.numel() for parameter in theirs.parameters())
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
