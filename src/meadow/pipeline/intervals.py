"""The interval of a share."""

import math
from statistics import NormalDist

Z95 = NormalDist().inv_cdf(0.975)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    share = hits / n
    middle = share + Z95**2 / (2 * n)
    half = Z95 * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    scale = 1 + Z95**2 / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
