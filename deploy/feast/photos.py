"""Frozen features of photos, as of each commit whose export lies in the bucket."""

import os
from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, String

photo = Entity(
    name="photo",
    join_keys=["photo"],
    value_type=ValueType.STRING,
    description="SHA-256 of a photo's file",
)

exports = FileSource(
    name="exports",
    path=os.environ["MEADOW_FEATURES"],  # s3://BUCKET/FOLDER, a Parquet file for each commit
    s3_endpoint_override=os.environ.get("AWS_ENDPOINT_URL", ""),
    timestamp_field="committed",
)

photo_features = FeatureView(
    name="photo_features",
    entities=[photo],
    ttl=timedelta(0),  # what a commit said holds until another one says otherwise
    schema=[
        Field(name="path", dtype=String),
        Field(name="label", dtype=String),
        Field(name="split", dtype=String),
        Field(name="network", dtype=String),
        Field(name="vector", dtype=Array(Float32)),
    ],
    source=exports,
)
