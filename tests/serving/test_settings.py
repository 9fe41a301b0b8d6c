import re
from pathlib import Path

import pytest

from meadow.errors import MeadowError
from meadow.serving import settings
from meadow.serving.settings import PREFIX, Keep, Settings

ROOT = Path(__file__).parents[2]


def test_the_environment_sets_them() -> None:
    """Texts become what they stand for; other variables are none of theirs."""
    settings = Settings.read({
        "MEADOW_QUEUE": "7", "MEADOW_CORS": "https://a.example, https://b.example",
        "MEADOW_ACCESS_LOG": "false", "MEADOW_CACHE": "/elsewhere",
    })  # fmt: skip

    assert settings.queue == 7
    assert settings.cors == ("https://a.example", "https://b.example")
    assert not settings.access_log
    assert settings.max_body == Settings().max_body


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QUEUE", "many"), ("QUEUE", "0"), ("TIMEOUT", "-1"), ("TIMEOUT", "nan"), ("CORS", "here"),
        ("MAX_BODY", "20MB"), ("ACCESS_LOG", "perhaps"), ("API_KEY", "naïve"), ("WORKERS", "1.5"),
    ],
)  # fmt: skip
def test_a_bad_value_is_named_and_the_service_does_not_start(name: str, value: str) -> None:
    """Better than a limit that is not what somebody thinks it is."""
    with pytest.raises(MeadowError, match=f"{PREFIX}{name}="):
        Settings.read({PREFIX + name: value})


def test_a_misspelt_setting_stops_the_start() -> None:
    """An `MEADOW_APIKEY` that nobody reads would leave the service open."""
    with pytest.raises(
        MeadowError, match=r"MEADOW_APIKEY is no setting\. Did you mean MEADOW_API_KEY"
    ):
        Settings.read({"MEADOW_APIKEY": "secret"})


def test_a_bad_key_is_not_shown() -> None:
    """It ends up in a log."""
    with pytest.raises(MeadowError) as raised:
        Settings.read({"MEADOW_API_KEY": "secret\n"})

    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("usable", "workers", "share"),
    [(1, 0, (1, 2, 48)), (2, 0, (1, 3, 48)), (8, 0, (2, 5, 24)), (7, 3, (3, 4, 16))],
)
def test_processes_share_cores_and_limits(
    monkeypatch: pytest.MonkeyPatch, usable: int, workers: int, share: tuple[int, int, int]
) -> None:
    """Together they have a thread for each core that the container has, and one line."""
    monkeypatch.setattr(settings, "cores", lambda: usable)
    one = Settings(workers=workers).of_one_worker()

    assert (one.workers, one.threads, one.queue) == share
    assert one.max_held * one.workers >= Settings().max_held
    assert Settings(workers=64).of_one_worker().max_held == Settings().max_body
    assert Settings(workers=64, max_held=2**20).of_one_worker().max_held == 2**20


def test_each_is_documented_with_its_default() -> None:
    """docs/serving.md lists the settings that there are, and no others."""
    text = (ROOT / "docs/serving.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `MEADOW_(\w+)` \| (.*?) \|", text, re.MULTILINE))
    defaults = {}
    for name, field in Settings.model_fields.items():
        value = field.default
        shown = int(value) if isinstance(value, bool) else value
        defaults[name.upper()] = "" if value in ("", (), None) else f"`{shown}`"

    assert rows == defaults


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("unsure", Keep(unsure=True)),
        ("far, random:0.01", Keep(far=True, random=0.01)),
        ("unsure,far,random:1", Keep(unsure=True, far=True, random=1)),
        ("", None),
    ],
)
def test_what_is_kept_is_read_from_a_list(text: str, kept: Keep | None) -> None:
    """Each kind once, in any order; nothing keeps nothing."""
    assert Settings.read({"MEADOW_KEEP": text}).keep == kept


@pytest.mark.parametrize(
    "text",
    ["all", "random", "random:", "random:2", "random:x", "unsure:1", "Far", ",", "random:nan"],
)
def test_what_is_no_such_list_stops_the_start(text: str) -> None:
    """The message has the form."""
    with pytest.raises(MeadowError, match=r"MEADOW_KEEP=.*unsure,far,random:0\.01"):
        Settings.read({"MEADOW_KEEP": text})
