"""Ask a service on port 3000 with several connections until it refuses them.

Prints a line of JSON a request: when it was sent on the machine's clock, and its status.
"""

import http.client
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

CONNECTIONS = 8


def ask(photo: bytes) -> None:
    """Send requests, each on a connection of its own, until none is accepted."""
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", 3000, timeout=60)
        try:
            connection.connect()
        except ConnectionRefusedError:
            return
        status = 0
        sent = time.monotonic()
        with suppress(OSError, http.client.HTTPException):
            connection.request("POST", "/predict", photo)
            sent = time.monotonic()
            status = connection.getresponse().status
        sys.stdout.write(json.dumps({"sent": sent, "status": status}) + "\n")  # in one piece
        sys.stdout.flush()
        connection.close()


if __name__ == "__main__":
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(ask, [Path(sys.argv[1]).read_bytes()] * CONNECTIONS))
