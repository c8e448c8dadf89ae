"""TODO: completions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bpe.errors import InputError
from bpe.patterns import BEGIN_TOKEN, END_TOKENS
from bpe.streaming import StopStrings, StreamDecoder
from model.generation.decoding import Finish, Generation, Model, Session
from model.generation.sampling import Sampling


class GenerationTokenizer(Protocol):
    """What generation needs of a tokenizer; bpe.Tokenizer and tiktoken.Encoding both have it."""

    @property
    def n_vocab(self) -> int: ...
    @property
    def special_tokens_set(self) -> set[str]: ...
    def encode_ordinary(self, text: str, /) -> list[int]: ...
    def encode_single_token(self, text_or_bytes: str | bytes, /) -> int: ...
    def decode_single_token_bytes(self, token: int, /) -> bytes: ...


def prompt_ids(tokenizer: GenerationTokenizer, prompt: str) -> list[int]:
    """The ids that are read for a prompt: ordinary text, after the token that begins a text, if there is one."""
    begin = [tokenizer.encode_single_token(BEGIN_TOKEN)] if BEGIN_TOKEN in tokenizer.special_tokens_set else []
    return begin + tokenizer.encode_ordinary(prompt)


def generate(
    model: Model,
    tokenizer: GenerationTokenizer,
    prompt: str | Sequence[int],
    max_tokens: int = 256,
    *,
    stop: str | Sequence[str] = (),
    end_ids: Collection[int] | None = None,
    session: Session | None = None,
    **sampling: Any,
) -> Iterator[str]:
    """Continue a prompt; yields the new text, piece by piece, as the model writes it.

    prompt: a text, taken as ordinary text and begun with <|begin_of_text|> if the tokenizer has that token; or ids,
        taken as they are.
    max_tokens: how many tokens to write at most; the end of the model's context may come first.
    stop: strings that end the text where they appear; they are not part of it.
    end_ids: tokens that end the text; by default those of the usual names that the tokenizer has.
    session: what was read and written before, to be gone on with; see `Session`.
    sampling: temperature, top_k, top_p, min_p, repetition_penalty, frequency_penalty, logit_bias, seed: the fields of
        `model.generation.sampling.Sampling`.

    A piece is one or more whole characters: bytes of a character that spans tokens are held until it is complete, and
    bytes that are no UTF-8 become U+FFFD. Text that may turn out to be the beginning of a stop string is held as well.
    Special tokens are not text: an end token ends it; others, and ids that have no token, are passed over. Closing the
    generator frees the cache.

    Raises InputError, before anything is generated, for arguments out of range and for a prompt that does not fit.

    >>> "".join(generate(model, tokenizer, "Once upon a time", max_tokens=20, seed=1))  # doctest: +SKIP
    ' there was a little fox who lived at the edge of a wood.'
    """
    arguments = {"stop": stop, "end_ids": end_ids, "session": session, **sampling}
    return (piece for _, piece in Completions(model, tokenizer, [prompt], max_tokens, **arguments) if piece)


def generate_ids(model: Model, ids: Sequence[int], **arguments: Any) -> Iterator[int]:
    """Continue `ids`; yields the new ids one by one, up to and without the first of `end_ids`.

    arguments: those of `Generation` but samples, logprobs and sampling, and the fields of `Sampling`.
    """
    given = {name: arguments.pop(name) for name in ("max_tokens", "end_ids", "n_vocab", "session") if name in arguments}
    generation = Generation(model, [ids], sampling=Sampling(**arguments), **given)
    return (token.id for (token,) in generation if token.finish != "end")


@dataclass
class Completion:
    """A text that was written."""

    prompt: int
    """The number of its prompt."""
    text: str = ""
    ids: list[int] = field(default_factory=list)
    """All that was chosen, the end token included."""
    logprobs: list[float] = field(default_factory=list)
    """Of each id; empty if not asked for."""
    top_logprobs: list[list[tuple[int, float]]] = field(default_factory=list)
    """At each id, the likeliest ids and their log-probabilities; empty if not asked for."""
    finish: Finish | None = None
    """Why it ended: an end token, a stop string, or no more room; None while it is written."""


def complete(
    model: Model,
    tokenizer: GenerationTokenizer,
    prompts: Sequence[str | Sequence[int]],
    max_tokens: int = 256,
    **arguments: Any,
) -> list[Completion]:
    """Continue several prompts at once, each to its own end; `samples` texts for each, in the order of the prompts.

    arguments: those of `Completions`.
    """
    completions = Completions(model, tokenizer, prompts, max_tokens, **arguments)
    for _ in completions:
        pass
    return completions.texts


class Completions:
    """Several texts that are written at once; iterating gives each token's text and the completion it belongs to.

    samples: how many texts for each prompt, from one reading of it.
    logprobs: how many of the likeliest tokens to tell the log-probabilities of, beside the chosen one's; None for none.
    The other arguments are those of `generate`. A text is the one that is generated alone with the same seed (to which
    the number of the sample is added), but where rounding turns a choice. The caches of all texts are held at once.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: GenerationTokenizer,
        prompts: Sequence[str | Sequence[int]],
        max_tokens: int = 256,
        *,
        samples: int = 1,
        stop: str | Sequence[str] = (),
        end_ids: Collection[int] | None = None,
        logprobs: int | None = None,
        session: Session | None = None,
        **sampling: Any,
    ) -> None:
        if isinstance(prompts, str):
            raise InputError("prompts is one text; give a list of them")
        if tokenizer.n_vocab > model.config.vocab_size:
            raise InputError(
                f"the tokenizer has {tokenizer.n_vocab} tokens and the model {model.config.vocab_size}; "
                "they do not belong together"
            )
        self._stops = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in self._stops:
            raise InputError("an empty stop string would end every text before it begins")
        self._tokenizer = tokenizer
        specials = {text: tokenizer.encode_single_token(text) for text in tokenizer.special_tokens_set}
        self._unprinted = frozenset(specials.values())
        self.generation = Generation(
            model,
            [prompt_ids(tokenizer, text) if isinstance(text, str) else text for text in prompts],
            samples=samples,
            max_tokens=max_tokens,
            sampling=Sampling(**sampling),
            end_ids=[specials[text] for text in END_TOKENS if text in specials] if end_ids is None else end_ids,
            n_vocab=tokenizer.n_vocab,
            logprobs=logprobs,
            session=session,
        )
        self.texts: list[Completion] = []
        """What has been written so far, the samples of a prompt one after the other."""

    def __iter__(self) -> Iterator[tuple[Completion, str]]:
        generation = self.generation
        count = len(generation.prompts) * generation.samples
        self.texts = [Completion(row // generation.samples) for row in range(count)]
        decoders = [(StreamDecoder(self._tokenizer), StopStrings(self._stops)) for _ in range(count)]
        for tokens in generation:
            for token in tokens:
                text, (decoder, stops) = self.texts[token.row], decoders[token.row]
                piece = stops.feed(self._characters(decoder, token.id))
                if token.finish:
                    piece += stops.feed(decoder.flush()) + stops.flush()
                if stops.stopped:
                    generation.drop(token.row)
                text.text += piece
                text.ids.append(token.id)
                text.finish = "stop" if stops.stopped else token.finish
                if token.logprob is not None:
                    text.logprobs.append(token.logprob)
                    text.top_logprobs.append(token.top)
                yield text, piece
        for text in self.texts:
            text.finish = text.finish or "length"  # where no token was asked for

    def _characters(self, decoder: StreamDecoder, id: int) -> str:
        if id in self._unprinted:
            return ""
        try:
            return decoder.feed(id)
        except KeyError:  # a gap in the vocabulary: the model has the row, the tokenizer no token
            return ""
