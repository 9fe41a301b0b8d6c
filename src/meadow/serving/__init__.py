"""The HTTP service around a classifier, its starter and its client; imports inference, pipeline."""
