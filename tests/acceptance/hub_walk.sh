#!/usr/bin/env bash
# The README's way from Hugging Face weights and back, with random models of the true sizes: load,
# encode, measure, fine-tune with the independence loss, export, read in transformers, generate.
#
#   bash tests/acceptance/hub_walk.sh MUSIC OUTPUT      MUSIC: what launch/fetch_music.sh fetched
#
# Needs the extra `parity`, GNU time, 20 GB of disk and 16 GB of memory. A step that is done is not
# done again. OUTPUT/times.txt: seconds and peak memory of every step; verdicts.txt: what was found.
# Environment: STEPS (20), of each training; SECONDS_OUT (2), of music; TINY=1, to try the steps.
set -euo pipefail
cd "$(dirname "$0")/.."
MUSIC=${1:?the music of launch/fetch_music.sh} OUT=$(realpath -m "${2:?a folder to write to}")
STEPS=${STEPS:-20} SECONDS_OUT=${SECONDS_OUT:-2} CLIPS=$OUT/clips TEXT="a slow piano waltz"
mkdir -p "$OUT"

step() { # NAME COMMAND...
  local name=$1
  shift
  if [ -e "$OUT/$name.done" ]; then return; fi
  if ! /usr/bin/time -f "%e %M" -o "$OUT/$name.time" "$@" >"$OUT/$name.log" 2>&1; then
    echo "$name failed:"
    tail -n 15 "$OUT/$name.log"
    exit 1
  fi
  tail -n 1 "$OUT/$name.time" |
    awk -v n="$name" '{printf "%-14s %7.1f s %6.2f GB peak\n", n, $1, $2 / 1e6}' | tee -a "$OUT/times.txt"
  { grep -h "^VERDICT" "$OUT/$name.log" || true; } | sed "s/^VERDICT/$name:/" | tee -a "$OUT/verdicts.txt"
  touch "$OUT/$name.done"
}
H="python tests/acceptance/hub_walk.py"

step cut           $H cut "$MUSIC" "$CLIPS"
step make          $H make "$CLIPS" "$OUT/hub"
step load          $H load "$OUT/hub/encodec" "$OUT/hub/musicgen"
step start_ours    $H ours_codec "$OUT/hub/encodec" "$CLIPS" "$OUT/start.npz"
step start_theirs  $H theirs_codec "$OUT/hub/encodec" "$OUT/start.npz"
step back          python -m indep_jax.export --lm="$OUT/hub/musicgen" --output="$OUT/back"
step back_same     $H same "$OUT/hub/musicgen" "$OUT/back"
step encode        python -m indep_jax.encode --codec="$OUT/hub/encodec" --source="folder:$CLIPS" --output="$OUT/tokens"
step tune_codec    python -m indep_jax.train --config=configs/finetune_encodec_32khz_mmd.py --workdir="$OUT/codec" \
                     --config.pretrained="$OUT/hub/encodec" --config.data.source="folder:$CLIPS" \
                     --config.steps="$STEPS" --config.batch_size=2 --config.data.workers=0 \
                     --config.discriminator.warmup_steps=5 --config.loss.independence.macro_batch=4 \
                     --config.loss.independence.every=4 --config.loss.independence.warmup_steps=4 \
                     --config.log_every=1 --config.evaluate_items=1 --config.evaluate_seconds=4.0 --config.keep=1
step loss_ran      bash -c "grep -o '\"independence[a-z_]*\": [^,}]*' '$OUT/codec/metrics.jsonl' | tail -n 4 | sed 's/^/VERDICT /' | grep ."
step encode_tuned  python -m indep_jax.encode --codec="$OUT/codec" --source="folder:$CLIPS" --output="$OUT/tokens_tuned"
step tune_lm       python -m indep_jax.train --config=configs/finetune_musicgen.py --workdir="$OUT/lm" \
                     --config.pretrained="$OUT/hub/musicgen" --config.codec="$OUT/codec" \
                     --config.data.source="tokens:$OUT/tokens_tuned" --config.steps="$STEPS" \
                     --config.batch_size=2 --config.data.segment_seconds=2.0 --config.data.workers=0 \
                     --config.optimizer.warmup_steps=5 --config.log_every=1 --config.evaluate_items=2 \
                     --config.samples=1 --config.sample_seconds=2.0 --config.keep=1
step export_codec  python -m indep_jax.export --codec="$OUT/codec" --output="$OUT/codec_hub"
step export_lm     python -m indep_jax.export --lm="$OUT/lm" --output="$OUT/lm_hub"
step card          bash -c "grep -l 'cc-by-nc-4.0, holds' '$OUT/codec_hub/README.md' '$OUT/lm_hub/README.md' | sed 's/^/VERDICT licence in /'"
step codec_ours    $H ours_codec "$OUT/codec" "$CLIPS" "$OUT/codec.npz"
step codec_theirs  $H theirs_codec "$OUT/codec_hub" "$OUT/codec.npz"
step lm_ours       $H ours_lm "$OUT/lm" "$OUT/lm.npz" "$TEXT" "$SECONDS_OUT"
step lm_theirs     $H theirs_lm "$OUT/lm_hub" "$OUT/lm.npz" "$TEXT"
step sing          $H sing "$OUT/lm_hub" "$TEXT"
step generate      python -m indep_jax.generate --lm="$OUT/lm" --text="$TEXT" --seconds="$SECONDS_OUT" --output="$OUT/ours.wav"
step generate_hub  python -m indep_jax.generate --lm="$OUT/lm_hub" --text="$TEXT" --seconds="$SECONDS_OUT" --output="$OUT/hub.wav"
step measure       python -m indep_jax.measure --codec="$OUT/hub/encodec" --source="folder:$CLIPS" --split=all \
                     --output="$OUT/measured"
