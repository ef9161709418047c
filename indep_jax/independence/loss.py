"""The independence losses by the kind that a config names.

A new one is a file with a `from_config` and a line in KINDS.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import jax

from indep_jax.independence import cross_covariance, hsic, permutation
from indep_jax.independence import streams as streams_
from indep_jax.independence.pair_sums import Pairs
from indep_jax.support.errors import UserError


class Loss(Protocol):
    """A loss of streams [batch, time, codebooks, dim], to be minimised; a scalar.

    key: for what it draws. segments: the source file of each batch item, to leave out pairs of rows
    of one file; None: there are none to leave out. active: how many leading codebooks take part;
    None: all.
    """

    def __call__(
        self,
        key: jax.Array,
        streams: jax.Array,
        segments: jax.Array | None = None,
        active: jax.Array | int | None = None,
    ) -> jax.Array: ...


# By kind: from a config's section loss.independence, and how rows meet in pairs, to a loss.
KINDS: dict[str, Callable[[Mapping[str, Any], Pairs | None], Loss]] = dict(
    covariance=cross_covariance.from_config,
    permutation=permutation.from_config,
    dhsic=hsic.from_config,
)
NONE = "none"  # the kind of a run without a loss


def from_config(config: Mapping[str, Any], pairs: Pairs | None = None) -> Loss:
    """Return the loss that a config's section loss.independence describes.

    The estimator sees the streams as `prepare` leaves them, and no segments where the section says
    exclude_files=False.

    config: the section, for the fields see configs/encodec_32khz.py; not of the kind NONE.
    pairs: how rows meet in pairs; default on one device, else `independence.ring`.
    """
    estimate = KINDS[config["kind"]](config, pairs)

    def loss(key, streams, segments=None, active=None):
        streams = prepare(config, streams, active)
        return estimate(key, streams, segments if config["exclude_files"] else None, active)

    return loss


def prepare(
    config: Mapping[str, Any], streams: jax.Array, active: jax.Array | int | None = None
) -> jax.Array:
    """Return streams aligned by the delay pattern, then without what the past predicts of them.

    Both as a config's section loss.independence says.
    """
    streams = streams_.align(streams, "delay" if config["delay"] else "parallel")
    if config["condition"]:
        streams = streams_.condition(streams, config["condition"], active=active)
    return streams


def check(config: Mapping[str, Any], more: Iterable[str] = ()) -> None:
    """Raise UserError, one line that names the field, where a section loss.independence cannot be.

    more: kinds that there are beside those in KINDS.
    """
    choices = dict(kind=(NONE, *KINDS, *more), streams=("codes", "inputs"))
    for name, allowed in choices.items():
        if config[name] not in allowed:
            raise UserError(
                f"loss.independence.{name} must be one of {', '.join(allowed)}, "
                f"not {config[name]!r}"
            )
    for name, least in dict(share=0, condition=0, every=1, macro_batch=1).items():
        if config[name] < least:
            raise UserError(
                f"loss.independence.{name} must be at least {least}, not {config[name]}"
            )
