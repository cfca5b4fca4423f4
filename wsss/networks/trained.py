"""Networks filled with trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from torch import nn

from wsss.artifacts import load_weights
from wsss.errors import UserError

Network = TypeVar("Network", bound=nn.Module)


def load_trained(network: Network, path: Path) -> Network:
    """Fill a network with trained weights; a mismatch is a :class:`UserError` naming keys."""
    state, _ = load_weights(path)
    own = network.state_dict()
    wrong = sorted(set(own) ^ set(state)) or sorted(
        name for name in own if own[name].shape != state[name].shape
    )
    if wrong:
        raise UserError(
            f"{path} does not fit the configured network: {len(wrong)} keys differ, such as "
            f"{', '.join(wrong[:3])}: delete it and rerun its stage"
        )
    network.load_state_dict(state)
    return network.eval()
