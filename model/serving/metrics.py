"""Counters and times of the server, in the text format of Prometheus."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

from model.serving.texts import Statistics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

# Field of Statistics -> name, type and description.
_OF_SCHEDULER = {
    "running": ("bpe_texts_running", "gauge", "Texts that are being read or generated."),
    "waiting": ("bpe_texts_waiting", "gauge", "Texts that have not started."),
    "kept": ("bpe_texts_kept", "gauge", "Ended texts whose keys and values are kept for others."),
    "kv_bytes": ("bpe_kv_bytes", "gauge", "Bytes of keys and values in memory."),
    "kv_limit": ("bpe_kv_limit_bytes", "gauge", "Largest number of bytes of keys and values."),
    "read_tokens": ("bpe_prompt_tokens_read_total", "counter", "Tokens of prompts that were read."),
    "reused_tokens": ("bpe_prompt_tokens_reused_total", "counter", "Tokens of prompts that were in memory already."),
    "generated_tokens": ("bpe_tokens_generated_total", "counter", "Tokens that were generated."),
    "requests": ("bpe_requests_accepted_total", "counter", "Prompts that were accepted."),
    "refused": ("bpe_requests_refused_total", "counter", "Prompts that were refused because too many waited."),
    "ended": ("bpe_texts_ended_total", "counter", "Texts that ended with an end token or a complete grammar."),
    "cut": ("bpe_texts_cut_total", "counter", "Texts that ended for want of room."),
    "failed": ("bpe_texts_failed_total", "counter", "Texts that ended with an error."),
    "cancelled": ("bpe_texts_cancelled_total", "counter", "Texts that were cancelled, or ended by their text."),
    "steps": ("bpe_steps_total", "counter", "Calls of the model."),
    "step_tokens": ("bpe_step_tokens_total", "counter", "Tokens in all calls of the model."),
    "model_seconds": ("bpe_model_seconds_total", "counter", "Seconds in the model."),
    "choose_seconds": ("bpe_choose_seconds_total", "counter", "Seconds spent choosing tokens."),
    "deliver_seconds": ("bpe_deliver_seconds_total", "counter", "Seconds spent delivering tokens."),
}


class Histogram:
    """How often values fell into ranges.

    Args:
        name: The name of the metric.
        help: What it measures.
        limits: The upper ends of the ranges, rising.
    """

    def __init__(self, name: str, help: str, limits: Sequence[float] = _SECONDS) -> None:
        self._name, self._help, self._limits = name, help, limits
        self._counts = [0] * (len(limits) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._limits, value)] += 1
        self._sum += value

    def lines(self) -> Iterator[str]:
        """Yield the lines of the metric."""
        yield from _heading(self._name, "histogram", self._help)
        below = 0
        for limit, count in zip(self._limits, self._counts, strict=False):
            below += count
            yield f'{self._name}_bucket{{le="{limit:g}"}} {below}'
        yield f'{self._name}_bucket{{le="+Inf"}} {sum(self._counts)}'
        yield f"{self._name}_sum {self._sum:.6f}"
        yield f"{self._name}_count {sum(self._counts)}"


class Metrics:
    """What the server counts beside the scheduler."""

    def __init__(self) -> None:
        self.first_token = Histogram("bpe_first_token_seconds", "Seconds from a request to its first token.")
        self.duration = Histogram("bpe_request_seconds", "Seconds from a request for text to the end of its response.")
        self._responses: Counter[tuple[str, int]] = Counter()
        self._lock = threading.Lock()

    def count(self, path: str, status: int) -> None:
        """Count a response.

        Args:
            path: The path of the route, or "other": a label may not have values that clients choose.
            status: The HTTP status.
        """
        with self._lock:
            self._responses[path, status] += 1

    def text(self, statistics: Statistics, model: str) -> str:
        """Return all metrics.

        Args:
            statistics: Those of the scheduler.
            model: The name of the model.
        """
        return "\n".join([*self._lines(statistics, model), ""])

    def _lines(self, statistics: Statistics, model: str) -> Iterator[str]:
        yield from _heading("bpe_model_info", "gauge", "The model that is served.")
        yield f'bpe_model_info{{model="{_label(model)}"}} 1'
        for field, (name, kind, help) in _OF_SCHEDULER.items():
            yield from _heading(name, kind, help)
            yield f"{name} {getattr(statistics, field):.10g}"
        yield from _heading("bpe_responses_total", "counter", "Responses by path and HTTP status.")
        with self._lock:
            responses = sorted(self._responses.items())
        for (path, status), count in responses:
            yield f'bpe_responses_total{{path="{_label(path)}",status="{status}"}} {count}'
        yield from self.first_token.lines()
        yield from self.duration.lines()


def _heading(name: str, kind: str, help: str) -> Iterator[str]:
    yield f"# HELP {name} {help}"
    yield f"# TYPE {name} {kind}"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
