"""What the files of a photo set show before anything is learned: odd photos, leaks, faults."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from meadow.curation import near_duplicates
from meadow.curation.inspection import BadPhoto, GoodPhoto
from meadow.curation.survey import Survey, two_labels
from meadow.pipeline import splits
from meadow.pipeline.hashing import hash_fraction
from meadow.reporting import metadata_leakage
from meadow.reporting.metadata_leakage import Leak

NEIGHBOUR, REFERENCE = 5, 1000  # of the outliers: which neighbour counts, of how many photos
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PhotoSet:
    """A set of photos, and what in it needs a look.

    Attributes:
        survey: all files; the rest is about the n photos that prepare would keep, by path.

    """

    survey: Survey

    @cached_property
    def photos(self) -> list[GoodPhoto]:
        """The photos that prepare would keep."""
        return [self.survey.photos[i] for i in self.survey.originals]

    @cached_property
    def by_class(self) -> dict[str, list[int]]:
        """Places of the photos of each class, by name."""
        places = defaultdict(list)
        for i, photo in enumerate(self.photos):
            places[photo.file.label].append(i)
        return dict(sorted(places.items()))

    @cached_property
    def duplicates(self) -> list[list[GoodPhoto]]:
        """Groups of photos that are the same or nearly so; those with two labels first."""
        return sorted(
            self.survey.duplicates, key=lambda group: (not two_labels(group), -len(group))
        )

    @cached_property
    def left_out(self) -> list[BadPhoto]:
        """What prepare would leave out, by path."""
        return sorted(self.survey.left_out, key=lambda bad: bad.file.path)

    @cached_property
    def brightness(self) -> Floats:
        """Mean of each photo's 4x4 thumbnail over the three colours, 0 to 255, (n,)."""
        mean: Floats = self._colours.mean(axis=1, dtype=np.float64)
        return mean

    @cached_property
    def short_side(self) -> Floats:
        """Shorter side of each photo, pixels, (n,)."""
        return np.array([min(photo.width, photo.height) for photo in self.photos], np.float64)

    @cached_property
    def kilobytes(self) -> Floats:
        """Size of each photo's file, (n,)."""
        return np.array([photo.size / 1000 for photo in self.photos])

    @cached_property
    def outliers(self) -> list[GoodPhoto]:
        """The photos least like the others of their class, the least first.

        By the distance to the k-th nearest photo that is no near-duplicate, in the colours of the
        thumbnail and the contrast.
        """
        grey = self._fingerprints[:, : near_duplicates.SIDE**2]
        contrast = grey.std(axis=1, dtype=np.float64)
        points = np.column_stack([self._colours.astype(np.float64) / 255, contrast / 64])
        groups = np.array(self._groups)
        distance = np.zeros(len(self.photos))
        with threadpool_limits(1):  # the same sums on every machine
            for places in self.by_class.values():
                order = sorted(places, key=lambda i: hash_fraction(self.photos[i].sha256))
                reference = order[:REFERENCE]
                k = min(NEIGHBOUR, len(reference) - 1)
                for i in places:
                    away = np.sqrt(((points[reference] - points[i]) ** 2).sum(axis=1))
                    away = np.sort(away[groups[reference] != groups[i]])
                    distance[i] = away[min(k, len(away)) - 1] if len(away) else 0
        order = sorted(range(len(distance)), key=lambda i: (-round(float(distance[i]), 6), i))
        return [self.photos[i] for i in order]

    @cached_property
    def leaks(self) -> list[Leak]:
        """What the files alone say of the classes; see `metadata_leakage.check`."""
        names = list(self.by_class)
        formats = sorted({photo.format for photo in self.photos})
        sizes = [(photo.size, photo.width, photo.height) for photo in self.photos]
        size, width, height = np.array(sizes, np.float64).reshape(-1, 3).T
        columns = {
            "file size": size,
            "width": width,
            "height": height,
            "shape (width / height)": width / height,
            "bytes per pixel": size / (width * height),
            "file format": np.array([formats.index(p.format) for p in self.photos], np.float64),
        }
        targets = np.array([names.index(photo.file.label) for photo in self.photos], np.int64)
        return metadata_leakage.check(columns, targets, self._groups, len(names))

    @property
    def warnings(self) -> list[str]:
        """What needs a look, the gravest first."""
        warnings = []
        if conflicts := sum(map(two_labels, self.duplicates)):
            warnings.append(
                f"near-duplicates with two labels: {conflicts}. prepare fails, or leaves them out"
                " (prepare.on_two_labels), until each group is in one class, by its folder or by"
                " `meadow review`."
            )
        warnings += [
            f"{problem}; prepare needs {len(splits.SPLITS)} different ones."
            for problem in self.survey.too_small
        ]
        if leak := next((leak for leak in self.leaks if leak.significant), None):
            warnings.append(
                f"{leak.accuracy:.0%} of the photos ({leak.low:.0%} to {leak.high:.0%}) are"
                f" classified correctly by {leak.name}, without a look at them; the largest class"
                f" has {leak.chance:.0%}. A model may learn how the photos were collected"
                " instead of what they show."
            )
        return warnings

    @cached_property
    def _groups(self) -> list[str]:
        return [self.survey.groups[i] for i in self.survey.originals]

    @cached_property
    def _fingerprints(self) -> NDArray[np.uint8]:
        return self.survey.fingerprints[self.survey.originals]

    @property
    def _colours(self) -> NDArray[np.uint8]:
        return self._fingerprints[:, near_duplicates.SIDE**2 :]
