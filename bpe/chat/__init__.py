"""Chat: encodes dialogs in Llama 3's format, or with the Jinja template of a checkpoint.

A dialog is a list of messages in the form of OpenAI's and Hugging Face's interfaces:

    {"role": "system", "content": "Be brief."}
    {"role": "user", "content": "Is it warm in Oslo?"}
    {"role": "assistant", "content": "", "tool_calls": [{"name": "weather", "arguments": {"city": "Oslo"}}]}
    {"role": "tool", "content": "-3 degrees"}

A tool call may also be nested under "function", and its arguments may be an object as JSON text. The role of a tool's
result is "tool", or "ipython" as in Llama 3.

The content of a message is text: it never becomes a special token, even if it spells one.
"""

from __future__ import annotations

from bpe.chat.find import NoChatFormatError, chat_format
from bpe.chat.llama3 import Llama3Chat
from bpe.chat.messages import ChatFormat, Message, check_messages
from bpe.chat.template import TemplateChat

__all__ = ["ChatFormat", "Llama3Chat", "Message", "NoChatFormatError", "TemplateChat", "chat_format", "check_messages"]
