"""Servers of one's own on the loopback: a free port, and whether one answers."""

import os
import random
import socket
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from ipaddress import ip_address
from urllib.parse import urlsplit

from meadow.errors import MeadowError


def free_port(wanted: int = 0) -> int:
    """Return `wanted` if it is free on the loopback, or else any free port.

    Any port is one below those that a system gives to whoever asks for none in particular: such a
    port would often be taken before the server that was to have it is up.
    """
    for port in [wanted, *random.sample(range(20_000, 32_000), 100)]:
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port:
                probe.bind(("127.0.0.1", port))
                return port
    raise MeadowError("no port of the loopback is free. Stop some servers, then run it again.")


def on_loopback(url: str) -> bool:
    """Tell whether a server is on this machine, where no proxy leads to."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def ask_directly(url: str) -> None:
    """Have what reads NO_PROXY, as botocore and a DVC started from here, use no proxy for a server.

    Only if it is on this machine: elsewhere the environment decides.
    """
    proxies = urllib.request.getproxies_environment()
    if proxies and on_loopback(url) and proxies.get("no") != "*":
        os.environ["no_proxy"] = f"{proxies.get('no', '')},{urlsplit(url).hostname}"


def answers(url: str) -> bool:
    """Tell whether a server on the loopback answers with success within a second."""
    try:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(url, timeout=1):
            return True
    except (OSError, HTTPException):  # or it answers, and not in HTTP
        return False
