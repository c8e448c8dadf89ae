"""lm-evaluation-harness with our models: its results match transformers and `model.evaluation`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bpe import InputError, Tokenizer
from model import ModelConfig, Transformer, complete, save

lm_eval = pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: it is the extra eval")

from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.api.registry import get_model  # noqa: E402
from lm_eval.evaluator import simple_evaluate  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window  # noqa: E402

from model.evaluation.choices import evaluate_choices, read_questions  # noqa: E402
from model.evaluation.harness import HarnessModel  # noqa: E402
from support.family_data import tokenizer_of_bytes  # noqa: E402
from support.model_families import write  # noqa: E402
from support.references import BYTE_RANKS  # noqa: E402

SPECIAL = {"<|begin_of_text|>": 256, "<|end_of_text|>": 257, "<|eot_id|>": 258}
LONG = "the sea and the cloth " * 7  # 154 bytes, and the context holds 64

CHOICES = """
task: choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {questions}}}, cache_dir: {cache}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_bytes, aggregation: mean, higher_is_better: true}}
"""
ROLLING = """
task: rolling
dataset_path: json
dataset_kwargs: {{data_files: {{test: {texts}}}, cache_dir: {cache}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - {{metric: bits_per_byte}}
"""
WRITING = """
task: writing
dataset_path: json
dataset_kwargs: {{data_files: {{test: {texts}}}, cache_dir: {cache}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{text}}}}"
doc_to_target: "{{{{continuation}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 8, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""

Pair = tuple[Transformer, Tokenizer]


@pytest.fixture
def pair(model: Transformer) -> Pair:
    """A model with a context of 64 and its tokenizer of bytes."""
    return model, Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens=SPECIAL)


@pytest.fixture
def theirs(pair: Pair, tmp_path: Path) -> Any:
    """A LlamaForCausalLM with the same weights, in float64."""
    pair[1].save(tmp_path / "tokenizer.json")
    save(tmp_path / "hf", pair[0], tmp_path / "tokenizer.json", "huggingface")
    return transformers.LlamaForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float64)


def asks(kind: str, *arguments: tuple[Any, ...]) -> list[Instance]:
    return [Instance(kind, {}, each, number) for number, each in enumerate(arguments)]


def cost(theirs: Any, context: list[int], ids: list[int]) -> tuple[float, bool]:
    """Return the log-likelihood of ids after a context, and whether each id is the likeliest."""
    with torch.no_grad():
        logits = theirs(torch.tensor([(context + ids)[:-1]])).logits[0, -len(ids) :]
    probabilities = logits.log_softmax(-1)
    return probabilities[torch.arange(len(ids)), ids].sum().item(), logits.argmax(-1).tolist() == ids


def write_lines(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_the_harness_reports_our_own_numbers_and_those_of_transformers(pair: Pair, theirs: Any, tmp_path: Path) -> None:
    words = ["sea", "thin cloth", "é", "12", "日本", "one and another", "x"]
    asked = [
        {
            "question": f"{words[n % 7]} is",
            "choices": [words[(n + step) % 7] for step in (1, 3, 4)],
            "answer": n % 3,
        }
        for n in range(12)
    ]
    questions = write_lines(tmp_path / "questions.jsonl", asked)
    prompts = ["the sea", "a much longer cloth"]
    written = [text.text for text in complete(*pair, prompts, 8, stop=["\n"], temperature=0)]
    texts = write_lines(
        tmp_path / "texts.jsonl",
        [{"text": text, "continuation": each} for text, each in zip(prompts, written, strict=True)],
    )
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for name, task in (("choices", CHOICES), ("rolling", ROLLING), ("writing", WRITING)):
        (tasks / f"{name}.yaml").write_text(task.format(questions=questions, texts=texts, cache=tmp_path / "cache"))
    found = simple_evaluate(
        model=HarnessModel(pair, batch_size=2),
        tasks=["choices", "rolling", "writing"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
    )

    ours = evaluate_choices(pair[0], read_questions(pair[1], str(questions), context=64), "questions")
    results = found["results"]["choices"]
    assert results["acc,none"] == ours["accuracy"]
    assert results["acc_bytes,none"] == ours["accuracy_per_byte"]
    assert 0 < ours["accuracy"] < 1
    for sample in found["samples"]["choices"]:
        told = ours["answers"][sample["doc_id"]]["log_likelihoods"]
        assert [answer[0] for answer in sample["filtered_resps"]] == pytest.approx(told, rel=1e-6)
        for choice, (likelihood, likeliest) in zip(sample["doc"]["choices"], sample["filtered_resps"], strict=True):
            context = [256, *sample["doc"]["question"].encode()]
            expected = cost(theirs, context, list(b" " + choice.encode()))
            assert (likelihood, likeliest) == (pytest.approx(expected[0], rel=1e-5), expected[1])

    nats = -sum(cost(theirs, [256], list(text.encode()))[0] for text in prompts)
    size = sum(map(len, prompts))
    assert found["results"]["rolling"]["bits_per_byte,none"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert found["results"]["writing"]["exact_match,none"] == 1


def test_whole_texts_match_the_windows_of_the_harness(pair: Pair, theirs: Any) -> None:
    texts = [LONG, "x", "", "é" * 40]
    found = HarnessModel(pair).loglikelihood_rolling(asks("loglikelihood_rolling", *((text,) for text in texts)))
    for text, likelihood in zip(texts, found, strict=True):
        rolling = get_rolling_token_windows(list(text.encode()), prefix_token=256, max_seq_len=64, context_len=1)
        expected = sum(cost(theirs, context, ids)[0] for context, ids in map(make_disjoint_window, rolling))
        assert likelihood == pytest.approx(expected, rel=1e-5)


def test_long_contexts_lose_their_beginning(pair: Pair, theirs: Any, caplog: pytest.LogCaptureFixture) -> None:
    greedy = [256, *b"the sea"]
    for _ in range(3):
        with torch.no_grad():
            greedy.append(int(theirs(torch.tensor([greedy])).logits[0, -1].argmax()))
    likeliest = bytes(greedy[-3:])
    model = HarnessModel(pair)
    pairs = [("", "sea"), ("the sea ", "is"), (LONG, " is"), ("<|begin_of_text|>the<|eot_id|>", "x")]
    found = model.loglikelihood(asks("loglikelihood", *pairs))
    expected = [
        cost(theirs, [256], list(b"sea")),
        cost(theirs, [256, *b"the sea"], list(b" is")),  # white space belongs to the continuation
        cost(theirs, list(LONG.rstrip().encode())[-61:], list(b"  is")),
        cost(theirs, [256, *b"the", 258], list(b"x")),
    ]
    for answer, (likelihood, is_likeliest) in zip(found, expected, strict=True):
        assert answer == (pytest.approx(likelihood, rel=1e-5), is_likeliest)
    assert "only its last 65 fit the context" in caplog.text
    ids = model._loglikelihood_tokens([(("the sea", ""), greedy[:-3], list(likeliest))])
    assert ids == [(pytest.approx(cost(theirs, greedy[:-3], list(likeliest))[0], rel=1e-5), True)]


@pytest.mark.parametrize("batch_size", [1, 3, "auto"])
def test_texts_end_at_the_first_stop_string(batch_size: int | str, pair: Pair, theirs: Any) -> None:
    prompts = ["the sea", "cloth", "a much longer cloth", LONG]
    given = [{"until": [], "max_gen_toks": 9}, {"until": "", "max_new_tokens": 9, "do_sample": False}]
    found = HarnessModel(pair, batch_size=batch_size).generate_until(
        asks("generate_until", *((prompt, given[n % 2]) for n, prompt in enumerate(prompts)))
    )
    for prompt, text in zip(prompts, found, strict=True):
        ids = [256, *prompt.encode()][-55:]
        with torch.no_grad():
            written = theirs.generate(
                torch.tensor([ids]), max_new_tokens=9, do_sample=False, eos_token_id=[257, 258], pad_token_id=257
            )
        expected = [id for id in written[0, len(ids) :].tolist() if id < 256]
        assert text == bytes(expected).decode(errors="replace")
    (whole, *_) = found
    stop = whole[3:5]
    (cut,) = HarnessModel(pair).generate_until(
        asks("generate_until", ("the sea", {"until": [stop], "max_gen_toks": 9, "temperature": 0.0}))
    )
    assert cut == whole[: whole.index(stop)]


def test_unsupported_requests_raise(pair: Pair) -> None:
    model = HarnessModel(pair)
    with pytest.raises(InputError, match="'ssss.*has 65 tokens.*1 to 64"):
        model.loglikelihood(asks("loglikelihood", ("the", "s" * 65)))
    with pytest.raises(InputError, match="the task generates 64 tokens.*holds 64.*lower max_gen_toks"):
        model.generate_until(asks("generate_until", ("the", {"max_gen_toks": 64})))
    with pytest.raises(InputError, match="the task sets num_beams for generation"):
        model.generate_until(asks("generate_until", ("the", {"num_beams": 4})))
    with pytest.raises(InputError, match="float8"):
        HarnessModel(pair, dtype="float8")
    bare = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens={})
    with pytest.raises(InputError, match="no token that begins or ends a text"):
        HarnessModel((pair[0], bare))


def test_the_harness_creates_the_model_by_name_and_arguments(pair: Pair, tmp_path: Path) -> None:
    pair[1].save(tmp_path / "tokenizer.json")
    save(tmp_path / "run", pair[0], tmp_path / "tokenizer.json")
    made = get_model("bpe").create_from_arg_string(
        f"pretrained={tmp_path / 'run'},dtype=bfloat16", {"batch_size": "4", "device": "cpu", "max_batch_size": None}
    )
    assert isinstance(made, HarnessModel)
    assert (made.max_length, made.prefix_token_id, made.eot_token_id) == (64, 256, 257)
    assert made.model.tok_embeddings.weight.dtype == torch.bfloat16
    assert get_model("dummy").__name__ == "DummyLM"  # the harness's own models are still registered


def test_the_token_that_ends_texts_replaces_a_missing_begin_token(config: ModelConfig) -> None:
    tokenizer = Tokenizer("bytes", pat_str="llama3", mergeable_ranks=BYTE_RANKS, special_tokens={"<|endoftext|>": 256})
    model = HarnessModel((Transformer(config), tokenizer))
    assert (model.prefix_token_id, model.eot_token_id) == (256, 256)
    assert model.tok_encode("x") == [120]


CHAT = """{% for m in messages %}{% if m.role == 'system' and strict %}{{ raise_exception('No system') }}{% endif %}
<|begin_of_text|>{{ m.role }}: {{ m.content }}<|eot_id|>{% endfor %}
{% if add_generation_prompt %}assistant: {% endif %}"""


@pytest.fixture
def chatting(pair: Pair, tmp_path: Path) -> Path:
    """The directory of a model with two chat templates and settings of generation."""
    pair[1].save(tmp_path / "tokenizer.json")
    save(tmp_path / "chat", pair[0], tmp_path / "tokenizer.json", "huggingface")
    config = json.loads((tmp_path / "chat" / "tokenizer_config.json").read_text())
    named = [{"name": "default", "template": CHAT}, {"name": "brief", "template": "{{ messages[0].content }}!"}]
    (tmp_path / "chat" / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": named}))
    return tmp_path / "chat"


HISTORY = [
    {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "A"}
]  # fmt: skip


def test_dialogs_are_rendered_as_by_transformers(chatting: Path) -> None:
    model = HarnessModel(chatting)
    theirs = transformers.AutoTokenizer.from_pretrained(chatting)
    assert model.chat_template(False) is None
    assert model.chat_template(True) == CHAT
    assert model.tokenizer_name == str(chatting).replace("/", "__")
    for prompted in (True, False):
        assert model.apply_chat_template(HISTORY, add_generation_prompt=prompted) == theirs.apply_chat_template(
            HISTORY, tokenize=False, add_generation_prompt=prompted, continue_final_message=not prompted
        )
    text = model.apply_chat_template(HISTORY)
    assert model.tok_encode(text) == theirs.encode(text, add_special_tokens=False)
    assert model.chat_template("brief") == "{{ messages[0].content }}!"
    assert model.apply_chat_template(HISTORY) == "Be brief.!"
    with pytest.raises(InputError, match="no chat template 'long'; there are brief, default"):
        model.chat_template("long")


def test_a_template_without_system_messages_gets_the_other_messages(
    chatting: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = HarnessModel(chatting, chat_template_args={"strict": True})
    assert model.apply_chat_template(HISTORY) == HarnessModel(chatting).apply_chat_template(HISTORY[1:])
    assert "No system; it takes no system message" in caplog.text
    assert "the dialog is rendered without its system message" in caplog.text


def test_a_task_runs_with_the_chat_template(chatting: Path, pair: Pair, tmp_path: Path) -> None:
    model = HarnessModel(chatting)
    prompt = model.apply_chat_template(HISTORY[:2])
    (written,) = complete(*pair, [model.tok_encode(prompt)], 8, stop=["\n"], temperature=0)
    texts = write_lines(tmp_path / "texts.jsonl", [{"text": "Hi", "continuation": written.text}])
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "writing.yaml").write_text(WRITING.format(texts=texts, cache=tmp_path / "cache"))
    found = simple_evaluate(
        model=model,
        tasks=["writing"],
        task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
        apply_chat_template=True,
        fewshot_as_multiturn=True,
        system_instruction="Be brief.",
        bootstrap_iters=0,
    )
    assert found["samples"]["writing"][0]["arguments"][0][0] == prompt
    assert found["results"]["writing"]["exact_match,none"] == 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"temperature": 0.0}),
        ({"temperature": 0.7, "do_sample": False}, {"temperature": 0.0}),
        ({"do_sample": True}, {"temperature": 1.0, "top_k": 50}),
        ({"temperature": 0.7, "top_k": 0}, {"temperature": 0.7}),
        ({"do_sample": True, "temperature": 0.7, "top_p": 0.5, "num_beams": 1},
         {"temperature": 0.7, "top_k": 50, "top_p": 0.5}),
    ],
)  # fmt: skip
def test_settings_of_generation_mean_what_they_do_in_transformers(
    pair: Pair, chatting: Path, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    stop, _, sampling = HarnessModel(pair)._generation({**given, "until": "x"})
    assert stop == ["x", "<|end_of_text|>"]
    assert sampling == expected
    file = chatting / "generation_config.json"
    defaults = {"temperature": 0.6, "top_p": 0.9, "top_k": 20, "repetition_penalty": 1.1}
    file.write_text(json.dumps({**json.loads(file.read_text()), **defaults, "do_sample": True}))
    _, _, sampling = HarnessModel(chatting)._generation(given)
    if expected["temperature"] == 0.0:
        assert sampling == {"temperature": 0.0, "repetition_penalty": 1.1}
    else:
        chosen = {name: value for name, value in {**defaults, **given}.items() if name in {*defaults}}
        assert sampling == {name: value for name, value in chosen.items() if value != 0}


def test_sampling_at_temperature_0_is_refused(pair: Pair) -> None:
    with pytest.raises(InputError, match="do_sample and a temperature of 0"):
        HarnessModel(pair)._generation({"do_sample": True, "temperature": 0.0})


def test_ignore_unknown_opens_a_model_whose_configuration_has_another_key(pair: Pair, tmp_path: Path) -> None:
    pair[1].save(tmp_path / "tokenizer.json")
    save(tmp_path / "model", pair[0], tmp_path / "tokenizer.json", "huggingface")
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace("{", '{"novelty": 3,', 1))
    (config.parent / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with pytest.raises(InputError, match=r"config.json: novelty \(value 3\) is not a known key.*ignore_unknown=True"):
        HarnessModel(tmp_path / "model")
    with pytest.warns(UserWarning, match="passed over keys that .*novelty"):
        harness = get_model("bpe").create_from_arg_string(f"pretrained={tmp_path / 'model'},ignore_unknown=True")
    assert harness.chat_template(True) == "{{ messages[0].content }}"


@pytest.mark.parametrize("name", ["qwen3 moe", "mistral, window", "gemma2"])
def test_batches_of_the_relatives_of_llama_have_the_results_of_one_text_at_a_time(name: str, tmp_path: Path) -> None:
    theirs = write(name, tmp_path)
    tokenizer_of_bytes().save(tmp_path / "tokenizer.json")
    batched, single = HarnessModel(tmp_path, batch_size=5), HarnessModel(tmp_path, batch_size=1, batch_tokens=1)
    contexts = ["the sea", "a much longer cloth than any window holds", "x", "thin cloth", ""]
    pairs = [(context, " and on" * (1 + number)) for number, context in enumerate(contexts)]

    found = batched.loglikelihood(asks("loglikelihood", *pairs))
    alone = [answer for pair in pairs for answer in single.loglikelihood(asks("loglikelihood", pair))]
    for answer, one, (context, continuation) in zip(found, alone, pairs, strict=True):
        expected = cost(theirs, [256, *context.encode()], list(continuation.encode()))
        assert answer == (pytest.approx(expected[0], rel=1e-5), expected[1])
        assert one == (pytest.approx(expected[0], rel=1e-5), expected[1])

    texts = [(LONG,), ("the sea",), ("é" * 40,)]  # the context holds 128 tokens, so the first needs two windows
    whole = batched.loglikelihood_rolling(asks("loglikelihood_rolling", *texts))
    parts = [each for text in texts for each in single.loglikelihood_rolling(asks("loglikelihood_rolling", text))]
    assert whole == pytest.approx(parts, rel=1e-6)

    limits = {"until": [], "max_gen_toks": 20, "do_sample": False}
    written = batched.generate_until(asks("generate_until", *((context, limits) for context in contexts)))
    for context, text in zip(contexts, written, strict=True):
        assert single.generate_until(asks("generate_until", (context, limits))) == [text]
    assert len(set(written)) == len(contexts)
