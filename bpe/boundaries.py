"""What begins and ends a text: the ids, whether an encoded text gets them, and which file says so.

The readers in `bpe.formats` take all of this from files. The names below are used only where no file says anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bpe.errors import InputError

KNOWN_NAME = "known name"
"""The source of an id that no file gives: the text of its token is in `BEGIN_NAMES` or `END_NAMES`."""

# The names of the token that begins a text in published vocabularies. None of them has another use, so a text gets the
# token in front where no file says otherwise.
BEGIN_NAMES = (
    "<|begin_of_text|>",  # Llama 3 and 4, whose ranks come without any other file
    "<s>",  # Llama 2, Mistral, Phi-3, ...
    "<bos>",  # Gemma
    "<|startoftext|>",  # LFM2
    "<|bos|>",  # nanochat
    "<｜begin▁of▁sentence｜>",  # DeepSeek
)
# The names of the tokens that end a text, a turn or a message in published vocabularies: those at which llama.cpp ends
# a text and that vocabularies of byte-level BPE have, with the names that Llama 4 and Cohere use. Names that end a text
# come before names that end a turn: the first token found is put between documents.
END_NAMES = (
    "<|end_of_text|>",  # Llama 3 and 4, Granite
    "<|endoftext|>",  # GPT-2, Qwen, Phi, SmolLM
    "</s>",  # Llama 2, Mistral
    "<eos>",  # Gemma
    "<｜end▁of▁sentence｜>",  # DeepSeek
    "<|return|>",  # gpt-oss: the end of an answer
    "[EOS]",  # Kimi K2
    "<EOT>",  # CodeLlama
    "<|eot_id|>",  # Llama 3: the end of a turn
    "<|eom_id|>",  # Llama 3: the end of a message that waits for a tool
    "<|eot|>",  # Llama 4
    "<|eom|>",  # Llama 4
    "<|im_end|>",  # ChatML: Qwen, SmolLM, Yi, ...
    "<|end|>",  # Phi-3
    "<end_of_turn>",  # Gemma
    "<|end_of_turn|>",  # OpenChat
    "<|END_OF_TURN_TOKEN|>",  # Cohere
    "<|assistant_end|>",  # nanochat
    "<|call|>",  # gpt-oss: the end of a message that waits for a tool
    "[EOT]",  # Kimi K2
    "<end_of_utterance>",  # SmolVLM
)
# In gpt-oss's vocabulary, <|end|> ends one message of several within a turn. llama.cpp makes the same exception.
_NOT_THE_END = ("<|end|>", ("<|return|>", "<|call|>"))


class Boundaries(NamedTuple):
    """What begins and ends a text, and where each of it comes from.

    Each source is the name of a file ("generation_config.json"), a part of one ("tokenizer.json (post_processor)"), an
    option ("--bos"), `KNOWN_NAME`, or "" where nothing is known.
    """

    bos_id: int | None = None
    """The id of the token that begins a text, which need not be put in front."""
    eos_ids: tuple[int, ...] = ()
    """The ids that end a generated text. The first also ends a document of training data."""
    eos_id: int | None = None
    """The id that the files of the tokenizer call eos_token, which templates use; the first of `eos_ids` if none do."""
    prefix_ids: tuple[int, ...] = ()
    """The ids that are put in front of a text. Usually none, or `bos_id`."""
    suffix_ids: tuple[int, ...] = ()
    """The ids that are put behind a complete text. Usually none, or `eos_id`."""
    bos_from: str = ""
    """The source of `bos_id`."""
    eos_from: str = ""
    """The source of `eos_ids`."""
    prefix_from: str = ""
    """The source of `prefix_ids`: what says that these, or none, are put in front."""
    suffix_from: str = ""
    """The source of `suffix_ids`: what says that these, or none, are put behind."""

    @property
    def add_bos(self) -> bool:
        """Whether a text gets ids in front."""
        return len(self.prefix_ids) > 0

    @property
    def add_eos(self) -> bool:
        """Whether a complete text gets ids behind."""
        return len(self.suffix_ids) > 0


def known_begin(tokens: Mapping[str, int]) -> int | None:
    """Return the id of the first of `BEGIN_NAMES` among added tokens, given by text and id; None if there is none."""
    return next((tokens[name] for name in BEGIN_NAMES if name in tokens), None)


def known_ends(tokens: Mapping[str, int]) -> tuple[int, ...]:
    """Return the ids of `END_NAMES` among added tokens, in the order of the names.

    >>> known_ends({"<|im_end|>": 7, "<|endoftext|>": 5})
    (5, 7)
    """
    excepted, others = _NOT_THE_END
    names = [name for name in END_NAMES if name != excepted or not all(other in tokens for other in others)]
    return tuple(dict.fromkeys(tokens[name] for name in names if name in tokens))


def completed(boundaries: Boundaries, tokens: Mapping[str, int]) -> Boundaries:
    """Return boundaries in which the tokens of known names stand in for what no file says.

    Args:
        boundaries: What the files say; the source of what they do not say is "".
        tokens: The id of each added token, by its text.
    """
    known = known_boundaries(tokens)
    if not boundaries.bos_from and len(boundaries.prefix_ids) == 1:
        boundaries = boundaries._replace(bos_id=boundaries.prefix_ids[0], bos_from=boundaries.prefix_from)
    if not boundaries.bos_from:
        boundaries = boundaries._replace(bos_id=known.bos_id, bos_from=known.bos_from)
    if not boundaries.eos_from:
        boundaries = boundaries._replace(eos_ids=known.eos_ids, eos_from=known.eos_from)
    if boundaries.eos_id is None:
        boundaries = boundaries._replace(eos_id=next(iter(boundaries.eos_ids), None))
    if not boundaries.prefix_from and boundaries.bos_from == KNOWN_NAME:
        boundaries = boundaries._replace(prefix_ids=known.prefix_ids, prefix_from=known.prefix_from)
    return boundaries


def extended(boundaries: Boundaries, tokens: Mapping[str, int]) -> Boundaries:
    """Return the boundaries of a vocabulary that has more added tokens now: known names are looked up again.

    Args:
        boundaries: The boundaries of the vocabulary before.
        tokens: The id of each added token now, by its text.
    """
    if boundaries.bos_from == KNOWN_NAME:
        boundaries = boundaries._replace(bos_id=None, bos_from="")
        if boundaries.prefix_from == KNOWN_NAME:
            boundaries = boundaries._replace(prefix_ids=(), prefix_from="")
    if boundaries.eos_from == KNOWN_NAME:
        boundaries = boundaries._replace(eos_ids=(), eos_id=None, eos_from="")
    return completed(boundaries, tokens)


def known_boundaries(tokens: Mapping[str, int]) -> Boundaries:
    """Return what begins and ends a text where no file says anything: the tokens of known names.

    The token that begins a text is put in front. Nothing is put behind.

    Args:
        tokens: The id of each added token, by its text.

    >>> known_boundaries({"<|begin_of_text|>": 300, "<|eot_id|>": 301}).prefix_ids
    (300,)
    """
    bos, ends = known_begin(tokens), known_ends(tokens)
    return Boundaries(
        bos_id=bos,
        eos_ids=ends,
        eos_id=ends[0] if ends else None,
        prefix_ids=() if bos is None else (bos,),
        bos_from="" if bos is None else KNOWN_NAME,
        eos_from=KNOWN_NAME if ends else "",
        prefix_from="" if bos is None else KNOWN_NAME,
    )


def overruled(boundaries: Boundaries, *, bos: bool | None = None, eos_ids: Iterable[int] | None = None) -> Boundaries:
    """Return boundaries with what a caller wants instead.

    Args:
        boundaries: What the files say.
        bos: Whether `bos_id`, or whatever the files put in front, is put in front. None keeps what the files say.
        eos_ids: The ids that end a text. None keeps those of the files.

    Raises:
        InputError: When `bos` is True and nothing is known to begin a text.
    """
    if bos is False:
        boundaries = boundaries._replace(prefix_ids=(), prefix_from="--no-bos")
    elif bos and not boundaries.prefix_ids:
        if boundaries.bos_id is None:
            raise InputError("no token is known to begin a text, so none can be put in front; leave out --bos")
        boundaries = boundaries._replace(prefix_ids=(boundaries.bos_id,), prefix_from="--bos")
    if eos_ids is not None:
        ends = tuple(dict.fromkeys(eos_ids))
        boundaries = boundaries._replace(eos_ids=ends, eos_id=ends[0] if ends else None, eos_from="--eos-token")
    return boundaries
