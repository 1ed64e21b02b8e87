"""What everything in this door works with. Made once by the door."""

import asyncio
from typing import NamedTuple

from magnetar.broker.clock import Clock
from magnetar.broker.config import BrokerConfig
from magnetar.broker.port import Port


class Service(NamedTuple):
    """The port, and what time it is."""

    port: Port
    config: BrokerConfig
    clock: Clock
    loop: asyncio.AbstractEventLoop
