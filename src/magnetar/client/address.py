"""The addresses of a cluster, as people write them. Text in, text out; dials nobody.

pulsar://host:6650[,host:6650...]     the binary protocol; TLS: pulsar+ssl://host:6651
http://host:8080                      admin REST beside it
"""

from urllib.parse import urlsplit

DEFAULT_URL = "pulsar://localhost:6650"
PULSAR_PORT = 6650
PULSAR_TLS_PORT = 6651
HTTP_PORT = 8080
HTTPS_PORT = 8443


class AddressError(ValueError):
    """The address of a cluster cannot be understood. The message says what is expected."""


def service_addresses(url: str) -> list[tuple[str, int]]:
    """Return the hosts and ports of `pulsar://host[:port][,host[:port]...]`, in that order.

    Raises:
        AddressError: it is no such address.
    """
    scheme, separator, rest = url.partition("://")
    if scheme not in {"pulsar", "pulsar+ssl"} or not separator:
        raise AddressError(f"{url!r} is no Pulsar address, expected pulsar://host:port")
    default = PULSAR_PORT if scheme == "pulsar" else PULSAR_TLS_PORT
    found: list[tuple[str, int]] = []
    for each in rest.rstrip("/").split(","):
        parts = urlsplit(f"//{each}")
        try:
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise AddressError(f"{url!r}: {error}") from None
        if not host:
            raise AddressError(f"{url!r} names no host, expected pulsar://host:port")
        found.append((host, port or default))
    return found


def admin_url_beside(url: str) -> str:
    """Return where admin REST is when only the Pulsar address is known.

    All ports of a broker move together by one offset, so the distance from 6650 tells the
    HTTP port too.

    Raises:
        AddressError: `url` is no Pulsar address.
    """
    host, port = service_addresses(url)[0]
    name = f"[{host}]" if ":" in host else host
    if url.startswith("pulsar+ssl://"):
        return f"https://{name}:{HTTPS_PORT + port - PULSAR_TLS_PORT}"
    http_port = HTTP_PORT + port - PULSAR_PORT
    return f"http://{name}:{http_port if 0 < http_port < 2**16 else HTTP_PORT}"
