"""Gradient descent: updates of parameters from a loss or its gradients, clipping, schedules.

    updates = optim.adam(loss, [W, b], learning_rate=0.002)
    train = gpuscan.function([x, y], loss, updates=updates)

Every method is a function of (loss_or_grads, params, learning_rate, ...) that gives
`OrderedUpdates`: the parameters first, then its state, shared variables that it makes, with the
names of the method and the parameter. `states` has all of them by name, for a checkpoint.

loss_or_grads is a scalar, of which the gradients are taken, or a list of gradients, one for each
parameter. params are shared variables of floats. All else is numbers or scalar expressions, which
are computed in float64 and rounded to a parameter's dtype where they meet it. learning_rate may be
a schedule too: a function that is given how often the updates have been made (int64, 0 at first)
and returns the rate. `name` stands in the names of the state for the method's.

Definitions and default values are PyTorch's.

Raises TypeError and ValueError where an argument does not fit, and DisconnectedInputError for a
parameter that the loss does not depend on.
"""

from .gradients import clip_by_global_norm
from .methods import adadelta, adagrad, adam, adamw, momentum, nesterov, rmsprop, sgd
from .schedules import (
    constant_schedule,
    cosine_decay,
    exponential_decay,
    join_schedules,
    linear_warmup,
    step_decay,
)
from .states import states

__all__ = [
    "adadelta", "adagrad", "adam", "adamw", "clip_by_global_norm", "constant_schedule",
    "cosine_decay", "exponential_decay", "join_schedules", "linear_warmup", "momentum", "nesterov",
    "rmsprop", "sgd", "states", "step_decay",
]  # fmt: skip
