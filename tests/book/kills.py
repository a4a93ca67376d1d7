"""The story of a book whose processes are killed again and again, and what has to be true of it."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import attrs

from tests.cli.support import Neighbour, neighbour

from .child import FAST, LIMIT, Child, Job, Line, each_of, lines_of, wait_until

LATENCY_S: Final = 0.02
MOST_S: Final = 1.0
"""How long a process lives at most, in s."""

POINTS: Final = ("begun", "stepped", "committed")
ALONE: Final = (("add", "poll", "each"), ("add", "poll", "loop"), ("add", "work", "ack"))
"""What one process does by itself, drawn anew for each start."""

CREW: Final = (
    ("add", "work"),
    ("poll", "each"),
    ("work", "loop"),
    ("ack",),
)
"""What four processes do on one book."""

UNKNOWN_EVERY: Final = 25
FAILED_EVERY: Final = 10


@attrs.frozen
class Figures:
    """What has happened."""

    ids: int
    kills: int
    at_points: int
    queries: int
    least_gap_s: float
    handed_out: int
    again_by_kills: int
    polled_again: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.ids} ids, {self.kills} kills ({self.at_points} at points of a commit): "
            f"{self.queries} queries, shortest pause {self.least_gap_s:.4f} s, "
            f"{self.handed_out} hand-outs, {self.again_by_kills} handled outcomes came again as "
            f"their process was killed before it could say so, {self.polled_again} ends were asked "
            f"for again for the same reason; {self.seconds:.0f} s"
        )


@attrs.define
class Story:
    """One book, one simulator, and processes that are killed.

    Attributes:
        api: Answers, and writes down each query.
        folder: Where the files are.
        rng: Draws the moments.
        crew: What each process may do, drawn from these at each start.
        unknown: Ids of no task.
        faulty: Ids that met a fault by the way.
        ends: When each task ends, in s of the clock that all processes share.
        breaks: When each process was killed or stopped, in the same s.
        strangers: Processes with the key of another account.
        book: Where the book is.
        interval_s: The shortest pause of an id.
    """

    api: Neighbour
    folder: Path
    rng: random.Random
    crew: Sequence[Sequence[tuple[str, ...]]]
    task_ids: list[str] = attrs.field(factory=list[str])
    unknown: set[str] = attrs.field(factory=set[str])
    faulty: set[str] = attrs.field(factory=set[str])
    ends: dict[str, float] = attrs.field(factory=dict[str, float])
    breaks: dict[int, float] = attrs.field(factory=dict[int, float])
    strangers: set[int] = attrs.field(factory=set[int])
    at_points: int = 0
    number: int = 0
    book: str = ""
    interval_s: float = FAST["interval"][0]

    def __attrs_post_init__(self) -> None:
        self.book = self.book or str(self.folder / "tasks.db")

    @property
    def log(self) -> Path:
        return self.folder / "seen.jsonl"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def make_tasks(self, count: int, seconds: float) -> None:
        """Create tasks that end some time in the story, some of them badly, and unknown ids."""

        def make(number: int) -> None:
            if number % UNKNOWN_EVERY == UNKNOWN_EVERY - 1:
                task_id = f"404{number:06}"
                self.unknown.add(task_id)
            else:
                duration = self.rng.uniform(0.0, seconds)
                fail = None if number % FAILED_EVERY else "no"
                task_id = self.api.api.create_task(duration=duration, fail=fail)
                self.ends[task_id] = time.monotonic() + duration
            self.task_ids.append(task_id)

        for number in range(count):
            self.api.portal.call(make, number)
        # Some faults: a pause more for whoever meets them.
        for task_id in self.rng.sample(self.task_ids, count // 10):
            self.faulty.add(task_id)
            self.api.fail_next(task_id, status=502)

    def start(self, roles: Sequence[tuple[str, ...]], *, to_the_end: bool = False) -> Child:
        """Start a process."""
        self.number += 1
        chosen = self.rng.choice(roles)
        dies_at = None
        if not to_the_end and self.rng.random() < 0.4:
            dies_at = (self.rng.choice(POINTS), self.rng.randint(1, 40))
        saves = any(role in chosen for role in ("each", "loop", "ack"))
        return Child(self.number, self.job(chosen, dies_at, saves=saves, to_the_end=to_the_end))

    def job(
        self,
        roles: tuple[str, ...],
        dies_at: tuple[str, int] | None,
        *,
        saves: bool,
        to_the_end: bool,
    ) -> Job:
        added = {line.task_id for line in each_of(self.lines(), "added")}
        return Job(
            book=self.book,
            base_url=self.api.api.base_url,
            api_key=self.api.api.api_key,
            log=str(self.log),
            roles=roles,
            ids=tuple(each for each in self.task_ids if each not in added),
            save_to=str(self.images) if saves and self.rng.random() < 0.5 else None,
            dies_at=dies_at,
            until_empty=to_the_end,
        )

    def lines(self) -> list[Line]:
        return lines_of(self.log) if self.log.exists() else []

    def tell(self, kills: int) -> None:
        """Kill so often, then let all come to its end."""
        crew = [self.start(roles) for roles in self.crew]
        try:
            while len(self.breaks) < kills:
                place = self.rng.randrange(len(crew))
                self.live_a_while(crew[place])
                self.kill(crew[place])
                crew[place] = self.start(self.crew[place])
            for each in crew:
                self.kill(each)
        finally:
            for each in crew:
                each.kill()
        last = self.start([("add", "poll", "loop")], to_the_end=True)
        try:
            assert last.finish() == 0
        finally:
            last.kill()

    def live_a_while(self, child: Child) -> None:
        """Wait for a random moment in the life of a process: so many lines or queries later."""
        lines = self.said() + self.rng.randint(0, 40)
        queries = self.asked() + self.rng.randint(0, 40)
        until = time.monotonic() + MOST_S  # there may be nothing left to do
        wait_until(
            lambda: (
                not child.is_running
                or (self.said() >= lines and self.asked() >= queries)
                or time.monotonic() > until
            )
        )
        time.sleep(self.rng.uniform(0.0, 0.05))

    def asked(self) -> int:
        return self.api.api._queries.log.begun

    def said(self) -> int:
        return self.log.read_bytes().count(b"\n") if self.log.exists() else 0

    def kill(self, child: Child) -> None:
        now, died_by_itself = time.monotonic(), not child.is_running
        child.kill()
        said = [line.time for line in self.lines() if line.child == child.number]
        self.breaks[child.number] = max(said, default=now) if died_by_itself else now
        self.at_points += died_by_itself


# What has to be true.


def check(story: Story) -> Figures:
    """Prove that nothing was lost, doubled or asked for too soon."""
    lines = story.lines()
    _check_that_none_failed(lines, story)
    _check_ends(lines, story)
    again = _check_acknowledged(lines, story)
    least = _check_pauses(lines, story)
    polled_again = _check_words(lines, story)
    _check_images(lines, story)
    assert story.api.api.billed == ()
    return Figures(
        ids=len(story.task_ids),
        kills=len(story.breaks),
        at_points=story.at_points,
        queries=story.asked(),
        least_gap_s=least,
        handed_out=sum(1 for _ in each_of(lines, "got")),
        again_by_kills=again,
        polled_again=polled_again,
        seconds=0.0,
    )


def _check_that_none_failed(lines: list[Line], story: Story) -> None:
    assert {line.child for line in each_of(lines, "raised")} <= story.strangers
    assert [line.child for line in each_of(lines, "closed")][-1] == story.number


def _check_ends(lines: list[Line], story: Story) -> None:
    """No id is lost, and each ends as its task did."""
    got = defaultdict[str, list[Any]](list)
    for line in each_of(lines, "got"):
        got[line.task_id].append(line.extra)
    assert set(got) == set(story.task_ids)
    for number, task_id in enumerate(story.task_ids):
        wanted = None if number % FAILED_EVERY else "TaskFailedError"
        wanted = "TaskNotFoundError" if task_id in story.unknown else wanted
        assert {each["error"] for each in got[task_id]} == {wanted}
        assert all(each["note"] == {"of": task_id} for each in got[task_id])


def _check_acknowledged(lines: list[Line], story: Story) -> int:
    """None comes again that was acknowledged; return how many of `each` a kill has brought back.

    The handler of `each` has returned some ms before that is kept: a kill in between may bring
    back what its process had at that moment, and no more.
    """
    acked: dict[str, Line] = {}
    handled: dict[str, Line] = {}
    last: dict[int, Line] = {}  # of each process
    lost = Counter[int]()
    for line in lines:
        if line.what == "got":
            last[line.child] = line
            assert line.task_id not in acked, (line, acked[line.task_id])
            if (before := handled.pop(line.task_id, None)) is not None:
                assert story.breaks.get(before.child, float("inf")) <= line.time
                lost[before.child] += 1
        elif line.what == "acked":
            acked[line.task_id] = line
        elif line.what == "handled":
            handled[line.task_id] = line
    # None is missing, but one at most for each kill, right between its "yes" and the line on it.
    unsaid = set(story.task_ids) - acked.keys() - handled.keys()
    assert unsaid <= {line.task_id for line in last.values() if line.child in story.breaks}
    assert max(lost.values(), default=0) <= 2 * LIMIT
    return sum(lost.values())


def _check_pauses(lines: list[Line], story: Story) -> float:
    """No id is asked for within the shortest pause, end to start, as the server saw it."""
    api, least = story.api.api, float("inf")
    of_task = defaultdict[str, list[Line]](list)
    for line in lines:
        if line.what in {"asks", "no answer"}:
            of_task[line.task_id].append(line)
    for task_id in {query.task_id for query in api.queries if query.task_id}:
        for before, after in pairwise(api.queries_of(task_id)):
            gap = after.started - (float("inf") if before.finished is None else before.finished)
            if gap < story.interval_s and _was_given_up(of_task[task_id], after.started, story):
                continue
            assert gap >= story.interval_s, (before, after)
            least = min(least, gap)
    return least


def _was_given_up(lines: list[Line], started: float, story: Story) -> bool:
    """Whether a query followed one that its process had given up, the shortest pause before.

    A server that a busy machine holds up sees such a query begin and end too late.
    """
    asks = [place for place, line in enumerate(lines) if line.what == "asks"]
    place = max(place for place in asks if lines[place].time <= started)
    before, after = lines[place - 1], lines[place]
    return before.what == "no answer" and after.time - before.time >= story.interval_s


def _check_words(lines: list[Line], story: Story) -> int:
    """None is asked for again after its final word but where a kill took that; return how many.

    So many at most as a process has in flight, and half as many answers that wait to be kept.
    """
    asked: dict[str, Line] = {}
    unanswered = {(line.child, line.task_id) for line in each_of(lines, "no answer")}
    again = Counter[int]()
    for line in each_of(lines, "asks"):
        if line.child in story.strangers:
            continue
        before, asked[line.task_id] = asked.get(line.task_id), line
        if before is not None and before.time >= story.ends.get(line.task_id, float("inf")):
            # What came may have been no answer.
            if before.task_id in story.faulty or (before.child, before.task_id) in unanswered:
                continue
            assert story.breaks.get(before.child, float("inf")) <= line.time, (before, line)
            again[before.child] += 1
    assert max(again.values(), default=0) <= FAST["max_concurrency"] * 3 // 2
    return sum(again.values())


def _check_images(lines: list[Line], story: Story) -> None:
    """What was saved is whole, and nothing else lies in the directory once all has ended."""
    kept = {path.name: path for path in story.images.iterdir()} if story.images.exists() else {}
    named = {Path(name).name for line in each_of(lines, "got") for name in line.extra["saved"]}
    assert named <= set(kept)
    for name in named:
        assert kept[name].read_bytes().endswith(b"IEND\xaeB`\x82")


def tell(folder: Path, *, processes: int, kills: int, ids: int, seed: int) -> Figures:
    """Tell a story, and check it."""
    began = time.monotonic()
    crew: Sequence[Sequence[tuple[str, ...]]]
    crew = [ALONE] if processes == 1 else [[CREW[n % len(CREW)]] for n in range(processes)]
    with neighbour(seed=seed, latency=LATENCY_S) as api:
        story = Story(api, folder, random.Random(seed), crew)
        story.make_tasks(ids, seconds=max(3.0, kills * 0.6))
        story.tell(kills)
        figures = check(story)
    return attrs.evolve(figures, seconds=time.monotonic() - began)
