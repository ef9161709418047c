"""Figures: axes and curves are where the numbers are."""

import json

import numpy as np
from support.report_cases import RATE, music

from indep_jax.report import figures


def test_spectrogram_axis_is_at_its_frequencies():
    time = np.arange(RATE) / RATE
    for hertz in (300, 1000, 3000):
        level = np.asarray(figures._mel(np.sin(2 * np.pi * hertz * time)[:, None], RATE, 1024))
        loudest = level.mean(0).argmax()
        # Bands are drawn from their index to the next: centre at + 0.5.
        assert abs(figures._mel_position(hertz, RATE, 96) - (loudest + 0.5)) <= 1


def test_spectrograms_share_their_scale():
    wave = music(0.5, 2)
    figure = figures.spectrograms([("a", wave, RATE), ("b", 0.1 * wave, RATE)])
    a, b = (panel.images[0] for panel in figure.axes[:2])
    assert a.get_clim() == b.get_clim()
    loud = a.get_array() > -50
    np.testing.assert_allclose((a.get_array() - b.get_array())[loud], 20, atol=0.1)


def test_loss_curves(tmp_path):
    path = tmp_path / "metrics.jsonl"
    constant = {"g/norm": 1.0, "l1": 1.0, "time/x": 1.0, "bad": None}
    lines = [{"step": n, "loss": 2.0 / n, **constant} for n in range(1, 60)]
    lines.insert(30, {"step": 30, "eval/loss": 0.2, "eval/si_snr": -1.0})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 60, "lo')
    figure = figures.loss_curves(path)
    titles = [panel.get_title(loc="left") for panel in figure.axes]
    assert titles[:3] == ["loss", "si_snr", "l1"], "group/norm has the last panel"
    raw, smooth, held_out = figure.axes[0].lines[:3]
    np.testing.assert_allclose(raw.get_ydata(), [2.0 / n for n in range(1, 60)])
    assert held_out.get_ydata() == [0.2]
    assert figure.axes[0].get_yscale() == "log"
    path.write_text("")
    assert figures.loss_curves(path) is None
