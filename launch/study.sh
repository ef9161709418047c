#!/usr/bin/env bash
# The study of the loss: one warm-up, and from it an arm for each estimator at several shares of the
# encoder's gradient, same data, same steps: 3,800 an arm, 3 a second on two cores of an AMD EPYC with
# AVX-512.
#
#   bash launch/study.sh folder:music runs/study [ARM...]
#
# ARM: a point of configs/sweeps/independence.py; when none is named, none and, at shares 0.1 and 0.3,
# covariance, permutation-delay, dhsic and dhsic-delay.
# Interrupted, the same command goes on. The arms of runs/NAME leave results/NAME/ARM.json
# (launch/study_table.py joins them) and their weights.
# Environment: WARMUP, the steps of the warm-up; STEPS, those of an arm. By default the config's.
set -euo pipefail
SOURCE=${1:?a source, such as folder:music} OUTPUT=${2:?a folder to write to}
STUDY=$(basename "$OUTPUT")
shift 2
ARMS=("$@")
if [ $# = 0 ]; then
  ARMS=(none)
  for share in 0.1 0.3; do
    ARMS+=("covariance-$share" "permutation-delay-$share" "dhsic-$share" "dhsic-delay-$share")
  done
fi

# Large arrays in huge pages: glibc then has less to ask of the system.
export GLIBC_TUNABLES=${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}
default() {
  python -c "from configs import encodec_small as c; c = c.get_config(); print($1)"
}
WARMUP=${WARMUP:-$(default c.quantizer.warmup_steps)}
STEPS=${STEPS:-$(default c.steps-c.quantizer.warmup_steps)}

python -m indep_jax.train --config=configs/encodec_small.py --config.data.source="$SOURCE" \
  --config.quantizer.warmup_steps="$WARMUP" --workdir="$OUTPUT/warm" --max_step="$WARMUP"
for arm in "${ARMS[@]}"; do
  [ ! -e "results/$STUDY/$arm.json" ] || continue
  python launch/sweep.py --config=configs/encodec_small.py --sweep=configs/sweeps/independence.py \
    --points="$arm" --workdir="$OUTPUT" --max_step=$((WARMUP + STEPS)) \
    --config.data.source="$SOURCE" --config.quantizer.warmup_steps="$WARMUP" \
    --config.init_from="$OUTPUT/warm" --config.loss.independence.warmup_steps=$((STEPS / 10))
  python launch/study_table.py --point "$OUTPUT/$arm" --source="$SOURCE"
done
python launch/study_table.py --study="$STUDY"
