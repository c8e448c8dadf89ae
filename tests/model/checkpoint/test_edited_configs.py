"""Edited configurations against transformers: a config.json gives the same numbers, or is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bpe.errors import InputError
from model.checkpoint import open_checkpoint
from model.checkpoint.assemble import assemble
from model.checkpoint.config_json import config_of
from support.config_edits import LAYERED, Edit, some
from support.model_families import FAMILIES, randomize, write

NAMES = sorted(FAMILIES)
FOUND = [
    Edit("gemma3", "new", "attn_logit_softcapping", 5.0),
    Edit("gemma2", "new", "attn_logit_softcapping", 0.0),
    Edit("gemma3", "new", "rope_parameters", {"rope_type": "default", "rope_theta": 1234.0}),
    Edit("gemma3", "new", "rope_parameters", {"rope_type": "linear", "factor": 0.5}),
    Edit("gemma3", "old", "rope_scaling", {"type": "yarn", "factor": 4.0}),
    Edit("gemma3", "old", "rope_scaling", {"rope_type": "yarn", "factor": 4.0, "truncate": False}),
    Edit("gemma3, scaled", "old", "rope_scaling", LAYERED[1]),
    Edit("qwen3", "new", "head_dim", "16"),
    Edit("phi3, longrope, partial", "new", "original_max_position_embeddings", True),
]
"""Edits that once gave other numbers than transformers, or an error without a name."""


def checked(edit: Edit, path: Path) -> str:
    """Return "equal", "refused" or "refused by both"; fail for other numbers than those of transformers."""
    data = edit.applied()
    (path / "config.json").write_text(json.dumps(data))
    vocabulary = data.get("vocab_size")
    high = min(280, vocabulary) if isinstance(vocabulary, int) and vocabulary > 1 else 280
    ids = torch.randint(1, high, (2, 24), generator=torch.Generator().manual_seed(3))
    try:
        expected = logits_of_transformers(path, ids)
    except Exception:  # each version of transformers refuses wrong values with other exceptions
        try:
            config_of(data)
        except InputError:
            return "refused by both"
        return "only read by us"
    (path / "config.json").write_text(json.dumps(data))
    try:
        found = assemble(open_checkpoint(path), torch.float32, torch.device("cpu"))(ids)
    except InputError as error:
        assert len(str(error)) < 1000
        return "refused"
    assert found.shape == expected.shape, edit
    assert float((found - expected).abs().max()) < 1e-5 + 2e-6 * float(expected.abs().max()), edit
    return "equal"


def logits_of_transformers(path: Path, ids: torch.Tensor) -> Any:
    """Return the logits of a random model with the config.json in a directory, and write its weights there."""
    config = transformers.AutoConfig.from_pretrained(path)
    config._attn_implementation = "eager"
    torch.manual_seed(1)
    model = randomize(transformers.AutoModelForCausalLM.from_config(config).float().eval())
    logits = model(ids).logits
    assert logits.isfinite().all()
    model.generation_config = transformers.GenerationConfig()
    model.save_pretrained(path)
    return logits


@torch.inference_mode()
@pytest.mark.parametrize("edit", FOUND, ids=lambda edit: f"{edit.name} {edit.key}")
def test_an_edit_that_was_wrong_once_is_refused(edit: Edit, tmp_path: Path) -> None:
    assert checked(edit, tmp_path).startswith("refused")


@torch.inference_mode()
@pytest.mark.parametrize("name", NAMES)
def test_edited_configs_are_equal_or_refused(name: str, tmp_path: Path) -> None:
    for edit in some(name, 2, seed=1):
        checked(edit, tmp_path)


@pytest.mark.slow
@torch.inference_mode()
@pytest.mark.parametrize("name", NAMES)
def test_many_edited_configs_are_equal_or_refused(name: str, tmp_path: Path) -> None:
    results = [checked(edit, tmp_path) for edit in some(name, 24, seed=2)]
    assert "refused" in results or "refused by both" in results
    assert "equal" in results


def test_unknown_keys_are_refused_or_named_in_a_warning(tmp_path: Path) -> None:
    write("llama", tmp_path)
    config = open_checkpoint(tmp_path).config
    data = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**data, "novelty": 3, "other": 1, "note": None}))
    with pytest.raises(InputError, match=r"config.json: novelty \(value 3\) is not a known key.*--ignore-unknown"):
        open_checkpoint(tmp_path)
    with pytest.warns(UserWarning, match="passed over keys that are not known .*: novelty, other$"):
        assert open_checkpoint(tmp_path, ignore_unknown=True).config == config


def test_ignoring_unknown_keys_does_not_ignore_keys_that_change_the_result(tmp_path: Path) -> None:
    write("llama", tmp_path)
    data = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**data, "use_bidirectional_attention": True}))
    with pytest.raises(InputError, match="use_bidirectional_attention is True"):
        open_checkpoint(tmp_path, ignore_unknown=True)
