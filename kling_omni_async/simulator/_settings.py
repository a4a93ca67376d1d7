"""What a simulator is set to."""

from __future__ import annotations

import random
from datetime import datetime

from attrs import Attribute, field, frozen
from attrs.validators import instance_of

from ._checks import not_negative, positive, whole


def _aware(_: object, attribute: Attribute[datetime], value: datetime) -> None:
    if value.tzinfo is None:
        raise ValueError(f"{attribute.name} must have a time zone, got {value!r}")


def _not_blank(_: object, attribute: Attribute[str], value: str) -> None:
    if not value or value != value.strip():
        raise ValueError(f"{attribute.name} must not be blank or begin or end with a space")


@frozen(kw_only=True)
class Settings:
    """The arguments of the simulator, checked."""

    seed: int = field(validator=whole(0))
    time_scale: float = field(validator=positive)
    api_key: str = field(validator=[instance_of(str), _not_blank], repr=False)
    host: str = field(validator=[instance_of(str), _not_blank])
    port: int = field(validator=whole(0))
    latency: float = field(validator=not_negative)
    wrapped: bool = field(validator=instance_of(bool))
    epoch: datetime = field(validator=[instance_of(datetime), _aware])
    log_size: int = field(validator=whole(1))

    @property
    def epoch_ms(self) -> int:
        """The date at the start, in milliseconds since the epoch."""
        return round(self.epoch.timestamp() * 1000)


def drawn_key(seed: int) -> str:
    """Make up a key that nobody takes for a real one."""
    digits = random.Random(f"key {seed}").getrandbits(128)
    return f"sk-simulated-{digits:032x}"
