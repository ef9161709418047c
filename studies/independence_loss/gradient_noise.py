"""How much of an independence loss's gradient at the encoder is signal, on a trained codec.

    python studies/independence_loss/gradient_noise.py --codec=runs/none --source=folder:music

For each setting, the gradients g_i of independent training batches, all at the same weights. Their
signal is what they share, the mean of <g_i, g_j> over i != j (unbiased for the squared norm of the
expected gradient); their noise what is left of the mean of <g_i, g_i>. Printed: the ratio of signal
to noise (norms, of one batch), the cosine of two batches' gradients, and seconds a batch.
"""

import argparse
import itertools
import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from indep_jax import data, inference
from indep_jax.tasks import codec_steps as steps

SETTINGS = {
    "dhsic": dict(kind="dhsic"),
    "dhsic, delay": dict(kind="dhsic", delay=True),
    "dhsic, given the past": dict(kind="dhsic", condition=1),
    "dhsic, quantizers' inputs": dict(kind="dhsic", streams="inputs"),
    "dhsic, paper's bandwidths": dict(kind="dhsic", bandwidths="paper"),
    "dhsic, files not left out": dict(kind="dhsic", exclude_files=False),
    "permutation": dict(kind="permutation"),
    "permutation, paper's bandwidths": dict(kind="permutation", bandwidths="paper"),
    "covariance": dict(kind="covariance"),
}


def gradients(config, variables, settings, batches):
    """The gradients [batches, parameters] of a loss, and the seconds that one takes."""
    config.loss.independence.update(dict(condition=0) | settings)
    params, codebook = variables["params"], variables["codebook"]

    @jax.jit
    def gradient(audio, files, key):
        def loss(encoder):
            latents = steps.encode(config, {**params, "encoder": encoder}, audio)
            return steps.independence_loss(config, codebook, latents, files, key)

        leaves = jax.tree.leaves(jax.grad(loss)(params["encoder"]))
        return jnp.concatenate([leaf.ravel() for leaf in leaves])

    found = []
    for number, batch in enumerate(batches):
        if number == 1:
            begin = time.perf_counter()  # after the compilation
        found.append(np.asarray(gradient(batch["audio"], batch["file"], jax.random.key(number))))
    return np.stack(found), (time.perf_counter() - begin) / (len(batches) - 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[4, 16])
    options = parser.parse_args()
    codec = inference.load_codec(options.codec)
    print("| loss | items a batch | signal to noise | cosine | s a batch |\n|---|---|---|---|---|")
    for size, (name, settings) in itertools.product(options.batch_sizes, SETTINGS.items()):
        config = ml_collections.ConfigDict(codec.config)
        config.batch_size = size
        segments = data.segments(
            data.open_source(options.source, "train"),
            seed=1,
            batch_size=size,
            seconds=config.data.segment_seconds,
            sample_rate=config.model.sample_rate,
            channels=config.model.channels,
        )
        batches = [segments[index] for index in range(options.batches)]
        g, seconds = gradients(config, codec.variables, settings, batches)
        products = (g @ g.T).astype(np.float64)
        own = np.trace(products) / len(g)
        shared = (products.sum() - np.trace(products)) / (len(g) * (len(g) - 1))
        ratio = np.sqrt(max(shared, 0.0) / (own - shared))
        print(f"| {name} | {size} | {ratio:.2f} | {shared / own:.2f} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
