"""Photos in an S3 bucket, reached with the settings that DVC uses for the same address."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from http.client import PARTIAL_CONTENT
from typing import Any

from botocore import exceptions
from botocore.awsrequest import AWSRequest
from dvc.config import Config, ConfigError
from dvc.exceptions import DvcException
from dvc.fs import get_cloud_fs

from meadow.errors import MeadowError
from meadow.pipeline import s3
from meadow.pipeline.image import PhotoError
from meadow.pipeline.ports import ask_directly

ATTEMPTS = 5  # of a request that gets no answer, and of an answer that breaks off
CONNECTIONS = 100
BROKEN = (
    exceptions.ConnectionClosedError,
    exceptions.IncompleteReadError,
    exceptions.ReadTimeoutError,
    exceptions.ResponseStreamingError,
)


@dataclass(frozen=True)
class Bucket:
    """A part of a bucket. It can be sent to another process, with its keys.

    Attributes:
        url: as it was given: s3://BUCKET/PREFIX, or remote://NAME/PATH in a remote of DVC.
        path: the bucket and, after a slash, the prefix of all keys.
        arguments: of the client, as DVC gives them to s3fs.

    """

    url: str
    path: str
    arguments: dict[str, Any] = field(repr=False, compare=False)

    @classmethod
    def find(cls, url: str) -> "Bucket":
        """Read DVC's settings for an address, and those of AWS in the environment.

        Raises:
            MeadowError: there is no such remote, it is none of S3, or a setting is wrong.

        """
        try:
            kind, settings, path = get_cloud_fs(Config(".dvc"), url=url)
            if kind.protocol == "s3" and path:
                ask_directly(settings.get("endpointurl") or "")
                return cls(url, path.rstrip("/"), kind(**settings).fs_args)
        except (ConfigError, DvcException, ImportError, ValueError) as error:
            raise MeadowError(
                f"the settings of {url} are wrong: {error}. See .dvc/config and .dvc/config.local."
            ) from None
        raise MeadowError(
            f"{url!r} is in no S3 bucket. Write s3://BUCKET/FOLDER, or remote://NAME/FOLDER with"
            " the name of a remote in .dvc/config."
        )

    def __str__(self) -> str:
        """Return the address."""
        return self.url

    @cached_property
    def _client(self) -> Any:
        try:
            return s3.client(self.arguments, attempts=ATTEMPTS, connections=CONNECTIONS)
        except (exceptions.BotoCoreError, ValueError) as error:
            raise MeadowError(
                f"the settings of {self.url} are wrong: {error}. See .dvc/config,"
                " .dvc/config.local and the AWS variables."
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the client, which stays in its process."""
        return {name: getattr(self, name) for name in ("url", "path", "arguments")}

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield the path below the prefix and the bytes of each object, page by page.

        Raises:
            MeadowError: there is no such bucket, or it may not be listed.

        """
        bucket, prefix = self._place("")
        with s3.explained(self._endpoint, bucket, "list", self._advice):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=bucket, Prefix=prefix
            )
            for page in pages:
                for item in page.get("Contents", []):
                    yield item["Key"][len(prefix) :], item["Size"]

    def read(self, path: str, most: int) -> bytes:
        """Read an object.

        Args:
            path: below the prefix.
            most: bytes that it may have.

        Raises:
            PhotoError: it has more.
            MeadowError: it is not there any more, or the server does not give it.

        """
        bucket, key = self._place(path)
        with s3.explained(self._endpoint, bucket, f"read {key!r}", self._advice):
            for attempt in range(ATTEMPTS):
                try:
                    return self._get(bucket, key, most)
                except exceptions.ClientError as error:
                    if error.response["Error"]["Code"] == "NoSuchKey":
                        raise MeadowError(
                            f"{path!r} is not in {self} any more: somebody has removed it since it"
                            " was listed. Run `dvc repro`."
                        ) from FileNotFoundError(key)
                    raise
                except BROKEN:
                    if attempt + 1 == ATTEMPTS:
                        raise
        raise AssertionError

    def _get(self, bucket: str, key: str, most: int) -> bytes:
        """Return the whole of an object.

        By a signed URL: that takes three fifths of the processor's time of botocore's own call, and
        there is one for each photo. Whatever else the server answers is left to botocore.
        """
        where = {"Bucket": bucket, "Key": key}
        part = {"Range": f"bytes=0-{most}"}
        url = self._client.generate_presigned_url("get_object", Params=where | part)
        request = AWSRequest("GET", url, headers=part)
        answer = self._client._endpoint.http_session.send(request.prepare())
        if answer.status_code == PARTIAL_CONTENT:
            data, length = bytes(answer.content), int(answer.headers["Content-Length"])
            if len(data) < length:
                raise exceptions.IncompleteReadError(actual_bytes=len(data), expected_bytes=length)
        else:
            body = self._client.get_object(**where)
            length = body["ContentLength"]
            data = b"" if length > most else body["Body"].read()
        if length > most:
            raise PhotoError("too_large", f"more than {most:,} bytes")
        return data

    def _place(self, path: str) -> tuple[str, str]:
        bucket, _, prefix = self.path.partition("/")
        return bucket, f"{prefix}/{path}" if prefix else path

    @property
    def _endpoint(self) -> str:
        return str(self._client.meta.endpoint_url)

    @property
    def _advice(self) -> s3.Advice:
        def setting(option: str, variable: str) -> str:
            if self.url.startswith("s3:"):
                return f"set {variable}"
            name = self.url.removeprefix("remote://").partition("/")[0]
            return f"run `dvc remote modify --local {name} {option} VALUE`"

        key, secret = (
            setting("access_key_id", "AWS_ACCESS_KEY_ID"),
            setting("secret_access_key", "AWS_SECRET_ACCESS_KEY"),
        )
        endpoint = setting("endpointurl", "AWS_ENDPOINT_URL")
        return s3.Advice(
            bucket=f"Correct the address {self.url}, or {endpoint} with another server's URL.",
            endpoint=f"Correct its URL: {endpoint}.",
            silent=f"Start it, or correct its URL: {endpoint}.",
            key=f"Correct it: {key}.",
            secret=f"Correct it: {secret}.",
            other_key=f"Ask its owner for the right, or take another key: {key}.",
            no_keys=f"Give them: {key} and {secret}.",
            authority=f"Name the file of its CA: {setting('ssl_verify', 'AWS_CA_BUNDLE')}.",
        )
