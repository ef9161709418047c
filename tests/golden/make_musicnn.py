"""Writes indep_jax/evaluation/musicnn.safetensors, and musicnn.npz: what TensorFlow and librosa make of a sound.

    pip install tensorflow-cpu==2.15.1 librosa==0.10.2 safetensors 'numpy<2'
    pip install --no-deps musicnn==0.1.0
    python tests/golden/make_musicnn.py

The weights are the package's MSD_musicnn without its optimizer's state and its layer of tags, the graph
is the package's own. Its spectrogram passes through float16, which overflows for loud music; here it
does not.
"""

import pathlib

import librosa
import musicnn
import numpy as np
import safetensors.numpy
import tensorflow as tf

HERE = pathlib.Path(__file__).parent
MODEL = "MSD_musicnn"
FRAMES = 187


def sound() -> np.ndarray:
    """4 s at 16 kHz: a falling and a rising tone, beats, and noise that swells; float32 [time]."""
    rng = np.random.default_rng(0)
    time = np.arange(4 * 16_000) / 16_000
    tones = np.sin(2 * np.pi * (220 - 20 * time) * time) + np.sin(
        2 * np.pi * (880 + 90 * time) * time
    )
    beats = np.exp(-30 * (time % 0.5)) * rng.standard_normal(len(time))
    return (0.2 * tones + 0.3 * beats + 0.02 * time * rng.standard_normal(len(time))).astype(
        np.float32
    )


def main():
    from musicnn import models  # imports its configuration by the package's name

    tf.compat.v1.disable_eager_execution()
    wave = sound()
    mel = librosa.feature.melspectrogram(
        y=wave, sr=16_000, n_fft=512, hop_length=256, n_mels=96, pad_mode="reflect"
    ).T
    log_mel = np.log10(10_000 * mel + 1)
    patches = np.stack([log_mel[:FRAMES], log_mel[-FRAMES:]])
    with tf.name_scope("model"):
        x = tf.compat.v1.placeholder(tf.float32, [None, FRAMES, 96])
        *_, penultimate = models.define_model(x, tf.constant(False), MODEL, 50)
    with tf.compat.v1.Session() as session:
        folder = pathlib.Path(musicnn.__file__).parent / MODEL
        tf.compat.v1.train.Saver().restore(session, f"{folder}/")
        found = session.run(penultimate, {x: patches})
        variables = tf.compat.v1.global_variables()
        weights = {
            variable.op.name.removeprefix("model/"): session.run(variable)
            for variable in variables
            if "dense_1" not in variable.op.name
        }
    weights = {name: np.ascontiguousarray(value, np.float32) for name, value in weights.items()}
    package = HERE.parent.parent / "indep_jax" / "metrics"
    safetensors.numpy.save_file(weights, package / "musicnn.safetensors")
    np.savez_compressed(HERE / "musicnn.npz", wave=wave, log_mel=log_mel, embedding=found)
    print({name: value.shape for name, value in weights.items()}, found.shape, found.std())


if __name__ == "__main__":
    main()
