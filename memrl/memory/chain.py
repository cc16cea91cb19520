"""One turn of a model: calls chained by heartbeats, up to a cap.

Packer et al., arXiv 2310.08560v2, section 2.4; the cap is ours, the original had none.
"""

from __future__ import annotations

import json
from dataclasses import replace

from memrl.memory.executor import Executor, Result
from memrl.memory.refusals import Reason, RefusedError

MAX_HEARTBEATS = 16


class Chain:
    """The calls between one external event and the model's yield.

    It is open at first and after each result with a heartbeat. Without one the model yields. The
    heartbeat after the last allowed one is not granted, whether asked for or forced by a failure;
    so no model can keep a turn going for ever.

    Args:
        executor: runs the calls.
        max_heartbeats: most heartbeats in this turn; 0 for a single call.
        logs_calls: whether calls and results are appended to the queue, as a model needs that reads
            them there; a message to the user is logged as what the assistant said.

    Attributes:
        num_heartbeats: granted so far. is_open: whether another call may come.
        last_result: of the latest call, also where logging it has failed; None before the first.

    Raises:
        ValueError: if `max_heartbeats` is negative.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        max_heartbeats: int = MAX_HEARTBEATS,
        logs_calls: bool = True,
    ) -> None:
        if max_heartbeats < 0:
            raise ValueError(f"max_heartbeats must be 0 or more, got {max_heartbeats}.")
        self.executor = executor
        self.max_heartbeats = max_heartbeats
        self.logs_calls = logs_calls
        self.num_heartbeats = 0
        self.is_open = True
        self.last_result: Result | None = None

    def call(self, name: object, arguments: object) -> Result:
        """Run one call of the turn.

        A call after the end of the turn is refused, has no effect and is not logged.

        Raises:
            MemrlError: if recall cannot log the call; it has run, see `last_result`.
        """
        executor = self.executor
        if not self.is_open:
            ended = RefusedError(
                Reason.CHAIN_ENDED, "This turn has ended: wait for the next event before you call."
            )
            return replace(executor.refused("", ended), heartbeat=False)
        result = executor.execute(name, arguments)
        if result.heartbeat and self.num_heartbeats >= self.max_heartbeats:
            note = f" This turn has had its {self.max_heartbeats} heartbeats and ends here."
            result = replace(result, heartbeat=False, text=result.text + note)
        self.num_heartbeats += result.heartbeat
        self.is_open = result.heartbeat
        self.last_result = result
        if self.logs_calls:
            self._log(name, arguments, result)
        return result

    def _log(self, name: object, arguments: object, result: Result) -> None:
        queue = self.executor.queue
        if result.message is not None:
            queue.append(result.message, "assistant")
            return
        queue.append(_as_text(name, arguments), "call")
        queue.append(result.text, "result")


def _as_text(name: object, arguments: object) -> str:
    """The call as it stands in the queue: as the model wrote it, where that was text."""
    if isinstance(arguments, str):
        return f"{name if isinstance(name, str) else ''}({arguments})"
    try:
        shown = json.dumps(arguments, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        shown = "arguments that are not JSON"
    return f"{name if isinstance(name, str) else ''}({shown})"
