"""Photos that are kept for people to label: those that the model is unsure of, and some by chance.

A thread that gives way to all others writes them. It strips them first: no place, no camera, no
name of a file. A folder may be shared by several workers, and by services.
"""

import hashlib
import json
import logging
import os
import random
import re
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

from meadow.errors import MeadowError
from meadow.inference.classifier import Answer
from meadow.inference.signals import DIGITS
from meadow.serving.pool import give_way
from meadow.serving.settings import Settings
from meadow.serving.stripping import stripped
from meadow.serving.telemetry import Ids, Telemetry

WAITING = 64  # photos
HELD = 32 * 2**20  # bytes of photos that wait
SWEEP = 600  # seconds from one look at the folder to the next, at most
BLOCK = 4096  # bytes: what is counted of a file is a multiple of it
DAY = 86_400
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}-[0-9a-f]{12}\.(jpg|png|json)(\.part)?")
UNFINISHED = 60  # seconds after which nobody writes on a `.part` any more
log = logging.getLogger("meadow")


@dataclass(frozen=True)
class Taken:
    """A photo that waits to be written, and what is written beside it."""

    photo: bytes
    about: dict[str, Any]


class Keeper:
    """Keeps photos in a folder of bounded size, for a bounded time.

    Args:
        settings: which, where, how much, how long.
        classes: names, in the order of the probabilities.
        version: of the model.
        telemetry: counts.

    Raises:
        MeadowError: no folder is named, or it cannot be written to.

    """

    def __init__(
        self, settings: Settings, classes: Sequence[str], version: str, telemetry: Telemetry
    ) -> None:
        assert settings.keep  # noqa: S101  # else there is nothing to do
        if not settings.keep_dir:
            raise MeadowError("MEADOW_KEEP is set, and MEADOW_KEEP_DIR is not. Set it to a folder.")
        self.settings, self.telemetry = settings, telemetry
        self.chosen = settings.keep
        self.classes, self.version = classes, version
        self.folder = settings.keep_dir
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            usable = os.access(self.folder, os.W_OK | os.X_OK)
        except OSError:
            usable = False
        if not usable:
            raise MeadowError(
                f"MEADOW_KEEP_DIR={str(self.folder)!r} is no folder that can be written to. Name"
                " one, or mount a volume there."
            )
        self.waiting: Queue[Taken | None] = Queue(WAITING)
        self.held = 0  # bytes of the photos that wait; a part too much where two threads meet
        self.room = 0  # bytes that may be written before the next look at the folder
        self.workers = max(1, settings.workers)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def offer(self, photo: bytes, answer: Answer, ids: Ids) -> list[str]:
        """Take a photo if the settings say so; returns at once.

        Returns:
            Why it is kept, of `telemetry.WHY`; nothing where it is not.

        """
        keep = self.chosen
        reasons = {
            "unsure": keep.unsure and answer.prediction_set.sum() != 1,
            "far": keep.far and not answer.in_distribution,
            "random": random.random() < keep.random,
        }
        why = [name for name, holds in reasons.items() if holds]
        if not why:
            return []
        probabilities = (round(float(p), DIGITS) for p in answer.probabilities)
        about = {
            "request_id": ids["request_id"],
            "photo": ids["photo"],
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "model": self.version,
            "kept": why,
            "label": self.classes[answer.best],
            "probabilities": dict(zip(self.classes, probabilities, strict=True)),
            "prediction_set": answer.to_dict(self.classes)["prediction_set"],
            "in_distribution": answer.in_distribution,
        }
        try:
            if self.held + len(photo) > HELD:
                raise Full
            self.waiting.put_nowait(Taken(photo, about))
        except Full:
            self.telemetry.not_kept.inc()
            return []
        self.held += len(photo)
        return why

    def close(self) -> None:
        """Write what is left, for two seconds at most."""
        try:
            self.waiting.put(None, timeout=1)
        except Full:
            return
        self.thread.join(2)

    def _run(self) -> None:
        give_way(19)
        pause = min(SWEEP, self.settings.keep_days * DAY / 10)
        due = 0.0
        while True:
            if time.monotonic() >= due:
                try:
                    self._sweep()
                except OSError as error:
                    log.warning("the folder of kept photos: %r", error)
                due = time.monotonic() + pause
            try:
                taken = self.waiting.get(timeout=pause)
            except Empty:
                continue
            if taken is None:
                return
            self._keep(taken)

    def _keep(self, taken: Taken) -> None:
        try:
            self._write(taken)
            for why in taken.about["kept"]:
                self.telemetry.kept[why].inc()
        except Exception as error:  # a full disk, a file that Pillow alone can read
            self.telemetry.not_kept.inc()
            log.warning("request %s: the photo is not kept: %r", taken.about["request_id"], error)
        finally:
            self.held -= len(taken.photo)

    def _write(self, taken: Taken) -> None:
        photo, suffix = stripped(taken.photo, self.settings.max_pixels)
        about = json.dumps(taken.about, ensure_ascii=False).encode()
        size = _blocks(len(photo)) + _blocks(len(about))
        if size * self.workers > self.settings.keep_max:
            raise ValueError(f"{size:,} bytes are too many for MEADOW_KEEP_MAX")
        if size > self.room:
            self._sweep(size)
        self.room -= size
        stem = file_stem(taken.about["request_id"], photo)
        for name, content in ((f"{stem}{suffix}", photo), (f"{stem}.json", about)):
            part = self.folder / f"{name}.part"
            part.write_bytes(content)
            part.replace(self.folder / name)

    def _sweep(self, wanted: int = 0) -> None:
        """Remove what is too old, and the oldest until so many bytes fit; see what room is left.

        Each worker may fill its share of the room before it looks again, so that all together do
        not exceed the whole.
        """
        now = time.time()
        sizes: dict[str, int] = defaultdict(int)
        ages: dict[str, float] = defaultdict(float)  # of a photo with what is beside it
        for entry in os.scandir(self.folder):
            if not NAME.fullmatch(entry.name):
                continue
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue
            stem = entry.name.partition(".")[0]
            sizes[stem] += _blocks(status.st_size)
            ages[stem] = max(ages[stem], now - status.st_mtime)
            if entry.name.endswith(".part") and now - status.st_mtime > UNFINISHED:
                Path(entry.path).unlink(missing_ok=True)
        total, most = sum(sizes.values()), self.settings.keep_max
        if (most - total) // self.workers < wanted:
            # a tenth at once: a full folder is not looked through for each photo
            most -= max(most // 10, self.workers * wanted)
        for stem in sorted(sizes, key=lambda stem: -ages[stem]):
            if ages[stem] < self.settings.keep_days * DAY and total <= most:
                break
            remove(self.folder, stem)
            total -= sizes[stem]
        self.room = max(0, self.settings.keep_max - total) // self.workers


def file_stem(request_id: str, photo: bytes) -> str:
    """Return the name of a kept photo without its suffix: one that every system can hold."""
    return f"{plain(request_id)}-{hashlib.sha256(photo).hexdigest()[:12]}"


def plain(request_id: str) -> str:
    """Return a request id as it stands in names of files."""
    return re.sub("[^A-Za-z0-9_-]", "_", request_id)


def remove(folder: Path, stem: str) -> None:
    """Remove a kept photo, and what is beside it."""
    for suffix in ("json", "jpg", "png"):
        (folder / f"{stem}.{suffix}").unlink(missing_ok=True)


def _blocks(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
