"""What a standalone broker says once its doors are open."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from magnetar.standalone.addresses import shared_address
from magnetar.standalone.options import StandaloneOptions


def banner(
    options: StandaloneOptions, data: str, warnings: Sequence[str], more: Sequence[str] = ()
) -> str:
    """Return what a person wants to know.

    Args:
        options: What was started.
        data: The data folder.
        warnings: About the folder.
        more: Further lines, such as the settings of clients.
    """
    address = shared_address(options)
    pulsar = filter(None, (address.url, address.url_tls))
    http = filter(None, (address.http_url, address.http_url_tls))
    lines = [
        "Magnetar is ready",
        f"  data        {data}",
        "  durability  every message is synced to disk before it is acknowledged",
        f"  Pulsar      {', '.join(pulsar)}",
        f"  HTTP        {', '.join(http)}  (admin REST, /metrics)",
        f"  workers     {options.workers}",
        f"  log-in      {_log_in(options)}",
        *(f"  warning     {warning}" for warning in warnings),
        *more,
    ]
    return "\n".join(lines)


def banner_for_programs(
    options: StandaloneOptions, data: str, warnings: Sequence[str], more: Mapping[str, Any]
) -> str:
    """Return the same as one line of JSON."""
    address = shared_address(options)
    told = {
        "ready": True,
        "data": data,
        "url": address.url or address.url_tls,
        "admin_url": address.http_url or address.http_url_tls,
        "workers": options.workers,
        "log_in": bool(options.settings.get("authentication")),
        "this_machine_only": options.this_machine_only,
        "warnings": list(warnings),
        **more,
    }
    if address.url_tls:
        told |= {"url_tls": address.url_tls, "admin_url_tls": address.http_url_tls}
    return json.dumps(told, ensure_ascii=False)


def _log_in(options: StandaloneOptions) -> str:
    if ways := options.settings.get("authentication"):
        anonymous = options.settings.get("anonymous_role")
        others = f"whoever does not is {anonymous!r}" if anonymous else "nobody gets in without"
        return f"on, by {', '.join(str(ways).split())}; {others}"
    if options.this_machine_only:
        return "off: whoever is on this machine may do anything"
    return "off: INSECURE, whoever reaches these ports may do anything"
