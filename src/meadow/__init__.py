"""Meadow turns a folder of labelled photos into a served, versioned classifier."""
