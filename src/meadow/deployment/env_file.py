"""deploy/.env, which Docker Compose reads: random keys, and the version of the image.

`python -m meadow.deployment.env_file` writes it; keys that are there stay.
"""

import json
import secrets
from pathlib import Path

from meadow.errors import MeadowError, run
from meadow.pipeline import atomic

FILE = Path("deploy/.env")
PACKAGED = Path("metrics/package.json")
SECRETS = (
    "MEADOW_API_KEY", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", "MLFLOW_DATABASE_PASSWORD",
    "AIRFLOW_DATABASE_PASSWORD", "AIRFLOW_JWT_SECRET", "MEADOW_WEBHOOK_TOKEN",
)  # fmt: skip


def write() -> None:
    """Write the file, for its owner's eyes alone.

    Raises:
        MeadowError: nothing is packaged yet.

    """
    if not PACKAGED.exists():
        raise MeadowError(f"{PACKAGED} is missing. Run `dvc repro`, then `make image`.")
    values = {name: secrets.token_urlsafe(24) for name in SECRETS}
    if FILE.exists():
        values |= dict(line.split("=", 1) for line in FILE.read_text("utf-8").splitlines())
    values["MEADOW_VERSION"] = json.loads(PACKAGED.read_text("utf-8"))["version"]
    with atomic.whole(FILE) as part:
        part.touch(0o600)
        part.write_text("".join(f"{name}={value}\n" for name, value in values.items()), "utf-8")
    print(f"{FILE} has the keys. Next: `docker compose --file deploy/compose.yaml up`.")


if __name__ == "__main__":
    run(write)
