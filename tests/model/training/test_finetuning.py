"""Fine-tuning on dialogs and preferences: losses, results and invalid input."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import shutil
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bpe import Tokenizer
from bpe.chat import Llama3Chat
from bpe.drawing import LIGHT
from bpe.errors import InputError
from model import ModelConfig, Transformer, convert, generate_ids, load, save
from model.checkpoint import format_of
from model.lora import LoraConfig, add_lora
from model.training.base_model import BaseModel
from model.training.dialogs import Reading, batch_of, read_pairs, read_texts
from model.training.finetune_settings import FinetuneConfig
from model.training.finetuning import finetune
from model.training.loss import next_token_loss
from model.training.metrics import read_metrics
from model.training.plot import plot_loss
from model.training.preferences import Preferences, preference
from model.training.settings import TrainConfig, TrainResult
from model.training.state import TrainState
from model.training.supervised import Supervised
from model.training.task import About
from support.references import BYTE_RANKS

MakeModel = Callable[[ModelConfig], Transformer]
NAMES = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
TOKENIZER = Tokenizer(
    "bytes",
    pat_str="llama3",
    mergeable_ranks=BYTE_RANKS,
    special_tokens={name: 256 + number for number, name in enumerate(NAMES)},
)
CHAT = Llama3Chat(TOKENIZER)
ANSWERS = {"2 eggs": "EGG x2", "5 figs": "FIG x5", "3 nuts": "NUT x3", "7 figs": "FIG x7", "9 eggs": "EGG x9"}
LORA = LoraConfig(4, dropout=0.1)
QUICK: dict[str, Any] = {"steps": 6, "batch_tokens": 128, "sequence_length": 64, "learning_rate": 1e-3, "eval_every": 4}


@pytest.fixture
def base(config: ModelConfig, make_model: MakeModel, tmp_path: Path) -> Path:
    """An untrained model, with the special tokens of Llama 3's chat format."""
    TOKENIZER.save(tmp_path / "tokenizer.json")
    model = make_model(dataclasses.replace(config, vocab_size=264, max_seq_len=96))
    save(tmp_path / "base", model, tmp_path / "tokenizer.json")
    return tmp_path / "base"


def lines(path: Path, *records: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def dialogs(tmp_path: Path) -> Path:
    return lines(
        tmp_path / "dialogs.jsonl",
        *({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
          for q, a in ANSWERS.items()),
    )  # fmt: skip


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    answers = [*ANSWERS.values()]
    return lines(
        tmp_path / "pairs.jsonl",
        *({"prompt": question, "chosen": answer, "rejected": answers[number - 1].lower()}
          for number, (question, answer) in enumerate(ANSWERS.items())),
    )  # fmt: skip


def tune(
    base: Path, data: Path, run: Path, config: FinetuneConfig | None = None, **settings: Any
) -> tuple[TrainResult, str]:
    """Fine-tune; return the result, and what was printed meanwhile."""
    said = io.StringIO()
    result = finetune(base, [data], run, config, progress=said, **{**QUICK, **settings})
    return result, said.getvalue()


def losses(run: Path) -> list[tuple[int, float]]:
    return [(record["step"], record["loss"]) for record in read_metrics(run / "metrics.jsonl") if "loss" in record]


def answer(model: Transformer, question: str) -> str:
    ids = CHAT.encode([{"role": "user", "content": question}])
    return TOKENIZER.decode([*generate_ids(model, ids, max_tokens=20, temperature=0, end_ids=CHAT.end_ids)])


def logits(model: Transformer) -> Tensor:
    with torch.inference_mode():
        return model(torch.randint(261, (2, 40), generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("lora", [None, LoraConfig(16)], ids=["all of the model", "LoRA"])
def test_a_model_learns_exact_answers(lora: LoraConfig | None, base: Path, dialogs: Path, tmp_path: Path) -> None:
    config = FinetuneConfig(lora=lora, held_out=[dialogs])
    quick = {"steps": 40 if lora is None else 60, "learning_rate": 1e-2, "batch_tokens": 256, "eval_every": 100}
    result, said = tune(base, dialogs, tmp_path / "run", config, **quick)
    assert "5 examples, " in said
    assert "0 of 5 held-out dialogs exactly" in said
    assert "5 of 5 held-out dialogs exactly; 'EGG x2' for 'EGG x2'" in said
    assert result.held_out_loss is not None and result.held_out_loss < 0.3
    assert result.bits_per_byte is not None
    model, tokenizer = load(tmp_path / "run")
    assert {question: answer(model, question) for question in ANSWERS} == ANSWERS
    assert tokenizer.special_tokens == TOKENIZER.special_tokens
    assert format_of(tmp_path / "run") == ("bpe-llama" if lora is None else "adapter")


def test_fine_tuning_does_not_change_the_base_model(base: Path, dialogs: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    tune(base, dialogs, tmp_path / "run")
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before
    assert not torch.equal(logits(load(tmp_path / "run")[0]), logits(load(base)[0]))


def test_checkpoints_of_lora_hold_only_the_adapter(base: Path, dialogs: Path, tmp_path: Path) -> None:
    from safetensors import safe_open

    tune(base, dialogs, tmp_path / "run", FinetuneConfig(lora=LORA))
    (*_, newest) = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))
    names = []
    for file in newest.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            names += tensors.keys()
    assert len(names) == 4 * 14 * 2  # weight and three optimizer states of 2 x 7 matrices in 2 layers
    assert all("lora_" in name for name in names)


@pytest.mark.slow
def test_packing_padding_and_micro_batches_have_the_same_losses(base: Path, dialogs: Path, tmp_path: Path) -> None:
    tune(base, dialogs, tmp_path / "packed", FinetuneConfig(held_out=[dialogs]))
    tune(base, dialogs, tmp_path / "padded", FinetuneConfig(held_out=[dialogs], packed=False))
    tune(base, dialogs, tmp_path / "parts", FinetuneConfig(held_out=[dialogs]), micro_batch_tokens=64)
    for name in ("padded", "parts"):
        for (step, one), (same_step, other) in zip(losses(tmp_path / "packed"), losses(tmp_path / name), strict=True):
            assert (step, one) == (same_step, pytest.approx(other, rel=1e-4))


def test_the_loss_of_a_step_is_that_of_all_assistant_text(base: Path, dialogs: Path, tmp_path: Path) -> None:
    task = Supervised(BaseModel(base, tmp_path / "run", FinetuneConfig()), [dialogs], TrainConfig(steps=1, **{
        name: value for name, value in QUICK.items() if name != "steps"
    }))  # fmt: skip
    model = task.model()
    (batch,) = task.batch(0)
    torch.testing.assert_close(task.loss(model, batch), next_token_loss(model, batch), rtol=1e-5, atol=0)
    assert task.describe(0).startswith(f"{dialogs}: line ")


@pytest.mark.parametrize("lora", [None, LORA], ids=["all of the model", "LoRA"])
def test_an_interrupted_run_resumes_bit_for_bit(
    lora: LoraConfig | None, base: Path, dialogs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = FinetuneConfig(lora=lora)
    tune(base, dialogs, tmp_path / "whole", config)
    make_step = TrainState.make_step

    def interrupted(self: TrainState, share: float) -> dict[str, float]:
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return make_step(self, share)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrainState, "make_step", interrupted)
        tune(base, dialogs, tmp_path / "halves", config)
    _, said = tune(base, dialogs, tmp_path / "halves", config)
    assert "resuming after step 3" in said
    assert losses(tmp_path / "halves") == losses(tmp_path / "whole")
    name = "model.safetensors" if lora is None else "adapter_model.safetensors"
    assert (tmp_path / "halves" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()

    # A run is not resumed with other weights, data or settings.
    with torch.no_grad():
        model, _ = load(base)
        model.norm.weight[0] += 1
    shutil.move(base, tmp_path / "before")
    save(base, model, tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match=r"this run has other settings \(the weights\)"):
        tune(base, dialogs, tmp_path / "halves", config)
    shutil.rmtree(base)
    shutil.move(tmp_path / "before", base)
    with pytest.raises(InputError, match=r"packed True -> False"):
        tune(base, dialogs, tmp_path / "halves", FinetuneConfig(lora=lora, packed=False))
    lines(dialogs, *(json.loads(line) for line in dialogs.read_text().splitlines()[1:]))
    with pytest.raises(InputError, match=r"the data"):
        tune(base, dialogs, tmp_path / "halves", config)


@pytest.mark.parametrize("format", ["bpe-llama", "gguf"])
def test_a_merged_model_equals_base_and_adapter(format: str, base: Path, dialogs: Path, tmp_path: Path) -> None:
    given = tmp_path / ("given.gguf" if format == "gguf" else "given")
    convert(base, given, format)
    tune(given, dialogs, tmp_path / "apart", FinetuneConfig(lora=LORA))
    tune(given, dialogs, tmp_path / "merged", FinetuneConfig(lora=LORA, merge=True))
    assert format_of(tmp_path / "merged") == ("bpe-llama" if format == "bpe-llama" else "huggingface")
    one, other = (load(tmp_path / name)[0] for name in ("apart", "merged"))
    torch.testing.assert_close(logits(one), logits(other), rtol=0, atol=1e-5)
    assert not torch.equal(logits(one), logits(load(given)[0]))


def test_a_restarted_run_leaves_nothing_of_the_one_before(base: Path, dialogs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    convert(base, tmp_path / "hf")
    for given, config, format in (
        (base, FinetuneConfig(lora=LORA), "adapter"),
        (base, FinetuneConfig(), "bpe-llama"),
        (tmp_path / "hf", FinetuneConfig(), "huggingface"),
        (base, FinetuneConfig(lora=LORA), "adapter"),
    ):
        finetune(given, [dialogs], run, config, restart=True, progress=io.StringIO(), **QUICK)
        assert format_of(run) == format
        load(run)


def test_bfloat16_products_have_about_the_same_losses(base: Path, dialogs: Path, tmp_path: Path) -> None:
    for dtype in ("float32", "bfloat16"):
        tune(base, dialogs, tmp_path / dtype, FinetuneConfig(held_out=[dialogs]), dtype=dtype, steps=2)
    for (_, one), (_, other) in zip(losses(tmp_path / "float32"), losses(tmp_path / "bfloat16"), strict=True):
        assert other == pytest.approx(one, rel=0.02)


def test_epochs_are_counted_in_examples(base: Path, dialogs: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "batch_tokens": 64, "steps": None}
    result = finetune(base, [dialogs], tmp_path / "run", FinetuneConfig(held_out=0.2, epochs=2), progress=io.StringIO(),
                      **settings)  # fmt: skip
    assert result.steps == 8  # 2 epochs of 4 dialogs; no two of them fit into 64 tokens


# --- preferences ---


def preferences_of(base: Path, pairs: Path, tmp_path: Path, **config: Any) -> Preferences:
    settings = TrainConfig(steps=1, batch_tokens=256, sequence_length=64, dtype="float32")
    return Preferences(BaseModel(base, tmp_path / "run", FinetuneConfig(beta=0.3, **config)), [pairs], settings)


@pytest.mark.parametrize("packed", [True, False])
def test_the_dpo_loss_matches_the_formula_in_float64(packed: bool, base: Path, pairs: Path, tmp_path: Path) -> None:
    task = preferences_of(base, pairs, tmp_path, held_out=0.0, packed=packed)
    model = task.model()
    (batch,) = task.batch(0)
    assert batch.n_targets == 4  # as many as 256 tokens hold
    torch.testing.assert_close(task.loss(model, batch), 4 * torch.tensor(2.0).log())
    reference = load(base, torch.float64)[0]
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():  # move away from the reference
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    loss = task.loss(model, batch).double()

    def log_probability(model: Transformer, question: str, answer: str) -> Tensor:
        said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        ids, written = CHAT.encode_with_mask(said)
        log_probabilities = model(torch.tensor([ids]))[0].log_softmax(-1)
        return sum((log_probabilities[i - 1, ids[i]] for i in range(1, len(ids)) if written[i]), torch.zeros(()))

    expected = torch.zeros((), dtype=torch.float64)
    model = model.double()
    records = [json.loads(line) for line in pairs.read_text().splitlines()]
    for number in (int(place.rpartition(" ")[2]) - 1 for place in task.describe(0).split(", ")):
        prompt, chosen, rejected = (records[number][key] for key in ("prompt", "chosen", "rejected"))
        gained = [
            log_probability(each, prompt, chosen) - log_probability(each, prompt, rejected)
            for each in (model, reference)
        ]
        expected = expected - torch.log(torch.sigmoid(0.3 * (gained[0] - gained[1])))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


def test_the_dpo_gradient_includes_both_texts(base: Path, pairs: Path, tmp_path: Path) -> None:
    task = preferences_of(base, pairs, tmp_path, held_out=0.0)
    model = task.model().double()
    (batch,) = task.batch(0)
    task.loss(model, batch).backward()
    gradient = model.layers[0].attention.wq.weight.grad
    assert gradient is not None
    # At the start the gradient is that of -beta / 2 times the preference, because the sigmoid is 1/2 there.
    rows = [[task.train[index] for index in row] for rows in task.rows(0) for row in rows]
    (expected,) = torch.autograd.grad(
        -0.15 * preference(model, batch_of(rows)).sum(), [model.layers[0].attention.wq.weight]
    )
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("lora", [None, LoraConfig(8)], ids=["all of the model", "LoRA"])
def test_a_model_moves_to_the_preferred_answers(
    lora: LoraConfig | None, base: Path, pairs: Path, tmp_path: Path
) -> None:
    config = FinetuneConfig(lora=lora, beta=0.1, held_out=[pairs])
    result, said = tune(base, pairs, tmp_path / "run", config, steps=20, learning_rate=5e-3)
    assert "0 of 5 held-out pairs moved to the chosen one, by 0.000 nats on average" in said
    assert "5 of 5 held-out pairs moved to the chosen one" in said
    assert losses(tmp_path / "run")[0] == (0, pytest.approx(0.6931, abs=1e-4))
    assert result.held_out_loss is not None and result.held_out_loss < 0.6
    assert result.bits_per_byte is None
    assert "inf" not in said and "bits" not in said
    about = About("preferences", "pairs", 5, is_text=False)
    figure = plot_loss(LIGHT, read_metrics(tmp_path / "run" / "metrics.jsonl"), "run", about)
    assert figure.axes[0].get_ylabel() == "loss, nats per pair"
    assert figure.axes[0].child_axes[-1].get_xlabel() == "end of epoch"
    assert len(figure.axes[0].child_axes) == 1  # no scale of bits per byte
    read = read_pairs([pairs], CHAT, 64)
    before, after = (preference(load(path)[0], batch_of([read])) for path in (base, tmp_path / "run"))
    assert bool((after > before).all())


# --- invalid input ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"merge": True}, "merge needs lora: it merges the LoRA matrices into the model"),
        ({"beta": 0.0}, "beta is 0.0; it must be positive"),
        ({"held_out": 1.0}, "held_out is 1.0; it must be a share"),
        ({"epochs": float("inf")}, "epochs is inf; it must be positive"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FinetuneConfig(**settings)


def test_invalid_input_is_refused_before_anything_is_written(base: Path, dialogs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(
        InputError, match="sequence_length is 200, but the context of the model holds 96 tokens; set it to 96"
    ):
        tune(base, dialogs, run, sequence_length=200)
    with pytest.raises(InputError, match="holds the model that is to be fine-tuned; use another directory"):
        tune(base, dialogs, base)
    with pytest.raises(InputError, match="dialogs.jsonl: line 1: the first 20 tokens hold no text by the assistant"):
        tune(base, dialogs, run, sequence_length=20, batch_tokens=20)
    with pytest.raises(InputError, match="no such file"):
        tune(base, tmp_path / "nowhere.jsonl", run)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(InputError, match="empty.jsonl: there are no examples to train on"):
        tune(base, tmp_path / "empty.jsonl", run)
    assert not run.exists()
    tune(base, dialogs, run, FinetuneConfig(lora=LORA))
    for other, what in ((LoraConfig(8), "rank is 8, but that of this adapter is 4"), (LoraConfig(4, 3.0), "alpha is 3"),
                        (LoraConfig(4, targets=["wq"]), "targets is wq, but")):  # fmt: skip
        with pytest.raises(InputError, match=f"{what}.*; leave it out .* or merge"):
            tune(run, dialogs, tmp_path / "second", FinetuneConfig(lora=other))
    tune(run, dialogs, tmp_path / "second", FinetuneConfig(lora=LORA, merge=True))
    assert format_of(tmp_path / "second") == "huggingface"


def test_evaluations_use_whole_dialogs_up_to_eval_tokens(base: Path, dialogs: Path, tmp_path: Path) -> None:
    config = FinetuneConfig(held_out=[dialogs])
    for eval_tokens, count in ((1, 1), (35, 1), (36, 2), (1000, 5)):
        _, said = tune(base, dialogs, tmp_path / str(eval_tokens), config, eval_tokens=eval_tokens, steps=1)
        assert f"; {count} examples, {35 * count} tokens" in said


def test_a_dialog_that_is_cut_off_is_named(base: Path, dialogs: Path, tmp_path: Path) -> None:
    _, said = tune(base, dialogs, tmp_path / "run", sequence_length=32, batch_tokens=32)
    assert f"{dialogs}: line 1 and 4 more: longer than 32 tokens (sequence_length); the rest is cut off" in said
    _, said = tune(base, dialogs, tmp_path / "other")
    assert "longer" not in said


def test_after_a_diverged_run_a_restart_begins_from_the_base_model(base: Path, dialogs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="restart with a learning_rate below 1e.30") as raised:
        tune(base, dialogs, tmp_path / "run", FinetuneConfig(lora=LORA), learning_rate=1e30, steps=20)
    assert "\n" not in str(raised.value)
    said = io.StringIO()
    finetune(base, [dialogs], tmp_path / "run", FinetuneConfig(lora=LORA), restart=True, progress=said, **QUICK)
    assert torch.isfinite(logits(load(tmp_path / "run")[0])).all()


def test_dropout_differs_between_calls(base: Path) -> None:
    model, _ = load(base)
    add_lora(model, LoraConfig(4, dropout=0.5))
    with torch.no_grad():
        model.layers[0].attention.wq.lora_b.normal_()
    x = torch.tensor([[1, 2, 3]])
    assert not torch.equal(model(x), model(x))


# --- adapters that are trained further, and plain texts ---


def test_an_adapter_is_trained_further_from_its_own_matrices(base: Path, dialogs: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    config = FinetuneConfig(lora=LoraConfig(4, 12.0, ["wq", "w2"]), held_out=[dialogs])
    tune(base, dialogs, first, config, steps=30, learning_rate=1e-2)
    tune(first, dialogs, second, FinetuneConfig(held_out=[dialogs]))
    settings = [json.loads((run / "adapter_config.json").read_bytes()) for run in (first, second)]
    assert settings[0] == settings[1]
    held_out = [[record["loss"] for record in read_metrics(run / "metrics.jsonl") if record["kind"] == "evaluation"]
                for run in (first, second)]  # fmt: skip
    assert held_out[1][0] == pytest.approx(held_out[0][-1], rel=1e-6)  # starts where the first run ended
    assert held_out[1][-1] < held_out[1][0] < held_out[0][0]
    assert not torch.equal(logits(load(first)[0]), logits(load(second)[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the second adapter knows its base, too
        load(second)


def test_preferences_continue_an_adapter_that_is_their_reference(
    base: Path, dialogs: Path, pairs: Path, tmp_path: Path
) -> None:
    tune(base, dialogs, tmp_path / "first", FinetuneConfig(lora=LoraConfig(4)), steps=10, learning_rate=1e-2)
    tune(tmp_path / "first", pairs, tmp_path / "second", FinetuneConfig(beta=0.1, held_out=[pairs]))
    records = read_metrics(tmp_path / "second" / "metrics.jsonl")
    first = next(record["loss"] for record in records if record["kind"] == "evaluation")
    assert first == pytest.approx(math.log(2), rel=1e-5)  # no preference relative to the model as it started


def test_plain_texts_are_learned_whole(base: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The hen has five eggs. " * 8)
    for name, lora in (("all", None), ("lora", LoraConfig(4))):
        config = FinetuneConfig(lora=lora, text=True, held_out=[text])
        tune(base, text, tmp_path / name, config, steps=30, learning_rate=1e-2)
        found = [r["loss"] for r in read_metrics(tmp_path / name / "metrics.jsonl") if r["kind"] == "evaluation"]
        assert found[-1] < found[0] - 1
        assert (tmp_path / name / "adapter_config.json").exists() == (lora is not None)


def test_each_token_of_a_text_is_learned_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abcdefghij")
    (tmp_path / "b.jsonl").write_text('{"text": "xy"}\n{"text": null}\n{"text": ""}\n')
    whole = [*TOKENIZER.prefix_ids, *b"abcdefghij", 257]
    texts = read_texts([tmp_path / "a.txt", tmp_path / "b.jsonl"], TOKENIZER, Reading(4, end_id=257))
    assert [id for text in texts for id in text.ids[1:]] == [*whole[1:], *[*TOKENIZER.prefix_ids, *b"xy", 257][1:]]
    assert all(len(text) <= 4 and text.written == [False] + [True] * len(text) for text in texts)
    (short,) = read_texts([tmp_path / "b.jsonl"], TOKENIZER, Reading(9, learn_end=False, end_id=257))
    assert short.ids == [*TOKENIZER.prefix_ids, *b"xy"]
    (tmp_path / "c.jsonl").write_text('{"story": "x--y"}\n')
    how = Reading(9, end_id=257, field="story", separator="--")
    assert len(read_texts([tmp_path / "c.jsonl"], TOKENIZER, how)) == 1  # a record is a text
    (tmp_path / "c.txt").write_text("x--y")
    assert [text.ids[-2:] for text in read_texts([tmp_path / "c.txt"], TOKENIZER, how)] == [[120, 257], [121, 257]]
    with pytest.raises(InputError, match="no token that ends a text"):
        read_texts([tmp_path / "a.txt"], TOKENIZER, Reading(9, learn_end=True))
