"""Print keys of the DVC remote, good for an hour, as lines NAME=VALUE.

The job's OIDC token is exchanged for keys of ROLE, at AWS STS or at that of STS_URL, as of MinIO:
no key is stored in the CI. Once, as a token lasts 5 minutes and a job longer.
"""

import os
import subprocess
import sys
from pathlib import Path

import botocore.session
from botocore import UNSIGNED
from botocore.config import Config

AUDIENCE = "sts.amazonaws.com"

oidc = [Path(__file__).with_name("oidc"), AUDIENCE]
token = subprocess.run(oidc, check=True, capture_output=True, text=True).stdout.strip()
sts = botocore.session.get_session().create_client(
    "sts",
    endpoint_url=os.environ.get("STS_URL") or None,
    region_name=os.environ.get("AWS_REGION", "us-east-1"),
    config=Config(signature_version=UNSIGNED),
)
keys = sts.assume_role_with_web_identity(
    RoleArn=os.environ["ROLE"], RoleSessionName="meadow-ci", WebIdentityToken=token
)["Credentials"]
for name, key in {
    "AWS_ACCESS_KEY_ID": "AccessKeyId",
    "AWS_SECRET_ACCESS_KEY": "SecretAccessKey",
    "AWS_SESSION_TOKEN": "SessionToken",
}.items():
    print(f"::add-mask::{keys[key]}", file=sys.stderr)  # GitHub hides it in its logs
    print(f"{name}={keys[key]}")
