import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span, Status
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from starlette.datastructures import Headers
from toys import colour_classifier, encoded, photo

from meadow.errors import MeadowError
from meadow.serving import server
from meadow.serving.tracing import Spans, parent, trace_id

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{CALLER}-01"


@pytest.mark.parametrize("text", [GIVEN, GIVEN[:-1] + "0", f"01{GIVEN[2:]}-more"])
def test_a_trace_is_read_as_w3c_writes_it(text: str) -> None:
    """Sampled or not, and of a later version, which may say more."""
    context = parent(Headers({"Traceparent": text}))

    assert context
    assert trace_id(context) == TRACE


@pytest.mark.parametrize(
    "text",
    [
        "", "x", GIVEN.upper(), GIVEN + "-more", f"ff{GIVEN[2:]}", GIVEN[:-3], GIVEN + "\n{}",
        GIVEN.replace(TRACE, 32 * "0"), GIVEN.replace(CALLER, 16 * "0"),
        GIVEN.replace(TRACE, "é" + TRACE[1:]), "0" * 10_000,
    ],
)  # fmt: skip
def test_what_is_no_trace_is_none(text: str) -> None:
    """It comes into logs, so it is of the form, or it is not there."""
    headers = Headers(raw=[(b"traceparent", text.encode())])

    assert parent(headers) is None
    assert parent(Headers(raw=[(b"traceparent", GIVEN.encode())] * 2)) is None


class Collector:
    """What a service sends its spans to: keeps them."""

    def __init__(self) -> None:
        self.resources: list[ResourceSpans] = []
        resources = self.resources

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                resources.extend(ExportTraceServiceRequest.FromString(body).resource_spans)
                self.send_response(200)
                self.end_headers()

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def spans(self, count: int) -> list[Span]:
        """Wait for so many spans; return all, in the order of their starts."""
        end = time.monotonic() + 30
        while True:
            spans = [s for r in self.resources for scope in r.scope_spans for s in scope.spans]
            if len(spans) >= count:
                return sorted(spans, key=lambda s: (s.start_time_unix_nano, -s.end_time_unix_nano))
            assert time.monotonic() < end, spans
            time.sleep(0.05)


@pytest.fixture
def collector() -> Iterator[Collector]:
    """Return one, which ends with the test."""
    running = Collector()
    yield running
    running.server.shutdown()
    running.server.server_close()


def test_nothing_is_sent_unless_an_endpoint_is_set() -> None:
    """And none where OpenTelemetry's own switches are off; another protocol is not passed over."""
    where = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}

    assert Spans.asked_for("1", {}) is None
    assert Spans.asked_for("1", {"OTEL_SERVICE_NAME": "x"}) is None
    assert Spans.asked_for("1", {**where, "OTEL_SDK_DISABLED": "true"}) is None
    assert Spans.asked_for("1", {**where, "OTEL_TRACES_EXPORTER": "none"}) is None
    with pytest.raises(MeadowError, match="OTEL_EXPORTER_OTLP_PROTOCOL='grpc'"):
        Spans.asked_for("1", {**where, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})


@pytest.mark.slow
def test_a_trace_goes_through_log_event_metrics_and_spans(
    tmp_path: Path, collector: Collector
) -> None:
    """One id leads from the client's trace to the photo's line, and to how long each step took."""
    model = colour_classifier(tmp_path / "model", ["gold", "moss"])
    events = tmp_path / "events.jsonl"
    settings = {
        "MEADOW_MODEL": str(model),
        "MEADOW_EVENTS": str(events),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    good = encoded(photo(1))
    with (
        server.serving("meadow.service:PhotoClassifier", **settings) as url,
        httpx.Client(base_url=url) as client,
    ):
        sent = {"traceparent": GIVEN, "x-request-id": "mine"}
        client.post("/predict", content=good, headers=sent).raise_for_status()
        client.post("/predict/batch", files=[("files", ("x", good))] * 2).raise_for_status()
        unsampled = {"traceparent": GIVEN[:-1] + "0"}
        client.post("/predict", content=good, headers=unsampled).raise_for_status()
        accept = (
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        )
        metrics = client.get("/metrics", headers={"Accept": accept})
        plain = client.get("/metrics")
    spans = collector.spans(4 + 7)

    lines = [json.loads(line) for line in events.read_text().splitlines()]
    assert [line.get("trace_id") for line in lines] == [TRACE, None, None, TRACE]
    assert metrics.headers["content-type"].startswith("application/openmetrics-text")
    families = text_string_to_metric_families(metrics.text)  # type: ignore[no-untyped-call]
    (family,) = (one for one in families if one.name == "meadow_request_seconds")
    exemplars = {
        (sample.labels["route"], sample.exemplar.labels["trace_id"])
        for sample in family.samples
        if sample.exemplar
    }
    assert exemplars == {("/predict", TRACE)}
    assert plain.headers["content-type"].startswith("text/plain")
    assert TRACE not in plain.text

    assert len(spans) == 4 + 7
    request, queue, decode, network = (s for s in spans if s.trace_id == bytes.fromhex(TRACE))
    assert (request.name, request.kind) == ("POST /predict", Span.SPAN_KIND_SERVER)
    assert request.parent_span_id == bytes.fromhex(CALLER)
    assert request.status.code == Status.STATUS_CODE_UNSET
    values = {pair.key: pair.value for pair in request.attributes}
    assert values["meadow.request_id"].string_value == "mine"
    assert values["http.response.status_code"].int_value == 200
    assert [s.name for s in (queue, decode, network)] == ["queue", "decode", "network"]
    assert {s.parent_span_id for s in (queue, decode, network)} == {request.span_id}
    moments = [request.start_time_unix_nano, queue.start_time_unix_nano]
    moments += [s.end_time_unix_nano for s in (queue, decode, network, request)]
    assert moments == sorted(moments)
    batch = [s for s in spans if s.trace_id != bytes.fromhex(TRACE)]
    assert sorted(s.name for s in batch)[0] == "POST /predict/batch"
    resource = {p.key: p.value.string_value for p in collector.resources[0].resource.attributes}
    assert resource["service.name"] == "meadow"
    assert resource["deployment.environment.name"] == "test"
