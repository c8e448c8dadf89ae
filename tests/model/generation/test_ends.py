"""What ends a generated text and is put in front of a prompt: what the tokenizer says, and what a caller overrules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch

from bpe import Tokenizer
from model import Completions, KVCache, ModelConfig, Transformer, complete, generate
from model.generation.completions import prompt_ids
from support.references import BYTE_RANKS

IDS = {"<s>": 256, "</s>": 257, "<|turn_end|>": 258}
CONFIG = ModelConfig(dim=8, n_layers=1, n_heads=1, hidden_dim=8, vocab_size=264, max_seq_len=64)


class Writes(Transformer):
    """A model that writes given ids after any prompt of one id."""

    def __init__(self, *ids: int) -> None:
        super().__init__(CONFIG)
        self.script = ids

    def forward(self, ids: torch.Tensor, cache: KVCache, *, positions: Any = None, last_only: bool = False) -> Any:
        place = cache.length
        cache.reserve(ids.shape[1], positions)
        cache.advance(ids.shape[1])
        logits = torch.full((len(ids), 1, CONFIG.vocab_size), -20.0)
        logits[:, 0, self.script[min(place, len(self.script) - 1)]] = 20.0
        return logits


def tokenizer(**changes: Any) -> Tokenizer:
    made = Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=BYTE_RANKS, special_tokens=IDS)
    return made.with_boundaries(**changes)


def test_a_custom_end_token_ends_a_text_and_is_not_printed() -> None:
    model = Writes(72, 105, 258, 72)
    (text,) = complete(model, tokenizer(end_tokens=["<|turn_end|>"]), [[65]], 4)
    assert (text.text, text.ids, text.finish) == ("Hi", [72, 105, 258], "end")
    (text,) = complete(model, tokenizer(), [[65]], 4)
    assert (text.text, text.ids, text.finish) == ("HiH", [72, 105, 258, 72], "length")


def test_an_ordinary_end_token_is_not_printed_either() -> None:
    (text,) = complete(Writes(72, 105, 33, 72), tokenizer(end_tokens=["!"]), [[65]], 4)
    assert (text.text, text.ids, text.finish) == ("Hi", [72, 105, 33], "end")


def test_an_end_id_without_a_token_ends_a_text() -> None:
    """The model may have rows beyond the tokenizer, and a generation_config.json may name one of them."""
    made = tokenizer()
    said = made.vocabulary.boundaries._replace(eos_ids=(262, 999))
    ends = Tokenizer.from_vocabulary(made.vocabulary.with_boundaries(said))
    completions = Completions(Writes(72, 262, 72), ends, [[65]], 4)
    list(completions)
    (text,) = completions.texts
    assert (text.text, text.ids, text.finish, completions.text_of(262)) == ("H", [72, 262], "end", None)


@pytest.mark.parametrize("stop", ["</s>", ["x", "</s>"], ("</s>",)])
def test_a_special_token_given_as_a_stop_string_stops_at_its_id_and_at_its_text(stop: Any) -> None:
    ends = tokenizer(end_tokens=["<|turn_end|>"])
    assert "".join(generate(Writes(72, 257, 72), ends, [65], 9, stop=stop)) == "H"
    (text,) = complete(Writes(72, 257, 72), ends, [[65]], 9, stop=stop)
    assert (text.finish, text.ids) == ("stop", [72, 257])
    (text,) = complete(Writes(72, *b"</s>", 72), ends, [[65]], 9, stop=stop)
    assert (text.finish, text.text) == ("stop", "H")


def test_text_held_back_for_a_stop_string_is_printed_before_a_special_stop_token() -> None:
    ends = tokenizer(end_tokens=["<|turn_end|>"])
    (text,) = complete(Writes(72, 60, 47, 257), ends, [[65]], 9, stop=["</x>", "</s>"])
    assert (text.text, text.finish) == ("H</", "stop")


def test_several_texts_stop_each_at_its_own_special_token() -> None:
    ends = tokenizer(end_tokens=["<|turn_end|>"])
    texts = complete(Writes(72, 257, 72), ends, [[65], [66]], 9, stop="</s>", samples=2)
    assert [(text.text, text.finish) for text in texts] == [("H", "stop")] * 4


def test_a_prompt_gets_what_the_tokenizer_puts_in_front() -> None:
    assert prompt_ids(tokenizer(), "A") == [256, 65]
    assert prompt_ids(tokenizer(bos=False), "A") == [65]
    said = tokenizer().vocabulary.boundaries._replace(prefix_ids=(256, 258), suffix_ids=(257,))
    several = Tokenizer.from_vocabulary(tokenizer().vocabulary.with_boundaries(said))
    assert prompt_ids(several, "A") == [256, 258, 65]  # and nothing behind a text that is to be continued


def test_an_encoding_of_tiktoken_has_the_known_names() -> None:
    encoding = tiktoken.Encoding("tiny", pat_str=r"[\s\S]", mergeable_ranks=BYTE_RANKS, special_tokens=IDS)
    assert prompt_ids(encoding, "A") == [256, 65]
    assert "".join(generate(Writes(72, 257, 72), encoding, [65], 9)) == "H"


def test_added_tokens_are_printed_unless_they_are_special(tmp_path: Path) -> None:
    """A reasoning model writes <think>, which its file marks as text, between special tokens."""
    made = tokenizer()
    made.save(tmp_path / "tokenizer.json")
    data = json.loads((tmp_path / "tokenizer.json").read_bytes())
    for token in data["added_tokens"]:
        token["special"] = token["content"] == "</s>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    mixed = Tokenizer.from_file(tmp_path / "tokenizer.json").with_boundaries(end_tokens=["</s>"])
    model = Writes(258, 72, 256, 257, 72)
    (text,) = complete(model, mixed, [[65]], 8)
    assert (text.text, text.finish) == ("<|turn_end|>H<s>", "end")
    assert mixed.encode_ordinary(text.text) == [258, 72, 256]
    (text,) = complete(model, mixed, [[65]], 8, stop="<s>")
    assert (text.text, text.finish) == ("<|turn_end|>H", "stop")
