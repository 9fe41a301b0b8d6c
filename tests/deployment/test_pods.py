"""What pods are asked: here a service of this machine answers for them."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from meadow.deployment import pods
from meadow.deployment.pods import Pods
from meadow.errors import MeadowError
from meadow.serving import server

pytestmark = pytest.mark.slow
KEY = "of-the-secret"


@pytest.fixture
def group(first_run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pods]:
    """Return the pods of a namespace, in a project whose model they serve."""
    monkeypatch.chdir(first_run)
    with server.serving(first_run / server.BENTO, MEADOW_API_KEY=KEY) as url:

        @contextmanager
        def forwarded(*_: str) -> Iterator[str]:
            yield url

        monkeypatch.setattr(pods, "forwarded", forwarded)
        monkeypatch.setattr(Pods, "names", lambda *_: ["one"])
        yield Pods("space", KEY)


def test_right_answers_are_taken_and_counted(group: Pods) -> None:
    """They are those of evaluate, at the version's commit, for its test photos."""
    photos = pods.photos_of("HEAD")
    before = group.counts("stable")
    seconds = group.ask("one", photos, compare=True)
    answered = {
        labels: count
        for (name, labels), count in (group.counts("stable") - before).items()
        if name == "meadow_predictions_total"
    }

    assert len(photos) > 4
    assert 0 < seconds < 60
    assert sum(answered.values()) == len(photos)


def test_a_wrong_answer_is_an_error_that_names_the_photo(group: Pods) -> None:
    """Another class or another probability; unless only the time is asked for."""
    ((answer, photo), *_) = pods.photos_of("HEAD")
    for wrong in (
        dataclasses.replace(answer, predicted="rose"),
        dataclasses.replace(answer, confidence=answer.confidence - 1e-4),
    ):
        with pytest.raises(MeadowError, match=f"one answers .* for '{answer.path}', evaluate says"):
            group.ask("one", [(wrong, photo)], compare=True)
        group.ask("one", [(wrong, photo)], compare=False)
