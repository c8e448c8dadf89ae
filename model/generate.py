"""From a prompt to a text: the prefill and decode loops, and streaming of whole characters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from bpe.errors import InputError
from bpe.streaming import whole_characters
from model.cache import KVCache
from model.sampling import check_sampling, sample
from model.transformer import Transformer

BEGIN_TOKEN = "<|begin_of_text|>"
END_TOKENS = ("<|end_of_text|>", "<|eot_id|>", "<|endoftext|>")


class GenerationTokenizer(Protocol):
    """What generation needs of a tokenizer; bpe.Tokenizer and tiktoken.Encoding both have it."""

    @property
    def n_vocab(self) -> int: ...
    @property
    def special_tokens_set(self) -> set[str]: ...
    def encode_ordinary(self, text: str, /) -> list[int]: ...
    def encode_single_token(self, text_or_bytes: str | bytes, /) -> int: ...
    def decode_single_token_bytes(self, token: int, /) -> bytes: ...


def generate(
    model: Transformer,
    tokenizer: GenerationTokenizer,
    prompt: str | Sequence[int],
    max_tokens: int = 256,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = 0.95,
    min_p: float | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] = (),
    use_cache: bool = True,
) -> Iterator[str]:
    """Continue a prompt; yields the new text, piece by piece, as the model writes it.

    prompt: a text, taken as ordinary text and begun with <|begin_of_text|> if the tokenizer has that token; or ids,
        taken as they are.
    max_tokens: how many tokens to write at most; the end of the model's context may come first.
    temperature, top_k, top_p, min_p: see `model.sampling.sample`.
    seed: the same seed gives the same text on the same machine; None draws a new one.
    stop: strings that end the text where they appear; they are not part of it.
    use_cache: False reads the whole text again for each token; slower, and for checking only.

    A piece is one or more whole characters: bytes of a character that spans tokens are held until it is complete, and
    bytes that are no UTF-8 become U+FFFD. Text that may turn out to be the beginning of a stop string is held as well.
    Special tokens are not text: an end token ends it, others are passed over.

    Raises InputError, before anything is generated, for arguments out of range and for a prompt that does not fit.

    >>> "".join(generate(model, tokenizer, "Once upon a time", max_tokens=20, seed=1))  # doctest: +SKIP
    ' there was a little fox who lived at the edge of a wood.'
    """
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    if "" in stops:
        raise InputError("an empty stop string would end every text before it begins")
    if tokenizer.n_vocab > model.config.vocab_size:
        raise InputError(
            f"the tokenizer has {tokenizer.n_vocab} tokens and the model {model.config.vocab_size}; they do not belong "
            "together"
        )
    specials = {text: tokenizer.encode_single_token(text) for text in tokenizer.special_tokens_set}
    if isinstance(prompt, str):
        begin = [specials[BEGIN_TOKEN]] if BEGIN_TOKEN in specials else []
        prompt = begin + tokenizer.encode_ordinary(prompt)
    ids = generate_ids(
        model,
        prompt,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        seed=seed,
        end_ids={specials[text] for text in END_TOKENS if text in specials},
        n_vocab=tokenizer.n_vocab,
        use_cache=use_cache,
    )
    unprinted = set(specials.values())
    pieces = (b"" if token in unprinted else tokenizer.decode_single_token_bytes(token) for token in ids)
    return until_stop(whole_characters(pieces), stops)


def generate_ids(
    model: Transformer,
    ids: Sequence[int],
    *,
    max_tokens: int = 256,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = 0.95,
    min_p: float | None = None,
    seed: int | None = None,
    end_ids: Collection[int] = (),
    n_vocab: int | None = None,
    use_cache: bool = True,
) -> Iterator[int]:
    """Continue `ids`; yields the new ids one by one, up to and without the first of `end_ids`.

    Arguments are those of `generate`. `n_vocab` keeps to the first so many ids, where a model has more rows than its
    tokenizer has tokens.
    """
    check_sampling(temperature, top_k, top_p, min_p)
    config = model.config
    if max_tokens < 0:
        raise InputError(f"max_tokens is {max_tokens}; it cannot be negative")
    if n_vocab is not None and not 0 < n_vocab <= config.vocab_size:
        raise InputError(f"n_vocab is {n_vocab}; the model has {config.vocab_size} tokens")
    if not ids:
        raise InputError("the prompt is empty and there is no token that begins a text; give at least one character")
    if not 0 <= min(ids) <= max(ids) < config.vocab_size:
        raise InputError(
            f"the prompt has ids from {min(ids)} to {max(ids)}; the model's go from 0 to {config.vocab_size - 1}"
        )
    if len(ids) >= config.max_seq_len:
        raise InputError(
            f"the prompt has {len(ids)} tokens and the context of the model holds {config.max_seq_len}, the answer "
            f"included; shorten the prompt to {config.max_seq_len - 1} tokens or fewer"
        )
    device = model.tok_embeddings.weight.device
    generator = torch.Generator(device)
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)

    def next_id(logits: Tensor) -> int:
        return int(
            sample(
                logits[:, -1, :n_vocab],
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                min_p=min_p,
                generator=generator,
            )
        )

    return _decode_loop(model, list(ids), max_tokens, next_id, frozenset(end_ids), use_cache)


def _decode_loop(
    model: Transformer,
    ids: list[int],
    max_tokens: int,
    next_id: Callable[[Tensor], int],
    end_ids: frozenset[int],
    use_cache: bool,
) -> Iterator[int]:
    weight, config = model.tok_embeddings.weight, model.config
    length = min(len(ids) + max_tokens, config.max_seq_len)
    cache = KVCache(config, capacity=length, dtype=weight.dtype, device=weight.device) if use_cache else None
    unread = list(ids)  # what the model has not seen yet
    while len(ids) < length:
        # 1. Read: all of the prompt at first (prefill), then one token at a time (decode).
        with torch.inference_mode():
            read = torch.tensor([unread if use_cache else ids], device=weight.device)
            logits = model(read, cache, last_only=True)
            # 2. Choose the token that comes next.
            chosen = next_id(logits)
        # 3. Stop where the model says that the text ends.
        if chosen in end_ids:
            return
        # 4. Hand it out, and go on from it.
        yield chosen
        unread = [chosen]
        ids.append(chosen)


def until_stop(pieces: Iterable[str], stops: Sequence[str]) -> Iterator[str]:
    """The text up to the stop string that is complete first, without it; how the text is cut does not matter.

    >>> list(until_stop(["one. t", "w", "o. EN", "Dthree"], ["END"]))
    ['one. t', 'w', 'o. ']
    """
    held = ""
    for piece in pieces:
        held += piece
        ends = [(held.index(stop) + len(stop), -len(stop), stop) for stop in stops if stop in held]
        if ends:
            if text := held[: held.index(min(ends)[2])]:
                yield text
            return
        safe = len(held) - _unfinished(held, stops)
        if safe:
            yield held[:safe]
            held = held[safe:]
    if held:
        yield held


def _unfinished(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end of `text` begin a stop string."""
    longest = min(len(text), max((len(stop) - 1 for stop in stops), default=0))
    for count in range(longest, 0, -1):
        if any(stop.startswith(text[-count:]) for stop in stops):
            return count
    return 0
