"""Random segments of a token store: drawn by length, sliced by process, padded behind the end."""

import pathlib
import pickle

import numpy as np
import pytest

from indep_jax import data
from indep_jax.data import tokens
from indep_jax.support.errors import UserError
from indep_jax.support.files import begin_output

LENGTHS = dict(train=(30, 5, 65), valid=(20,))


@pytest.fixture
def store(tmp_path):
    items = []
    for split, lengths in LENGTHS.items():
        for frames in lengths:
            codes = (1_000 * len(items) + np.arange(frames))[:, None] + np.array([0, 10_000])
            name, caption = f"{len(items)}.wav", f"caption {len(items)}"
            items.append(tokens.Tokens(name, split, caption, 7 * frames, codes.astype(np.uint16)))
    begin_output(tmp_path / tokens.INFO, dict(shards=2))
    tokens.write_shard(tokens.shard_path(tmp_path, 0, 2), items[:3])
    tokens.write_shard(tokens.shard_path(tmp_path, 1, 2), items[3:])
    return tokens.Store(tmp_path)


def test_entries_tell_what_records_hold(store):
    assert store.select("train") == [0, 1, 2] and store.select("valid") == [3]
    assert len(store) == 4
    for index, entry in enumerate(store.entries):
        item = store[index]
        assert entry == dict(
            name=item.name, split=item.split, caption=item.caption, length=item.length,
            frames=len(item.codes),
        )  # fmt: skip
    with pytest.raises(ValueError, match="no tokens of split test"):
        store.select("test")
    again = pickle.loads(pickle.dumps(store))
    assert np.array_equal(again[2].codes, store[2].codes)


def test_segments_are_places_of_their_records(store):
    sizes = dict(seed=3, batch_size=8, frames=10)
    batches = data.token_segments(store, "train", **sizes)
    counts = np.zeros(3)
    starts = set()
    for index in range(100):
        batch = batches[index]
        assert batch["codes"].shape == (8, 10, 2) and batch["codes"].dtype == np.int32
        for codes, record in zip(batch["codes"], batch["record"]):
            whole, start = store[record].codes, codes[0, 0] - 1_000 * record
            inside = min(10, len(whole) - start)
            assert np.array_equal(codes[:inside], whole[start : start + inside])
            assert (codes[inside:] == -1).all() and (inside == 10 or record == 1)
            counts[record] += 1
            starts.add((int(record), int(start)))
    expected = 800 * np.array(LENGTHS["train"]) / sum(LENGTHS["train"])
    assert np.all(np.abs(counts - expected) < 4 * np.sqrt(expected))
    assert len(starts) == 21 + 1 + 56  # every place there is
    halves = [
        data.token_segments(store, "train", **sizes, slice_number=i, slices=2)[7] for i in range(2)
    ]
    joined = np.concatenate([half["codes"] for half in halves])
    assert np.array_equal(joined, batches[7]["codes"])
    assert not np.array_equal(batches[7]["codes"], batches[8]["codes"])


@pytest.mark.parametrize(
    "changes, message",
    [(dict(batch_size=0), "positive multiple"), (dict(frames=0), "expected 1 or more")],
)
def test_sizes_that_do_not_fit(store, changes, message):
    with pytest.raises(ValueError, match=message):
        data.token_segments(store, "train", **dict(seed=0, batch_size=2, frames=4) | changes)


@pytest.mark.parametrize("content", ["{", "[]", "{}", "[1]"])
def test_a_damaged_index_is_named(store, content):
    index = tokens.index_path(tokens.shard_path(pathlib.Path(store.folder), 1, 2))
    index.write_text(content)
    with pytest.raises(UserError, match=f"^{store.folder}: {index.name} is not an index; remove"):
        tokens.Store(store.folder)
