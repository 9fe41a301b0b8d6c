"""Servers of one's own on the loopback: a free port, and whether one answers."""

import os
import socket
import urllib.request
from ipaddress import ip_address
from urllib.parse import urlsplit


def free_port(wanted: int = 0) -> int:
    """Return `wanted` if it is free on the loopback, or else any free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
        return int(probe.getsockname()[1])


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
    except OSError:
        return False
