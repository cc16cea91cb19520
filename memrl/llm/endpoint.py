"""One attempt to get a reply from a server: what is sent, how long it may take, what went wrong."""

from __future__ import annotations

import json
import math
import os
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from memrl.llm.backend import BackendError
from memrl.llm.retries import retry_after_s

if TYPE_CHECKING:
    import httpx

BAD_REQUEST = 400
NO_CONNECTION = "no connection"
MALFORMED = "malformed reply"
_OK, _NOT_FOUND, _TOO_MANY = 200, 404, 429
_KEY_STATUSES = (401, 403)
_RETRIED = (408, 425, _TOO_MANY)  # and 500 and above
_MOST_SAID = 200  # characters of somebody else's words in a message


@dataclass(frozen=True)
class Timeouts:
    """Most seconds that parts of an attempt may take.

    Attributes:
        connect_s: until the server has taken the connection.
        read_s: between two pieces of the reply; a server is silent until the whole reply is
            written, so less than `total_s` makes sense only for one that is known to be quick.
        total_s: until the whole reply is there.
    """

    connect_s: float = 10.0
    read_s: float = 120.0
    total_s: float = 120.0

    def __post_init__(self) -> None:
        """Refuse to give no time, or any."""
        if not all(0 < value < math.inf for value in (self.connect_s, self.read_s, self.total_s)):
            raise ValueError(
                "connect_s, read_s and total_s must be above 0 and finite, got "
                f"{self.connect_s}, {self.read_s} and {self.total_s}."
            )


@dataclass(frozen=True)
class Fault:
    """Why an attempt came to nothing.

    Attributes:
        kind: one of a few words, for counting. what: for reading.
        is_retried: whether another attempt may help.
        wait_s: seconds that the server asked to be left alone, None if it did not.
        status: of HTTP, 0 without an answer.
    """

    kind: str
    what: str
    is_retried: bool = True
    wait_s: float | None = None
    status: int = 0

    def __str__(self) -> str:
        """As `Reply.faults` has it."""
        return f"{self.kind}: {self.what}"


class Endpoint:
    """Where chat completions are asked for; any number of threads may ask at once.

    Args:
        base_url: see `check_url`.
        key_variable: environment variable of the key, read for every attempt and kept nowhere.
        max_connections: most attempts at once. timeouts: of each.

    Raises:
        ValueError: if the URL cannot be one.
    """

    def __init__(
        self, base_url: str, key_variable: str, max_connections: int, timeouts: Timeouts
    ) -> None:
        self.url = f"{check_url(base_url)}/chat/completions"
        self._key_variable = key_variable
        self._max_connections = max_connections
        self._timeouts = timeouts
        self._client: httpx.Client | None = None

    def open(self) -> None:
        """Prepare to connect, unless that is done; not by several threads at once."""
        import httpx

        if self._client is None:
            limits = self._timeouts
            self._client = httpx.Client(
                timeout=httpx.Timeout(
                    min(limits.read_s, limits.total_s),
                    connect=min(limits.connect_s, limits.total_s),
                    pool=None,
                ),
                limits=httpx.Limits(max_connections=self._max_connections),
            )
            weakref.finalize(self, self._client.close)

    def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def post(self, body: dict[str, Any]) -> bytes | Fault:
        """Send a request; what came back with status 200, or the fault.

        Raises:
            BackendError: for what every other request would meet as well: the key is refused, or
                the model or the address is not known.
        """
        import httpx

        if self._client is None:
            raise RuntimeError("An endpoint must be opened before it is asked.")
        content = bytearray()
        deadline = time.monotonic() + self._timeouts.total_s
        data = json.dumps(body, default=dict).encode()  # ASCII: any text can be sent
        headers = {"Content-Type": "application/json", **self._authorization()}
        try:
            with self._client.stream("POST", self.url, content=data, headers=headers) as response:
                for part in response.iter_bytes():
                    content += part
                    if time.monotonic() > deadline:
                        return self._too_slow()
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            return Fault(NO_CONNECTION, f"{self.url} cannot be reached{self._why(error)}")
        except httpx.TimeoutException:
            return self._too_slow()
        except (httpx.TransportError, httpx.DecodingError) as error:
            return Fault("cut connection", f"The connection was cut{self._why(error)}")
        if response.status_code == _OK:
            return bytes(content)
        return self._refusal(response, bytes(content))

    def _too_slow(self) -> Fault:
        limits = self._timeouts
        return Fault(
            "time-out",
            f"The reply was not there within {limits.total_s:g} s, or nothing of it came for "
            f"{limits.read_s:g} s",
        )

    def _refusal(self, response: httpx.Response, content: bytes) -> Fault:
        """What a status other than 200 means."""
        status = response.status_code
        if status in _KEY_STATUSES:
            refused = "the key" if self._key() else "a request without a key"
            raise BackendError(
                f"The server at {self.url} refuses {refused} (HTTP {status}): set the environment "
                f"variable {self._key_variable} to a key that it takes."
            )
        said = self._quoted(content.decode("utf-8", "replace"))
        if status == _NOT_FOUND:
            raise BackendError(
                f"The server at {self.url} knows no such model or address (HTTP 404{said}): "
                "correct the model or the URL."
            )
        return Fault(
            "rate limit" if status == _TOO_MANY else f"HTTP {status}",
            f"The server answered HTTP {status}{said}",
            is_retried=status in _RETRIED or status >= 500,
            wait_s=retry_after_s(response.headers.get("Retry-After")),
            status=status,
        )

    def _why(self, error: Exception) -> str:
        return self._quoted(str(error) or type(error).__name__)

    def _quoted(self, text: str) -> str:
        """Somebody else's words on one line, short, and without the key if they repeat it."""
        if key := self._key():
            text = text.replace(key, "***")
        text = " ".join(text.split())
        return f", {text[:_MOST_SAID]!r}" if text else ""

    def _key(self) -> str:
        return os.environ.get(self._key_variable, "").strip()

    def _authorization(self) -> dict[str, str]:
        key = self._key()
        if not (key.isascii() and key.isprintable()):  # the transport's own error would show it
            raise BackendError(
                f"The environment variable {self._key_variable} holds characters that no key has: "
                "set it to the key alone."
            )
        return {"Authorization": f"Bearer {key}"} if key else {}


def check_url(base_url: str) -> str:
    """The base URL of a server, as http://127.0.0.1:8000/v1, without a slash at its end.

    Raises:
        ValueError: if it is no http(s) address up to the version, or holds more than an address.
    """
    shown = base_url.partition("?")[0].rpartition("@")[2]  # the rest may be secret
    try:
        parts = urlsplit(base_url)
        is_address = bool(parts.scheme in ("http", "https") and parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        is_address = False
    if not is_address or any(map(str.isspace, base_url)):
        raise ValueError(
            f"The URL of a server must be like http://127.0.0.1:8000/v1, got {shown!r}."
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "The URL of a server must hold no user, password, query or fragment: a key goes into "
            "the environment variable."
        )
    if parts.path.rstrip("/").endswith("/chat/completions"):
        raise ValueError(f"The URL of a server ends before /chat/completions, got {shown!r}.")
    return base_url.rstrip("/")
