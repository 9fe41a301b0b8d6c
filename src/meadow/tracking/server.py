"""The MLflow server that MLFLOW_TRACKING_URI names, and what Meadow keeps there."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from meadow.errors import MeadowError
from meadow.pipeline.ports import ask_directly

URI = "MLFLOW_TRACKING_URI"
SETTINGS = {  # of MLflow, where the environment has no other
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # of each run
}
PAGE = 1000  # runs an answer
# Tags of a run.
KEY = "meadow.key"  # the commit that it is of, or the baseline and name of a sweep
PUSHED = "meadow.pushed"  # set with the last of its data
MODEL = "meadow.model"  # SHA-256 of the network
PARENT = "mlflow.parentRunId"
NAME = "mlflow.runName"


@dataclass(frozen=True)
class Server:
    """An experiment on a server: MLflow's word for the runs of one project.

    Attributes:
        client: MLflow's.
        name: of the experiment, and of the model in the registry.
        experiment: its id.

    """

    client: Any
    name: str
    experiment: str

    @classmethod
    def connect(cls) -> "Server":
        """Find the experiment, by default "meadow"; make it if need be.

        Raises:
            MeadowError: there is no MLflow here, no address, or no answer.

        """
        uri = os.environ.get(URI)
        if not uri:
            raise MeadowError(f"{URI} is not set. `export {URI}=http://HOST:5000`.")
        ask_directly(uri)
        for variable, value in SETTINGS.items():
            os.environ.setdefault(variable, value)
        try:
            from mlflow import MlflowClient  # 2 s
        except ImportError:
            raise MeadowError(
                "there is no MLflow here. Run `pip install -r requirements/mlflow.txt -c"
                " requirements/constraints.txt`."
            ) from None
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "meadow")
        with errors():
            client = MlflowClient()
            known = client.get_experiment_by_name(name)
            experiment = known.experiment_id if known else _make(client, name)
        return cls(client, name, experiment)

    @property
    def url(self) -> str:
        """Where a browser shows the runs."""
        return f"{os.environ[URI].rstrip('/')}/#/experiments/{self.experiment}/runs"

    def runs(self, condition: str = "") -> list[Any]:
        """Return the runs that nobody has deleted, the oldest first."""
        listed: list[Any] = []
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment], condition, max_results=PAGE,
                order_by=["attributes.start_time ASC"], page_token=token,
            )  # fmt: skip
            listed += page
            if not (token := page.token):
                return listed


def as_text(value: Any) -> str:
    """Return a parameter's value as MLflow keeps it, which YAML reads back."""
    return value if isinstance(value, str) else json.dumps(value)


def _make(client: Any, name: str) -> str:
    from mlflow.exceptions import RestException

    try:
        return str(client.create_experiment(name))
    except RestException:  # another one was faster, or it was deleted
        known = client.get_experiment_by_name(name)
        if known is None or known.lifecycle_stage != "active":
            raise
        return str(known.experiment_id)


@contextmanager
def errors() -> Iterator[None]:
    """Have what MLflow raises be said as our own errors are."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        yield
    except (MlflowException, RequestException) as error:
        raise MeadowError(
            f"the MLflow server at {os.environ[URI]} does not do what it was asked:"
            f" {str(error).strip()[:500]} Is {URI} right, and does the server run? Then run this"
            " again: it goes on from here."
        ) from None
