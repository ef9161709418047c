#!/usr/bin/env bash
# The study of the loss: one warm-up, and from it an arm for each estimator at two shares of the
# encoder's gradient, same data, same steps. About 45 minutes an arm on two CPU cores.
#
#   bash launch/study.sh folder:music runs/study [ARM...]
#
# ARM: none, or KIND-SHARE, or KIND-delay-SHARE; all of them when none is named. Interrupted, the
# same command goes on. Each arm leaves results/study/ARM.json (launch/study_table.py joins them).
set -euo pipefail
SOURCE=${1:?a source, such as folder:music} OUTPUT=${2:?a folder to write to}
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
train() {
  python -m indep_jax.train --config=configs/encodec_small.py --config.data.source="$SOURCE" "$@"
}

WARMUP=$(python -c 'from configs import encodec_small as c; print(c.get_config().quantizer.warmup_steps)')
train --workdir="$OUTPUT/warm" --max_step="$WARMUP"
for arm in "${ARMS[@]}"; do
  flags=(--workdir="$OUTPUT/$arm" --config.init_from="$OUTPUT/warm")
  if [ "$arm" != none ]; then
    flags+=(--config.loss.independence.kind="${arm%%-*}" --config.loss.independence.share="${arm##*-}")
  fi
  case "$arm" in *-delay-*) flags+=(--config.loss.independence.delay=True) ;; esac
  train "${flags[@]}"
  if [ ! -e "results/study/$arm.json" ]; then
    python -m indep_jax.evaluate --codec="$OUTPUT/$arm" --source="$SOURCE" --split=test --items=40 \
      --output="$OUTPUT/$arm/test"
    python -m indep_jax.measure --codec="$OUTPUT/$arm" --source="$SOURCE" --split=test \
      --output="$OUTPUT/$arm/test"
    python launch/study_table.py --point "$OUTPUT/$arm"
  fi
done
python launch/study_table.py
