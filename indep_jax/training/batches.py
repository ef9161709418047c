"""Training batches as global arrays, each with the batches before it where a step needs them."""

from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from indep_jax.data import pipeline
from indep_jax.training import sharding

Batch = Any  # tree of arrays whose first axis is the rows of the global batch


class Batches:
    """Training batches as global arrays, in order or by index."""

    def __init__(self, dataset: grain.MapDataset, mesh: Mesh, workers: int):
        self._dataset, self._mesh, self._workers = dataset, mesh, workers
        self._iterator: grain.DatasetIterator[Batch] | None = None
        self._recent: dict[int, Batch] = {}  # as many as the longest history so far needs
        self._longest = 1

    def read(self, index: int) -> Batch:
        """Return the batch `index`."""
        return sharding.shard_batch(self._dataset[index], self._mesh)

    def next(self, index: int, history: int) -> Batch:
        """Return the batch `index` with its history (see loop.Task.plan).

        Successive calls must have successive indices.
        """
        if self._iterator is None:
            self._iterator = pipeline.iterate(self._dataset, index, self._workers)
        current = next(self._iterator)
        self._recent[index] = current
        self._longest = max(self._longest, history)
        batch = sharding.shard_batch(current, self._mesh)
        if history > 1:
            # After a resume, or at the first long history, read earlier batches by index.
            earlier = [
                self._recent[i] if i in self._recent else self._dataset[i]
                for i in range(index - history + 1, index + 1)
            ]
            stacked = jax.tree.map(lambda *rows: np.stack(rows), *earlier)
            batch = {"current": batch, "history": sharding.shard_batch(stacked, self._mesh, axis=1)}
        for old in [i for i in self._recent if i <= index + 1 - self._longest]:
            del self._recent[old]
        return batch

    def close(self) -> None:
        """End the iterator's threads and processes."""
        if self._iterator is not None:
            self._iterator.close()
