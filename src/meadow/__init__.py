"""Meadow turns a folder of labelled photos into a served, versioned classifier."""

import os

# ONNX Runtime reads it at its import; `disable_telemetry_events` would come after the first report.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
