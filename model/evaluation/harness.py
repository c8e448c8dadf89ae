"""Our models in EleutherAI's lm-evaluation-harness, under the name "bpe"; needs the extra `eval`.

    python -m model.evaluation.harness run --model bpe --model_args pretrained=runs/tales --tasks ...

is the harness's own command line with this model known to it. From Python:

    lm_eval.simple_evaluate(model=HarnessModel("runs/tales"), tasks=[...])
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Union

import lm_eval.models  # noqa: F401, else its own models are unknown once there is one in its registry
import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from tqdm import tqdm

from bpe import Tokenizer
from bpe.errors import InputError
from bpe.patterns import END_TOKENS
from model.evaluation.windows import BATCH_TOKENS, Scores, Window, score, windows
from model.generation.completions import complete, prompt_ids
from model.generation.sampling import Sampling
from model.loading import load
from model.transformer import Transformer

MAX_NEW_TOKENS = 256  # where a task does not say
_ALIASES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # as the harness ranks them
_SAMPLING = {field.name for field in fields(Sampling)}

_log = logging.getLogger(__name__)

Pretrained = Union[str, "os.PathLike[str]", tuple[Transformer, Tokenizer]]


class HarnessModel(TemplateLM):  # type: ignore[misc]  # the harness is untyped
    """A model as the harness asks it: log-likelihoods of continuations and of whole texts, and generated text.

    pretrained: what `model.load` reads, or what it returned.
    dtype: float32, bfloat16 or float16; by default that of the weights.
    batch_size: how many texts are generated at once.
    batch_tokens: how many tokens are scored at once; see `model.evaluation.windows.score`.
    max_batch_size: is taken, as the harness passes it, and changes nothing.

    A text begins with the token that begins texts where the tokenizer has one, and special tokens in it are tokens: the
    harness's tasks are trusted to write chat markup. What the context does not hold loses its beginning, which is said.

    Raises InputError as `load` does, and for a tokenizer without a token that begins or ends texts, which the harness
    wants before a text that stands alone.
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
        super().__init__()
        if dtype not in (None, "auto", "float32", "bfloat16", "float16"):
            raise InputError(f"dtype is {dtype!r}; it is float32, bfloat16 or float16")
        if isinstance(pretrained, tuple):
            self.model, self._tokens = pretrained
        else:
            kept = dtype in (None, "auto")
            self.model, self._tokens = load(pretrained, None if kept else getattr(torch, str(dtype)), device or "cpu")
        self._device = self.model.tok_embeddings.weight.device
        self._batch_size = int(batch_size) if batch_size is not None and str(batch_size).isdigit() else 1
        self._batch_tokens = int(batch_tokens)
        self._begin = prompt_ids(self._tokens, "")
        specials = self._tokens.special_tokens
        ends = [specials[text] for text in END_TOKENS if text in specials]
        if not (self._begin or ends):
            raise InputError("the tokenizer has no token that begins or ends a text, and the harness needs one")
        self._end = ends[0] if ends else self._begin[0]

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self._end

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that nothing else stands before: the token that begins texts, else that ends them.

        The harness's own model takes what a tokenizer_config.json calls bos_token, which for some models, such as
        SmolLM2, is another one (of chat markup); the first token's likelihood then differs.
        """
        return self._begin[0] if self._begin else self._end

    @property
    def max_length(self) -> int:
        """How many tokens the model can read."""
        return self.model.config.max_seq_len

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The ids of a text, begun unless it is begun already or is not to be."""
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
                    f" {self.max_length:,}, which the model's context holds"
                )
            asked.append(Window(self._cut(context_ids + ids, self.max_length + 1), len(ids)))
        answers = []
        for (request, _, _), scores in zip(requests, self._score(asked, disable_tqdm), strict=True):
            answers.append((-float(scores.nats.sum()), bool(scores.likeliest.all())))
            self.cache_hook.add_partial("loglikelihood", request, answers[-1])
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each whole text, in windows of the whole context, each token predicted once."""
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
        """A continuation of each context, up to the first of the strings in `until`, which is not part of it."""
        answers = [""] * len(requests)
        # 1. What is asked for in the same way is generated together, texts of about the same length at once.
        groups: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(place)
        with tqdm(total=len(requests), desc="generating", disable=disable_tqdm) as bar:
            for places in groups.values():
                stop, max_tokens, sampling = self._generation(requests[places[0]].args[1])
                room = self.max_length - max_tokens
                if room < 1:
                    raise InputError(
                        f"{max_tokens:,} tokens are to be written, and the model's context holds {self.max_length:,},"
                        " the prompt included; ask for fewer (max_gen_toks)"
                    )
                prompts = {place: self._prompt(requests[place].args[0], room) for place in places}
                order = sorted(places, key=lambda place: -len(prompts[place]))
                # 2. Write, a batch at a time.
                for start in range(0, len(order), self._batch_size):
                    batch = order[start : start + self._batch_size]
                    texts = complete(
                        self.model,
                        self._tokens,
                        [prompts[place] for place in batch],
                        max_tokens,
                        stop=stop,
                        **sampling,
                    )
                    for place, text in zip(batch, texts, strict=True):
                        answers[place] = text.text
                        self.cache_hook.add_partial("generate_until", requests[place].args, text.text)
                    bar.update(len(batch))
        return answers

    def _generation(self, given: dict[str, Any]) -> tuple[list[str], int, dict[str, Any]]:
        """The strings to stop at, how many tokens to write, and how to choose them."""
        given = dict(given)
        until = given.pop("until", None) or []
        limits = [given.pop(name, None) for name in _ALIASES]
        max_tokens = next((int(limit) for limit in limits if limit is not None), MAX_NEW_TOKENS)
        if given.pop("do_sample", None) is False or not given.get("temperature"):
            given["temperature"] = 0.0
        if unknown := sorted(given.keys() - _SAMPLING):
            raise InputError(f"the task wants {', '.join(unknown)} for generation; known are {', '.join(_SAMPLING)}")
        stop = [until] if isinstance(until, str) else list(until)
        return [text for text in stop if text], max_tokens, given

    def _prompt(self, context: str, room: int) -> list[int]:
        return self._cut(self.tok_encode(context) or [self.prefix_token_id], room)

    def _cut(self, ids: list[int], room: int) -> list[int]:
        if len(ids) > room:
            _log.warning("%d tokens, of which the context has room for the last %d", len(ids), room)
        return ids[-room:]

    def _score(self, asked: Sequence[Window], disable_tqdm: bool) -> list[Scores]:
        with tqdm(total=len(asked), desc="scoring", disable=disable_tqdm) as bar:
            return list(score(self.model, asked, self._batch_tokens, lambda _, count: bar.update(count - bar.n)))


register_model("bpe")(HarnessModel)

if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
