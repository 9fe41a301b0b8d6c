"""Metrics, their intervals, the gate and doubtful labels; imports inference, params, pipeline."""
