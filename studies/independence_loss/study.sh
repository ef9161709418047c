#!/usr/bin/env bash
# The study of the loss: from one codec (configs/finetune_encodec_small.py), an arm for each estimator at
# several shares of the encoder's gradient, same data, same steps.
#
#   bash studies/independence_loss/study.sh folder:music runs/steps_4800 [ARM...]
#
# ARM: a point of configs/sweeps/independence.py; when none is named, none and, at shares 0.1 and 0.3,
# covariance, permutation-delay, dhsic and dhsic-delay.
# Interrupted, the same command goes on. The arms of runs/NAME leave NAME/ARM.json beside this script, which
# studies/independence_loss/study_table.py joins; one that has its JSON is not trained again.
# Environment: STEPS, those of an arm; by default the config's.
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
for arm in "${ARMS[@]}"; do
  [ ! -e "studies/independence_loss/$STUDY/$arm.json" ] || continue
  python launch/sweep.py --config=configs/finetune_encodec_small.py --config.data.source="$SOURCE" \
    ${STEPS:+--config.steps="$STEPS"} --sweep=configs/sweeps/independence.py --points="$arm" \
    --workdir="$OUTPUT"
  python studies/independence_loss/study_table.py --point "$OUTPUT/$arm" --source="$SOURCE"
done
python studies/independence_loss/study_table.py --study="$STUDY"
