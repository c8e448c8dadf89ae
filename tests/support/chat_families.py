"""Chat templates in the styles of published families, the tokens that they write, and random dialogs for them."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "bpe" / "chat" / "templates"
FAMILIES = {file.stem: file.read_text("utf-8") for file in sorted(FOLDER.glob("*.jinja"))}

# Every token in bars, and others that the templates write.
TOKENS = sorted(
    {token for source in FAMILIES.values() for token in re.findall(r"<\|/?\w+\|>", source)}
    | {"<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<|tool|>", "[INST]", "[/INST]", "[TOOL_CALLS]",
       "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[SYSTEM_PROMPT]",
       "[/SYSTEM_PROMPT]", "[IMG]", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "[gMASK]", "<sop>",
       "[|user|]", "[|assistant|]", "[|system|]", "[|tool|]", "[|endofturn|]", "<seed:bos>", "<seed:eos>",
       "<seed:tool_call>", "</seed:tool_call>", "<seed:think>", "<SPECIAL_10>", "<SPECIAL_11>", "<SPECIAL_12>",
       "<extra_id_0>", "<extra_id_1>", "]~b]", "]~!b[", "[e~[", "<minimax:tool_call>", "</minimax:tool_call>",
       "<用户>", "<AI>", "<role>", "</role>"}
)  # fmt: skip

_WORDS = (
    "tool", "Write code", "```", "user", "assistant", "system", "object", "/think", "/no_think", "/nothink", "is it",
    "warm", "Tromsø", "日本語", "🦙", "<b>", "&amp;", "'", '"', "{", "}", "\n", "\n\n", "  ", "\t", "\\", "%s", "{}",
    "İß", "ℌ", "</think>", "<think>", "<tool_response>", "</tool_response>", "<tool_call>", "|", "<", ">", "[", "]",
    "\r\n", "1", "/system_override", "GPT4",
)  # fmt: skip

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'How <warm> it is "there",\näöü',
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": " The city. ", "enum": ["Oslo", "Bern"]},
                    "hours": {"type": "array", "items": {"type": "integer"}},
                    "at": {"type": "object", "properties": {"exact": {"type": "boolean"}}, "required": ["exact"]},
                    "any": {"type": ["string", "null"], "default": None, "minLength": 2},
                },
                "required": ["city"],
            },
            "return": {"type": "number"},
        },
    },
    {
        "type": "function",
        "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}},
    },
]
DOCUMENTS = [{"doc_id": 1, "title": "Fjords", "text": "Deep\nwater."}, {"doc_id": 2, "title": "a", "text": "b 日本"}]


def random_text(chance: random.Random) -> str:
    """Return a text of words that templates look at."""
    return " ".join(chance.choice(_WORDS) for _ in range(chance.randrange(7)))


def random_dialog(chance: random.Random, parts: bool = False, calls: bool = True) -> list[dict[str, Any]]:
    """Return a dialog in which user and assistant alternate, with tool calls and thoughts.

    Args:
        chance: The source of randomness.
        parts: Whether content may be a list of parts, some of which are images.
        calls: Whether the assistant may call tools.
    """

    def content() -> Any:
        if not parts or chance.random() < 0.4:
            return random_text(chance)
        texts = [{"type": "text", "text": random_text(chance)} for _ in range(chance.randrange(1, 3))]
        return [{"type": "image"}, *texts] if parts and chance.random() < 0.3 else texts

    dialog = [{"role": "system", "content": random_text(chance)}] if chance.random() < 0.4 else []
    for _ in range(chance.randrange(1, 4)):
        dialog.append({"role": "user", "content": content()})
        if calls and chance.random() < 0.3:
            dialog += random_calls(chance)
        if chance.random() < 0.8:
            dialog.append({"role": "assistant", "content": random_text(chance)})
            if chance.random() < 0.2:
                dialog[-1]["reasoning_content"] = random_text(chance)
        else:
            break
    return dialog


def random_calls(chance: random.Random) -> list[dict[str, Any]]:
    """Return a message of the assistant that calls tools, and their results."""
    calls, results = [], []
    for number in range(chance.choice((1, 1, 1, 2))):
        arguments = {"city": random_text(chance), "at": {"exact": True}, "n": chance.choice((1, -3.5, None, [1, "a"]))}
        chosen = {name: arguments[name] for name in arguments if chance.random() < 0.6}
        id = f"call{number:05}"
        calls.append({"type": "function", "id": id, "function": {"name": "weather", "arguments": chosen}})
        result = random_text(chance) if chance.random() < 0.6 else json.dumps({"degrees": -3.5})
        results.append({"role": "tool", "name": "weather", "tool_call_id": id, "content": result})
    message = {"role": "assistant", "content": chance.choice((None, "", random_text(chance))), "tool_calls": calls}
    return [message, *results]
