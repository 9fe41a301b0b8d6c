"""The remote that keeps every version: an S3 bucket, reached with the settings that DVC uses."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import uuid4

import botocore.config
import botocore.session
from botocore import exceptions
from botocore.parsers import ResponseParserError
from dvc.config import ConfigError
from dvc.exceptions import DvcException
from dvc.repo import Repo

from meadow.errors import MeadowError
from meadow.pipeline.ports import ask_directly
from meadow.storage.local_config import LOCAL

TIMEOUT = 5  # seconds without a byte
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
                client = _client(remote.fs.fs_args)
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

    @contextmanager
    def _explained(self, action: str) -> Iterator[None]:
        local = f"`dvc remote modify --local {self.name}"
        try:
            yield
        except exceptions.ClientError as error:
            raise MeadowError(self._refusal(error, action, local)) from None
        except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
            raise MeadowError(
                f"there are no keys for {self.endpoint}. Run `make minio`, or fill in"
                f" {LOCAL}.example and save it as {LOCAL}, or set AWS_ACCESS_KEY_ID and"
                " AWS_SECRET_ACCESS_KEY."
            ) from None
        except exceptions.SSLError as error:
            raise MeadowError(
                f"the certificate of {self.endpoint} is not trusted: {_last(error)}. Run {local}"
                " ssl_verify /path/to/ca.pem` with the file of its CA."
            ) from None
        except exceptions.ReadTimeoutError:
            raise MeadowError(
                f"{self.endpoint} fell silent for {TIMEOUT} s when asked to {action}. Run this"
                " again; if it stays so, see the server's log."
            ) from None
        except exceptions.ProxyConnectionError as error:
            raise MeadowError(
                f"{self.endpoint} cannot be reached: {error}. Set http_proxy and https_proxy to"
                " http://HOST:PORT, or name the server's host in NO_PROXY."
            ) from None
        except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
            raise MeadowError(
                f"nothing answers at {self.endpoint}: {_last(error)}. Start it with `make minio`,"
                f" or run {local} endpointurl URL` with the right URL."
            ) from None
        except (exceptions.BotoCoreError, ResponseParserError, OSError, KeyError) as error:
            raise MeadowError(
                f"{self.endpoint} does not answer as S3 does: {error}. Run {local} endpointurl URL`"
                " with the right URL."
            ) from None

    def _refusal(self, error: exceptions.ClientError, action: str, local: str) -> str:
        code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]
        match code:
            case "NoSuchBucket":
                return (
                    f"there is no bucket {self.bucket!r} at {self.endpoint}. `make minio` makes it;"
                    f" or run {local} url s3://BUCKET/dvc` with the right name."
                )
            case "InvalidAccessKeyId":
                return (
                    f"{self.endpoint} does not know the access key. Run {local} access_key_id ID`,"
                    " or set AWS_ACCESS_KEY_ID."
                )
            case "SignatureDoesNotMatch":
                return (
                    f"{self.endpoint} refuses the secret key. Run {local} secret_access_key KEY`,"
                    " or set AWS_SECRET_ACCESS_KEY."
                )
            case "AccessDenied" | "AllAccessDisabled":
                return (
                    f"the key may not {action} in bucket {self.bucket!r} at {self.endpoint}. Ask"
                    f" its owner for the right, or run {local} access_key_id ID` with another key."
                )
            case "RequestTimeTooSkewed":
                return "this machine's clock is off the server's: `timedatectl set-ntp true`."
            case "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded":
                return (
                    f"the disk of {self.endpoint} is full. Nothing is lost here: make room there,"
                    " then run this again."
                )
        advice = (
            "Run this again; if it stays so, see the server's log."
            if status["HTTPStatusCode"] >= 500
            else f"Is it S3? Run {local} endpointurl URL`."
        )
        return (
            f"{self.endpoint} answers {status['HTTPStatusCode']} {code} to {action}:"
            f" {error.response['Error'].get('Message', '')} {advice}"
        )


def _client(arguments: dict[str, Any]) -> Any:
    """Return a client with the keys and settings that DVC gives to s3fs, that gives up early."""
    session = botocore.session.Session(profile=arguments.get("profile"))
    return session.create_client(
        "s3",
        use_ssl=arguments.get("use_ssl", True),
        config=botocore.config.Config(
            connect_timeout=TIMEOUT,
            read_timeout=TIMEOUT,
            retries={"total_max_attempts": 1},
            # Else botocore 1.43 trips over a server's error about a damaged object.
            response_checksum_validation="when_required",
            s3=arguments.get("config_kwargs", {}).get("s3"),
        ),
        aws_access_key_id=arguments.get("key"),
        aws_secret_access_key=arguments.get("secret"),
        aws_session_token=arguments.get("token"),
        **arguments.get("client_kwargs", {}),
    )


def _last(error: Exception) -> str:
    """Return the innermost reason of an error of botocore, which wraps it twice."""
    return str(error).rpartition(": ")[2].strip("')>\"")
