"""The page: whole, self-contained, accessible, and nothing in it runs."""

import base64
import io

import numpy as np
import soundfile
from support.report_cases import RATE, check_page, music

from indep_jax import report


def test_page_escapes_everything(tmp_path):
    evil = "<script>alert(1)</script>&\"'"
    page = report.Report(evil, evil)
    page.section(evil, evil)
    page.note(evil)
    page.table(evil, [evil, "b"], [[evil, evil]])
    page.figure("name", report.figures.spectrograms([("a", music(0.3, 0), RATE)]), evil, evil)
    page.listen(evil, [(evil, music(0.3, 0), RATE)])
    page.write(tmp_path)
    read = check_page(tmp_path / "report.html")
    assert len(read.all("script")) == 1, "only the page's own"
    assert read.text.count(evil) >= 8
    assert read.all("img")[0]["alt"] == evil


def test_players_hold_the_sound(tmp_path):
    wave = music(0.4, 1)
    page = report.Report("t")
    page.listen("song", [("Original", wave, RATE), ("Loud", 100 * wave, RATE)])
    page.write(tmp_path)
    first, loud = check_page(tmp_path / "report.html").all("audio")
    data = base64.b64decode(first["src"].removeprefix("data:audio/wav;base64,"))
    decoded, rate = soundfile.read(io.BytesIO(data))
    assert rate == RATE
    np.testing.assert_allclose(decoded, wave[:, 0], atol=2**-15)
    data = base64.b64decode(loud["src"].removeprefix("data:audio/wav;base64,"))
    assert np.abs(soundfile.read(io.BytesIO(data))[0]).max() <= 1, "clipped, not wrapped"


def test_numbers_that_round_to_zero_have_no_sign():
    assert report.with_interval(-0.0004, (-0.002, 0.0004)) == "0.000 [-0.002, 0.000]"
    assert report.with_interval(-0.0004, (-0.002, 0.0004), 2, "+") == "+0.00 [+0.00, +0.00]"
