"""From a chat to the tokens of a prompt, by the model's own chat template where it has one.

Text of messages and tools is data, whatever it imitates: where a tokenizer would read a marker in
it (`<|im_start|>`), the text is cut there and its pieces are tokenized apart, so that the model
reads the same characters and no marker. Only what the template itself writes becomes markers.

A template that knows tools (Jinja text in which `tools` occurs) is given them, calls and results as
it expects; for any other, and for a model without a template, everything is put into the plain form
of `memrl.llm.call_text`. Without a template the prompt is, for each message,

    ### <Role>
    <content>

and at the end `### Assistant`, on a line of its own; a reply ends where the next `###` begins.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from jinja2 import TemplateError

from memrl.llm.backend import ChatMessage
from memrl.llm.call_text import OPEN, plain_messages

_PLAIN_HEAD = "### "
PLAIN_STOP = f"\n{_PLAIN_HEAD}"
"""Where a reply without a template ends."""

# Read by some templates: no thoughts before the reply (Qwen3), and the same prompt every day
# (Llama 3 writes today's date otherwise; this one is its templates' own default).
_TEMPLATE_SETTINGS: dict[str, Any] = {"enable_thinking": False, "date_string": "26 Jul 2024"}
_SURROGATE = re.compile("[\ud800-\udfff]")
_PRIVATE_USE = range(0xE000, 0xF900)


class PromptError(Exception):
    """No prompt can be made of a chat; the message says why."""


class ChatFormat:
    """Writes prompts for one tokenizer.

    Args:
        tokenizer: of transformers, a fast one.

    Attributes:
        has_template: whether the tokenizer has a chat template.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._markers = {
            token_id
            for token_id, token in tokenizer.added_tokens_decoder.items()
            if token.special or len(token.content.strip()) > 1
        }
        self.has_template = bool(tokenizer.chat_template)
        self._pieces = lru_cache(maxsize=1 << 14)(self._cut)

    def knows_tools(self, tools: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the template writes tools; if not, they would be dropped without a word."""
        return self.has_template and "tools" in self._template(tools)

    def opens_calls(self, tools: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the template has calls written between tags."""
        return self.knows_tools(tools) and OPEN in self._template(tools)

    def prompt(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Mapping[str, Any]] = (),
        reply_start: str = "",
    ) -> list[int]:
        """Token ids of a prompt, up to where the reply begins.

        Args:
            messages, tools: of the request.
            reply_start: what the reply is made to begin with; markers in it are markers.

        Raises:
            PromptError: if the template refuses the chat.
        """
        separator = self._separator(messages, tools)
        cut = self._cutter(separator)
        safe = [_mapped(message, cut) for message in messages]
        safe_tools = [_leaves(tool, cut) for tool in tools]
        text = self._rendered(safe, safe_tools) + reply_start
        tokens = [] if self.has_template else self._beginning()
        for piece in text.split(separator):
            tokens += self._encoded(piece).ids
        return tokens

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text without markers."""
        return [token for piece in self._pieces(text) for token in self._encoded(piece).ids]

    def end_of_turn(self) -> int | None:
        """The marker that the template writes behind what an assistant says, if it does."""
        said = "end of turn"
        chat = [ChatMessage("user", "hello"), ChatMessage("assistant", said)]
        try:
            text = self._with_template(chat, [], add_generation_prompt=False)
        except PromptError:
            return None
        rest = self._encoded(text.rpartition(said)[2]).ids
        return rest[0] if rest and rest[0] in self._markers else None

    def _template(self, tools: Sequence[Mapping[str, Any]]) -> str:
        # Some tokenizers have a template of their own for requests with tools.
        return str(self._tokenizer.get_chat_template(tools=list(tools) or None))

    def _rendered(self, messages: list[ChatMessage], tools: list[dict[str, Any]]) -> str:
        if not self.has_template:
            return _without_template(plain_messages(messages, tools))
        if not self.knows_tools(tools):
            messages, tools = plain_messages(messages, tools), []
        try:
            return self._with_template(messages, tools)
        except PromptError:
            # Some templates know no system role, or want user and assistant to take turns.
            return self._with_template(_taking_turns(plain_messages(messages, tools)), [])

    def _with_template(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
    ) -> str:
        if not self.has_template:
            raise PromptError("There is no chat template.")
        try:
            text = self._tokenizer.apply_chat_template(
                _as_conversation(messages),
                tools=list(tools) or None,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **_TEMPLATE_SETTINGS,
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise PromptError(f"The model's chat template refuses the chat: {error}") from error
        return str(text)

    def _beginning(self) -> list[int]:
        """The marker that this tokenizer begins every text with, if it does."""
        first = self._tokenizer("a")["input_ids"][:1]
        return [token for token in first if token == self._tokenizer.bos_token_id]

    def _separator(
        self, messages: Sequence[ChatMessage], tools: Sequence[Mapping[str, Any]]
    ) -> str:
        """A character that occurs nowhere in the request, to mark where a text is cut."""
        used = {char for message in messages for char in message.content}
        used |= {char for m in messages for call in m.calls for char in call.name + call.arguments}
        used |= set(json.dumps(list(tools), ensure_ascii=False))
        return next(char for char in map(chr, _PRIVATE_USE) if char not in used)

    def _cutter(self, separator: str) -> Callable[[str], str]:
        return lambda text: separator.join(self._pieces(text))

    def _cut(self, text: str) -> tuple[str, ...]:
        """Divide a text into pieces of which none holds a marker."""
        pieces = [_SURROGATE.sub("\ufffd", text)]
        while True:
            finer = [part for piece in pieces for part in self._divided(piece)]
            if len(finer) == len(pieces):
                return tuple(pieces)
            pieces = finer

    def _divided(self, text: str) -> list[str]:
        """Cut a text behind the first character of every marker that the tokenizer reads in it."""
        encoded = self._encoded(text)
        cuts = [
            start + 1
            for token, (start, end) in zip(encoded.ids, encoded.offsets, strict=True)
            if token in self._markers and end - start > 1
        ]
        edges = [0, *cuts, len(text)]
        return [text[start:end] for start, end in pairwise(edges)]

    def _encoded(self, text: str) -> Any:
        return self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)


def _mapped(message: ChatMessage, change: Callable[[str], str]) -> ChatMessage:
    calls = tuple(
        type(call)(change(call.name), _mapped_arguments(call.arguments, change), call.call_id)
        for call in message.calls
    )
    return ChatMessage(message.role, change(message.content), calls, message.call_id)


def _mapped_arguments(arguments: str, change: Callable[[str], str]) -> str:
    """Change the texts in arguments after JSON has read them: it can spell a marker in escapes."""
    try:
        values = json.loads(arguments)
    except (ValueError, RecursionError):
        return change(arguments)
    changed = _leaves(values, change)
    if changed == values and change(arguments) == arguments:
        return arguments  # as written: the tokens that the model wrote, of which a cache knows
    return json.dumps(changed, ensure_ascii=False)


def _leaves(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with every text in it changed, keys included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(str(key)): _leaves(entry, change) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_leaves(entry, change) for entry in value]
    return value


def _as_conversation(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Messages as templates expect them: arguments as values, not as text."""
    names: dict[str, str] = {}
    conversation = []
    for message in messages:
        entry: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.calls:
            names |= {call.call_id: call.name for call in message.calls}
            entry["tool_calls"] = [
                {
                    "type": "function",
                    "id": call.call_id,
                    "function": {"name": call.name, "arguments": _values(call.arguments)},
                }
                for call in message.calls
            ]
        if message.role == "tool":
            entry |= {"tool_call_id": message.call_id, "name": names.get(message.call_id, "")}
        conversation.append(entry)
    return conversation


def _values(arguments: str) -> Any:
    try:
        return json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments


def _taking_turns(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The same chat with the system text said by the user, and no speaker twice in a row."""
    turns: list[ChatMessage] = []
    for message in messages:
        role = "user" if message.role == "system" else message.role
        if turns and turns[-1].role == role:
            turns[-1] = ChatMessage(role, f"{turns[-1].content}\n\n{message.content}")
        else:
            turns.append(ChatMessage(role, message.content))
    return turns


def _without_template(messages: Sequence[ChatMessage]) -> str:
    parts = [f"{_PLAIN_HEAD}{m.role.capitalize()}\n{m.content}\n\n" for m in messages]
    return "".join([*parts, f"{_PLAIN_HEAD}Assistant\n"])
