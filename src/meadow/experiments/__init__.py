"""Recipes, sweeps and the comparison of versions; imports reporting, evaluation, storage."""
