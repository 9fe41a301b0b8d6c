"""PostgreSQL from Debian, on a free port of the loopback, in a folder of a test."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tools import POSTGRES, need

from meadow.pipeline.ports import free_port


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
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = f"{self.folder}/log"
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-l", log, "-o", options, "-w", "start")

    def stop(self) -> None:
        """End it; its data stay."""
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", "fast", "-w", "stop")

    def make(self, database: str) -> str:
        """Make a database; return its address for SQLAlchemy."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", database)
        return f"postgresql+psycopg2://postgres@{self.address}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        command: Sequence[str] = [f"{POSTGRES}/{program}", *arguments]
        if os.geteuid() == 0:
            for parent in self.folder.parents:  # pytest closes its folder, of other runs too
                parent.chmod(parent.stat().st_mode | 0o011)
            user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            command = [*user, *command]
        log = self.folder / "commands.log"
        with log.open("ab") as output:  # a pipe would stay open as long as the server runs
            done = subprocess.run(command, cwd="/", check=False, stdout=output, stderr=output)
        assert done.returncode == 0, log.read_text()
