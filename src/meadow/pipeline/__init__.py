"""What the stages share: photos, manifest, whole files, threads, cache; imports errors."""
