"""What is said about a place where the broker cannot listen."""

import socket

import pytest

from magnetar.standalone.addresses import listen_on
from magnetar.standalone.options import AddressError


def test_a_port_that_is_taken_is_told_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match="--port-offset N moves all ports by N"):
            listen_on("127.0.0.1", port)


@pytest.mark.parametrize("address", ["192.0.2.1", "no such name"])
def test_an_address_that_is_not_ours_is_not_taken_for_a_port_that_is_taken(address: str) -> None:
    with pytest.raises(AddressError) as told:
        listen_on(address, 0)
    assert "Give --listen an address of this machine" in str(told.value)
    assert "another broker" not in str(told.value)
