import json

import pytest

from meadow.serving.refusals import REASONS, Refused


@pytest.mark.parametrize("reason", REASONS)
def test_every_refusal_has_the_one_shape(reason: str) -> None:
    """Code, reason, message and request id, and nothing that the client did not send."""
    response = Refused(reason, "Ünbekannt “x”").response("id-1")

    assert response.status_code == REASONS[reason].status
    assert response.media_type == "application/json"
    assert json.loads(bytes(response.body)) == {
        "error": {
            "code": REASONS[reason].status,
            "reason": reason,
            "message": "Ünbekannt “x”",
            "request_id": "id-1",
        }
    }


@pytest.mark.parametrize("reason", REASONS)
def test_a_refusal_that_may_pass_says_when_to_come_again(reason: str) -> None:
    """RFC 9110: Retry-After goes with 429 and 503; a wrong photo stays wrong."""
    passing = {"busy", "rate", "memory", "timeout"}

    assert ("retry-after" in Refused(reason, "x").response("id").headers) == (reason in passing)


def test_headers_of_a_refusal_are_sent() -> None:
    """A longer wait than the usual second."""
    refused = Refused("rate", "x", {"Retry-After": "7"})

    assert refused.response("id").headers["retry-after"] == "7"
