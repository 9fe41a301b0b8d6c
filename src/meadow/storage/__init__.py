"""Git, DVC, the remote and a MinIO server of one's own; imports pipeline."""
