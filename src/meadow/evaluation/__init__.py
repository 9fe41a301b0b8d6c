"""Metrics, their intervals, the gate and doubtful labels; imports params, pipeline."""
