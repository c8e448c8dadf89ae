"""A program that uses each public name, for type checkers to read in `test_types.py`. Nothing here is executed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import tiktoken
import torch
from typing_extensions import assert_type

from bpe import (
    InputError,
    StreamDecoder,
    StreamEncoder,
    Tokenizer,
    train,
    train_from_counts,
    train_from_iterator,
)
from bpe.chat import ChatFormat, Llama3Chat, TemplateChat
from bpe.shards import Shards, write_shards
from bpe.training.settings import Trained, TrainingProgress
from model import (
    PRESETS,
    Completion,
    Completions,
    Generation,
    Grammar,
    GrammarCompiler,
    KVCache,
    ModelConfig,
    NativeModel,
    Sampling,
    Session,
    Speculation,
    Transformer,
    __version__,
    complete,
    convert,
    generate,
    generate_ids,
    grammar_compiler,
    load,
    quantize,
    save,
)
from model.generation.conversation import Conversation
from model.lora import LoraConfig
from model.training.finetune_settings import FinetuneConfig
from model.training.finetuning import finetune
from model.training.pretraining import pretrain
from model.training.settings import TrainConfig, TrainResult


def vocabulary(paths: list[Path]) -> Tokenizer:
    def show(progress: TrainingProgress) -> None:
        print(progress.phase, progress.documents)

    def finished(trained: Trained) -> None:
        print(trained.pairs.shape, trained.seconds["count"])

    first = train(paths, 1024, "gpt2", ["<|end|>"], min_frequency=2, progress=show, trained=finished)
    assert_type(first, Tokenizer)
    assert_type(train("corpora", vocab_size=1024, weights=[1, 0.5], work=Path("work")), Tokenizer)
    assert_type(train_from_iterator(["a", b"b"], 300, base=first, tie_break="bytes"), Tokenizer)
    assert_type(train_from_counts({"a": 1}, 300, allow_smaller=True), Tokenizer)
    return first


def encoding(tokenizer: Tokenizer) -> None:
    assert_type(Tokenizer.from_file(Path("a.json"), special_tokens={"<|end|>": 300}), Tokenizer)
    assert_type(Tokenizer.from_name("llama3"), Tokenizer)
    ranks = {bytes([byte]): byte for byte in range(256)}
    Tokenizer("tiny", pat_str="gpt2", mergeable_ranks=ranks, special_tokens={}, explicit_n_vocab=256)
    ids = tokenizer.encode("text", allowed_special={"<|end|>"}, disallowed_special=())
    assert_type(ids, list[int])
    assert_type(tokenizer.encode_ordinary(b"text"), list[int])
    assert_type(tokenizer.encode_to_numpy("text", allowed_special="all"), npt.NDArray[np.uint32])
    assert_type(tokenizer.encode_batch(["a", "b"], num_threads=2), list[list[int]])
    assert_type(tokenizer.encode_flat(["a"]), tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]])
    assert_type(tokenizer.encode_flat(["a"], dtype=np.uint16), tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]])
    assert_type(tokenizer.encode_files("a.txt"), tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]])
    assert_type(tokenizer.encode_with_offsets("a", unit="bytes"), tuple[list[int], list[tuple[int, int]]])
    assert_type(tokenizer.decode(ids), str)
    assert_type(tokenizer.decode(tokenizer.encode_to_numpy("text")), str)
    assert_type(tokenizer.decode_bytes(ids), bytes)
    assert_type(tokenizer.decode_batch([ids]), list[str])
    assert_type(tokenizer.special_tokens_set, set[str])
    assert_type(tokenizer.bos_id, "int | None")
    assert_type(tokenizer.with_special_tokens(["<|a|>"]).with_boundaries(bos=False, end_tokens=[3]), Tokenizer)
    tokenizer.save(Path("a.json"), format="huggingface")
    encoder, decoder = StreamEncoder(tokenizer, allowed_special="all"), StreamDecoder(tokenizer)
    assert_type([decoder.feed(id) for id in encoder.feed("text") + encoder.flush()], list[str])
    StreamDecoder(tiktoken.get_encoding("gpt2"))
    for format in (Llama3Chat(tokenizer), TemplateChat(tokenizer, "{{ messages }}")):
        dialog: ChatFormat = format
        assert_type(dialog.encode([{"role": "user", "content": "Hello"}]), list[int])


def models() -> None:
    config = ModelConfig.preset("nano", vocab_size=512, tied_embeddings=True)
    assert_type(config, ModelConfig)
    assert_type(config.dim, int)
    print(PRESETS["nano"])
    version: str = __version__
    print(version)
    model = Transformer(config)
    cache = model.new_cache()
    assert_type(cache, KVCache)
    assert_type(model.head(model.hidden(torch.tensor([[1]]), cache)), torch.Tensor)
    assert_type(load("smollm2"), tuple[Transformer, Tokenizer])
    assert_type(load(Path("a"), torch.float32, "cuda", packed=True), tuple[Transformer, Tokenizer])
    assert_type(load("a", backend="auto"), tuple["Transformer | NativeModel", Tokenizer])
    assert_type(quantize(model, "q8_0"), NativeModel)
    save("copy", model, "tokenizer.json", format="huggingface")
    convert("copy", Path("copy.gguf"), dtype=torch.float16)


def generation(model: Transformer, fast: NativeModel, tokenizer: Tokenizer) -> None:
    session = Session(model)
    pieces = generate(model, tokenizer, "Once", 20, stop="\n", session=session, temperature=0.5, top_k=3, seed=1)
    assert_type(pieces, Iterator[str])
    generate(fast, tokenizer, [1, 2], logit_bias={1: float("-inf")}, min_p=None, end_ids=tokenizer.eos_ids)
    generate(fast, tiktoken.get_encoding("gpt2"), "Once", allowed_special="all")
    assert_type(generate_ids(model, [1, 2], max_tokens=3, temperature=0, n_vocab=100), Iterator[int])
    texts = complete(model, tokenizer, ["a", [1]], samples=2, logprobs=3, frequency_penalty=1, stop=["a", "b"])
    assert_type(texts, list[Completion])
    assert_type(texts[0].finish, "Literal['end', 'stop', 'length'] | None")
    for completion, piece in Completions(model, tokenizer, ["a"], repetition_penalty=1.1, top_p=0.9):
        assert_type(completion, Completion)
        assert_type(piece, str)
    for tokens in Generation(model, [[1]], sampling=Sampling(temperature=0), samples=2):
        print(tokens[0].id, tokens[0].logprob)
    compiler: GrammarCompiler = grammar_compiler(fast, tokenizer)
    grammar = compiler.regex("[0-9]+")
    assert_type(grammar, Grammar)
    assert_type(compiler.json_schema({"type": "integer"}), Grammar)
    speculation = Speculation(draft=fast, draft_tokenizer=tokenizer)
    assert_type(generate(fast, tokenizer, "a", grammar=grammar, speculation=speculation), Iterator[str])
    complete(fast, tokenizer, ["a"], grammar=grammar, speculation=Speculation(layers=2), presence_penalty=0.5)
    talk = Conversation(model, tokenizer, Llama3Chat(tokenizer), prefill="Sure: ", max_tokens=9, temperature=0.5)
    for piece in talk.answer("Hello"):
        print(piece)


def training(tokenizer: Tokenizer) -> None:
    shards = write_shards(["a", b"b"], tokenizer, "data", tokenizer_file="my.json", held_out=0.1)
    assert_type(shards, Shards)
    schedule: Literal["cosine", "wsd"] = "wsd"
    settings = TrainConfig(steps=2, sequence_length=64, batch_tokens=128, schedule=schedule, dtype="float32")
    assert_type(pretrain("data", "run", ModelConfig.preset("nano"), settings), TrainResult)
    lora = FinetuneConfig(lora=LoraConfig(rank=4, targets=["wq"]))
    assert_type(finetune("run", ["a.jsonl"], Path("tuned"), lora, steps=2, learning_rate=1e-4), TrainResult)


def main() -> None:
    try:
        encoding(vocabulary([Path("corpora")]))
    except InputError as error:
        print(error)
