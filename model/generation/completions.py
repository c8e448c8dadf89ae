"""Text completions: prompts are encoded, continued, and decoded to text as it is generated.

`generate` streams one text, `complete` returns several, and `Completions` streams several at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, Union

from bpe import Tokenizer
from bpe.arguments import checked
from bpe.boundaries import Boundaries, known_boundaries
from bpe.errors import InputError
from bpe.streaming import StopStrings, StreamDecoder
from model.generation.decoding import Finish, Generation, Model, Session
from model.generation.grammar import Grammar, GrammarCompiler
from model.generation.sampling import Sampling, SamplingOptions
from model.generation.speculation import Speculation
from model.images import TiledImage

if TYPE_CHECKING:
    from typing_extensions import Unpack

AllowedSpecial = Union[Literal["all"], AbstractSet[str]]


class GenerationTokenizer(Protocol):
    """The part of a tokenizer that generation uses; `bpe.Tokenizer` and `tiktoken.Encoding` both have it."""

    @property
    def n_vocab(self) -> int: ...
    @property  # Any, since tiktoken's is a cached_property, which pyright does not accept as a property
    def special_tokens_set(self) -> Any: ...
    def encode(
        self, text: str, /, *, allowed_special: AllowedSpecial, disallowed_special: Collection[str]
    ) -> list[int]: ...
    def encode_ordinary(self, text: str, /) -> list[int]: ...
    def encode_single_token(self, text_or_bytes: str | bytes, /) -> int: ...
    def decode_single_token_bytes(self, token: int, /) -> bytes: ...


def boundaries_of(tokenizer: GenerationTokenizer) -> Boundaries:
    """Return what begins and ends a text: what the tokenizer's files say, or the known names of a tiktoken.Encoding."""
    if isinstance(tokenizer, Tokenizer):
        return tokenizer.vocabulary.boundaries
    return known_boundaries({text: tokenizer.encode_single_token(text) for text in tokenizer.special_tokens_set})


def prompt_ids(tokenizer: GenerationTokenizer, prompt: str, allowed_special: AllowedSpecial = frozenset()) -> list[int]:
    """Return the ids of a prompt, after what the tokenizer puts in front of a text.

    Args:
        tokenizer: The tokenizer.
        prompt: The text.
        allowed_special: The special tokens that become their ids, or "all"; others are ordinary text. If the text
            itself begins with what is put in front, nothing is put in front.
    """
    prefix = list(boundaries_of(tokenizer).prefix_ids)
    if not allowed_special:
        return prefix + tokenizer.encode_ordinary(prompt)
    ids = tokenizer.encode(prompt, allowed_special=allowed_special, disallowed_special=())
    return ids if ids[: len(prefix)] == prefix else prefix + ids


def with_images(
    ids: Sequence[int], images: Sequence[TiledImage], image_token: int | None, written: int | None = None
) -> Sequence[int]:
    """Return a prompt with a token for each image, at the beginning, as in transformers, if it has none yet.

    Args:
        ids: The prompt.
        images: The images.
        image_token: The id that stands for an image in the model; None for a model without images.
        written: The id of <|image|> in the tokenizer. In Meta's tokenizer.model, it is not the model's.
    """
    if image_token is None:
        return ids
    ids = [image_token if id == written else id for id in ids]
    if image_token in ids:
        return ids
    return [image_token] * len(images) + [*ids]


def _choices(
    model: Model, tokenizer: GenerationTokenizer, end_ids: Collection[int] | None
) -> tuple[int, Collection[int]]:
    """Return the number of ids to choose from, and the tokens that end a text."""
    rows = model.config.vocab_size
    ends = boundaries_of(tokenizer).eos_ids if end_ids is None else end_ids
    ends_with_rows = [id for id in ends if id < rows]  # perhaps without a token
    return min(max(tokenizer.n_vocab, *(id + 1 for id in ends_with_rows), 0), rows), ends


def grammar_compiler(
    model: Model, tokenizer: GenerationTokenizer, end_ids: Collection[int] | None = None
) -> GrammarCompiler:
    """Return the compiler of grammars for a model. Keep it for further grammars, since it reads the whole vocabulary.

    Args:
        model: The model.
        tokenizer: The tokenizer of the model.
        end_ids: As for `generate`.

    Raises:
        InputError: When llguidance is not installed.

    >>> compiler = grammar_compiler(model, tokenizer)  # doctest: +SKIP
    >>> "".join(generate(model, tokenizer, "Yes or no? ", grammar=compiler.regex("yes|no")))  # doctest: +SKIP
    'yes'
    """
    n_vocab, ends = _choices(model, tokenizer, end_ids)
    return GrammarCompiler(tokenizer, n_vocab, ends)


def check_same_tokens(tokenizer: GenerationTokenizer, draft_tokenizer: GenerationTokenizer | None) -> None:
    """Check that a draft model has the vocabulary of a model.

    Args:
        tokenizer: The tokenizer of the model.
        draft_tokenizer: The tokenizer of the draft model.

    Raises:
        InputError: When it is None, or an id stands for another token; the message names the first such id.
    """
    remedy = "choose a draft model of the same vocabulary"
    if draft_tokenizer is None:
        raise InputError("speculation: draft_tokenizer is missing; give the tokenizer of the draft model")
    if tokenizer.n_vocab != draft_tokenizer.n_vocab:
        raise InputError(
            f"the draft model has {draft_tokenizer.n_vocab:,} tokens and the model {tokenizer.n_vocab:,}; {remedy}"
        )
    specials, drafts = (
        {made.encode_single_token(text): text for text in made.special_tokens_set}
        for made in (tokenizer, draft_tokenizer)
    )
    for id in range(tokenizer.n_vocab):
        ours, theirs = _token(tokenizer, id), _token(draft_tokenizer, id)
        if ours != theirs or specials.get(id) != drafts.get(id):
            raise InputError(f"id {id} is {theirs!r} in the draft model and {ours!r} in the model; {remedy}")


def _token(tokenizer: GenerationTokenizer, id: int) -> bytes | None:
    """Return the bytes of a token; None for an id without a token."""
    try:
        return tokenizer.decode_single_token_bytes(id)
    except KeyError:
        return None


@checked(options=SamplingOptions, settings=Sampling)
def generate(
    model: Model,
    tokenizer: GenerationTokenizer,
    prompt: str | Sequence[int],
    max_tokens: int = 256,
    *,
    stop: str | Sequence[str] = (),
    end_ids: Collection[int] | None = None,
    session: Session | None = None,
    allowed_special: AllowedSpecial = frozenset(),
    grammar: Grammar | None = None,
    speculation: Speculation | None = None,
    **sampling: Unpack[SamplingOptions],
) -> Iterator[str]:
    """Continue a prompt and yield the new text, piece by piece, as the model generates it.

    A piece is one or more whole characters. Bytes of a character that spans tokens are held back until it is complete,
    and bytes that are not UTF-8 become U+FFFD. Text that may be the beginning of a stop string is held back too.
    An end token ends the text and is never part of it. Other special tokens, and ids without a token, are skipped.
    Closing the generator frees the cache.

    Args:
        model: The model.
        tokenizer: The tokenizer of the model.
        prompt: A text, encoded as ordinary text after what the tokenizer puts in front of a text; or ids, used
            unchanged.
        max_tokens: The largest number of tokens to generate. The end of the model's context may come first.
        stop: Strings that end the text where they first occur; they are not part of it. The text of a special token
            ends it at that token, too.
        end_ids: Tokens that end the text. Defaults to the tokenizer's `eos_ids`.
        session: Keeps the cache between calls; see `Session`.
        allowed_special: The special tokens in a prompt's text that become their ids, or "all"; see `prompt_ids`.
        grammar: What the text must be: a JSON schema, regular expression or grammar that `grammar_compiler` compiled.
            The text ends where the grammar allows no more, or where it may end and the model chooses an end token.
        speculation: Propose tokens and verify several in one call: the same text, often sooner; see `Speculation`.
        **sampling: temperature, top_k, top_p, min_p, repetition_penalty, frequency_penalty, presence_penalty,
            logit_bias and seed: the fields of `Sampling`.

    Raises:
        InputError: When an argument is out of range or the prompt does not fit, before anything is generated.

    >>> "".join(generate(model, tokenizer, "Once upon a time", max_tokens=20, seed=1))  # doctest: +SKIP
    ' there was a little fox who lived at the edge of a wood.'
    """
    completions = Completions(
        model,
        tokenizer,
        [prompt],
        max_tokens,
        stop=stop,
        end_ids=end_ids,
        session=session,
        allowed_special=allowed_special,
        grammar=grammar,
        speculation=speculation,
        **sampling,
    )
    return (piece for _, piece in completions if piece)


@checked(options=SamplingOptions, settings=Sampling)
def generate_ids(
    model: Model,
    ids: Sequence[int],
    max_tokens: int = 256,
    *,
    end_ids: Collection[int] = (),
    n_vocab: int | None = None,
    session: Session | None = None,
    speculation: Speculation | None = None,
    **sampling: Unpack[SamplingOptions],
) -> Iterator[int]:
    """Continue ids and yield the new ids one by one, up to but not including the first of `end_ids`.

    Args:
        model: The model.
        ids: The prompt.
        max_tokens: The largest number of tokens to generate. The end of the model's context may come first.
        end_ids: Tokens that end the text.
        n_vocab: The number of ids to choose from, if the model has more rows than its tokenizer has tokens.
        session: Keeps the cache between calls; see `Session`.
        speculation: As for `generate`.
        **sampling: The fields of `Sampling`.

    Raises:
        InputError: When an argument is out of range or the prompt does not fit.
    """
    generation = Generation(
        model,
        [ids],
        max_tokens=max_tokens,
        sampling=Sampling(**sampling),
        end_ids=end_ids,
        n_vocab=n_vocab,
        session=session,
        speculation=speculation,
    )
    return (token.id for (token,) in generation if token.finish != "end")


@dataclass(repr=False)
class Completion:
    """A generated text."""

    prompt: int
    """The number of its prompt, from 0."""
    text: str = ""
    ids: list[int] = field(default_factory=list)
    """All generated ids, including the end token."""
    logprobs: list[float] = field(default_factory=list)
    """The log-probability of each id in nats, before grammar and sampling settings; empty if not requested."""
    top_logprobs: list[list[tuple[int, float]]] = field(default_factory=list)
    """The likeliest ids and their log-probabilities at each id; empty if not requested."""
    finish: Finish | None = None
    """Why the text ended: an end token (or a grammar that allows no more), a stop string, or no more room; None while
    it is being generated."""

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= 60 else f"{self.text[:57]}..."
        return f"<Completion of prompt {self.prompt}: {text!r}, {len(self.ids)} tokens, finish {self.finish!r}>"


@checked(options=SamplingOptions, settings=Sampling)
def complete(
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
    allowed_special: AllowedSpecial = frozenset(),
    grammar: Grammar | None = None,
    speculation: Speculation | None = None,
    **sampling: Unpack[SamplingOptions],
) -> list[Completion]:
    """Continue several prompts at once and return the completions.

    Args:
        model: The model.
        tokenizer: The tokenizer of the model.
        prompts: Texts or ids.
        max_tokens: The largest number of tokens to generate in each text.
        samples: The number of texts for each prompt. A prompt is read once for all of them.
        stop: As for `generate`.
        end_ids: As for `generate`.
        logprobs: The number of likeliest tokens whose log-probabilities are recorded; see `Completions`.
        session: As for `generate`; for one prompt and one sample.
        allowed_special: As for `generate`.
        grammar: As for `generate`; for each text.
        speculation: As for `generate`.
        **sampling: The fields of `Sampling`.

    Returns:
        The completions in the order of the prompts, `samples` for each.

    Raises:
        InputError: When an argument is out of range or a prompt does not fit.
    """
    completions = Completions(
        model,
        tokenizer,
        prompts,
        max_tokens,
        samples=samples,
        stop=stop,
        end_ids=end_ids,
        logprobs=logprobs,
        session=session,
        allowed_special=allowed_special,
        grammar=grammar,
        speculation=speculation,
        **sampling,
    )
    for _ in completions:
        pass
    return completions.texts


class Completions:
    """Several texts generated at once. Iterating yields, for each token, its completion and the new text.

    A text is the same as if it were generated alone with the same seed (plus the sample number), unless rounding
    changes a choice. The caches of all texts are in memory at once.
    """

    @checked(options=SamplingOptions, settings=Sampling)
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
        allowed_special: AllowedSpecial = frozenset(),
        images: Sequence[TiledImage] = (),
        grammar: Grammar | None = None,
        speculation: Speculation | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> None:
        """Check the arguments and encode the prompts. Nothing is generated before iteration.

        Args:
            model: The model.
            tokenizer: The tokenizer of the model.
            prompts: Texts or ids, as `prompt` of `generate`.
            max_tokens: The largest number of tokens to generate in each text.
            samples: The number of texts for each prompt. A prompt is read once for all of them.
            stop: As for `generate`.
            end_ids: As for `generate`.
            logprobs: The number of likeliest tokens whose log-probabilities are recorded, in addition to that of the
                chosen token; None for no log-probabilities.
            session: As for `generate`; for one prompt and one sample.
            allowed_special: As for `generate`.
            images: The images of each prompt. A prompt without image tokens gets them at its beginning.
            grammar: As for `generate`; for each text.
            speculation: As for `generate`. `generation.speculated` counts what it does.
            **sampling: The fields of `Sampling`.

        Raises:
            InputError: When an argument is out of range or a prompt does not fit.
        """
        model.config.check_tokens(tokenizer.n_vocab)
        if speculation is not None and speculation.draft is not None:
            check_same_tokens(tokenizer, speculation.draft_tokenizer)
        self._stops = (stop,) if isinstance(stop, str) else tuple(stop)
        if "" in self._stops:
            raise InputError("an empty stop string would end every text before it begins")
        self._tokenizer = tokenizer
        specials = {text: tokenizer.encode_single_token(text) for text in tokenizer.special_tokens_set}
        n_vocab, ends = _choices(model, tokenizer, end_ids)
        self._unprinted = frozenset(specials.values()).union(ends)
        self._stop_ids = frozenset(specials[text] for text in self._stops if text in specials)
        token, written = model.config.image_token, specials.get("<|image|>")
        self.generation: Generation = Generation(
            model,
            [
                with_images(
                    prompt_ids(tokenizer, text, allowed_special) if isinstance(text, str) else text,
                    images,
                    token,
                    written,
                )
                for text in prompts
            ],
            samples=samples,
            max_tokens=max_tokens,
            sampling=Sampling(**sampling),
            end_ids=ends,
            n_vocab=n_vocab,
            logprobs=logprobs,
            session=session,
            images=images,
            grammar=grammar,
            speculation=speculation,
        )
        self.texts: list[Completion] = []
        """The completions so far; the samples of a prompt are neighbours."""

    def __repr__(self) -> str:
        return f"<Completions by {self.generation!r}>"

    def __iter__(self) -> Iterator[tuple[Completion, str]]:
        generation = self.generation
        count = len(generation.prompts) * generation.samples
        self.texts = [Completion(row // generation.samples) for row in range(count)]
        decoders = [(StreamDecoder(self._tokenizer), StopStrings(self._stops)) for _ in range(count)]
        for tokens in generation:
            for token in tokens:
                text, (decoder, stops) = self.texts[token.row], decoders[token.row]
                piece = stops.feed(self._characters(decoder, token.id))
                stopped = token.id in self._stop_ids
                if token.finish or stopped:
                    piece += stops.feed(decoder.flush()) + stops.flush()
                stopped = stopped or stops.stopped
                if stopped:
                    generation.drop(token.row)
                text.text += piece
                text.ids.append(token.id)
                text.finish = "stop" if stopped else token.finish
                if token.logprob is not None:
                    text.logprobs.append(token.logprob)
                    text.top_logprobs.append(token.top)
                yield text, piece
        for text in self.texts:
            text.finish = text.finish or "length"  # for max_tokens of 0

    def text_of(self, id: int) -> str | None:
        """Return the text of a token; None for an id without a token."""
        try:
            return self._tokenizer.decode_single_token_bytes(id).decode(errors="replace")
        except KeyError:
            return None

    def _characters(self, decoder: StreamDecoder, id: int) -> str:
        if id in self._unprinted:
            return ""
        try:
            return decoder.feed(id)
        except KeyError:  # a gap in the vocabulary: the model has a row, the tokenizer has no token
            return ""
