"""A header name that has to come as it is written."""

import re

from magnetar.broker.doors.admin.http.spelling import Spelled


def test_a_spelled_name_stays_as_it_is() -> None:
    name = Spelled(b"X-Pulsar-PROPERTY")
    assert name.lower() == b"X-Pulsar-PROPERTY"
    assert name == b"X-Pulsar-PROPERTY"
    assert re.search(rb"PROPERTY", name)
    assert b"X-Pulsar-PROPERTY".lower() != name, "any other name is lowered"
