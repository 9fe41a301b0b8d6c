"""Commits and experiments as runs of an MLflow server: a view of them, which Git and DVC keep."""
