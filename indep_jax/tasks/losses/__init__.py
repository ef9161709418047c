"""Independence losses with a network of their own, by the kind that a config names.

A new one is a file with an `init` and an `apply`, and a line in KINDS. The losses without one are in
indep_jax/independence/loss.py.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import jax


class Learned(Protocol):
    """A network that finds dependence in streams [batch, time, codebooks, dim].

    config: the section loss.independence. segments, active: as for `independence.loss.Loss`.
    """

    def init(self, config: Mapping[str, Any], key: jax.Array, streams: jax.Array) -> Any:
        """Return the network's first params; of `streams` the shape alone counts."""

    def apply(
        self,
        config: Mapping[str, Any],
        params: Any,
        key: jax.Array,
        streams: jax.Array,
        segments: jax.Array | None,
        active: jax.Array | int | None,
    ) -> tuple[jax.Array, jax.Array]:
        """Return two losses: the one that the codec minimises, and the one that the network does."""


KINDS: dict[str, Learned] = {}
