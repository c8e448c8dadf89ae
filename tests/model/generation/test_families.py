"""Generation by the relatives of Llama against `generate` of transformers, on tiny models with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model import Transformer, cpu
from model.checkpoint import open_checkpoint
from model.checkpoint.assemble import assemble
from model.generation import decoding
from model.generation.decoding import Generation, Model, Session
from model.generation.sampling import Sampling
from model.generation.sequences import Part, new_sequences
from support.model_families import FAMILIES, write

LONGROPE, DYNAMIC = "phi3, longrope, partial", "llama, dynamic"
ORIGINAL = 24
"""The original context of both."""


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Transformer]:
    """Return the model of transformers, and ours."""
    theirs = write(request.param, tmp_path)
    return theirs, assemble(open_checkpoint(tmp_path), torch.float32, torch.device("cpu")).eval()


def prompts_of(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(1, 300, (length,), generator=generator).tolist() for length in lengths]


def theirs_of(model: Any, prompts: list[list[int]], count: int) -> list[list[int]]:
    model(torch.tensor([[1]]))  # a short text takes back the frequencies of a longer text before
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    settings = {"max_new_tokens": count, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    generated: list[list[int]] = model.generate(ids, attention_mask=mask, **settings)[:, longest:].tolist()
    return generated


def ours_of(model: Model, prompts: list[list[int]], count: int, session: Session | None = None) -> list[list[int]]:
    rows: list[list[int]] = [[] for _ in prompts]
    for tokens in Generation(model, prompts, max_tokens=count, sampling=Sampling(temperature=0), session=session):
        for token in tokens:
            rows[token.row].append(token.id)
    return rows


@pytest.mark.parametrize("pair", sorted(FAMILIES), indirect=True)
def test_texts_in_any_combination_are_those_of_transformers(pair: Any) -> None:
    """Prompts that begin after each other, of lengths that are read as rows and by themselves."""
    theirs, ours = pair
    prompts = prompts_of(26, 4, 18)
    sequences = new_sequences(ours, 3)
    found: list[list[int]] = [[], [], []]
    for step in range(14):
        texts = [text for text in range(3) if text <= step < text + 12]
        parts = [Part(text, found[text][-1:] or prompts[text]) for text in texts]
        for text, logits in zip(texts, sequences.read(parts), strict=True):
            found[text].append(int(logits.argmax()))
    for prompt, answer in zip(prompts, found, strict=True):
        assert theirs_of(theirs, [prompt], 12) == [answer]


@pytest.mark.parametrize("pair", sorted(FAMILIES), indirect=True)
def test_texts_are_those_of_transformers(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = pair
    prompts = prompts_of(15, 4, 10)
    expected = theirs_of(theirs, prompts, 12)
    assert ours_of(ours, prompts, 12) == expected
    monkeypatch.setattr(decoding, "PREFILL", 12)  # four tokens of each prompt at a time
    assert ours_of(ours, prompts, 12) == expected
    cpu.pack(ours)
    assert ours_of(ours, prompts, 12) == expected


@pytest.mark.parametrize("name", ["llama", "mistral, window", "gemma2", "mixtral", LONGROPE, DYNAMIC])
def test_a_session_that_is_truncated_gives_the_texts_of_new_ones(name: str, tmp_path: Path) -> None:
    write(name, tmp_path)
    model = assemble(open_checkpoint(tmp_path), torch.float32, torch.device("cpu")).eval()
    (prompt,) = prompts_of(30)
    session = Session(model)
    # Beyond the original context while it is generated, back within it, beyond it at once, and within it.
    for length, count in ((20, 8), (10, 4), (30, 3), (29, 3), (20, 2)):
        assert ours_of(model, [prompt[:length]], count, session) == ours_of(model, [prompt[:length]], count)


@pytest.mark.parametrize("make", [cpu.pack, cpu.widen])
@pytest.mark.parametrize("pair", [LONGROPE, DYNAMIC], indirect=True)
@pytest.mark.parametrize("lengths", [(15,), (15, 3, 10), (30,), (30, 2), (24,), (25,)])
def test_texts_that_pass_the_original_context_are_those_of_transformers(
    pair: Any, lengths: tuple[int, ...], make: Callable[[Transformer], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = pair
    make(ours)
    prompts = prompts_of(*lengths)
    expected = theirs_of(theirs, prompts, 15)
    assert ours_of(ours, prompts, 15) == expected
    monkeypatch.setattr(decoding, "PREFILL", 7)
    assert ours_of(ours, prompts, 15) == expected


def test_a_text_is_read_again_once_when_it_passes_the_original_context(tmp_path: Path) -> None:
    write(LONGROPE, tmp_path)
    model = assemble(open_checkpoint(tmp_path), torch.float32, torch.device("cpu")).eval()
    read: list[int] = []
    model.tok_embeddings.register_forward_hook(lambda module, inputs, output: read.append(inputs[0].shape[1]))
    ours_of(model, prompts_of(ORIGINAL - 1), 5)
    assert read == [ORIGINAL - 1, 1, ORIGINAL, 1, 1, 1]


def test_an_interruption_while_a_text_is_read_again_leaves_a_session_that_continues(tmp_path: Path) -> None:
    write(LONGROPE, tmp_path)
    model = assemble(open_checkpoint(tmp_path), torch.float32, torch.device("cpu")).eval()
    (prompt,) = prompts_of(ORIGINAL)
    session = Session(model)

    def interrupt(module: Any, inputs: Any, output: Any) -> None:
        if inputs[0].shape[1] == ORIGINAL and session.ids:
            raise KeyboardInterrupt

    handle = model.tok_embeddings.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        ours_of(model, [prompt], 4, session)
    handle.remove()
    assert ours_of(model, [prompt], 4, session) == ours_of(model, [prompt], 4)
