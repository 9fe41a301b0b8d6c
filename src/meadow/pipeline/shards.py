"""Pixels of many photos in files of bounded size: train-00000.npy, train-00001.npy, and so on.

Each holds uint8, (n, size, size, 3), in NumPy's format. After which photos a shard ends, their
hashes say. So a photo that comes or goes changes the shard that it is in, and seldom one more; of
the others the DVC cache and the remote have the bytes already.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meadow.errors import MeadowError

MOST = 256_000_000  # bytes of a shard


class Spool:
    """Pixels of all photos in the order in which they were seen, on disk until the split is known.

    A context manager that makes `folder`; its own file there goes away at the end.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.path = folder / "spool"
        self.shape = (size, size, 3)

    def __enter__(self) -> "Spool":
        self.path.parent.mkdir()
        self.file = self.path.open("w+b")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.path.unlink()

    def append(self, pixels: NDArray[np.uint8]) -> None:
        """Add one photo, (size, size, 3)."""
        self.file.write(pixels.data)

    def pack(self, places: Sequence[int], hashes: Sequence[str], name: str) -> None:
        """Write the photos at these places, with these SHA-256, as the shards of this name."""
        photo = math.prod(self.shape)
        for number, part in enumerate(_parts(hashes, MOST // photo)):
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(part), *self.shape)}
            with self.path.with_name(f"{name}-{number:05}.npy").open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                for i in part:
                    self.file.seek(places[i] * photo)
                    file.write(self.file.read(photo))


def _parts(hashes: Sequence[str], most: int) -> Iterator[range]:
    """Divide n photos, by the hashes alone, into parts of `most` at most and half of it usually."""
    start = 0
    for end, sha256 in enumerate(hashes, 1):
        ends = int(sha256[:16], 16) % max(most // 2, 1) == 0
        if ends or end - start == most or end == len(hashes):
            yield range(start, end)
            start = end


class Pixels:
    """The pixels of n photos, uint8, (n, size, size, 3), read from shards when they are asked for.

    `pixels[i]`, `pixels[a:b]` and `pixels[[i, j]]` are new arrays; nothing is mapped or kept, and
    threads may read at the same time.
    """

    def __init__(self, folder: Path, name: str) -> None:
        """Look at the shards of this name.

        Raises:
            MeadowError: there are none, or a damaged one.

        """
        self._files = sorted(folder.glob(f"{name}-*.npy"))
        try:
            shards = [np.load(file, mmap_mode="r", allow_pickle=False) for file in self._files]
            self._offsets = [shard.offset for shard in shards]
            self._ends = np.cumsum([len(shard) for shard in shards])
            self.shape: tuple[int, ...] = (int(self._ends[-1]), *shards[0].shape[1:])
        except (ValueError, EOFError, IndexError):
            raise MeadowError(f"{folder} is damaged. Run `dvc repro prepare`.") from None

    def __len__(self) -> int:
        """Return n."""
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """Read one photo after the other."""
        return (self[i] for i in range(len(self)))

    def __getitem__(
        self, rows: int | slice | Sequence[int] | NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Read photos; those that lie behind one another in a shard at once.

        Raises:
            IndexError: there is no such photo.
            MeadowError: the file has become shorter.

        """
        chosen = range(len(self))[rows] if isinstance(rows, int | slice) else rows
        places = np.atleast_1d(np.asarray(chosen, np.int64))
        if places.size and not 0 <= places.min() <= places.max() < len(self):
            raise IndexError(f"{rows} of {len(self)} photos")
        pixels = np.empty((len(places), *self.shape[1:]), np.uint8)
        shards = np.searchsorted(self._ends, places, side="right")
        breaks = np.flatnonzero((np.diff(places) != 1) | (np.diff(shards) != 0)) + 1
        for run in np.split(np.arange(len(places)), breaks):
            if run.size:
                self._read(shards[run[0]], places[run[0]], pixels[run[0] : run[-1] + 1])
        return pixels[0] if isinstance(rows, int) else pixels

    def _read(self, shard: int, place: int, pixels: NDArray[np.uint8]) -> None:
        first = self._ends[shard - 1] if shard else 0
        file = self._files[shard]
        with file.open("rb", buffering=0) as stream:
            stream.seek(self._offsets[shard] + int(place - first) * math.prod(self.shape[1:]))
            if stream.readinto(pixels.data) != pixels.nbytes:
                raise MeadowError(f"{file} is damaged. Run `dvc repro prepare`.")
