"""The answers that every contender gets: the first digit of an id tells how its task goes."""

from __future__ import annotations

from typing import Final

ROUTE: Final = "/kling/v1/images/omni-image/"
API_KEY: Final = "sk-benchmark-0123456789abcdef0123456789abcdef"

DONE: Final = 1
OPEN: Final = 2
"""Never finishes; an id that begins with 3 is finished at its second query, 4 at its third, …"""

_HEAD: Final = (
    b'{"code": 0, "message": "SUCCEED", "request_id": "0d67d55c-4508-410f-a6d9-4da8414a0bbc", '
    b'"data": {"task_id": "%b", "task_info": {}, "created_at": 1795360949092, '
    b'"updated_at": 1795360949092, '
)
_PENDING: Final = _HEAD + b'"task_result": {}, "task_status": "processing"}}'
_FINISHED: Final = _HEAD + (
    b'"task_result": {"images": [{"index": 0, "url": "https://images.example/%b-0.png"}]}, '
    b'"task_status": "succeed", "final_unit_deduction": "8"}}'
)


def task_ids(kind: int, count: int, *, first: int = 0) -> list[str]:
    """Make ids of 18 digits, as the API's are, for tasks that go one way."""
    return [f"{kind}{number:017}" for number in range(first, first + count)]


class Answers:
    """What the API says of each id, by the number of times it was asked."""

    def __init__(self) -> None:
        self._asked: dict[bytes, int] = {}

    def body(self, task_id: bytes) -> bytes:
        """Answer one query."""
        kind = task_id[0] - ord("0")
        if kind == OPEN or (kind > OPEN and self._count(task_id) <= kind - OPEN):
            return _PENDING % task_id
        return _FINISHED % (task_id, task_id)

    def _count(self, task_id: bytes) -> int:
        count = self._asked[task_id] = self._asked.get(task_id, 0) + 1
        return count
