"""Requests that are refused, in the words and the form of OpenAI's API."""

from __future__ import annotations

from bpe.errors import InputError


class Refusal(InputError):
    """A request that the server does not carry out.

    Args:
        message: What is wrong and what to do, in one line.
        param: The field that is wrong, such as "messages[2].content"; None if it is no field.
        code: A short name of the error that programs can compare, such as "context_length_exceeded".
        status: The HTTP status.
        retry_after: Seconds after which the client may try again; None if that would not help.
    """

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status
        self.retry_after = retry_after
