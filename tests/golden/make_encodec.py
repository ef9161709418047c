"""Makes encodec.npz with transformers' EncodecModel (extra `parity`).

python tests/golden/make_encodec.py
"""

import tempfile
from pathlib import Path

import encodec_cases
import numpy as np
import torch
from transformers import EncodecModel


def outputs(name: str, config: dict) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        encodec_cases.write(Path(folder), config, encodec_cases.tensors(config))
        model, info = EncodecModel.from_pretrained(folder, output_loading_info=True)
    wrong = {kind: keys for kind, keys in info.items() if keys}
    assert not wrong, wrong
    assert model.config.num_quantizers == encodec_cases.CODEBOOKS
    wave = torch.from_numpy(encodec_cases.wave(config)).swapaxes(1, 2)
    bandwidth = config["target_bandwidths"][-1]
    found = {}

    def keep(key):
        def hook(_, inputs, output):
            found.setdefault(key, []).append(output.numpy().swapaxes(1, 2))

        return hook

    model.encoder.layers[1].register_forward_hook(keep("residual"))
    model.encoder.layers[-1].register_forward_hook(keep("latents"))
    model.decoder.layers[1].register_forward_hook(keep("lstm"))
    with torch.no_grad():
        encoded = model.eval().encode(wave, bandwidth=bandwidth)
        pad = encoded.last_frame_pad_length
        audio = model.decode(
            encoded.audio_codes, encoded.audio_scales, last_frame_pad_length=pad
        ).audio_values
    found = {key: np.concatenate(chunks, axis=1) for key, chunks in found.items()}
    codes = np.concatenate(encoded.audio_codes.numpy().swapaxes(2, 3), axis=1)
    codes = codes[:, : codes.shape[1] - pad]
    residual = found["latents"].astype(float)
    gaps = []
    for k in range(encodec_cases.CODEBOOKS):
        embed = encodec_cases.weight(
            f"quantizer.layers.{k}.codebook.embed",
            (config["codebook_size"], config["hidden_size"]),
            encodec_cases.spread(config),
        ).astype(float)
        distances = np.sum((residual[..., None, :] - embed) ** 2, -1)
        best, second = np.sort(distances, -1)[..., :2].swapaxes(0, -1)
        gaps.append(np.min((second - best) / second))
        residual = residual - embed[codes[..., k]]
    distinct = [np.unique(codes[..., k]).size for k in range(encodec_cases.CODEBOOKS)]
    print(name, "codes", codes.shape, "distinct", distinct, "smallest gaps", gaps)
    # Otherwise rounding alone could change a code on another machine, or a code prove nothing.
    assert min(gaps) > 5e-5
    assert min(distinct) >= config["codebook_size"] // 2
    found["codes"] = codes.astype(np.int32)
    found["audio"] = audio[..., : wave.shape[-1]].numpy().swapaxes(1, 2)
    if config["normalize"]:
        found["scales"] = np.concatenate([scale.numpy() for scale in encoded.audio_scales], axis=1)
    return {f"{name}/{key}": value for key, value in found.items()}


if __name__ == "__main__":
    arrays = {}
    for name, config in encodec_cases.CASES.items():
        arrays |= outputs(name, config)
    np.savez_compressed(Path(__file__).parent / "encodec.npz", **arrays)
