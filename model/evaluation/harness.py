"""Our models in EleutherAI's lm-evaluation-harness, registered as "bpe". Needs the extra `eval`.

This runs the harness's own command line with our model registered:

    python -m model.evaluation.harness run --model bpe --model_args pretrained=runs/tales --tasks ...

From Python:

    lm_eval.simple_evaluate(model=HarnessModel("runs/tales"), tasks=[...])
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, Union

import lm_eval.models  # noqa: F401, registers the harness's own models, which it skips if the registry has any
import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from tqdm import tqdm

from bpe import Tokenizer
from bpe.errors import InputError
from model.evaluation.windows import BATCH_TOKENS, Scores, Window, score, windows
from model.generation.completions import complete, prompt_ids
from model.generation.sampling import Sampling
from model.loading import load
from model.transformer import Transformer

MAX_NEW_TOKENS = 256  # if a task does not set a limit
_ALIASES = (
    "max_gen_toks",
    "max_new_tokens",
    "max_tokens",
    "max_completion_tokens",
)  # in the harness's order of precedence
_SAMPLING = {field.name for field in fields(Sampling)}

_log = logging.getLogger(__name__)

Pretrained = Union[str, "os.PathLike[str]", tuple[Transformer, Tokenizer]]


class HarnessModel(TemplateLM):  # type: ignore[misc]  # the harness is untyped
    """A model with the interface of the harness: log-likelihoods of continuations and of whole texts, generated text.

    A text begins with the token that begins texts if the tokenizer has one. Special tokens in a text are encoded as
    special tokens: the harness's tasks are trusted to write chat markup. A text that exceeds the context loses its
    beginning, with a warning.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        dtype: str | None = None,
        device: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        """Load the model, or wrap a loaded one.

        Args:
            pretrained: A path or name that `model.load` reads, or its result.
            dtype: "float32", "bfloat16" or "float16". Defaults to the dtype of the weights.
            device: The device of the weights. Defaults to the CPU.
            batch_size: The number of texts generated at once.
            max_batch_size: Accepted because the harness passes it; has no effect.
            batch_tokens: The number of tokens scored at once; see `model.evaluation.windows.score`.

        Raises:
            InputError: As `load` does, and when the tokenizer has no token that begins or ends a text, which the
                harness needs before a text without context.
        """
        super().__init__()
        if dtype not in (None, "auto", "float32", "bfloat16", "float16"):
            raise InputError(f"dtype is {dtype!r}; it must be float32, bfloat16 or float16")
        if isinstance(pretrained, tuple):
            self.model, self._tokens = pretrained
        else:
            kept = dtype in (None, "auto")
            self.model, self._tokens = load(pretrained, None if kept else getattr(torch, str(dtype)), device or "cpu")
        self._device = self.model.tok_embeddings.weight.device
        self._batch_size = int(batch_size) if batch_size is not None and str(batch_size).isdigit() else 1
        self._batch_tokens = int(batch_tokens)
        self._begin = prompt_ids(self._tokens, "")
        ends = self._tokens.eos_ids
        if not (self._begin or ends):
            raise InputError("the tokenizer has no token that begins or ends a text; the harness needs one")
        self._end = ends[0] if ends else self._begin[0]

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self._end

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without context: the token that begins a text, or else the token that ends one.

        The harness's own model uses bos_token of tokenizer_config.json. For some models, such as SmolLM2, that is
        another token (of chat markup), so the likelihood of the first token differs.
        """
        return self._begin[0] if self._begin else self._end

    @property
    def max_length(self) -> int:
        """The model's context in tokens."""
        return self.model.config.max_seq_len

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Encode a text, after the token that begins a text unless it has one or `add_special_tokens` is False."""
        ids = self._tokens.encode(string, allowed_special="all")
        begun = add_special_tokens is False or ids[: len(self._begin)] == self._begin
        return ids if begun else self._begin + ids

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **options: Any,
    ) -> list[tuple[float, bool]]:
        asked = []
        for (_, continuation), context_ids, ids in requests:
            if not ids or len(ids) > self.max_length:
                raise InputError(
                    f"the continuation {continuation[:40]!r} has {len(ids):,} tokens; it must have 1 to"
                    f" {self.max_length:,}, the model's context"
                )
            asked.append(Window(self._cut(context_ids + ids, self.max_length + 1), len(ids)))
        answers = []
        for (request, _, _), scores in zip(requests, self._score(asked, disable_tqdm), strict=True):
            answers.append((-float(scores.nats.sum()), bool(scores.likeliest.all())))
            self.cache_hook.add_partial("loglikelihood", request, answers[-1])
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of each text, in windows of the whole context; each token is predicted once."""
        texts = []
        for request in requests:
            text_ids = [self.prefix_token_id, *self.tok_encode(request.args[0], add_special_tokens=False)]
            texts.append(list(windows(text_ids, self.max_length, self.max_length)))
        scores = iter(self._score([window for text in texts for window in text], disable_tqdm))
        answers = []
        for request, text in zip(requests, texts, strict=True):
            answers.append(-sum(float(next(scores).nats.sum()) for _ in text))
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, answers[-1])
        return answers

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return a continuation of each context, up to the first of the strings in `until`, which is excluded."""
        answers = [""] * len(requests)
        groups: dict[str, list[int]] = {}  # requests with the same settings are generated together
        for place, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(place)
        with tqdm(total=len(requests), desc="generating", disable=disable_tqdm) as bar:
            for places in groups.values():
                for place, text in self._continuations(requests, places):
                    answers[place] = text
                    self.cache_hook.add_partial("generate_until", requests[place].args, text)
                    bar.update()
        return answers

    def _continuations(self, requests: Sequence[Any], places: Sequence[int]) -> Iterator[tuple[int, str]]:
        """Yield the place and the continuation of requests with the same settings, longest prompts first."""
        stop, max_tokens, sampling = self._generation(requests[places[0]].args[1])
        room = self.max_length - max_tokens
        if room < 1:
            raise InputError(
                f"the task generates {max_tokens:,} tokens, but the model's context holds {self.max_length:,} with the"
                " prompt; set a lower max_gen_toks"
            )
        prompts = {place: self._prompt(requests[place].args[0], room) for place in places}
        order = sorted(places, key=lambda place: -len(prompts[place]))  # batches of about equal length
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            batch_prompts = [prompts[place] for place in batch]
            texts = complete(self.model, self._tokens, batch_prompts, max_tokens, stop=stop, **sampling)
            yield from ((place, text.text) for place, text in zip(batch, texts, strict=True))

    def _generation(self, given: dict[str, Any]) -> tuple[list[str], int, dict[str, Any]]:
        """Return the stop strings, the largest number of new tokens, and the settings of `Sampling` of a request."""
        given = dict(given)
        until = given.pop("until", None) or []
        limits = [given.pop(name, None) for name in _ALIASES]
        max_tokens = next((int(limit) for limit in limits if limit is not None), MAX_NEW_TOKENS)
        if given.pop("do_sample", None) is False or not given.get("temperature"):
            given["temperature"] = 0.0
        if unknown := sorted(given.keys() - _SAMPLING):
            raise InputError(
                f"the task sets {', '.join(unknown)} for generation, which is not supported; supported are"
                f" {', '.join(_SAMPLING)}"
            )
        stop = [until] if isinstance(until, str) else list(until)
        return [text for text in stop if text], max_tokens, given

    def _prompt(self, context: str, room: int) -> list[int]:
        return self._cut(self.tok_encode(context) or [self.prefix_token_id], room)

    def _cut(self, ids: list[int], room: int) -> list[int]:
        if len(ids) > room:
            _log.warning("a text has %d tokens; only its last %d fit the context", len(ids), room)
        return ids[-room:]

    def _score(self, asked: Sequence[Window], disable_tqdm: bool) -> list[Scores]:
        with tqdm(total=len(asked), desc="scoring", disable=disable_tqdm) as bar:
            return list(score(self.model, asked, self._batch_tokens, lambda _, count: bar.update(count - bar.n)))


register_model("bpe")(HarnessModel)

if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
