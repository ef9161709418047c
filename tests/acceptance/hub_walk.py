"""What tests/acceptance/hub_walk.sh does in Python: random models of the true sizes, and comparisons.

    python tests/acceptance/hub_walk.py cut MUSIC CLIPS          four clips of music/ with captions
    python tests/acceptance/hub_walk.py make CLIPS HUB           HUB/encodec and HUB/musicgen, saved by transformers
    python tests/acceptance/hub_walk.py load CODEC LM            time and peak memory of loading
    python tests/acceptance/hub_walk.py ours_codec CODEC CLIPS NPZ;  theirs_codec HUB NPZ       codes and sound
    python tests/acceptance/hub_walk.py ours_lm LM NPZ TEXT SECONDS; theirs_lm HUB NPZ TEXT     greedy tokens
    python tests/acceptance/hub_walk.py same HUB HUB2            every tensor bit for bit
    python tests/acceptance/hub_walk.py sing HUB TEXT            pipeline("text-to-audio")

TINY=1 in the environment makes small models, to try the steps. A comparison that fails raises.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

TINY = bool(os.environ.get("TINY"))
RATE = 32_000
CLIPS = [  # of music/manifest.json: path, split here, first second, seconds (odd lengths), caption
    (
        "warzone2100-music/albums/legacy_soundtrack/track11.opus",
        "train",
        60,
        19.37,
        "a slow piano waltz",
    ),
    (
        "warzone2100-music/albums/legacy_soundtrack/track12.opus",
        "train",
        90,
        16.11,
        "a fast march in minor",
    ),
    ("hyperrogue-music/hr-domina-hunting.ogg", "valid", 20, 12.53, "a slow guitar hymn"),
    ("wesnoth-1.16-music/battle-epic.ogg", "test", 25, 14.29, "a fast flute waltz in major"),
]
WORDS = "a slow fast piano guitar flute waltz hymn march in major minor".split()


def say(text):
    print("VERDICT", text, flush=True)


def cut(music, clips):
    import soundfile

    clips, files = Path(clips), []
    clips.mkdir(parents=True, exist_ok=True)
    for number, (path, split, start, seconds, caption) in enumerate(CLIPS):
        with soundfile.SoundFile(Path(music) / path) as file:
            rate = file.samplerate
            file.seek(start * rate)
            wave = file.read(int(seconds * rate), dtype="float32")
        assert len(wave) == int(seconds * rate) and wave.std() > 0.01, path
        soundfile.write(clips / f"{number}.flac", np.clip(wave, -1, 1), rate)
        files.append(dict(path=f"{number}.flac", split=split, caption=caption))
    (clips / "manifest.json").write_text(json.dumps(dict(files=files)))


def waves(clips):
    """The clips, mono float32 at 32 kHz, as the package reads them."""
    from indep_jax.data import sources, transforms

    paths = [Path(clips) / f"{number}.flac" for number in range(len(CLIPS))]
    return [transforms.read_file(sources.open_file(str(path)), RATE, 1) for path in paths]


def make(clips, hub):
    import torch
    import transformers

    torch.manual_seed(0)
    hub = Path(hub)
    codec_config = transformers.EncodecConfig(
        sampling_rate=RATE,
        audio_channels=1,
        num_filters=4 if TINY else 64,
        hidden_size=16 if TINY else 128,
        upsampling_ratios=[8, 5, 4, 4],
        codebook_size=2048,
        target_bandwidths=[2.2],
        use_causal_conv=False,
        use_conv_shortcut=False,
    )
    codec = transformers.EncodecModel(codec_config).eval()
    with torch.no_grad():
        for name, parameter in codec.named_parameters():  # freshly drawn, biases drown the sound
            parameter.mul_(
                1.5 if name.endswith("original0") else 0.3 if name.endswith("bias") else 1
            )
        left = torch.cat(
            [codec.encoder(torch.from_numpy(w.T.copy())[None])[0].T for w in waves(clips)]
        )
        for (
            layer
        ) in codec.quantizer.layers:  # vectors between neighbouring frames' residuals: many codes
            book = layer.codebook
            rows = torch.randperm(len(left) - 1)[: len(book.embed)]
            assert len(rows) == len(book.embed)
            book.embed.copy_(
                torch.lerp(left[rows], left[rows + 1], 0.2 + 0.6 * torch.rand(len(rows), 1))
            )
            book.embed_avg.copy_(book.embed)
            book.cluster_size.fill_(1.0)
            left = left - book.decode(book.encode(left))
    codec.save_pretrained(hub / "encodec")
    transformers.EncodecFeatureExtractor(sampling_rate=RATE).save_pretrained(hub / "encodec")
    text = transformers.T5Config(
        vocab_size=32_128,
        **(
            dict(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
            if TINY
            else dict(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)
        ),
    )
    decoder = transformers.MusicgenDecoderConfig(
        vocab_size=2048,
        num_codebooks=4,
        **(
            dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, ffn_dim=128)
            if TINY
            else dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, ffn_dim=4096)
        ),
    )
    model = transformers.MusicgenForConditionalGeneration(
        transformers.MusicgenConfig(text_encoder=text, audio_encoder=codec_config, decoder=decoder)
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # weights whose greedy output varies
            if name.startswith(("decoder.", "enc_to_dec_proj.")):
                spread = 1.2 / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 0.3
                parameter.normal_(0, 0.5 if "embed_tokens" in name else spread)
                parameter.add_("norm.weight" in name)
    model.audio_encoder.load_state_dict(codec.state_dict())
    special = dict.fromkeys(("bos_token_id", "pad_token_id", "decoder_start_token_id"), 2048)
    for name, value in dict(
        special, do_sample=True, guidance_scale=3.0, top_k=250, max_length=1500
    ).items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(hub / "musicgen", max_shard_size="1GB")  # several shards
    names = {name: i for i, name in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    end = dict(SpecialToken=dict(id="</s>", type_id=0))
    sequence = lambda letter, kind: dict(Sequence=dict(id=letter, type_id=kind))
    (hub / "musicgen/tokenizer.json").write_text(
        json.dumps(
            dict(
                version="1.0",
                truncation=None,
                padding=None,
                added_tokens=[],
                normalizer=None,
                decoder=None,
                pre_tokenizer=dict(type="WhitespaceSplit"),
                post_processor=dict(
                    type="TemplateProcessing",
                    single=[sequence("A", 0), end],
                    pair=[sequence("A", 0), end, sequence("B", 1)],
                    special_tokens={"</s>": dict(id="</s>", ids=[1], tokens=["</s>"])},
                ),
                model=dict(type="WordLevel", vocab=names, unk_token="<unk>"),
            )
        )
    )
    (hub / "musicgen/tokenizer_config.json").write_text(
        json.dumps(
            dict(
                tokenizer_class="PreTrainedTokenizerFast",
                pad_token="<pad>",
                eos_token="</s>",
                unk_token="<unk>",
            )
        )
    )
    for part, name in (("encodec", "encodec_32khz"), ("musicgen", "musicgen-small")):
        (hub / part / "README.md").write_text(
            f"---\nlicense: cc-by-nc-4.0\nbase_model: facebook/{name}\n---\n"
        )
    for part in ("encodec", "musicgen"):
        files = list((hub / part).glob("*.safetensors"))
        say(f"{part}: {sum(f.stat().st_size for f in files) / 1e9:.2f} GB in {len(files)} files")


def kilobytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def load(codec, lm):
    import jax

    from indep_jax.inference import load_codec, load_lm

    load_codec(codec)  # what is needed once: modules, the backend
    for what, read, path in (("codec", load_codec, codec), ("LM, codec and T5", load_lm, lm)):
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, begin = kilobytes("VmRSS:"), time.perf_counter()
        found = read(path)
        parts = [found] if what == "codec" else [found, found.codec, found.encoder]
        size = sum(
            x.nbytes for p in parts for x in jax.tree.leaves(jax.block_until_ready(p.variables))
        )
        peak = 1024 * (kilobytes("VmHWM:") - before)
        say(
            f"{what}: {time.perf_counter() - begin:.1f} s, {peak / 1e9:.2f} GB of peak for {size / 1e9:.2f} GB, "
            f"{peak / size:.3f} times"
        )


def ours_codec(path, clips, out):
    from indep_jax.inference import load_codec

    codec = load_codec(path)
    wave = waves(clips)[3][None, : 10 * RATE - 137]
    codes = np.asarray(codec.encode(wave).codes)
    np.savez(out, wave=wave, codes=codes, audio=np.asarray(codec.decode(codes, wave.shape[1])))


def rms_error(ours, theirs):
    ours, theirs = np.float64(ours), np.float64(theirs)
    return np.sqrt(np.mean((ours - theirs) ** 2) / np.mean(theirs**2))


def theirs_codec(hub, npz):
    import torch
    import transformers

    model, info = transformers.EncodecModel.from_pretrained(hub, output_loading_info=True)
    assert not any(info.values()), info
    model.eval()
    ours = np.load(npz)
    x = torch.from_numpy(ours["wave"].swapaxes(1, 2))
    with torch.no_grad():
        latents = model.encoder(x)[0].T.double().numpy()
        codes = (
            model.encode(x, bandwidth=model.config.target_bandwidths[-1])
            .audio_codes[0, 0]
            .numpy()
            .T
        )
        back = torch.from_numpy(ours["codes"].swapaxes(1, 2).astype(np.int64).copy())[None]
        audio = model.decode(back, [None]).audio_values.numpy().swapaxes(1, 2)
    mine, ties = ours["codes"][0], 0
    assert mine.shape == codes.shape, (mine.shape, codes.shape)
    books = [layer.codebook.embed.double().numpy() for layer in model.quantizer.layers]
    for t in np.flatnonzero((mine != codes).any(1)):
        k = np.flatnonzero(mine[t] != codes[t])[0]
        left = latents[t] - sum(
            (books[i][codes[t, i]] for i in range(k)), np.zeros(latents.shape[1])
        )
        distance = np.sum((left - books[k]) ** 2, 1)
        assert (
            max(distance[mine[t, k]], distance[codes[t, k]]) - distance.min()
            < 1e-4 * distance.min()
        ), (t, k)
        ties += 1
    error = rms_error(ours["audio"], audio[:, : ours["audio"].shape[1]])
    say(
        f"{len(codes)} frames, {ties} near ties, else equal; codes in use "
        f"{[len(np.unique(codes[:, k])) for k in range(codes.shape[1])]}; audio {error:.1e} of its RMS"
    )
    assert ties <= max(2, 2 * len(codes) // 500) and error < 1e-5


def ours_lm(path, out, text, seconds):
    from indep_jax.inference import load_lm

    lm = load_lm(path)
    codes = np.concatenate(list(lm.stream([text], float(seconds), top_k=1, guidance=3.0)), axis=1)
    np.savez(out, codes=codes[0], audio=np.asarray(lm.codec.decode(codes))[0])


def theirs_lm(hub, npz, text):
    import torch
    import transformers

    model, info = transformers.MusicgenForConditionalGeneration.from_pretrained(
        hub, output_loading_info=True
    )
    assert not any(info.values()), info
    processor, ours = transformers.AutoProcessor.from_pretrained(hub), np.load(npz)
    decode, seen = model.audio_encoder.decode, []

    def keep(codes, *rest, **named):
        seen.append(codes)
        return decode(codes, *rest, **named)

    model.eval().audio_encoder.decode = keep
    frames, books = ours["codes"].shape
    with torch.no_grad():
        audio = (
            model.generate(
                **processor(text=[text], padding=True, return_tensors="pt"),
                do_sample=False,
                guidance_scale=3.0,
                max_length=frames + books,
            )[0]
            .numpy()
            .T
        )
    codes = seen[0][0, 0].numpy().T
    same = np.array_equal(codes, ours["codes"])
    error = rms_error(ours["audio"], audio) if same else float("nan")
    say(
        f"greedy tokens of {frames} frames {'identical' if same else 'DIFFERENT'}, {len(np.unique(codes))} codes; "
        f"audio {error:.1e} of its RMS"
    )
    assert same and error < 1e-5


def same(first, second):
    import safetensors

    def tensors(folder):
        return {
            name: path
            for path in Path(folder).glob("*.safetensors")
            for name in safetensors.safe_open(path, framework="np").keys()
        }

    one, two = tensors(first), tensors(second)
    loose = {
        n
        for n in one
        if n.endswith((".embed_positions.weights", "text_encoder.encoder.embed_tokens.weight"))
    }
    assert set(one) - loose == set(two) - loose, sorted(set(one) ^ set(two))[:9]
    for name in set(one) & set(two):
        a, b = (safetensors.safe_open(m[name], framework="np").get_tensor(name) for m in (one, two))
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes(), name
    say(f"{len(set(one) & set(two))} tensors bit for bit")


def sing(hub, text):
    import transformers

    music = transformers.pipeline("text-to-audio", hub)(text, generate_kwargs=dict(max_length=104))
    say(f"pipeline: {np.asarray(music['audio']).shape} at {music['sampling_rate']} Hz")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
