"""What a training run carries from step to step."""

from typing import Any

import flax.struct
import jax


@flax.struct.dataclass
class State:
    """Arrays, in nested dicts and what optax makes of them; stored whole in every checkpoint.

    step: int32 scalar, the number of steps done.
    params: what the optimizers train.
    ema: the moving average of the model's params, which is what is evaluated and exported.
    opt_state: of the optimizers.
    collections: what training changes by other means, by name: the codec's codebooks.
    critic: of an independence loss with a network of its own {params, opt_state}, else None.
    """

    step: jax.Array
    params: Any
    ema: Any
    opt_state: Any
    collections: Any = flax.struct.field(default_factory=dict)
    critic: Any = None
