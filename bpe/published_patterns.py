"""The split patterns of published vocabularies as texts or steps, and the special tokens of these vocabularies.

A text is a regular expression whose matches are the pretokens. Steps split one after the other, each the pieces of the
one before. `bpe.patterns` gives them names. Sources, where a comment does not name another: gpt2, cl100k, o200k and
gpt-oss are tiktoken's (tiktoken_ext/openai_public.py), llama3 and llama4 those of Meta's llama-models, qwen2, qwen3.5,
gpt-neox and command-r those of transformers' tokenizers. mpt has the tokenizer of gpt-neox, and starcoder splits as
smollm does.
"""

from __future__ import annotations

from bpe.splitting.steps import Split, Step

GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
GPT2_POSSESSIVE = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
# `tokenizers` first splits off each digit, then splits each piece between them as GPT-2 does. This is the same as one
# expression on the whole text. Except for the one for numbers, all alternatives exclude numbers, so only two of them
# depend on where a piece ends. ` ?\p{N}+` finds a number alone in its piece, without a space before it: `\p{N}`. The
# piece of `\s+(?!\S)` ends at the end of the text and before a number: only white space or a number may follow.
SMOLLM = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"""
CL100K = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
    r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
)
LLAMA3 = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
    r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
)

QWEN2 = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"""
    r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
O200K = (
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
    r"""|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
    r"""|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)

# tokenizers runs patterns on Oniguruma, where "{1,3}+" means a repetition of "{1,3}" and "$" the end of a line.
FOR_ONIGURUMA = {CL100K: CL100K.replace("{1,3}+", "{1,3}").replace("$", r"\z")}
FROM_ONIGURUMA = {theirs: ours for ours, theirs in FOR_ONIGURUMA.items()}
# What `tokenizers` calls numeric: all that Rust's char::is_numeric knows. Oniguruma's Unicode version is older.
NUMERIC = r"[\p{N}\x{11DE0}-\x{11DE9}\x{16FF4}-\x{16FF6}]"
# The steps of SmolLM's tokenizer.json as one expression: as SMOLLM, with the numbers that `tokenizers` knows.
_NOT_NUMERIC = NUMERIC.removeprefix("[")
SMOLLM_DIGITS = (
    rf"'s|'t|'re|'ve|'m|'ll|'d| ?\p{{L}}+|{NUMERIC}| ?[^\s\p{{L}}{_NOT_NUMERIC}+|\s+(?![^\s{_NOT_NUMERIC})|\s+"
)

LLAMA3_SPECIAL_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    "<|image|>",
    *(f"<|reserved_special_token_{i}|>" for i in range(2, 246)),
)
# Llama 4's: the beginnings and ends of texts and turns; blocks for post-training, vision and reasoning; reserves.
LLAMA4_SPECIAL_TOKENS = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
    *("<|header_start|>", "<|header_end|>", "<|eom|>", "<|eot|>", "<|step|>"),
    *(f"<|text_post_train_reserved_special_token_{i}|>" for i in range(6)),
    *("<|python_start|>", "<|python_end|>", "<|finetune_right_pad|>"),
    *(f"<|text_post_train_reserved_special_token_{i}|>" for i in range(8, 69)),
    *("<|image_start|>", "<|image_end|>"),
    *(f"<|vision_reserved_special_token_{i}|>" for i in range(2)),
    *("<|tile_x_separator|>", "<|tile_y_separator|>"),
    *(f"<|vision_reserved_special_token_{i}|>" for i in range(2, 6)),
    *("<|image|>", "<|vision_reserved_special_token_6|>", "<|patch|>"),
    *(f"<|vision_reserved_special_token_{i}|>" for i in range(7, 1048)),
    *(f"<|reasoning_reserved_special_token_{i}|>" for i in range(8)),
    *("<|reasoning_thinking_start|>", "<|reasoning_thinking_end|>"),
    *(f"<|reserved_special_token_{i}|>" for i in range(904)),
)
SMOLLM_SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<reponame>", "<file_sep>", "<filename>"),
    *("<gh_stars>", "<issue_start>", "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>"),
    *("<jupyter_code>", "<jupyter_output>", "<jupyter_script>", "<empty_output>"),
)
CL100K_SPECIAL_TOKENS = ("<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|endofprompt|>")


# Mistral's tekken.json, as in mistral-common's data. The special tokens are those of its files without a list of them.
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN_SPECIAL_TOKENS = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"),
    *("[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)
QWEN35 = (
    r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"""
    r"""|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
# nanochat/tokenizer.py of karpathy/nanochat.
NANOCHAT = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*"""
    r"""|\s*[\r\n]|\s+(?!\S)|\s+"""
)
NANOCHAT_SPECIAL_TOKENS = (
    *("<|bos|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>", "<|assistant_end|>"),
    *("<|python_start|>", "<|python_end|>", "<|output_start|>", "<|output_end|>"),
)
# tokenization_kimi.py of moonshotai/Kimi-K2-Instruct. Han characters are words of their own.
KIMI_K2 = (
    r"[\p{Han}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
KIMI_K2_SPECIAL_TOKENS = (
    *("[BOS]", "[EOS]", "<|im_end|>", "<|im_user|>", "<|im_assistant|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("[EOT]", "<|im_system|>", "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>"),
    *("<|tool_call_argument_begin|>", "<|tool_call_end|>", "<|im_middle|>", "[UNK]", "[PAD]"),
)


def isolated(*patterns: str) -> tuple[Step, ...]:
    """Return steps that split by each pattern in turn, where matches and the text between them are pretokens."""
    return tuple(Split(pattern, "tokenizers") for pattern in patterns)


ASIAN = "[一-龥ࠀ-一가-퟿]+"
KANA_AND_HAN = "[一-龥぀-ゟ゠-ヿ]+"
DEEPSEEK_V3_WORDS = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"""
)
DEEPSEEK_V3_REST = r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Latin, Greek, Cyrillic and similar letters.
_DEEPSEEK_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄ"
    "ῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
# The tokenizer.json of deepseek-ai/deepseek-llm-7b-base, deepseek-coder-6.7b-instruct and DeepSeek-V3. llama.cpp keeps
# the digits of a number together with deepseek-llm, whose vocabulary has no token of two digits.
DEEPSEEK_LLM = isolated(
    *("[\r\n]", rf"\s?[{_DEEPSEEK_LETTERS}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", ASIAN, NUMERIC)
)
DEEPSEEK_CODER = isolated("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", ASIAN, NUMERIC)
DEEPSEEK_V3 = isolated(r"\p{N}{1,3}", KANA_AND_HAN, DEEPSEEK_V3_WORDS + DEEPSEEK_V3_REST)
# llama.cpp's models/ggml-vocab-deepseek-llm.gguf has them.
DEEPSEEK_SPECIAL_TOKENS = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
# llama.cpp's src/llama-vocab.cpp. The tokenizer.json of Falcon looks for digits in the characters that stand for bytes.
FALCON = isolated(r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]")
# Those of llama.cpp's models/ggml-vocab-falcon.gguf.
FALCON_SPECIAL_TOKENS = (
    *(">>TITLE<<", ">>ABSTRACT<<", ">>INTRODUCTION<<", ">>SUMMARY<<", ">>COMMENT<<", ">>ANSWER<<", ">>QUESTION<<"),
    *(">>DOMAIN<<", ">>PREFIX<<", ">>SUFFIX<<", ">>MIDDLE<<", "<|endoftext|>"),
)
# llama.cpp's src/llama-vocab.cpp: only numbers are split, into groups of three digits counted from their end.
SUPERBPE = isolated(r"\p{N}+", r"(?=(\d{3})+(?!\d))")

# Vocabularies that split by the pattern of another one.
GPT_NEOX_SPECIAL_TOKENS = ("<|endoftext|>", "<|padding|>")
# llama.cpp's models/ggml-vocab-starcoder.gguf, which is StarCoder2's vocabulary, and models/ggml-vocab-command-r.gguf.
STARCODER_SPECIAL_TOKENS = (
    *("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<repo_name>", "<file_sep>"),
    *("<issue_start>", "<issue_comment>", "<issue_closed>", "<jupyter_start>", "<jupyter_text>", "<jupyter_code>"),
    *("<jupyter_output>", "<jupyter_script>", "<empty_output>", "<code_to_intermediate>", "<intermediate_to_code>"),
    *("<pr>", "<pr_status>", "<pr_is_merged>", "<pr_base>", "<pr_file>", "<pr_base_code>", "<pr_diff>"),
    *("<pr_diff_hunk>", "<pr_comment>", "<pr_event_id>", "<pr_review>", "<pr_review_state>", "<pr_review_comment>"),
    *("<pr_in_reply_to_review_id>", "<pr_in_reply_to_comment_id>", "<pr_diff_hunk_comment_line>"),
    *("<NAME>", "<EMAIL>", "<KEY>", "<PASSWORD>"),
)
COMMAND_R_SPECIAL_TOKENS = (
    *("<PAD>", "<UNK>", "<CLS>", "<SEP>", "<MASK_TOKEN>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<EOP_TOKEN>"),
    "<|END_OF_TURN_TOKEN|>",
)
# tokenization_chatglm.py of THUDM/glm-4-9b-chat.
GLM4_SPECIAL_TOKENS = (
    *("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>"),
    *("<|observation|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"),
)
# tiktoken's o200k_harmony, whose ids are 199,998 to 201,087. The id of <|endofprompt|> is also that of a reserve.
GPT_OSS_SPECIAL_TOKENS = (
    *("<|startoftext|>", "<|endoftext|>", "<|reserved_200000|>", "<|reserved_200001|>", "<|return|>"),
    *("<|constrain|>", "<|reserved_200004|>", "<|channel|>", "<|start|>", "<|end|>", "<|message|>"),
    *("<|reserved_200009|>", "<|reserved_200010|>", "<|reserved_200011|>", "<|call|>"),
    *("<|endofprompt|>" if i == 200_018 else f"<|reserved_{i}|>" for i in range(200_013, 201_088)),
)
