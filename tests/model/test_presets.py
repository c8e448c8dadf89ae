"""Presets of Llama's relatives against their config.json, and against transformers."""

from __future__ import annotations

import pytest
import torch
import transformers

from model import ModelConfig
from model.checkpoint.config_json import config_of
from support.published_configs import CONFIGS


@pytest.mark.parametrize("name", CONFIGS)
def test_a_preset_is_the_configuration_of_its_config_json(name: str) -> None:
    assert ModelConfig.preset(name) == config_of(CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_transformers(name: str) -> None:
    """All layers of a preset have the same size, so one and two of them are counted."""
    keys = {key: value for key, value in CONFIGS[name].items() if key != "model_type"}
    counts = []
    for layers in (1, 2):
        given = {**keys, "num_hidden_layers": layers}
        config = transformers.AutoConfig.for_model(CONFIGS[name]["model_type"], **given)
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
        counts.append(sum(parameter.numel() for parameter in model.parameters()))
        assert config_of({**CONFIGS[name], "num_hidden_layers": layers}).n_parameters == counts[-1]
    each, layers = counts[1] - counts[0], ModelConfig.preset(name).n_layers
    assert ModelConfig.preset(name).n_parameters == counts[0] + (layers - 1) * each
