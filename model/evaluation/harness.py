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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Union

import lm_eval.models  # noqa: F401, registers the harness's own models, which it skips if the registry has any
import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from tqdm import tqdm

from bpe import Tokenizer
from bpe.boundaries import KNOWN_NAME
from bpe.chat import ChatFormat, Llama3Chat, TemplateChat, chat_format
from bpe.errors import InputError
from bpe.locate import locate
from model.checkpoint import open_checkpoint
from model.checkpoint.opened import read_optional_json
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

# Settings that transformers uses only to sample, and its own default of one of them.
_ONLY_SAMPLED = ("temperature", "top_k", "top_p", "min_p")
_TOP_K = 50
# Values that change nothing, which tasks write out.
_WITHOUT_EFFECT = {"num_beams": 1, "num_return_sequences": 1, "use_cache": True}
_MISSING = object()


def _generation_config(path: Path) -> dict[str, Any]:
    """Return the settings of `Sampling` in the generation_config.json of a model."""
    file = (path if path.is_dir() else path.parent) / "generation_config.json"
    config = read_optional_json(file)
    wanted = (*_ONLY_SAMPLED, "repetition_penalty")
    return {name: config[name] for name in wanted if config.get(name) is not None}


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
        chat_format: ChatFormat | None = None,
        chat_template_args: Mapping[str, Any] | None = None,
        enable_thinking: bool | None = None,
        ignore_unknown: bool = False,
    ) -> None:
        """Load the model, or wrap a loaded one.

        Args:
            pretrained: A path or name that `model.load` reads, or its result.
            dtype: "float32", "bfloat16" or "float16". Defaults to the dtype of the weights.
            device: The device of the weights. Defaults to the CPU.
            batch_size: The number of texts generated at once.
            max_batch_size: Accepted because the harness passes it; has no effect.
            batch_tokens: The number of tokens scored at once; see `model.evaluation.windows.score`.
            chat_format: Encodes dialogs, where the harness applies a chat template. Default: that of the model's files.
            chat_template_args: Variables for the chat template.
            enable_thinking: The variable of this name for the chat template.
            ignore_unknown: As for `model.load`.

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
            wanted = None if kept else getattr(torch, str(dtype))
            self.model, self._tokens = load(pretrained, wanted, device or "cpu", ignore_unknown=bool(ignore_unknown))
        self._pretrained, self._ignore_unknown = pretrained, bool(ignore_unknown)
        self._chat_format = chat_format
        self._chat_name: str | None = None
        thinking = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        self._chat_variables = {**(chat_template_args or {}), **thinking}
        self._defaults = (
            {} if isinstance(pretrained, tuple) else _generation_config(locate(os.fspath(pretrained), "model"))
        )
        self._device = self.model.tok_embeddings.weight.device
        self._batch_size = int(batch_size) if batch_size is not None and str(batch_size).isdigit() else 1
        self._batch_tokens = int(batch_tokens)
        self._begin = prompt_ids(self._tokens, "")
        said = self._tokens.vocabulary.boundaries
        if not (self._begin or said.eos_ids):
            raise InputError("the tokenizer has no token that begins or ends a text; the harness needs one")
        end = said.eos_id if said.eos_id is not None else next(iter(said.eos_ids), None)
        self._end = self._begin[0] if end is None else end
        named = None if said.bos_from == KNOWN_NAME else said.bos_id
        self._prefix = self._begin[0] if self._begin else self._end if named is None else named

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self._end

    @property
    def prefix_token_id(self) -> int:
        """The token before a text without context: the token that begins a text, or else the token that ends one.

        As in the harness's own model, this is the bos_token of the tokenizer's files even if no text gets it in front,
        such as that of SmolLM2.
        """
        return self._prefix

    @property
    def max_length(self) -> int:
        """The model's context in tokens."""
        return self.model.config.max_seq_len

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Encode a text, after the token that begins a text unless it has one or `add_special_tokens` is False."""
        ids = self._tokens.encode(string, allowed_special="all")
        begun = add_special_tokens is False or ids[: len(self._begin)] == self._begin
        return ids if begun else self._begin + ids

    @property
    def tokenizer_name(self) -> str:
        """A name for the harness's cache of requests: the path of the model, or the name of its tokenizer."""
        name = self._tokens.name if isinstance(self._pretrained, tuple) else os.fspath(self._pretrained)
        return name.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """Choose the chat template for dialogs, and return its source.

        Args:
            chat_template: Its name, or True for the one that the model's files use by default.

        Returns:
            The source; "" if the model has none, but Llama 3's format; None for False.

        Raises:
            InputError: When the model has no template of this name, or no chat format.
        """
        if chat_template is False or chat_template is None:
            return None
        if isinstance(chat_template, str) and chat_template != self._chat_name:
            self._chat_name, self._chat_format = chat_template, None
        format = self._format()
        return format.source if isinstance(format, TemplateChat) else ""

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True) -> str:
        """Return a dialog as text. Without a generation prompt, the last message is left open to be continued."""
        options: dict[str, Any] = {"add_generation_prompt": True} if add_generation_prompt else {
            "continue_final_message": True
        }  # fmt: skip
        try:
            return self._format().render(list(chat_history), **options)
        except InputError as error:
            others = [message for message in chat_history if message["role"] != "system"]
            if len(others) == len(chat_history):
                raise
            _log.warning("%s; the dialog is rendered without its system message", error)
            return self._format().render(others, **options)

    def _format(self) -> ChatFormat:
        if self._chat_format is None:
            if isinstance(self._pretrained, tuple):
                if self._chat_name is not None or self._chat_variables:
                    raise InputError("a loaded model has no chat templates; give its path, or a chat_format")
                self._chat_format = Llama3Chat(self._tokens)
            else:
                path = locate(os.fspath(self._pretrained), "model")
                source = open_checkpoint(path, self._ignore_unknown).tokenizer
                self._chat_format = chat_format(source, self._tokens, self._chat_name, self._chat_variables)
        return self._chat_format

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
        samples = given.pop("do_sample", None)
        if samples is None:
            samples = bool(given.get("temperature"))
        given = {name: value for name, value in given.items() if _WITHOUT_EFFECT.get(name, _MISSING) != value}
        if unknown := sorted(given.keys() - _SAMPLING):
            raise InputError(
                f"the task sets {', '.join(unknown)} for generation, which is not supported; supported are"
                f" {', '.join(_SAMPLING)}"
            )
        stop = [until] if isinstance(until, str) else list(until)
        end = self._tokens.decode([self._end])
        return [text for text in (*stop, end) if text], max_tokens, self._sampling(given, samples)

    def _sampling(self, given: dict[str, Any], samples: bool) -> dict[str, Any]:
        """Return the settings of `Sampling` that transformers' ``generate`` would use."""
        if not samples:
            kept = {name: value for name, value in {**self._defaults, **given}.items() if name not in _ONLY_SAMPLED}
            return {**kept, "temperature": 0.0}
        settings = {"temperature": 1.0, "top_k": _TOP_K, **self._defaults, **given}
        if not settings["temperature"]:
            raise InputError("the task sets do_sample and a temperature of 0; set do_sample to false, or a temperature")
        return {name: value for name, value in settings.items() if not (name == "top_k" and value == 0)}

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
