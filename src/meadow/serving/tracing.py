"""Where a request belongs in its client's trace: `traceparent`, and OTLP where it is asked for."""

import os
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, format_trace_id, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.status import Status, StatusCode
from starlette.datastructures import Headers

from meadow.errors import MeadowError
from meadow.serving.pool import PHASES, Classified

HEADER = "traceparent"
PROTOCOL = "http/protobuf"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_W3C = TraceContextTextMapPropagator()


def parent(headers: Headers) -> Context | None:
    """Return what the client says of its trace; None where it says nothing that W3C allows."""
    given = headers.getlist(HEADER)
    if len(given) != 1:
        return None
    context = _W3C.extract({HEADER: given[0]})
    return context if trace_id(context) else None


def trace_id(context: Context) -> str:
    """Return the id of a trace as W3C writes it; "" where there is none."""
    span = get_current_span(context).get_span_context()
    return format_trace_id(span.trace_id) if span.is_valid else ""


class Spans:
    """Sends each request with photos as a span, and below it how long each photo took where.

    All but whether and where to is set by the variables `OTEL_...` that OpenTelemetry's SDK reads.
    What cannot be sent is dropped; no request waits.
    """

    def __init__(self, version: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        ours = Resource({"service.name": "meadow", "service.version": version})
        self.provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()))
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self.tracer = self.provider.get_tracer("meadow")

    @classmethod
    def asked_for(cls, version: str, environment: Mapping[str, str] = os.environ) -> "Spans | None":
        """Return what sends spans, where an endpoint is set.

        Raises:
            MeadowError: the protocol is none that is spoken.

        """
        disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
        exporter = environment.get("OTEL_TRACES_EXPORTER", "otlp")
        if disabled or exporter == "none" or not any(map(environment.get, ENDPOINTS)):
            return None
        for name in PROTOCOLS:
            if (protocol := environment.get(name, PROTOCOL)) != PROTOCOL:
                raise MeadowError(f"{name}={protocol!r}: traces are sent by {PROTOCOL}. Unset it.")
        return cls(version)

    def request(
        self,
        name: str,
        context: Context | None,
        seconds: float,
        attributes: Mapping[str, Any],
        photos: Iterable[Classified],
    ) -> None:
        """Send one that has just ended, after so many seconds."""
        end = time.time_ns()
        clock = end - time.perf_counter_ns()  # of spans, less that of photos

        def at(moment: float) -> int:
            return clock + int(1e9 * moment)

        began = end - int(1e9 * seconds)
        span = self.tracer.start_span(
            name, context or Context(), SpanKind.SERVER, attributes, start_time=began
        )
        if not span.is_recording():
            return
        if attributes["http.response.status_code"] >= 500:
            span.set_status(Status(StatusCode.ERROR))
        below = set_span_in_context(span, Context())
        for photo in photos:
            moment = photo.came
            for phase in PHASES:
                start = at(moment)
                moment += getattr(photo, phase)
                self.tracer.start_span(phase, below, start_time=start).end(at(moment))
        span.end(end)

    def close(self) -> None:
        """Send what is left, for two seconds at most."""
        end = threading.Thread(target=self.provider.shutdown, daemon=True)
        end.start()
        end.join(2)
