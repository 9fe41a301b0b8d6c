"""A second model that answers the same photos beside the first: no client sees or waits for it.

It works on one thread that gives way to all others. A photo that finds photos waiting for the first
model, or too many for the second, is passed over, and counted.
"""

import asyncio
import logging
from collections.abc import Callable

from meadow.errors import MeadowError
from meadow.inference.classifier import Answer, Classifier
from meadow.serving.pool import Classified, Pool, classify
from meadow.serving.refusals import Refused
from meadow.serving.telemetry import SHARES, Ids, Telemetry, event

WAITING = 4  # photos, whose bytes are held
OUTCOMES = ("agreed", "differed", "dropped", "failed")
log = logging.getLogger("meadow")


class Shadow:
    """The second model, warm.

    Args:
        classifier: the second model.
        first: the model whose answers clients get.
        busy: tells whether photos wait for the first model.
        max_pixels: of a photo.
        telemetry: writes the events.

    Raises:
        MeadowError: the two cannot be compared.
        ArithmeticError: the network's output is not finite.

    """

    def __init__(
        self,
        classifier: Classifier,
        first: Classifier,
        busy: Callable[[], bool],
        max_pixels: int,
        telemetry: Telemetry,
    ) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        if list(classifier.classes) != list(first.classes):
            raise MeadowError(
                f"MEADOW_SHADOW has the classes {', '.join(classifier.classes)}, MEADOW_MODEL has"
                f" {', '.join(first.classes)}. Set MEADOW_SHADOW to a model of the same classes."
            )
        if classifier.version == first.version:
            raise MeadowError(
                "MEADOW_SHADOW and MEADOW_MODEL are the same network. Set MEADOW_SHADOW to the"
                " folder of another one."
            )
        self.classifier, self.first = classifier, first
        self.busy = busy
        self.telemetry = telemetry
        self.pool = Pool(
            lambda photo, came: classify(classifier, photo, max_pixels, came),
            threads=1,
            queue=WAITING,
            niceness=19,
        )
        self.under_way: set[asyncio.Task[None]] = set()
        photos = Counter(
            "meadow_shadow_photos", "What became of photos at the second model", ["outcome"]
        )
        self.outcomes = {name: photos.labels(name).inc for name in OUTCOMES}
        self.difference = Histogram(
            "meadow_shadow_difference", "Of both probabilities of the label sent", buckets=SHARES
        )
        predicted = Counter("meadow_shadow_predictions", "Its answers by class", ["label"])
        self.predicted = [predicted.labels(name) for name in classifier.classes]
        info = Gauge("meadow_shadow_info", "Second model", ["version"], multiprocess_mode="livemax")
        info.labels(classifier.version[:12]).set(1)
        classifier.warm()

    def offer(self, photo: bytes, answer: Answer, ids: Ids) -> None:
        """Have a photo answered later, or pass it over; returns at once.

        Args:
            photo: its bytes.
            answer: the first model's.
            ids: of the request that brought it.

        """
        if self.busy():
            self.outcomes["dropped"]()
            return
        task = asyncio.create_task(self._answer(photo, answer, ids))
        self.under_way.add(task)  # asyncio itself keeps none alive
        task.add_done_callback(self.under_way.discard)

    async def _answer(self, photo: bytes, answer: Answer, ids: Ids) -> None:
        try:
            classified = await self.pool.run(photo)
        except Refused:
            self.outcomes["dropped"]()
        except Exception as error:
            self.outcomes["failed"]()
            log.warning("the shadow has no answer to request %s: %r", ids["request_id"], error)
        else:
            self._compare(classified, answer, ids, len(photo))

    def _compare(self, classified: Classified, sent: Answer, ids: Ids, size: int) -> None:
        answer = classified.answer
        self.outcomes["agreed" if answer.best == sent.best else "differed"]()
        self.predicted[answer.best].inc()
        both = answer.probabilities[sent.best], sent.probabilities[sent.best]
        self.difference.observe(abs(float(both[0] - both[1])))
        if self.telemetry.events:
            self.telemetry.events.write(
                {
                    "kind": "shadow",
                    **event(classified, self.classifier, ids, size),
                    "sent": {
                        "model": self.first.version[:12],
                        "label": self.first.classes[sent.best],
                        "confidence": float(sent.probabilities[sent.best]),
                    },
                }
            )
