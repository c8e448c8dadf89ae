"""Dialogs -> ids: in Llama 3's chat format, or by the jinja template that a checkpoint brings.

A dialog is a list of messages in the form of OpenAI's and Hugging Face's interfaces:

    {"role": "system", "content": "Be brief."}
    {"role": "user", "content": "Is it warm in Oslo?"}
    {"role": "assistant", "content": "", "tool_calls": [{"name": "weather", "arguments": {"city": "Oslo"}}]}
    {"role": "tool", "content": "-3 degrees"}

A tool call may as well stand under "function", and its arguments may be the JSON text of an object. The role of a
tool's result is "tool" or "ipython", as Llama 3 has it.

What stands in a message is text: it never becomes a special token, whatever it says.
"""

from __future__ import annotations

from bpe.chat.find import chat_format
from bpe.chat.llama3 import Llama3Chat
from bpe.chat.messages import ChatFormat, Message, check_messages
from bpe.chat.template import TemplateChat

__all__ = ["ChatFormat", "Llama3Chat", "Message", "TemplateChat", "chat_format", "check_messages"]
