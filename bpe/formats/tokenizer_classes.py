"""The tokenizer classes of transformers that read vocab.json and merges.txt, and what each adds to the two files.

The classes, and the class of each type of model, are those of transformers 5.23 (models/auto/tokenization_auto.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bpe.errors import InputError
from bpe.files import read_json
from bpe.formats.companion_files import CONFIG, TOKENIZER_CONFIG
from bpe.published_patterns import QWEN2

_END = "<|endoftext|>"
_SPLIT = {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False}
_BRACKETS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>"}
_GPT2 = {"bos_token": _END, "eos_token": _END, "unk_token": _END}


class TokenizerClass(NamedTuple):
    """What a tokenizer class of transformers adds to the two files."""

    tokens: Mapping[str, str]
    """The tokens that it names if the files beside do not."""
    normalizer: Mapping[str, Any] | None = None
    splits: Sequence[Mapping[str, Any]] = ()
    """The steps before ByteLevel."""
    use_regex: bool = True
    """Whether ByteLevel splits by its own expression, GPT-2's."""
    add_prefix_space: bool = False
    """The default of the setting with this name."""
    adds_again: bool = False
    """Whether the class adds its special tokens once more, without any flags."""
    mask_takes_space: bool = False
    """Whether a mask token without flags takes the white space in front of it."""
    before: Sequence[str] = ()
    """What is put in front of a text: the names of tokens, such as "cls_token", or their texts."""
    behind: Sequence[str] = ()
    """What is put behind a text."""


CLASSES = {
    "GPT2Tokenizer": TokenizerClass(_GPT2),
    "Qwen2Tokenizer": TokenizerClass(
        {"eos_token": _END, "unk_token": _END, "pad_token": _END},
        {"type": "NFC"},
        (_SPLIT,),
        use_regex=False,
        adds_again=True,
    ),
    "GPTNeoXTokenizer": TokenizerClass(_GPT2 | {"pad_token": "<|padding|>"}, {"type": "NFC"}),
    "RobertaTokenizer": TokenizerClass(
        _BRACKETS | {"cls_token": "<s>", "mask_token": "<mask>"}, before=["cls_token"], behind=["sep_token"]
    ),
    "BlenderbotTokenizer": TokenizerClass(
        _BRACKETS | {"cls_token": "<s>", "mask_token": "<mask>"}, add_prefix_space=True, mask_takes_space=True
    ),
    "CodeGenTokenizer": TokenizerClass(_GPT2),
    "CohereTokenizer": TokenizerClass(
        {"bos_token": "<BOS_TOKEN>", "eos_token": "<|END_OF_TURN_TOKEN|>", "unk_token": "<UNK>", "sep_token": "<SEP>"}
        | {"pad_token": "<PAD>", "cls_token": "<CLS>", "mask_token": "<MASK_TOKEN>"},
        {"type": "NFC"},
        ({"type": "Digits", "individual_digits": True},),
    ),
    "DebertaTokenizer": TokenizerClass(
        {"bos_token": "[CLS]", "eos_token": "[SEP]", "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
        | {"cls_token": "[CLS]", "mask_token": "[MASK]"},
        before=["cls_token"],
        behind=["sep_token"],
    ),
    "WhisperTokenizer": TokenizerClass(
        _GPT2, before=["<|startoftranscript|>", "<|notimestamps|>"], behind=["eos_token"]
    ),
}
"""The classes by name, without "Fast" at the end."""
_SAME_AS = dict.fromkeys(("BartTokenizer", "LEDTokenizer", "LongformerTokenizer", "MvpTokenizer"), "RobertaTokenizer")
_MODEL_TYPES = {
    "GPT2Tokenizer": "blip-2 codegen dbrx emu3 gpt2 gpt_neo gptj hyperclovax_vision_v2 instructblip instructblipvideo"
    " jais2 opt phi starcoder2",
    "RobertaTokenizer": "bart bridgetower clap data2vec-text florence2 ibert led lilt longformer mega mra mvp roberta"
    " roberta-prelayernorm",
    "Qwen2Tokenizer": "audioflamingo3 colqwen2 dots3_note fun_asr_nano hunyuan_vl internvl lighton_ocr"
    " moss_transcribe_diarize ovis2 qianfan_ocr qwen2 qwen2_5_omni qwen2_5_vl qwen2_audio qwen2_moe qwen2_vl qwen3"
    " qwen3_asr qwen3_moe qwen3_next qwen3_omni_moe qwen3_vl qwen3_vl_moe vibevoice",
    "GPTNeoXTokenizer": "falcon_mamba gpt_neox mamba mamba2 mpt olmo olmoe rwkv xlstm",
    "BlenderbotTokenizer": "blenderbot",
    "CohereTokenizer": "aya_vision cohere cohere2",
    "DebertaTokenizer": "deberta",
    "WhisperTokenizer": "whisper",
}
_OF_MODEL = {type: name for name, types in _MODEL_TYPES.items() for type in types.split()}
_OVERRULED = {
    "qwen2": "Qwen2Tokenizer",
    "hyperclovax_vision_v2": "GPT2Tokenizer",
    **dict.fromkeys(("qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen4_exp"), "Qwen3_5Tokenizer"),
}
"""The types of models with which transformers uses this class, whichever class the files name."""


def class_of(directory: Path) -> str:
    """Return the tokenizer class that transformers uses for the files in a directory; "" if nothing says.

    This is "tokenizer_class" of tokenizer_config.json or else of config.json, or else the class of the "model_type" of
    config.json.

    Returns:
        The name without "Fast" at its end: one of `CLASSES`, if the class reads vocab.json and merges.txt.
    """
    files = {name: read_json(directory / name) for name in (TOKENIZER_CONFIG, CONFIG) if (directory / name).is_file()}
    config = files.get(CONFIG, {})
    type = config.get("model_type")
    for file in files.values():
        name = file.get("tokenizer_class")
        if isinstance(name, str) and name:
            name = name.removesuffix("Fast")
            overruled = _OVERRULED.get(type, name) if isinstance(type, str) else name
            return _SAME_AS.get(overruled, overruled)
    return _OVERRULED.get(type) or _OF_MODEL.get(type, "") if isinstance(type, str) else ""


def no_class(directory: Path, name: str) -> InputError:
    """Return the error for a directory whose class is not known to read the two files.

    Args:
        directory: The directory.
        name: The class, as `class_of` returns it.
    """
    type = read_json(directory / CONFIG).get("model_type") if (directory / CONFIG).is_file() else None
    if name:
        what = f"transformers reads it as {name!r}"
    elif type is not None:
        what = f"no tokenizer_class in the files beside it, only the model_type {type!r}"
    else:
        what = f"no {TOKENIZER_CONFIG} with a tokenizer_class beside it"
    return InputError(
        f"{what}, which does not tell the split pattern; name the pattern, for example pattern='gpt2' (on the command"
        f" line --pattern gpt2), or set tokenizer_class to one of {', '.join(CLASSES)}"
    )
