#!/usr/bin/env bash
# Whether bfloat16 tracks float32: the small codec, 300 steps (50 of warm-up) in each, and the
# waveform and mel losses averaged over the last 50 steps. Fails where they differ by 2% or more.
#
#   bash studies/bfloat16/compare.sh folder:music runs/bfloat16
#
# Runs again where it was interrupted.
set -euo pipefail
SOURCE=${1:?a source, such as folder:music} OUTPUT=${2:?a folder to write to}

for dtype in float32 bfloat16; do
  python -m indep_jax.train --config=configs/encodec_small.py --workdir="$OUTPUT/$dtype" \
    --config.data.source="$SOURCE" --config.dtype=$dtype --config.steps=300 \
    --config.quantizer.warmup_steps=50 --config.log_every=50 --config.evaluate_every=300 \
    --config.save_every=100
done

python - "$OUTPUT" <<'EOF'
import json, pathlib, sys

def last(dtype):
    lines = (pathlib.Path(sys.argv[1]) / dtype / "metrics.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["step"] == 300 and "l1" in r][-1]

wide, narrow = last("float32"), last("bfloat16")
differences = {name: narrow[name] / wide[name] - 1 for name in ("l1", "mel")}
for name, difference in differences.items():
    print(f"{name}: float32 {wide[name]:.4f}, bfloat16 {narrow[name]:.4f}, {difference:+.2%}")
sys.exit(max(map(abs, differences.values())) >= 0.02)
EOF
