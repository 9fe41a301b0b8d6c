"""Where MinIO and Alertmanager call: `POST /meadow/inbox`, `POST /meadow/drift`.

Airflow's own API takes none of their bodies. Here any body will do: it starts nothing but the DAGs
that wait for the asset, and they look at the inbox themselves.
"""

import hmac
import os
from typing import Annotated, Literal

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.assets.manager import asset_manager
from airflow.models.asset import AssetModel
from airflow.plugins_manager import AirflowPlugin
from fastapi import FastAPI, Header, HTTPException
from sqlalchemy import select

app = FastAPI(title="Meadow", openapi_url=None)


@app.post("/{name}", status_code=202)
def happened(
    name: Literal["inbox", "drift"], session: SessionDep, authorization: Annotated[str, Header()]
) -> None:
    """Record an event of an asset, for who has the token of MEADOW_WEBHOOK_TOKEN."""
    token = os.environ.get("MEADOW_WEBHOOK_TOKEN", "")
    if not token or not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
        raise HTTPException(401)
    asset = session.scalar(select(AssetModel).where(AssetModel.name == name))
    if asset is None:
        raise HTTPException(503, "the DAGs have not been read yet")
    asset_manager.register_asset_change(asset=asset, session=session)


class Meadow(AirflowPlugin):
    """What Airflow looks for."""

    name = "meadow"
    fastapi_apps = [{"app": app, "url_prefix": "/meadow", "name": "meadow"}]  # noqa: RUF012
