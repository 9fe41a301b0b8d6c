"""Meadow turns a folder of labelled photos into a served, versioned classifier."""

import os

# ONNX Runtime reads it at its import; `disable_telemetry_events` would come after the first report.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
# With these OpenBLAS, NumPy, PyTorch and oneDNN take other kernels, which round differently. They
# read them at their import, which comes after this one: a stage's bytes depend on no shell.
for _name in (
    "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES",
    "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA",
):  # fmt: skip
    os.environ.pop(_name, None)
