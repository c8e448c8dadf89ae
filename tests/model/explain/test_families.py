"""Attention and steps of the relatives of Llama against transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.checkpoint import open_checkpoint
from model.checkpoint.assemble import assemble
from model.explain.steps import attention_maps, explain
from support.model_families import FAMILIES, write

SEES_ALL = "A token sees itself and the tokens before it; scores of later tokens become -inf."
NORMED = "divided by the root mean square, times a learned weight for each dimension."
WORDS: list[tuple[str, int, dict[str, str], list[str]]] = [
    (
        "llama", 0,
        {"scores": "Each query times each key, over the square root of 12.", "scores, masked": SEES_ALL},
        ["embeddings, scaled", "queries, normalised", "scores, capped", "router", "logits, scaled", "logits, capped"],
    ),
    (
        "llama, biases", 1,
        {
            "queries of head 1": "for head 1 of 4, plus their bias: what",
            "attention's output": "Times wo, plus its bias:",
            "feed-forward: w1": "times w1, plus its bias,", "feed-forward's output": "Times w2, plus its bias:",
        },
        [],
    ),
    ("llama, linear", 0, {"queries, rotated": "radians, slowed for the longer context."}, []),
    (
        "mistral, window", 3,
        {"scores, masked": "itself and the 10 tokens before it; scores of all others become -inf."}, [],
    ),
    ("qwen2, windows", 1, {"scores, masked": SEES_ALL}, []),
    ("qwen2, windows", 2, {"scores, masked": "itself and the 6 tokens before it"}, []),
    ("qwen3", 0, {"queries, normalised": f"Each head {NORMED}", "keys, normalised": f"Each head {NORMED}"}, []),
    ("smollm3", 2, {"queries, rotated": "turns by position"}, []),
    ("smollm3", 3, {"scores": "This layer does not rotate them"}, ["queries, rotated", "keys, rotated"]),
    (
        "gemma2", 0,
        {
            "embeddings, scaled": "Times 6.9282.", "layer 0: norm": "times 1 plus a learned weight",
            "scores": "times 0.204124.", "scores, capped": "50 * tanh(score / 50) bounds them.",
            "scores, masked": "itself and the 9 tokens before it", "norm": "Of attention's output.",
            "GELU": "x times the normal distribution's share below x", "logits, capped": "30 * tanh(logit / 30)",
        },
        ["SiLU", "logits, scaled", "queries, normalised"],
    ),
    ("gemma2", 1, {"scores, masked": SEES_ALL, "logits": "the table of embeddings again"}, []),
    (
        "gemma3", 1,
        {
            "queries, normalised": "Each head divided by the root mean square, times 1 plus a learned weight",
            "queries, rotated": "x 10,000^", "scores, masked": "itself and the 7 tokens before it",
        },
        ["scores, capped", "logits, capped"],
    ),
    ("gemma3", 2, {"queries, rotated": "x 1,000,000^", "scores, masked": SEES_ALL}, []),
    ("phi3, longrope, partial", 0, {"queries, rotated": "of the first 6 numbers turns"}, []),
    (
        "granite", 0,
        {
            "embeddings, scaled": "Times 12.", "scores": "times 0.2.",
            "residual stream, after attention": "plus this change times 0.22.",
            "residual stream, after layer 0": "plus this change times 0.22:", "logits, scaled": "Over 8.",
        },
        ["logits, capped"],
    ),
    (
        "olmo2", 1,
        {
            "queries of head 1": "The stream times the 12 rows of wq", "norm": "Of attention's output.",
            "queries, normalised": f"All heads together {NORMED}", "feed-forward: w1": "The stream times w1",
        },
        ["layer 1: norm"],
    ),
    ("mixtral", 2, {"router": "Softmax turns 4 numbers", "chosen experts": "others have 0."}, ["SiLU", "w3"]),
    ("qwen3 moe", 0, {"router": "Softmax turns 5 numbers", "chosen experts": "others have 0."}, ["SiLU", "w3"]),
    ("qwen3 moe", 1, {"SiLU": "x / (1 + e^-x)"}, ["router", "chosen experts"]),
]  # fmt: skip
"""A family, a layer, words of the texts of its steps by title, and the titles of steps that it does not have."""


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_attention_and_the_next_token_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    theirs = write(name, tmp_path)
    ours = assemble(open_checkpoint(tmp_path), torch.float32, torch.device("cpu")).eval()
    ids = torch.randint(1, 300, (20,), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        found = theirs(ids[None], output_attentions=True)
    expected, likely = found.attentions, found.logits[0, -1].softmax(-1)
    maps = attention_maps(ours, ids.tolist(), layers=range(4), heads=range(4))
    for layer in range(4):
        assert float((maps[layer] - expected[layer][0]).abs().max()) < 1e-5
        steps = list(explain(ours, ids.tolist(), layer=layer, head=1))
        (shares,) = (step.tensor for step in steps if step.picture == "shares")
        assert torch.equal(shares, maps[layer, 1])
        assert float((steps[-1].tensor[0] - likely).abs().max()) < 1e-5


@pytest.mark.parametrize(("name", "layer", "words", "absent"), WORDS)
def test_the_steps_say_what_a_layer_of_the_family_computes(
    name: str, layer: int, words: dict[str, str], absent: list[str], tmp_path: Path
) -> None:
    write(name, tmp_path)
    model = assemble(open_checkpoint(tmp_path), torch.float32, torch.device("cpu")).eval()
    steps = list(explain(model, [5, 9, 200, 7, 31], layer=layer, head=1))
    texts = {step.title: step.text for step in reversed(steps)}  # the first of two norms
    assert {title: words[title] in texts.get(title, "") for title in words} == dict.fromkeys(words, True), texts
    assert not texts.keys() & set(absent)


def test_embeddings_and_logits_are_shown_as_scaled_and_capped(tmp_path: Path) -> None:
    for name in ("gemma2", "granite"):
        write(name, tmp_path / name)
        model = assemble(open_checkpoint(tmp_path / name), torch.float32, torch.device("cpu")).eval()
        ids = torch.tensor([[5, 9, 200, 7, 31]])
        steps = {step.title: step.tensor for step in explain(model, ids[0].tolist())}
        assert torch.equal(steps["embeddings, scaled"], model.embed(ids)[0])
        with torch.inference_mode():
            logits = model(ids, last_only=True)[0]
        assert torch.equal(steps["logits, capped" if name == "gemma2" else "logits, scaled"], logits)


def test_chosen_experts_are_named_with_their_shares(tmp_path: Path) -> None:
    write("mixtral", tmp_path)
    model = assemble(open_checkpoint(tmp_path), torch.float32, torch.device("cpu")).eval()
    steps = {step.title: step for step in explain(model, [5, 9, 200, 7, 31])}
    last = steps["chosen experts"].tensor[-1]
    first, second = steps["router"].tensor[-1].topk(2).indices.tolist()
    shares = f"{first} ({last[first]:.0%}), {second} ({last[second]:.0%})"
    assert steps["chosen experts"].text == f"The last token's are {shares}; others have 0."
    assert int((steps["chosen experts"].tensor > 0).sum()) == 5 * 2


@pytest.mark.parametrize(
    ("window", "sees"), [(1, "only itself;"), (2, "itself and the token before it;"), (3, "itself and the 2 tokens")]
)
def test_a_small_window_is_worded_by_its_size(window: int, sees: str, tmp_path: Path) -> None:
    write("mistral, window", tmp_path, sliding_window=window)
    model = assemble(open_checkpoint(tmp_path), torch.float32, torch.device("cpu")).eval()
    steps = {step.title: step for step in explain(model, [5, 9, 200, 7, 31])}
    assert steps["scores, masked"].text.startswith(f"A token sees {sees}")
    hidden = torch.isinf(steps["scores, masked"].tensor).sum(-1)
    assert hidden.tolist() == [5 - min(window, n + 1) for n in range(5)]
