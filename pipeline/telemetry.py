"""Metrics, traces and logs: the only room that knows the OpenTelemetry SDK and the log format.

Hot paths add to plain integers; the SDK reads them when somebody scrapes. Every process serves
`/metrics` (Prometheus text) and `/healthz` (its state and counters, JSON) on its metrics port.
"""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import prometheus_client
import structlog
from opentelemetry import trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Histogram, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pipeline.config import Settings
from pipeline.redaction import blotted

# Seconds; from a hop inside one machine (fractions of a millisecond) to a stalled consumer.
AGE_BOUNDS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)

Labelled = Mapping[tuple[tuple[str, str], ...], float]  # values by their labels: (name, value), …

_propagator = TraceContextTextMapPropagator()


class Counter:
    """A number that only grows; adding to it costs an integer addition."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def add(self, amount: int = 1) -> None:
        """Count `amount` more."""
        self.value += amount


class Telemetry:
    """A process's instruments, log and state.

    `state` is `starting`, `ready`, `degraded` or `draining`; `reason` says why it is not ready.
    """

    def __init__(self, service: str, settings: Settings) -> None:
        self.service = service
        self.log = _configure_log(service, settings.log_level)
        self.state = "starting"
        self.reason = ""
        self._counters: dict[str, Counter] = {}
        self._gauges: dict[str, Callable[[], float]] = {}
        self._labelled: dict[str, Callable[[], Labelled]] = {}
        self._started = time.monotonic()
        resource = Resource.create({"service.name": f"stockify-{service}"})
        self._registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self._registry)
        reader = PrometheusMetricReader(registry=self._registry)
        bounds = View(
            instrument_type=Histogram,
            instrument_unit="s",
            aggregation=ExplicitBucketHistogramAggregation(AGE_BOUNDS_S),
        )
        self._meters = MeterProvider([reader], resource=resource, views=[bounds])
        self._meter = self._meters.get_meter("stockify")
        self._tracers = TracerProvider(
            resource=resource, sampler=ParentBased(TraceIdRatioBased(settings.trace_ratio))
        )
        if settings.otlp_endpoint:
            self._tracers.add_span_processor(_span_exporter(settings.otlp_endpoint))
        self._tracer = self._tracers.get_tracer("stockify")
        self._server = _serve(self, settings.metrics_host, settings.metrics_port)

    @property
    def metrics_port(self) -> int:
        """The port on which `/metrics` and `/healthz` are served."""
        return int(self._server.server_address[1])

    def counter(self, name: str, description: str) -> Counter:
        """A counter `stockify_<name>_total`; asked for again, the same one."""
        if name not in self._counters:
            counter = self._counters[name] = Counter()
            self._meter.create_observable_counter(
                f"stockify.{name}", [_reads(lambda: counter.value)], description=description
            )
        return self._counters[name]

    def gauge(self, name: str, description: str, read: Callable[[], float], unit: str = "") -> None:
        """A gauge `stockify_<name>` whose value `read` gives at each scrape.

        Asked for again, it is the newer `read` that is asked: a name stands once in an exposition.
        """

        def read_newer() -> float:
            return self._gauges[name]()

        if name not in self._gauges:
            self._meter.create_observable_gauge(
                f"stockify.{name}", [_reads(read_newer)], description=description, unit=unit
            )
        self._gauges[name] = read

    def labelled_gauge(
        self, name: str, description: str, read: Callable[[], Labelled], unit: str = ""
    ) -> None:
        """Gauges `stockify_<name>` told apart by labels, as `read` gives them at each scrape."""
        self._labelled[name] = read
        self._meter.create_observable_gauge(
            f"stockify.{name}",
            [lambda _options: [Observation(value, dict(at)) for at, value in read().items()]],
            description=description,
            unit=unit,
        )

    def histogram(self, name: str, description: str, unit: str = "s") -> Callable[[float], None]:
        """A function that records one value; call it once a batch, not once a leg."""
        instrument = self._meter.create_histogram(
            f"stockify.{name}", description=description, unit=unit
        )
        return instrument.record

    @contextlib.contextmanager
    def span(self, name: str, traceparents: Iterable[str] = ()) -> Iterator[str]:
        """A span over a batch, linked to what its entries carry; gives its own traceparent.

        The first traceparent is the parent, so that its sampling decision holds.
        """
        parents = [parent for parent in traceparents if parent]
        context = _propagator.extract({"traceparent": parents[0]}) if parents else None
        links = [trace.Link(_span_context(parent)) for parent in parents[1:] if _sampled(parent)]
        with self._tracer.start_as_current_span(name, context=context, links=links):
            carrier: dict[str, str] = {}
            _propagator.inject(carrier)
            yield carrier.get("traceparent", "")

    def set_state(self, state: str, reason: str = "") -> None:
        """Say how the process is; a change is logged."""
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self.log.info("state", state=state, **({"reason": reason} if reason else {}))

    def report(self) -> dict[str, Any]:
        """State, counters and gauges, as `/healthz` and the heartbeat give them."""
        return {
            "service": self.service,
            "pid": os.getpid(),
            "state": self.state,
            "reason": self.reason,
            "uptime_s": round(time.monotonic() - self._started, 3),
            "counters": {name: counter.value for name, counter in self._counters.items()},
            "gauges": {name: read() for name, read in self._gauges.items()}
            | {
                f"{name}{{{','.join(value for _, value in at)}}}": value
                for name, read in self._labelled.items()
                for at, value in read().items()
            },
        }

    def metrics_text(self) -> bytes:
        """The Prometheus exposition."""
        return prometheus_client.generate_latest(self._registry)

    def close(self) -> None:
        """Send what is left and stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._meters.shutdown()
        self._tracers.shutdown()


def _reads(
    read: Callable[[], float],
) -> Callable[[CallbackOptions], Sequence[Observation]]:
    return lambda _options: (Observation(read()),)


def _sampled(traceparent: str) -> bool:
    try:
        return bool(int(traceparent.rsplit("-", 1)[1], 16) & 1)
    except (IndexError, ValueError):
        return False


def _span_context(traceparent: str) -> trace.SpanContext:
    context = _propagator.extract({"traceparent": traceparent})
    return trace.get_current_span(context).get_span_context()


def _span_exporter(endpoint: str) -> BatchSpanProcessor:
    # An optional extra: without it nothing else of the process needs its packages.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )

    return BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint))


def _configure_log(service: str, level: str) -> Any:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_log_line),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=True,
    )
    return structlog.get_logger().bind(service=service)


def _log_line(event: dict[str, Any], **_ignored: Any) -> str:
    return blotted(msgspec.json.encode(event, enc_hook=str).decode())


def _serve(telemetry: Telemetry, host: str, port: int) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                body, kind = telemetry.metrics_text(), prometheus_client.CONTENT_TYPE_LATEST
            elif self.path == "/healthz":
                body, kind = msgspec.json.encode(telemetry.report()), "application/json"
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            """Scrapes are not events."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    # Asked often whether to stop: a process that drains shall not wait half a second for this.
    threading.Thread(target=server.serve_forever, args=(0.05,), name="metrics", daemon=True).start()
    return server
