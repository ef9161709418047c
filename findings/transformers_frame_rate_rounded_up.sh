#!/usr/bin/env bash
# transformers 5.23.0: DacConfig.frame_rate and EncodecConfig.frame_rate are rounded up to whole frames a
# second. For DAC at 44.1 kHz (hop 512) that is 87 in place of 86.13: bits a second, and the time of a frame,
# computed from it are 1% off, 0.6 s after a minute.
#
# Expected: sampling_rate / hop_length.
# Seen: 87 for 86.1328125, of both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check transformers==5.23.0 numpy==2.4.6
cat >"$folder/run.py" <<'PYTHON'
from transformers import DacConfig, EncodecConfig

dac = DacConfig(sampling_rate=44_100, downsampling_ratios=[2, 4, 8, 8])
encodec = EncodecConfig(sampling_rate=44_100, upsampling_ratios=[8, 8, 4, 2])
for name, config, hop in (("DAC", dac, 512), ("EnCodec", encodec, 512)):
    print(f"{name}: frame_rate {config.frame_rate}, sampling_rate / hop {config.sampling_rate / hop:.4f}")
    assert config.frame_rate == 87
PYTHON
"$folder/venv/bin/python" "$folder/run.py"
