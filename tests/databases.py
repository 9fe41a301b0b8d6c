"""PostgreSQL from Debian, on a free port of the loopback, in a folder of a test."""

import os
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

from tools import POSTGRES, need

from meadow.pipeline.ports import free_port
from meadow.serving.parent import end_with_parent


class Postgres:
    """A PostgreSQL server without passwords.

    Attributes:
        folder: of its data and its log.
        address: host and port.

    """

    def __init__(self, folder: Path) -> None:
        need("PostgreSQL")
        self.folder = folder
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        folder.mkdir(parents=True)
        if os.geteuid() == 0:  # it refuses to be root
            shutil.chown(folder, "postgres", "postgres")
        self._run("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "postgres")
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        where = ("-D", f"{self.folder}/data", "-p", str(self.port), "-k", str(self.folder))
        settings = ("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off")
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command("postgres", *where, *settings), cwd="/", stdout=log, stderr=log,
                preexec_fn=partial(end_with_parent, signal.SIGINT),
            )  # fmt: skip
        ask = [f"{POSTGRES}/pg_isready", "--quiet", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ask, check=False).returncode:
            assert self.process.poll() is None, (self.folder / "log").read_text()
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
        log = self.folder / "log"
        with log.open("ab") as output:
            command = self._command(program, *arguments)
            done = subprocess.run(command, cwd="/", check=False, stdout=output, stderr=output)
        assert done.returncode == 0, log.read_text()

    def _command(self, program: str, *arguments: str) -> list[str]:
        command = [f"{POSTGRES}/{program}", *arguments]
        if os.geteuid():
            return command
        for parent in self.folder.parents:  # pytest closes its folder, of other runs too
            parent.chmod(parent.stat().st_mode | 0o011)
        # another user's process forgets whose end it was to end with, unless told again
        user = ["--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=INT"]
        return ["setpriv", *user, *command]
