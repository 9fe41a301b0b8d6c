"""A client of S3 with the settings that DVC has, and what its errors mean to whoever reads them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import botocore.config
import botocore.session
from botocore import UNSIGNED, exceptions
from botocore.parsers import ResponseParserError

from meadow.errors import MeadowError

TIMEOUT = 5  # seconds without a byte


@dataclass(frozen=True)
class Advice:
    """What mends a setting of a bucket: sentences for the end of a message.

    Attributes:
        bucket: names one that is there.
        endpoint: sets the server's URL.
        silent: starts a server that does not answer, or sets its URL.
        key, secret: set these.
        other_key: has the right, or asks for it.
        no_keys: gives keys at all.
        authority: trusts the server's certificate.

    """

    bucket: str
    endpoint: str
    silent: str
    key: str
    secret: str
    other_key: str
    no_keys: str
    authority: str


def client(arguments: dict[str, Any], *, attempts: int = 1, connections: int = 10) -> Any:
    """Return a client with the keys and settings that DVC gives to s3fs, that gives up early.

    Args:
        arguments: of s3fs.
        attempts: of a request.
        connections: at the same time.

    """
    session = botocore.session.Session(profile=arguments.get("profile"))
    return session.create_client(
        "s3",
        use_ssl=arguments.get("use_ssl", True),
        config=botocore.config.Config(
            connect_timeout=TIMEOUT,
            read_timeout=TIMEOUT,
            retries={"total_max_attempts": attempts, "mode": "standard"},
            max_pool_connections=connections,
            signature_version=UNSIGNED if arguments.get("anon") else None,
            # Else botocore 1.43 trips over a server's error about a damaged object.
            response_checksum_validation="when_required",
            s3=arguments.get("config_kwargs", {}).get("s3"),
        ),
        aws_access_key_id=arguments.get("key"),
        aws_secret_access_key=arguments.get("secret"),
        aws_session_token=arguments.get("token"),
        **arguments.get("client_kwargs", {}),
    )


@contextmanager
def explained(endpoint: str, bucket: str, action: str, advice: Advice) -> Iterator[None]:
    """Turn errors of botocore into one sentence on what is wrong, and one on what mends it.

    Raises:
        MeadowError: instead of them.

    """
    try:
        yield
    except exceptions.ClientError as error:
        raise MeadowError(_refusal(error, endpoint, bucket, action, advice)) from None
    except (exceptions.NoCredentialsError, exceptions.PartialCredentialsError):
        raise MeadowError(f"there are no keys for {endpoint}. {advice.no_keys}") from None
    except exceptions.SSLError as error:
        raise MeadowError(
            f"the certificate of {endpoint} is not trusted: {_last(error)}. {advice.authority}"
        ) from None
    except exceptions.ReadTimeoutError:
        raise MeadowError(
            f"{endpoint} fell silent for {TIMEOUT} s when asked to {action}. Run this again; if it"
            " stays so, see the server's log."
        ) from None
    except exceptions.ProxyConnectionError as error:
        raise MeadowError(
            f"{endpoint} cannot be reached: {error}. Set http_proxy and https_proxy to"
            " http://HOST:PORT, or name the server's host in NO_PROXY."
        ) from None
    except (exceptions.ConnectionError, exceptions.HTTPClientError) as error:
        raise MeadowError(
            f"nothing answers at {endpoint}: {_last(error)}. {advice.silent}"
        ) from None
    except (exceptions.BotoCoreError, ResponseParserError, OSError, KeyError) as error:
        raise MeadowError(
            f"{endpoint} does not answer as S3 does: {error}. {advice.endpoint}"
        ) from None


def _refusal(
    error: exceptions.ClientError, endpoint: str, bucket: str, action: str, advice: Advice
) -> str:
    code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]
    match code:
        case "NoSuchBucket":
            return f"there is no bucket {bucket!r} at {endpoint}. {advice.bucket}"
        case "InvalidAccessKeyId":
            return f"{endpoint} does not know the access key. {advice.key}"
        case "SignatureDoesNotMatch":
            return f"{endpoint} refuses the secret key. {advice.secret}"
        case "AccessDenied" | "AllAccessDisabled":
            return (
                f"the key may not {action} in bucket {bucket!r} at {endpoint}. {advice.other_key}"
            )
        case "RequestTimeTooSkewed":
            return "this machine's clock is off the server's: `timedatectl set-ntp true`."
        case "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded":
            return (
                f"the disk of {endpoint} is full. Nothing is lost here: make room there, then run"
                " this again."
            )
    mend = (
        "Run this again; if it stays so, see the server's log."
        if status["HTTPStatusCode"] >= 500
        else f"Is it S3? {advice.endpoint}"
    )
    return (
        f"{endpoint} answers {status['HTTPStatusCode']} {code} to {action}:"
        f" {error.response['Error'].get('Message', '')} {mend}"
    )


def _last(error: Exception) -> str:
    """Return the innermost reason of an error of botocore, which wraps it twice."""
    return str(error).rpartition(": ")[2].strip("')>\"")
