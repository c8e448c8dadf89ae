"""`convert(..., tokenizer=...)`: resizing a model to a grown vocabulary."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bpe import Tokenizer, train_from_iterator
from bpe.chat import chat_format
from bpe.errors import InputError
from model import ModelConfig, Transformer, convert, load, save
from model.checkpoint import open_checkpoint
from model.checkpoint.companions import read_tokenizer
from support.references import BYTE_RANKS

MakeModel = Callable[[ModelConfig], Transformer]
RANKS = {**BYTE_RANKS, b"th": 256, b"the": 257}
SPECIAL = {"<|begin_of_text|>": 258, "<|end_of_text|>": 259, "<|eot_id|>": 260}
TEXT = "the others bathe there; then they breathe. Whether or not the weather is warm, mother gathers feathers. " * 3
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.content }}<|eot_id|>{% endfor %}"


@pytest.fixture(params=["tied", "untied"])
def original(request: Any, config: ModelConfig, make_model: MakeModel) -> Transformer:
    """A model with three more ids than its tokenizer."""
    return make_model(dataclasses.replace(config, vocab_size=264, tied_embeddings=request.param == "tied"))


@pytest.fixture
def old(tmp_path: Path) -> Tokenizer:
    tokenizer = Tokenizer("old", pat_str="llama3", mergeable_ranks=RANKS, special_tokens=SPECIAL)
    tokenizer.save(tmp_path / "old.json")
    return tokenizer


@pytest.fixture
def new(old: Tokenizer, tmp_path: Path) -> Tokenizer:
    """A tokenizer with twenty more tokens, a new special token among the old ones, and ids without a token."""
    grown = train_from_iterator([TEXT], 281, base=old)
    special = ["<|begin_of_text|>", "<|tool|>", "<|end_of_text|>", "<|eot_id|>"]
    ranks = grown.mergeable_ranks
    tokenizer = Tokenizer(
        "new", pat_str="llama3", mergeable_ranks=ranks, special_tokens={name: 300 + i for i, name in enumerate(special)}
    )
    tokenizer.save(tmp_path / "new.json")
    assert len(ranks) == 278
    return tokenizer


def ids_in_both(old: Tokenizer, new: Tokenizer) -> tuple[Tensor, Tensor]:
    """Return the old and the new ids of the old tokens."""
    tokens = [*old.mergeable_ranks, *old.special_tokens]
    return torch.tensor([old.encode_single_token(t) for t in tokens]), torch.tensor(
        [new.encode_single_token(t) for t in tokens]
    )


@pytest.mark.parametrize("format", ["bpe-llama", "huggingface", "meta", "gguf"])
def test_old_tokens_keep_their_rows_and_their_logits_exactly(
    format: str, original: Transformer, old: Tokenizer, new: Tokenizer, tmp_path: Path
) -> None:
    save(tmp_path / "in", original, tmp_path / "old.json")
    convert(tmp_path / "in", tmp_path / f"out.{format}", format, tokenizer=tmp_path / "new.json")
    model, tokenizer = load(tmp_path / f"out.{format}")
    assert tokenizer.special_tokens == new.special_tokens
    assert tokenizer.mergeable_ranks == new.mergeable_ranks
    assert model.config == dataclasses.replace(original.config, vocab_size=new.n_vocab)
    before, now = ids_in_both(old, new)
    assert torch.equal(model.tok_embeddings.weight[now], original.tok_embeddings.weight[before])
    assert torch.equal(model.output.weight[now], original.output.weight[before])
    # The order of sums depends on the number of rows, which changes the last bits of float32. So compare in float64.
    chosen = torch.randint(len(before), (2, 30), generator=torch.Generator().manual_seed(0))
    logits = model.double()(now[chosen])[..., now]
    torch.testing.assert_close(logits, original.double()(before[chosen])[..., before], rtol=0, atol=1e-12)


def test_the_row_of_a_new_token_is_the_mean_of_the_rows_it_was_encoded_to(
    original: Transformer, old: Tokenizer, new: Tokenizer, tmp_path: Path
) -> None:
    save(tmp_path / "in", original, tmp_path / "old.json")
    convert(tmp_path / "in", tmp_path / "out", tokenizer=tmp_path / "new.json")
    model, _ = load(tmp_path / "out")
    added = {bytes: id for bytes, id in new.mergeable_ranks.items() if bytes not in old.mergeable_ranks}
    assert len(added) == 20
    for rows, before in (
        (model.tok_embeddings.weight, original.tok_embeddings.weight),
        (model.output.weight, original.output.weight),
    ):
        for token, id in [*added.items(), (b"<|tool|>", new.special_tokens["<|tool|>"])]:
            written = old.encode_ordinary(token)
            assert len(written) > 1
            torch.testing.assert_close(rows[id], before[written].double().mean(0).float(), rtol=0, atol=1e-6)
        for id in [258, 259, 260, *range(281, 300)]:  # ids without a token
            torch.testing.assert_close(rows[id], before.double().mean(0).float(), rtol=0, atol=1e-6)


def test_weights_of_16_bits_are_averaged_in_32(
    original: Transformer, old: Tokenizer, new: Tokenizer, tmp_path: Path
) -> None:
    low = original.bfloat16()
    save(tmp_path / "in", low, tmp_path / "old.json")
    convert(tmp_path / "in", tmp_path / "out", tokenizer=tmp_path / "new.json")
    rows = load(tmp_path / "out")[0].tok_embeddings.weight
    before, now = ids_in_both(old, new)
    assert rows.dtype == torch.bfloat16
    assert torch.equal(rows[now], low.tok_embeddings.weight[before])
    token, id = next(item for item in new.mergeable_ranks.items() if item[0] not in old.mergeable_ranks)
    mean = low.tok_embeddings.weight[old.encode_ordinary(token)].double().mean(0)
    assert torch.equal(rows[id], mean.bfloat16())


def test_a_resized_model_opens_in_transformers(
    original: Transformer, old: Tokenizer, new: Tokenizer, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    save(tmp_path / "in", original, tmp_path / "old.json")
    convert(tmp_path / "in", tmp_path / "out", tokenizer=tmp_path / "new.json")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", attn_implementation="eager")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    assert ids == new.encode_ordinary(TEXT)
    assert len(ids) < len(old.encode_ordinary(TEXT))
    assert tokenizer.convert_tokens_to_ids("<|eot_id|>") == 303
    ours, _ = load(tmp_path / "out")
    with torch.inference_mode():
        torch.testing.assert_close(
            theirs(torch.tensor([ids[:60]])).logits, ours(torch.tensor([ids[:60]])), rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("format", ["bpe-llama", "huggingface"])
def test_the_template_and_the_ids_that_begin_and_end_a_text_are_kept(
    format: str, original: Transformer, old: Tokenizer, new: Tokenizer, tmp_path: Path
) -> None:
    save(tmp_path / "plain", original, tmp_path / "old.json")
    convert(tmp_path / "plain", tmp_path / "in")
    (tmp_path / "in" / "chat_template.jinja").write_text(TEMPLATE)
    (tmp_path / "in" / "generation_config.json").write_text(
        json.dumps({"bos_token_id": 258, "eos_token_id": [259, 260]})
    )
    convert(tmp_path / "in", tmp_path / "out", format, tokenizer=tmp_path / "new.json")
    checkpoint = open_checkpoint(tmp_path / "out")
    tokenizer = read_tokenizer(checkpoint)
    assert (checkpoint.chat_template, tokenizer.bos_id, tokenizer.eos_ids) == (TEMPLATE, 300, (302, 303))
    ids = chat_format(tmp_path / "out", new).encode([{"role": "user", "content": "the"}], add_generation_prompt=False)
    assert ids == [300, 257, 303]


def test_a_tokenizer_that_lacks_tokens_raises_with_the_first_missing_token(
    original: Transformer, old: Tokenizer, tmp_path: Path
) -> None:
    save(tmp_path / "in", original, tmp_path / "old.json")

    def refused(message: str, ranks: dict[bytes, int], special: dict[str, int]) -> None:
        other = Tokenizer("other", pat_str="llama3", mergeable_ranks=ranks, special_tokens=special)
        other.save(tmp_path / "other.json")
        with pytest.raises(InputError, match=message) as raised:
            convert(tmp_path / "in", tmp_path / "out", tokenizer=tmp_path / "other.json")
        assert "\n" not in str(raised.value)
        assert not (tmp_path / "out").exists()

    moved = {name: id + 10 for name, id in SPECIAL.items()}
    refused(
        r"other.json: .*/in: no token 'the' \(id 257\); use a tokenizer trained",
        {**BYTE_RANKS, b"th": 256, b"he": 257},
        moved,
    )
    refused(r"no special token '<\|end_of_text\|>' \(id 259\)", RANKS, {"<|begin_of_text|>": 258, "<|eot_id|>": 259})
    refused(r"no token 'th' \(id 256\)", BYTE_RANKS, moved)
