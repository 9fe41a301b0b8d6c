"""A free TCP port for a server of one's own."""

import socket


def free_port(wanted: int = 0) -> int:
    """Return `wanted` if it is free on the loopback, or else any free port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
        return int(probe.getsockname()[1])
