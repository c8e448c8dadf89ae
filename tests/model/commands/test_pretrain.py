"""`bpe pretrain`: the run directory, resuming, and wrong input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bpe.drawing import DARK
from model.config import PRESETS
from support.command_line import BPE, bpe, fails_with


def test_pretrain_writes_a_model_that_generates(run: Path) -> None:
    assert {"model.safetensors", "params.json", "metrics.jsonl", "loss.png"} <= {path.name for path in run.iterdir()}
    first = bpe("generate", run, "-p", "Once upon", "--max-tokens", "8", "--seed", "1")
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("Once upon")
    assert bpe("generate", run, "--max-tokens", "8", "--seed", "1", input="Once upon\n").stdout == first.stdout
    assert "parameters" in bpe("info", run).stdout


def test_pretrain_resumes_a_run_given_only_its_directory(run: Path, tmp_path: Path) -> None:
    again = bpe("pretrain", "-o", run)
    assert again.exit_code == 0, again.output
    assert "already finished" in again.stderr
    fails_with(bpe("pretrain", "-o", run, "--learning-rate", "0.5"), 1, "learning_rate 0.002 -> 0.5")
    fails_with(bpe("pretrain", "-o", tmp_path / "none"), 1, "there is no run to resume; start one with --data")


def test_the_plot_of_a_finished_run_is_drawn_in_other_formats(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    again = bpe("pretrain", "-o", copy, "--format", "svg,pdf", "--dark")
    assert again.exit_code == 0, again.output
    assert f"{copy}: drew loss.svg, loss.pdf" in again.stderr
    svg = (copy / "loss.svg").read_text("utf-8")
    assert DARK.background in svg
    assert "pretraining" in svg
    assert "best: " in svg
    (copy / "loss.png").unlink()
    assert f"{copy}: drew loss.png" in bpe("pretrain", "-o", copy).stderr
    assert "drew" not in bpe("pretrain", "-o", copy).stderr


def test_pretrain_without_matplotlib_trains_and_leaves_the_plot_out(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    options = ["--data", data, "--config", "nano", "--steps", "1", "--sample-tokens", "0", "--eval-tokens", "256"]
    fails_with(bpe("pretrain", "-o", tmp_path / "run", *options, "--dark"), 1, "run", "matplotlib", "bpe-llama[report]")
    result = bpe("pretrain", "-o", tmp_path / "run", *options)
    assert result.exit_code == 0, result.output
    said = "the plot of the loss is left out; it needs matplotlib, which is not installed"
    assert result.stderr.index(said) < result.stderr.index("held-out")
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert not (tmp_path / "run" / "loss.png").exists()


def test_pretrain_accepts_a_config_json(data: Path, tmp_path: Path) -> None:
    shape = {"model_type": "llama", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "num_key_value_heads": 1, "intermediate_size": 48, "vocab_size": 9, "max_position_embeddings": 64,
             "rms_norm_eps": 1e-5, "tie_word_embeddings": True}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(shape))
    options = ["--steps", "1", "--sequence-length", "64", "--sample-tokens", "4", "--eval-tokens", "256"]
    result = bpe("pretrain", "--data", data, "-o", tmp_path / "run", "--config", tmp_path / "config.json", *options)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "run" / "params.json").read_text())["hidden_dim"] == 48


def test_pretrain_takes_the_text_part_of_a_config_json_that_also_describes_images(data: Path, tmp_path: Path) -> None:
    text = {"model_type": "gemma3_text", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "intermediate_size": 48, "head_dim": 16, "vocab_size": 9,
            "max_position_embeddings": 64, "sliding_window": 16, "layer_types": ["sliding_attention"] * 2}  # fmt: skip
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "gemma3", "text_config": text, "vision_config": {}}))
    options = ["--steps", "1", "--sequence-length", "64", "--sample-tokens", "4", "--eval-tokens", "256"]
    with pytest.warns(UserWarning, match="only the text part"):
        result = bpe("pretrain", "--data", data, "-o", tmp_path / "run", "--config", config, *options)
    assert result.exit_code == 0, result.output
    params = json.loads((tmp_path / "run" / "params.json").read_text())
    assert (params["vocab_size"], params["windows"], params["norm_offset"]) == (1024, [16, 16], True)


def test_pretrain_names_the_file_whose_shape_cannot_be_read(data: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    for content, *words in (
        ("[]", "config.json"),
        ('{"model_type": "gemma9", "hidden_size": 3}', "config.json: model_type is 'gemma9'; supported are llama,"),
        ('{"dim": 3, "novelty": 2}', "config.json: ", "novelty"),
    ):
        config.write_text(content)
        fails_with(bpe("pretrain", "--data", data, "-o", tmp_path / "r", "--config", config), 1, *words)
    missing = tmp_path / "none.json"
    fails_with(bpe("pretrain", "--data", data, "-o", tmp_path / "r", "--config", missing), 1, "none.json", "No such")


@pytest.mark.parametrize("option", ["--config", "--init"])
def test_ignore_unknown_passes_over_keys_of_the_shape(option: str, run: Path, data: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copy(run / name, model)
    params = json.loads((run / "params.json").read_text())
    (model / "params.json").write_text(json.dumps({**params, "novelty": 3}))
    options = ("--steps", "1", "--sample-tokens", "1", "--eval-tokens", "256", "--sequence-length", "64")
    command = ("pretrain", "--data", data, "-o", tmp_path / "run", option, model, *options)
    fails_with(bpe(*command), 1, "params.json: ", "novelty", "--ignore-unknown")
    with pytest.warns(UserWarning, match="passed over keys that .*novelty"):
        assert bpe(*command, "--ignore-unknown").exit_code == 0
    assert "novelty" not in (tmp_path / "run" / "params.json").read_text()


def test_pretrain_refuses_a_run_with_other_settings(run: Path, data: Path) -> None:
    fails_with(bpe("pretrain", "--data", data, "-o", run, "--config", "nano", "--steps", "5"), 1, "steps")


def test_missing_and_inconsistent_models_are_refused(run: Path, data: Path, tmp_path: Path) -> None:
    fails_with(bpe("generate", tmp_path / "none", "-p", "x"), 1, "none")
    fails_with(
        bpe("pretrain", "--data", tmp_path, "-o", tmp_path / "r"), 1, str(tmp_path), "no token shards", "bpe shards"
    )
    unknown = bpe("pretrain", "--data", data, "-o", tmp_path / "r", "--config", "huge")
    fails_with(unknown, 1, "no model preset 'huge'", "llama3.2-1b")
    fails_with(bpe("pretrain", "--data", tmp_path / "none", "-o", tmp_path / "r"), 1, "none: no such directory", "-o ")
    (tmp_path / "file").touch()
    fails_with(bpe("pretrain", "--data", data, "-o", tmp_path / "file"), 1, "file: not a directory; use another name")
    large = bpe("pretrain", "--data", data, "-o", tmp_path / "r", "--config", "llama3.1-405b", "--device", "cpu")
    fails_with(large, 1, "takes 6,", "GB to train", "this machine has", "choose a smaller one")
    assert not (tmp_path / "r").exists()
    other = tmp_path / "other"
    shutil.copytree(run, other)
    params = json.loads((other / "params.json").read_text())
    (other / "params.json").write_text(json.dumps({**params, "n_layers": params["n_layers"] + 1}))
    fails_with(bpe("generate", other, "-p", "x"), 1, "model.safetensors", "layers.3")


@pytest.mark.slow
def test_an_interrupted_pretrain_reports_it_and_leaves_no_model(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    process = subprocess.Popen(
        [*BPE, "pretrain", "--data", str(data), "-o", str(output), "--config", "nano", "--minutes", "30"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    metrics = output / "metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and metrics.read_text().count('"step"') > 2):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "interrupted" in said
    assert not (output / "model.safetensors").exists()
    assert not [path for path in output.rglob("*") if path.name.startswith(".")]


def test_the_options_of_pretrain_have_the_defaults_of_train_config() -> None:
    from dataclasses import fields

    from model.commands.pretrain import pretrain
    from model.training.settings import TrainConfig

    options = {option.name: option.default for option in pretrain.params}
    assert options.pop("device") == "auto"  # of which the command makes the name of a device
    for field in fields(TrainConfig):
        if field.name == "device":
            continue
        if field.default is None or field.default is False:  # for which click has a mark of its own
            assert options[field.name] is False or not isinstance(options[field.name], int | float), field.name
        else:
            assert options[field.name] == field.default, field.name


def test_the_share_of_the_decay_is_refused_where_it_has_no_effect(data: Path, tmp_path: Path) -> None:
    given = bpe("pretrain", "--data", data, "-o", tmp_path / "run", "--decay", "0.1")
    fails_with(given, 2, "--decay has no effect without --schedule wsd")


def test_pretrain_has_defaults_for_its_shards_and_its_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quick = ("--config", "nano", "--steps", "1", "--sample-tokens", "1", "--eval-tokens", "256")
    missing = bpe("pretrain", *quick)
    fails_with(missing, 2, "missing --data DIR", "no directory shards", "no run to resume in runs/nano")
    shutil.copytree(data, "shards")
    first = bpe("pretrain", *quick)
    assert first.exit_code == 0, first.output
    assert "bpe: by default: -o runs/nano, --data shards\n" in first.stderr
    again = bpe("pretrain", *quick)
    assert "bpe: by default: -o runs/nano\n" in again.stderr
    assert "already finished" in again.stderr
    other = bpe("pretrain", *quick, "--batch-tokens", "512")
    assert other.exit_code == 1
    assert "this run has other settings" in other.stderr
    further = bpe("pretrain", "--data", "shards", "--init", "runs/nano", *quick[2:])
    assert further.exit_code == 0, further.output
    assert "bpe: by default: -o runs/nano-continued\n" in further.stderr


def test_the_help_lists_the_presets_with_their_sizes() -> None:
    page = " ".join(bpe("pretrain", "--help").stdout.split())
    listed = page.partition("Presets, with their numbers of parameters: ")[2].partition(".  ")[0]
    assert listed.startswith("nano 1.08M, micro 2.36M, mini 15.7M, ")
    assert all(f"{name} " in listed for name in PRESETS)


def test_the_shape_may_be_that_of_a_model_directory(run: Path, data: Path, tmp_path: Path) -> None:
    quick = ("--steps", "1", "--sample-tokens", "1", "--eval-tokens", "256", "--sequence-length", "64")
    result = bpe("pretrain", "--data", data, "-o", tmp_path / "run", "--config", run, *quick)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "params.json").read_text() == (run / "params.json").read_text()
