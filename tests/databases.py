"""PostgreSQL from Debian, on a free port of the loopback."""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

from tools import POSTGRES, need

from meadow.pipeline.ports import free_port
from meadow.serving.parent import end_with_parent


class Postgres:
    """A PostgreSQL server without passwords.

    Attributes:
        data: its folder.
        log: its file, in the folder that the test gives.
        address: host and port.

    """

    def __init__(self, folder: Path) -> None:
        need("PostgreSQL")
        folder.mkdir(parents=True)
        self.log = folder / "log"
        # not in pytest's folder, which other runs close to other users
        self.data = Path(tempfile.mkdtemp(prefix="meadow-postgres-"))
        atexit.register(shutil.rmtree, self.data, ignore_errors=True)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        if os.geteuid() == 0:  # it refuses to be root
            shutil.chown(self.data, "postgres", "postgres")
        self._run("initdb", "-D", str(self.data), "-A", "trust", "-U", "postgres")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        where = ("-D", str(self.data), "-p", str(self.port), "-k", str(self.data))
        settings = ("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command("postgres", *where, *settings), cwd="/", stdout=log, stderr=log,
                preexec_fn=partial(end_with_parent, signal.SIGINT),
            )  # fmt: skip
        ask = [f"{POSTGRES}/pg_isready", "--quiet", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ask, check=False).returncode:
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """End it; its data stay."""
        self.process.send_signal(signal.SIGINT)  # it rolls back what goes on
        self.process.wait()

    def make(self, database: str) -> str:
        """Make a database; return its address for SQLAlchemy."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", database)
        return f"postgresql+psycopg2://postgres@{self.address}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        with self.log.open("ab") as output:
            command = self._command(program, *arguments)
            done = subprocess.run(command, cwd="/", check=False, stdout=output, stderr=output)
        assert done.returncode == 0, self.log.read_text()

    def _command(self, program: str, *arguments: str) -> list[str]:
        command = [f"{POSTGRES}/{program}", *arguments]
        if os.geteuid():
            return command
        # another user's process forgets whose end it was to end with, unless told again
        user = ["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=INT"]
        return ["setpriv", *user, *command]
