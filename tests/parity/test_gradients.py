"""Gradients at every generator weight against torch autograd through transformers' modules."""

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from test_encodec import CASES, filled, to_torch  # noqa: E402

from indep_jax.codec import quantizer  # noqa: E402
from indep_jax.hub import encodec  # noqa: E402
from indep_jax.inference import load_codec  # noqa: E402

pytestmark = pytest.mark.parity

TOLERANCE = 1e-4  # of each tensor's norm


def torch_reconstruction(model, x, straight_through):
    """Mean absolute and squared error of the decoded x; with a quantizer, its commitment added."""
    z = model.encoder(x)
    extra, codes = 0.0, []
    if straight_through:
        residual, total = z.swapaxes(1, 2), 0.0
        for layer in model.quantizer.layers:
            embed = layer.codebook.embed.double()
            code = torch.cdist(residual.detach().double(), embed[None]).argmin(-1)
            vector = embed[code].float()
            codes.append(code.numpy())
            extra = extra + (residual - vector).square().mean() / len(model.quantizer.layers)
            residual, total = residual - vector, total + vector
        z = z + (total.swapaxes(1, 2) - z).detach()
    y = model.decoder(z)[..., : x.shape[-1]]
    return (y - x).abs().mean() + 5 * (y - x).square().mean() + extra, codes


def our_reconstruction(module, params, codebook, x, straight_through):
    variables = dict(params=params, codebook=codebook)
    z = module.apply(variables, x, method="latents")
    extra = 0.0
    if straight_through:
        quantized = quantizer.quantize(codebook, z)
        z, extra = quantized.output, quantized.commitment
    y = module.apply(variables, z, method="synthesize")[:, : x.shape[1]]
    return jnp.abs(y - x).mean() + 5 * jnp.square(y - x).mean() + extra


@pytest.mark.parametrize("straight_through", [False, True], ids=["plain", "quantized"])
@pytest.mark.parametrize("case", CASES)
def test_gradient_of_every_weight(case, straight_through, tmp_path):
    model, wave = filled(case)
    model.save_pretrained(tmp_path)
    codec = load_codec(tmp_path)
    length = round(0.3 * codec.sample_rate) + 5  # no whole number of frames
    begins = [codec.sample_rate, 4 * codec.sample_rate]
    x = np.concatenate([wave[:, begin : begin + length] for begin in begins])
    model.zero_grad()
    loss, codes = torch_reconstruction(model, to_torch(x), straight_through)
    loss.backward()
    theirs = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}

    params, codebook = codec.variables["params"], codec.variables["codebook"]
    with jax.default_matmul_precision("highest"):
        if straight_through:
            z = codec.module.apply(codec.variables, x, method="latents")
            ours = np.asarray(quantizer.quantize(codebook, z).codes)
            # A near-tie taken the other way would be another function; there is none here.
            np.testing.assert_array_equal(ours, np.stack(codes, -1))
        value, gradient = jax.jit(
            jax.value_and_grad(
                lambda p: our_reconstruction(codec.module, p, codebook, x, straight_through)
            )
        )(params)
    assert float(value) == pytest.approx(loss.item(), rel=1e-5)
    flat = flax.traverse_util.flatten_dict(gradient, sep="/")
    table = [
        entry
        for entry in encodec.name_map(codec.config["model"], codec.codebooks, "new")
        if entry.ours.startswith("params/")
    ]
    assert len(table) == len(theirs) == len(flat)
    for entry in table:
        expected = entry.to_ours(theirs[entry.theirs])
        error = np.linalg.norm(flat[entry.ours.removeprefix("params/")] - expected)
        assert np.linalg.norm(expected) > 0, entry.theirs
        assert error <= TOLERANCE * np.linalg.norm(expected), (entry.theirs, error)
