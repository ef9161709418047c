"""Makes audiocraft.npz with the modules of audiocraft 1.3.0.

    pip install torch torchaudio einops
    pip install --no-deps audiocraft==1.3.0 flashy dora-search treetable submitit omegaconf \
        antlr4-python3-runtime==4.9.3 cloudpickle colorlog retrying
    python tests/golden/make_audiocraft.py

torch and torchaudio must be of one release: the libraries of others do not load.
Only single modules are imported: the package's own __init__ wants xformers, spacy and more.
"""

import importlib.machinery
import sys
import types
from pathlib import Path

import audiocraft_cases as cases
import numpy as np
import torch


def without_init(name: str) -> None:
    """Lets the modules of a package be imported without what its __init__ imports."""
    parent, _, last = name.rpartition(".")
    paths = sys.modules[parent].__path__ if parent else None
    spec = importlib.machinery.PathFinder.find_spec(name, paths)
    package = types.ModuleType(name)
    package.__path__ = [str(Path(spec.origin).parent)]
    sys.modules[name] = package


for package in ("audiocraft", "audiocraft.modules", "audiocraft.losses", "audiocraft.quantization"):
    without_init(package)
from audiocraft.modules import conv  # noqa: E402

# What the package's __init__ would have put there.
for name in ("pad_for_conv1d", "NormConv1d", "NormConv2d"):
    setattr(sys.modules["audiocraft.modules"], name, getattr(conv, name))

from audiocraft.adversarial import losses  # noqa: E402
from audiocraft.adversarial.discriminators.msstftd import (  # noqa: E402
    MultiScaleSTFTDiscriminator,
)
from audiocraft.losses.balancer import Balancer  # noqa: E402
from audiocraft.losses.specloss import MultiScaleMelSpectrogramLoss  # noqa: E402
from audiocraft.quantization.core_vq import EuclideanCodebook  # noqa: E402


def set_layer(layer, weights: dict) -> None:
    """Fills a NormConv2d, weight-normalised or (the first of each discriminator) plain."""
    direction = torch.from_numpy(weights["direction"].transpose(3, 2, 0, 1).copy())
    gain = torch.from_numpy(weights["gain"])[:, None, None, None]
    parameters = dict(layer.conv.named_parameters())
    with torch.no_grad():
        parameters["bias"].copy_(torch.from_numpy(weights["bias"]))
        if "weight" in parameters:
            length = direction.flatten(1).norm(dim=1)[:, None, None, None]
            parameters["weight"].copy_(gain * direction / length)
        else:
            parameters["weight_g"].copy_(gain)
            parameters["weight_v"].copy_(direction)


def discriminator() -> dict:
    model = MultiScaleSTFTDiscriminator(
        filters=cases.FILTERS,
        n_ffts=list(cases.N_FFTS),
        hop_lengths=[n // 4 for n in cases.N_FFTS],
        win_lengths=list(cases.N_FFTS),
        activation_params=dict(negative_slope=0.3),  # config/solver/compression/default.yaml
    )
    for n_fft, scale in zip(cases.N_FFTS, model.discriminators):
        layers = [*scale.convs, scale.conv_post]
        for layer, weights in zip(layers, cases.discriminator_weights(n_fft), strict=True):
            set_layer(layer, weights)
    real, fake = (torch.from_numpy(cases.wave(name)) for name in ("real", "fake"))
    found = {}
    with torch.no_grad():
        logits, maps = model(real)
    for n_fft, logit, features in zip(cases.N_FFTS, logits, maps):
        found[f"discriminator/{n_fft}/logits"] = logit.permute(0, 2, 3, 1).numpy()
        for number, feature in enumerate(features):
            found[f"discriminator/{n_fft}/{number}"] = feature.permute(0, 2, 3, 1).numpy()
    adversary = losses.AdversarialLoss(
        model,
        torch.optim.SGD(model.parameters(), lr=0.0),
        losses.get_adv_criterion("hinge"),
        losses.get_real_criterion("hinge"),
        losses.get_fake_criterion("hinge"),
        losses.FeatureMatchingLoss(),
    )
    fake.requires_grad_()
    adversarial, feature = adversary(fake, real)
    for name, loss in dict(adversarial=adversarial, feature=feature).items():
        found[name] = loss.detach().numpy()
        (gradient,) = torch.autograd.grad(loss, fake, retain_graph=True)
        found[f"{name}/gradient"] = gradient.numpy()
    found["hinge"] = adversary.train_adv(fake, real).detach().numpy()
    return found


def balancer() -> dict:
    balance = Balancer(cases.BALANCER_WEIGHTS, ema_decay=cases.BALANCER_DECAY)
    found = {}
    for step in range(cases.BALANCER_STEPS):
        y, x = (torch.from_numpy(array) for array in cases.balancer_input(step))
        y.requires_grad_()
        balance.backward(cases.balancer_losses(y, x, torch), y)
        found[f"balancer/{step}"] = y.grad.numpy()
    return found


def mel() -> dict:
    # config/solver/compression/default.yaml, at our sample rate.
    loss = MultiScaleMelSpectrogramLoss(
        sample_rate=cases.SAMPLE_RATE, range_start=6, range_end=11, n_mels=64, f_min=64,
        normalized=True, alphas=False, floor_level=1e-5,
    )  # fmt: skip
    real, fake = (torch.from_numpy(cases.wave(name, 4_001)) for name in ("real", "fake"))
    fake.requires_grad_()
    value = loss(real, fake)
    value.backward()
    return {"mel": value.detach().numpy(), "mel/gradient": fake.grad.numpy()}


def codebook() -> dict:
    start = {name: torch.from_numpy(value) for name, value in cases.codebook().items()}
    book = EuclideanCodebook(
        cases.CODE_DIM, cases.CODES, kmeans_init=0, decay=cases.EMA_DECAY,
        threshold_ema_dead_code=2,
    )  # fmt: skip
    book.embed.copy_(start["embed"])
    book.embed_avg.copy_(start["average"])
    book.cluster_size.copy_(start["count"])
    found = {}
    for step in range(cases.EMA_STEPS):
        book.train()(torch.from_numpy(cases.code_rows(step)))
        found[f"codebook/{step}/embed"] = book.embed.numpy().copy()
        found[f"codebook/{step}/average"] = book.embed_avg.numpy().copy()
        found[f"codebook/{step}/count"] = book.cluster_size.numpy().copy()
        assert book.cluster_size.min() > 2, "a code that audiocraft replaces and then overwrites"
    return found


if __name__ == "__main__":
    arrays = {}
    for make in (discriminator, balancer, mel, codebook):
        arrays |= make()
    path = Path(__file__).parent / "audiocraft.npz"
    np.savez_compressed(path, **arrays)
    print(path, len(arrays), "arrays", path.stat().st_size, "bytes")
