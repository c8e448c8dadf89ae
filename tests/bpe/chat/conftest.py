"""Fixtures of the chat tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_models.llama3.chat_format import ChatFormat as MetaChat
from llama_models.llama3.tokenizer import Tokenizer as MetaTokenizer
from transformers import PreTrainedTokenizerFast

from bpe import Tokenizer, train
from bpe.chat import Llama3Chat
from support.chat_dialogs import SPECIAL


@pytest.fixture(scope="module")
def small(corpora: Path) -> Tokenizer:
    return train(str(corpora), vocab_size=1500, pattern="llama3", special_tokens=SPECIAL, name="small")


@pytest.fixture(scope="module")
def transformers_tokenizer(small: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    path = tmp_path_factory.mktemp("small") / "tokenizer.json"
    small.save(path)
    return PreTrainedTokenizerFast(tokenizer_file=str(path), bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module")
def meta() -> MetaChat:
    return MetaChat(MetaTokenizer.get_instance())


@pytest.fixture(scope="module")
def llama3_chat(llama3: Tokenizer) -> Llama3Chat:
    return Llama3Chat(llama3)
