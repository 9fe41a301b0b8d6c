"""From a release to pods that answer: the image, the cluster, the canary."""
