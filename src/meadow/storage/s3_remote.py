"""The remote that keeps every version: an S3 bucket, reached with the settings that DVC uses."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import uuid4

from botocore import exceptions
from dvc.config import ConfigError
from dvc.exceptions import DvcException
from dvc.repo import Repo

from meadow.errors import MeadowError
from meadow.pipeline import s3
from meadow.pipeline.ports import ask_directly
from meadow.pipeline.s3 import Advice
from meadow.storage.local_config import LOCAL

PIECE = 2**20  # bytes of an object in memory
SKEW = timedelta(minutes=5)  # S3 refuses 15


class MissingError(MeadowError):
    """The server says that it has no such object."""


@dataclass(frozen=True)
class Remote:
    """The default remote of the project.

    Attributes:
        name: in .dvc/config.
        settings: as DVC merges them from .dvc/config, .dvc/config.local and the user's own.
        bucket: its name.
        prefix: of all keys.
        client: of botocore, with the same settings and keys as DVC's.

    """

    name: str
    settings: dict[str, Any]
    bucket: str
    prefix: str
    client: Any

    @classmethod
    def load(cls) -> "Remote":
        """Read the settings of the project in the current folder.

        Raises:
            MeadowError: no DVC project, no default remote, or another kind than S3.

        """
        try:
            with Repo() as repo:
                name = repo.config["core"].get("remote")
                settings = dict(repo.config["remote"].get(name, {}))
                url = settings.get("url", "")
                if not url.startswith("s3://"):
                    raise MeadowError(
                        f"the default remote of .dvc/config is {name!r} with the url {url!r}; it"
                        " must be an S3 one. Run `dvc remote add --default NAME s3://BUCKET/dvc`."
                    )
                ask_directly(settings.get("endpointurl", ""))
                remote = repo.cloud.get_remote(name)
                client = s3.client(remote.fs.fs_args)
        except ConfigError as error:
            raise MeadowError(
                f"{error}. Mend .dvc/config or {LOCAL}: url is s3://BUCKET/dvc, the"
                " server's address is endpointurl."
            ) from None
        except DvcException as error:
            raise MeadowError(f"{error}. Run this in the project's folder.") from None
        except (exceptions.BotoCoreError, ValueError) as error:
            raise MeadowError(
                f"the settings of remote {name!r} are wrong: {error}. See .dvc/config and {LOCAL}."
            ) from None
        bucket, _, prefix = remote.path.partition("/")
        return cls(name, settings, bucket, prefix, client)

    @property
    def endpoint(self) -> str:
        """Where the server is."""
        return str(self.client.meta.endpoint_url)

    @property
    def where(self) -> str:
        """Name the place of the objects: the server, the bucket and the prefix in it."""
        return f"s3://{self.bucket}/{self.prefix} at {self.endpoint}"

    def check(self, *, write: bool) -> None:
        """Make sure that DVC can read the bucket, and write if asked for, within seconds.

        Raises:
            MeadowError: the first thing that is wrong, and the command that mends it.

        """
        self.read()
        if write:
            self.write()

    def read(self) -> datetime:
        """List the bucket; return the server's time."""
        with self._explained("list"):
            answer = self.client.list_objects_v2(Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1)
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])

    def write(self) -> None:
        """Write an object, read it back, delete it."""
        where = {"Bucket": self.bucket, "Key": f"{self.prefix}/.meadow-{uuid4().hex}"}
        content = uuid4().bytes
        with self._explained("write"):
            self.client.put_object(Body=content, **where)
        try:
            with self._explained("read"):
                read_back = self.client.get_object(**where)["Body"].read()
        finally:
            with self._explained("delete"):
                self.client.delete_object(**where)
        if read_back != content:
            raise MeadowError(f"{self.endpoint} gives back other bytes than it was given.")

    def make_bucket(self) -> None:
        """Make the bucket, unless it is there."""
        with self._explained("make the bucket"):
            try:
                self.client.head_bucket(Bucket=self.bucket)
            except exceptions.ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                    raise
                self.client.create_bucket(Bucket=self.bucket)

    def sizes(self, below: str = "") -> dict[str, int]:
        """List all objects whose names begin with `below`: bytes by name below the prefix."""
        with self._explained("list"):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=f"{self.prefix}/{below}"
            )
            return {
                item["Key"].removeprefix(f"{self.prefix}/"): item["Size"]
                for page in pages
                for item in page.get("Contents", [])
            }

    def put(self, name: str, content: bytes) -> None:
        """Write an object, whole or not at all."""
        with self._explained(f"write {name}"):
            self.client.put_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}", Body=content)

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield the content of an object.

        Raises:
            MissingError: it is not there.
            MeadowError: the server does not give it for another reason.

        """
        with self._explained(f"read {name}"):
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")
            except exceptions.ClientError as error:
                if error.response["Error"]["Code"] == "NoSuchKey":
                    raise MissingError(f"{name} is not in bucket {self.bucket!r}.") from None
                raise
            yield from answer["Body"].iter_chunks(PIECE)

    def forget(self, names: Sequence[str]) -> None:
        """Delete objects."""
        with self._explained("delete"):
            for name in names:
                self.client.delete_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")

    def refuse_skew(self) -> str:
        """Compare the clocks; return the difference in words.

        Raises:
            MeadowError: they differ so much that signatures will soon be refused.

        """
        difference = abs(datetime.now(UTC) - self.read())
        if difference > SKEW:
            raise MeadowError(
                f"this machine's clock is {difference.total_seconds():.0f} s off the server's; S3"
                " refuses 900 s. Set it: `timedatectl set-ntp true`."
            )
        return f"{difference.total_seconds():.0f} s apart"

    def _explained(self, action: str) -> AbstractContextManager[None]:
        local = f"`dvc remote modify --local {self.name}"
        endpoint = f"Run {local} endpointurl URL` with the right URL."
        advice = Advice(
            bucket=f"`make minio` makes it; or run {local} url s3://BUCKET/dvc` with the right"
            " name.",
            endpoint=endpoint,
            silent=f"Start it with `make minio`, or run {local} endpointurl URL` with the right"
            " URL.",
            key=f"Run {local} access_key_id ID`, or set AWS_ACCESS_KEY_ID.",
            secret=f"Run {local} secret_access_key KEY`, or set AWS_SECRET_ACCESS_KEY.",
            other_key=f"Ask its owner for the right, or run {local} access_key_id ID` with another"
            " key.",
            no_keys=f"Run `make minio`, or fill in {LOCAL}.example and save it as {LOCAL}, or set"
            " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
            authority=f"Run {local} ssl_verify /path/to/ca.pem` with the file of its CA.",
        )
        return s3.explained(self.endpoint, self.bucket, action, advice)
