#!/usr/bin/env bash
# grain 0.2.18 (Python 3.11 or newer): MapDataset.repeat().shuffle() is accepted without a word, and an epoch
# is then no longer each element once. An infinite repeat has a length of 2^63 - 1; shuffling that draws
# indices from all of it, so elements come with replacement. shuffle().repeat() shuffles every epoch anew
# and keeps each element once.
#
# Expected by analogy with tf.data, where repeat().shuffle(buffer) mixes neighbouring epochs alone.
# Seen: of 10 elements, distinct ones in each of 200 epochs of 10 draws: on average
#   shuffle().repeat()  10.00
#   repeat().shuffle()  about 6.5, as for draws with replacement (10 * (1 - 0.9^10) = 6.51)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check grain==0.2.18 numpy==2.4.6
cat >"$folder/run.py" <<'PYTHON'
import grain

def distinct(dataset, size=10, epochs=200):
    return sum(
        len({dataset[i] for i in range(e * size, (e + 1) * size)}) for e in range(epochs)
    ) / epochs

right = distinct(grain.MapDataset.range(10).shuffle(seed=1).repeat())
wrong = distinct(grain.MapDataset.range(10).repeat().shuffle(seed=1))
print(f"shuffle().repeat(): {right:.2f} distinct of 10 an epoch; repeat().shuffle(): {wrong:.2f}")
assert right == 10
assert 6.2 < wrong < 6.8
PYTHON
"$folder/venv/bin/python" "$folder/run.py"
