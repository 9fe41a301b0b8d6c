"""How fast packed photos are read, in the order of the set and shuffled, from files of four kinds.

Run it as `python bench/shards.py [PHOTOS]`. Each kind is read in batches of 16, from a warm page
cache; medians of five rounds. The default backbone takes some 13 ms a photo on a core.
"""

import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import feather, parquet

from meadow.pipeline.shards import Pixels, Spool

SIZE, BATCH, ROUNDS, GROUP = 288, 16, 5, 64
PHOTO = SIZE * SIZE * 3
Read = Callable[[NDArray[np.int64]], object]


def main() -> None:
    """Print a table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(32).hex() for _ in range(count)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "prepared")
        with Spool(folder, SIZE) as spool:
            for _ in range(count):
                spool.append(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8))
            spool.pack(range(count), hashes, "train")
        readers = kinds(folder, Pixels(folder, "train"))
        orders = {"in order": np.arange(count), "shuffled": rng.permutation(count)}
        seconds = defaultdict[tuple[str, str], list[float]](list)
        for _ in range(ROUNDS):
            for order, places in orders.items():
                for name, read in readers.items():
                    part = places[: 4 * BATCH] if "Parquet" in name else places
                    started = time.perf_counter()
                    for first in range(0, len(part), BATCH):
                        read(part[first : first + BATCH])
                    seconds[order, name].append((time.perf_counter() - started) / len(part))
        print(f"| {count} photos | " + " | ".join(orders) + " |\n|---|" + "--:|" * len(orders))
        for name in readers:
            medians = [1000 * float(np.median(seconds[order, name])) for order in orders]
            print(f"| {name} | " + " | ".join(f"{median:.3f} ms" for median in medians) + " |")


def kinds(folder: Path, pixels: Pixels) -> dict[str, Read]:
    """Write the photos in each kind; return what reads some of them into memory."""
    everything = np.concatenate([pixels[i : i + 500] for i in range(0, len(pixels), 500)])
    np.save(folder / "one.npy", everything)
    column = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(PHOTO), len(everything), [None, pa.py_buffer(everything)]
    )
    table = pa.table({"pixels": column})
    parquet.write_table(
        table, folder / "one.parquet",
        compression="none", use_dictionary=False, row_group_size=GROUP, write_statistics=False,
    )  # fmt: skip
    feather.write_feather(table, folder / "one.arrow", compression="uncompressed")
    mapped = np.load(folder / "one.npy", mmap_mode="r")
    arrow = feather.read_table(folder / "one.arrow", memory_map=True)["pixels"]
    groups = parquet.ParquetFile(folder / "one.parquet")

    def from_arrow(places: NDArray[np.int64]) -> object:
        return np.stack([np.frombuffer(arrow[int(i)].as_buffer(), np.uint8) for i in places])

    def from_parquet(places: NDArray[np.int64]) -> object:
        needed = sorted({int(i) // GROUP for i in places})
        read = groups.read_row_groups(needed)["pixels"]
        first = {group: GROUP * k for k, group in enumerate(needed)}
        return [read[first[int(i) // GROUP] + int(i) % GROUP].as_buffer() for i in places]

    return {
        "one .npy file, memory-mapped, as before": lambda places: np.array(mapped[places]),
        "shards of .npy": lambda places: pixels[places],
        "Arrow IPC, memory-mapped": from_arrow,
        f"Parquet, groups of {GROUP}": from_parquet,
    }


if __name__ == "__main__":
    main()
