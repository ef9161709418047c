#!/usr/bin/env bash
# scipy 1.17.1: scipy.signal.resample_poly with its default window, from 44.1 to 32 kHz, leaves a tone of
# 17 kHz, 1 kHz above the new Nyquist frequency, as an alias at 15 kHz only 14 dB down. Music has energy
# there (cymbals), and a codec that trains on such audio learns the alias. soxr 1.1.0 (HQ, its default)
# has the tone below -120 dB.
#
# Seen: scipy -14 dB, soxr below -120 dB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check scipy==1.17.1 soxr==1.1.0 numpy==2.4.6
cat >"$folder/run.py" <<'PYTHON'
import math

import numpy as np
import scipy.signal
import soxr

old, new, tone = 44_100, 32_000, 17_000
wave = np.sin(2 * np.pi * tone * np.arange(old) / old)
divisor = math.gcd(old, new)

def decibels(x):
    middle = x[len(x) // 4 : -len(x) // 4]  # without what begins and ends
    return 20 * math.log10(np.sqrt(2 * np.mean(middle**2)) + 1e-12)

by_scipy = decibels(scipy.signal.resample_poly(wave, new // divisor, old // divisor))
by_soxr = decibels(soxr.resample(wave, old, new))
print(f"a tone of 17 kHz at 0 dB, resampled to 32 kHz: scipy {by_scipy:.1f} dB, soxr {by_soxr:.1f} dB")
assert -16 < by_scipy < -12
assert by_soxr < -120
PYTHON
"$folder/venv/bin/python" "$folder/run.py"
