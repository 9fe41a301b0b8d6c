"""Weights, networks, features, heads and fine-tuning; imports inference, params, pipeline."""
