"""Small vocabularies of Unigram, WordPiece, whole words and characters, as the two libraries train them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, corpora: Path) -> Path:
    """A directory with unigram.model, word.model, char.model, wordpiece.json, vocab.txt, unigram.json, words.json."""
    directory = tmp_path_factory.mktemp("subwords")
    lines = (corpora / "prose.txt").read_text(encoding="utf-8").split("\n")
    for kind, size in (("unigram", 600), ("word", 300), ("char", 60)):
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type=kind,
            vocab_size=size,
            byte_fallback=kind == "unigram",
            user_defined_symbols=["<think>"],
            control_symbols=["<|im_end|>"],
            minloglevel=2,
            num_threads=1,
        )
        (directory / f"{kind}.model").write_bytes(model.getvalue())
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    wordpiece = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    wordpiece.normalizer = normalizers.BertNormalizer()
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wordpiece.decoder = decoders.WordPiece()
    wordpiece.train_from_iterator(
        lines, trainers.WordPieceTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    )
    wordpiece.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    wordpiece.add_tokens([tokenizers.AddedToken("<think>", normalized=False)])
    wordpiece.save(str(directory / "wordpiece.json"))
    vocab = wordpiece.get_vocab(with_added_tokens=False)
    (directory / "vocab.txt").write_text("".join(f"{token}\n" for token in sorted(vocab, key=vocab.__getitem__)))
    unigram = tokenizers.Tokenizer(models.Unigram())
    unigram.pre_tokenizer, unigram.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    unigram.train_from_iterator(
        lines,
        trainers.UnigramTrainer(
            vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", show_progress=False
        ),
    )
    unigram.save(str(directory / "unigram.json"))
    words = tokenizers.Tokenizer(models.WordLevel(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(
        lines, trainers.WordLevelTrainer(vocab_size=200, special_tokens=["<unk>"], show_progress=False)
    )
    words.save(str(directory / "words.json"))
    return directory
