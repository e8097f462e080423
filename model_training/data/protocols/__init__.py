"""The evaluation protocols. A new one is a module with a `PROTOCOL` and a line in PROTOCOLS."""

from model_training.data.protocols import (
    chrono_era,
    chrono_popularity,
    chrono_uniform,
    full,
    paper,
)
from model_training.data.protocols.contract import Protocol
from services.core.errors import InputError

PROTOCOLS = {
    "chrono-uniform": chrono_uniform.PROTOCOL,
    "chrono-popularity": chrono_popularity.PROTOCOL,
    "chrono-era": chrono_era.PROTOCOL,
    "paper": paper.PROTOCOL,
    "full": full.PROTOCOL,
}


def find_protocol(name: str) -> Protocol:
    """The protocol of that name; InputError names the known ones."""
    if name not in PROTOCOLS:
        raise InputError(f"there is no protocol {name!r}; choose from {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
