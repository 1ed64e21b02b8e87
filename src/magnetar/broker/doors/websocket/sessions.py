"""What a connection is for: a producer, a consumer or a reader, by what its address asks.

Behind this stands most of the door. A broker without WebSocket clients does without: the door
loads it, and with it the library for frames, when the first one comes.
"""

import logging

from websockets.protocol import SERVER
from websockets.protocol import Protocol as Frames

from magnetar.broker.config import KIB
from magnetar.broker.doors.websocket.consumer import ConsumerSession
from magnetar.broker.doors.websocket.line import Line, Session
from magnetar.broker.doors.websocket.options import ConsumerOptions, Options, ProducerOptions
from magnetar.broker.doors.websocket.producer import ProducerSession
from magnetar.broker.doors.websocket.reader import ReaderSession
from magnetar.broker.doors.websocket.service import Service

TEXT_OVERHEAD_MAX = 256 * KIB
"""What a text may have beside the base64 of its payload: properties, context."""

_logger = logging.getLogger(f"{__name__}.frames")
_logger.setLevel(logging.WARNING)  # the library tells of every connection that ends


class Sessions:
    """Makes what new connections consist of."""

    def __init__(self, service: Service) -> None:
        self._service = service
        payload = (service.config.message_bytes_max + 2) // 3 * 4
        self._text_bytes_max = payload + TEXT_OVERHEAD_MAX

    def frames(self) -> Frames:
        """Make what takes frames apart and puts them together."""
        return Frames(SERVER, max_size=self._text_bytes_max, logger=_logger)

    def session(self, line: Line, options: Options) -> Session:
        """Make what a connection is for."""
        if isinstance(options, ProducerOptions):
            return ProducerSession(line, options, self._service)
        if isinstance(options, ConsumerOptions):
            return ConsumerSession(line, options, self._service)
        return ReaderSession(line, options, self._service)
