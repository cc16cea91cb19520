"""What a reply may be: one of some texts, or one call that satisfies its tool's schema."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from memrl.llm.backend import BackendError

Allowed = npt.NDArray[np.bool_]  # (vocab_size,)

_LIMIT_CLOSING_TOKENS = 2048
# What ends a call soonest outside quotes and within: there a brace is a letter like any other.
_CLOSERS = (("}}", "}", "]", "0"), ('"}}', '"}', '"]', '"', "0", "a"))


class Constraint(Protocol):
    """Walks along a reply and says which tokens may come next."""

    @property
    def is_done(self) -> bool:
        """Whether the reply is whole and must end."""
        ...

    def begin(self) -> list[int]:
        """Tokens that every reply begins with."""
        ...

    def allowed(self) -> Allowed:
        """Which tokens may come next; at least one."""
        ...

    def accept(self, token: int, remaining: int) -> list[int]:
        """Go on with an allowed token.

        Args:
            token: chosen. remaining: most tokens that may still follow, `token` included.

        Returns:
            What the reply goes on with: the token and all that must follow it; or, where that would
            leave no room to end, the shortest end instead.
        """
        ...


class OneOf:
    """The reply is one of some texts, in the tokenizer's own spelling, and is never cut.

    Args:
        texts: at least one; as token ids. stop_ids: end a text that another one continues.
        vocab_size: of the model.

    Attributes:
        longest: tokens of the longest text.
        chosen: index of the text that the reply has become, the first of equal ones.
    """

    def __init__(
        self, texts: Sequence[Sequence[int]], stop_ids: Iterable[int], vocab_size: int
    ) -> None:
        self._texts = texts
        self._stop_ids = list(stop_ids)
        self._vocab_size = vocab_size
        self._alive = list(range(len(texts)))
        self._length = 0
        self.longest = max(map(len, texts))
        self.chosen: int | None = None

    @property
    def is_done(self) -> bool:
        """Whether one text alone is left."""
        return self.chosen is not None

    def begin(self) -> list[int]:
        """Tokens that all texts begin with."""
        forced: list[int] = []
        while True:
            whole = [index for index in self._alive if len(self._texts[index]) == self._length]
            following = self._following()
            if not following:
                self.chosen = whole[0]
                return forced
            if whole or len(following) > 1:
                return forced
            forced += following
            self._length += 1

    def allowed(self) -> Allowed:
        """Tokens by which a text that is still possible goes on, or ends."""
        mask = np.zeros(self._vocab_size, dtype=np.bool_)
        mask[list(self._following())] = True
        if any(len(self._texts[index]) == self._length for index in self._alive):
            mask[self._stop_ids] = True
        return mask

    def accept(self, token: int, remaining: int) -> list[int]:  # noqa: ARG002 - texts are not cut
        """Keep the texts that go on with the token."""
        if token not in self._following():
            self.chosen = next(i for i in self._alive if len(self._texts[i]) == self._length)
            return []
        self._alive = [i for i in self._alive if self._texts[i][self._length :][:1] == [token]]
        self._length += 1
        return [token, *self.begin()]

    def _following(self) -> set[int]:
        return {self._texts[i][self._length] for i in self._alive if self._follows(i)}

    def _follows(self, index: int) -> bool:
        return len(self._texts[index]) > self._length


class CallText:
    """The text of a call so far, and where it may go.

    Args:
        matcher, tokenizer: of llguidance. closers: tokens to try outside and within quotes.
    """

    def __init__(
        self, matcher: Any, tokenizer: Any, closers: tuple[Sequence[int], Sequence[int]]
    ) -> None:
        self._matcher = matcher
        self._tokenizer = tokenizer
        self._closers = closers
        self._is_quoted = False
        self._is_escaped = False  # the next byte stands behind a backslash

    def copy(self) -> CallText:
        """The same text, to go on with otherwise."""
        other = CallText(self._matcher.deep_copy(), self._tokenizer, self._closers)
        other._is_quoted, other._is_escaped = self._is_quoted, self._is_escaped
        return other

    def allowed(self) -> Allowed:
        """Tokens that may come next."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(bits, bitorder="little").astype(np.bool_)

    def go_on(self, tokens: list[int]) -> list[int]:
        """Go on with allowed tokens and with all that must follow them; returns both.

        Raises:
            BackendError: if the tokens are not allowed.
        """
        is_allowed = self._matcher.consume_tokens(tokens)
        forced = list(self._matcher.compute_ff_tokens())
        if not is_allowed or not self._matcher.consume_tokens(forced):
            raise BackendError(f"A call cannot go on: {self._matcher.get_error()}")
        for byte in self._tokenizer.decode_bytes([*tokens, *forced]):
            if self._is_escaped:
                self._is_escaped = False
            elif byte == ord('"'):
                self._is_quoted = not self._is_quoted
            else:
                self._is_escaped = self._is_quoted and byte == ord("\\")
        return [*tokens, *forced]

    def soon_ended(self) -> list[int]:
        """Tokens by which the call is soon whole, none if it is; the text stays as it is.

        What closes something is taken wherever it may stand, else the first token that may.

        Raises:
            BackendError: if there is no end in sight.
        """
        text = self.copy()
        end = text.go_on([])
        while not text._matcher.is_accepting():
            allowed = text.allowed()
            closers = (token for token in self._closers[text._is_quoted] if allowed[token])
            end += text.go_on([next(closers, int(allowed.argmax()))])
            if len(end) > _LIMIT_CLOSING_TOKENS:
                raise BackendError(
                    "No call of the tools has an end: a schema asks for what no text can be."
                )
        return end


class OneCall:
    """The reply is one JSON object that calls a tool, whole within the tokens that it may have.

    Before each token it is found out how the call could be ended from there; a token after which
    the end would not fit any more is replaced by the end.

    Args:
        start: the beginning of a reply.

    Attributes:
        shortest: tokens of the shortest reply that was found.
    """

    def __init__(self, start: CallText) -> None:
        self._text = start
        self._end = start.soon_ended()
        self.shortest = len(self._end)
        self.is_done = False

    def begin(self) -> list[int]:
        """Tokens that every call begins with."""
        forced = self._text.go_on([])
        self._end = self._text.soon_ended()
        self.is_done = not self._end  # of one tool without arguments nothing is open
        return forced

    def allowed(self) -> Allowed:
        """Tokens that a call may go on with."""
        return self._text.allowed()

    def accept(self, token: int, remaining: int) -> list[int]:
        """Go on with the token, or end."""
        text = self._text.copy()
        tokens = text.go_on([token])
        end = text.soon_ended()
        if len(tokens) + len(end) > remaining:
            self.is_done = True
            return self._end
        self._text, self._end = text, end
        self.is_done = not end
        return tokens


class CallGrammar:
    """Grammars of calls for one tokenizer.

    Args:
        tokenizer: of transformers. vocab_size: of the model. stop_ids: tokens that end a reply.

    Raises:
        BackendError: if llguidance is not installed.
    """

    def __init__(self, tokenizer: Any, vocab_size: int, stop_ids: Sequence[int]) -> None:
        try:
            import llguidance
            from llguidance.hf import from_tokenizer
        except ImportError as error:
            raise BackendError(
                "Constrained decoding needs the package llguidance, which is not installed: pip "
                "install 'memrl[llm]', or pass constrained=False."
            ) from error
        self._library = llguidance
        self._tokenizer = from_tokenizer(tokenizer, n_vocab=vocab_size, eos_token=list(stop_ids))
        self._closers = (self._single_tokens(_CLOSERS[0]), self._single_tokens(_CLOSERS[1]))
        self._matcher = lru_cache(maxsize=64)(self._compiled)

    def constraint(self, tools: Sequence[Mapping[str, Any]]) -> OneCall:
        """The reply is a call of one of the tools.

        Raises:
            BackendError: if a schema has something that no grammar can be made of.
        """
        matcher = self._matcher(_call_grammar(tools)).deep_copy()
        return OneCall(CallText(matcher, self._tokenizer, self._closers))

    def _single_tokens(self, texts: Sequence[str]) -> list[int]:
        spellings = [self._tokenizer.tokenize_str(text) for text in texts]
        return [tokens[0] for tokens in spellings if len(tokens) == 1]

    def _compiled(self, grammar: str) -> Any:
        matcher = self._library.LLMatcher(
            self._tokenizer, self._library.LLMatcher.grammar_from_lark(grammar), log_level=0
        )
        if matcher.is_error():
            reason = matcher.get_error().partition("\n")[0]
            raise BackendError(f"No grammar can be made of the tools' schemas: {reason}.")
        return matcher


def _call_grammar(tools: Sequence[Mapping[str, Any]]) -> str:
    """Lark text: an object of name and arguments, spaced as Python's json module does.

    Every schema is a rule of its own, so that references within it stay right.
    """
    calls, rules = [], []
    spacing = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    for number, tool in enumerate(tools):
        function = tool.get("function", tool)
        name = json.dumps(function["name"], ensure_ascii=False)
        schema = {"type": "object", **function.get("parameters", {})}
        schema.setdefault("additionalProperties", False)
        head = json.dumps(f'{{"name": {name}, "arguments": ', ensure_ascii=False)
        calls.append(f"call{number}")
        rules.append(f'call{number}: {head} arguments{number} "}}"')
        rules.append(f"arguments{number}: %json {json.dumps({**schema, 'x-guidance': spacing})}")
    return "\n".join([f"start: {' | '.join(calls)}", *rules])
