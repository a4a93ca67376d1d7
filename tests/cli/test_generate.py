"""From prompts to images on the command line: nothing is created twice, whatever ends a run."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kling_omni_async import ImageOrder, KlingOmniSession
from kling_omni_async._cli import generate
from kling_omni_async._cli.budget import Budget
from kling_omni_async._cli.creating import Work, generate_all
from kling_omni_async._cli.exit import Exit
from kling_omni_async._cli.options import NOWHERE
from kling_omni_async._cli.order_journal import OrderJournal
from kling_omni_async._cli.progress import Silent
from kling_omni_async._cli.wanted import match
from kling_omni_async.simulator import SimulatedCometAPI
from tests.support import new_session

from .support import Call, simulated


def lines_of(journal: Path) -> list[dict[str, Any]]:
    """Read a journal."""
    return [json.loads(line) for line in journal.read_bytes().splitlines()]


def outcomes_in(journal: Path) -> list[dict[str, Any]]:
    """Read the outcomes of a journal."""
    return [line for line in lines_of(journal) if "intent" not in line]


def written(path: Path, *lines: str) -> str:
    """Write a file, and return its name."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def billed_names(api: SimulatedCometAPI) -> Counter[str | None]:
    """Count what was billed, by external id."""
    return Counter(task.external_task_id for task in api.billed)


def test_one_prompt_becomes_saved_images(
    api: SimulatedCometAPI, call: Call, tmp_path: Path
) -> None:
    """One line on stdout names the task and its files; one task with two images is billed."""
    folder = tmp_path / "images"
    code, stdout, stderr = call("generate", "a fox", "-n", "2", "--save", str(folder))
    (task,) = api.billed
    names = sorted(path.name for path in folder.glob("*.png"))
    assert code == Exit.OK
    assert stdout.split("\t")[:2] == [task.task_id, "succeed"]
    assert (task.images, len(names)) == (2, 2)
    assert "1 of 1 done: 1 succeeded; 2 images saved" in stderr


def test_a_journal_has_each_intent_before_its_outcome(
    api: SimulatedCometAPI, call: Call, tmp_path: Path
) -> None:
    """posting, created and the outcome have one external id; the next run sends nothing."""
    rows = written(tmp_path / "prompts.csv", "prompt,n,note", '"a fox, red",2,x', "a hen,,y")
    journal = tmp_path / "run.jsonl"
    command = ("generate", "--from", rows, "--jsonl", str(journal))
    code, stdout, stderr = call(*command)
    assert (code, stdout) == (Exit.OK, "")
    assert "no column of an order: 'note'; passed over" in stderr
    by_name: dict[str, list[Any]] = {}
    for line in lines_of(journal):
        by_name.setdefault(line["external_task_id"], []).append(line.get("intent", line.get("ok")))
    assert list(by_name.values()) == [["posting", "created", True]] * 2
    assert billed_names(api) == dict.fromkeys(by_name, 1)
    assert [task.images for task in api.billed] == [2, 1]
    before = journal.read_bytes()
    code, _, stderr = call(*command)
    assert (code, len(api.billed), journal.read_bytes()) == (Exit.OK, 2, before)
    assert "2 of 2 done: 2 succeeded; 2 of them by an earlier run" in stderr


def crashed(journal: Path, lines: int) -> None:
    """Leave of a journal what was on the disk after so many lines."""
    kept = journal.read_bytes().splitlines(keepends=True)[:lines]
    journal.write_bytes(b"".join(kept))


def test_an_intent_without_an_answer_is_looked_for_by_its_external_id(
    api: SimulatedCometAPI, call: Call, tmp_path: Path
) -> None:
    """What was created before a crash, and not noted, is found: nothing is created again."""
    journal = tmp_path / "run.jsonl"
    command = ("generate", "a fox", "--jsonl", str(journal))
    call(*command)
    crashed(journal, 1)
    code, _, _ = call(*command)
    assert (code, len(api.billed)) == (Exit.OK, 1)
    steps = [line.get("intent", line.get("ok")) for line in lines_of(journal)]
    assert steps == ["posting", "created", True]


def test_what_is_paid_for_and_not_among_the_prompts_any_more_is_told(
    api: SimulatedCometAPI, call: Call, tmp_path: Path
) -> None:
    """A file of prompts that was changed after a crash lets no task go in silence."""
    journal = tmp_path / "run.jsonl"
    call("generate", "a fox", "--jsonl", str(journal))
    crashed(journal, 1)
    name = lines_of(journal)[0]["external_task_id"]
    for verb in ("generate", "create"):
        code, _, stderr = call(verb, "a red fox", "--jsonl", str(journal))
        assert code == Exit.OK
        assert "the journal has 1 order without an outcome" in stderr
        assert f"  {name}\n" in stderr
    assert len(api.billed) == 2
    _, _, stderr = call("generate", "a fox", "a red fox", "--jsonl", str(journal))
    assert "the journal has" not in stderr
    # What has come out is done with, and what `create` has printed is for its reader.
    call("create", "a cow", "--jsonl", str(journal))
    _, _, stderr = call("create", "a hen", "--jsonl", str(journal))
    assert "the journal has" not in stderr
    _, _, stderr = call("generate", "a hen", "--jsonl", str(journal))
    assert "the journal has 1 order" in stderr
    assert f"  {list(api.billed)[2].task_id}\n" in stderr


def test_a_success_that_is_elsewhere_is_done_with(
    api: SimulatedCometAPI, call: Call, tmp_path: Path
) -> None:
    """Images that an earlier run has put into another folder are not told of as lost."""
    journal = tmp_path / "run.jsonl"
    call("generate", "a fox", "--jsonl", str(journal))
    to = ("--save", str(tmp_path / "images"))
    _, _, stderr = call("generate", "a red fox", "--jsonl", str(journal), *to)
    assert "the journal has" not in stderr
    assert len(api.billed) == 2


def test_a_created_task_is_polled_by_its_id_after_a_crash(call: Call, tmp_path: Path) -> None:
    """Also where the API answers to no external id: the journal has the task's own."""
    journal = tmp_path / "run.jsonl"
    command = ("generate", "a fox", "--jsonl", str(journal))
    with simulated(by_external_id=False) as api:
        call(*command)
        crashed(journal, 2)
        code, _, _ = call(*command)
        assert (code, len(api.billed)) == (Exit.OK, 1)


def test_what_is_not_found_is_listed_and_created_again_only_if_told(
    call: Call, tmp_path: Path
) -> None:
    """An uncertain prompt is in the list of each run, until --retry-uncertain."""
    journal = tmp_path / "run.jsonl"
    command = ("generate", "a fox", "--jsonl", str(journal))
    with simulated(by_external_id=False, duplicates="accepted") as api:
        call(*command)
        crashed(journal, 1)
        (name,) = (line["external_task_id"] for line in lines_of(journal))
        for _ in range(2):
            code, _, stderr = call(*command)
            assert (code, len(api.billed)) == (Exit.NOT_ALL, 1)
            assert f"  {name}  a fox\n" in stderr
            assert "1 prompt is uncertain: each may be created, and paid for" in stderr
            # Told once in the journal, however often it is looked for.
            (outcome,) = outcomes_in(journal)
            assert outcome["error"]["type"] == "CreateUncertainError"
        code, _, stderr = call(*command, "--retry-uncertain")
        assert (code, "uncertain" in stderr) == (Exit.OK, False)
        assert billed_names(api) == {name: 2}


def test_a_retry_of_what_is_there_is_refused_by_the_vendor_and_found(
    api: SimulatedCometAPI, call: Call, tmp_path: Path
) -> None:
    """It is sent under the same external id, so that the vendor can tell that it has it."""
    journal = tmp_path / "run.jsonl"
    command = ("generate", "a fox", "--jsonl", str(journal))
    call(*command)
    crashed(journal, 1)
    (name,) = billed_names(api)
    assert name is not None
    api.fail_next(name, status=502, times=1)
    code, _, _ = call(*command, "--retry-uncertain")
    assert (code, len(api.billed)) == (Exit.OK, 1)


def test_an_answer_that_is_lost_is_uncertain_and_stands_in_the_list(
    call: Call, tmp_path: Path
) -> None:
    """The create's own doubt is written like that of a crash; without a journal it says so too."""
    journal = tmp_path / "run.jsonl"
    with simulated(by_external_id=False) as api:
        api.fail_next_create(reset=True, created=True)
        code, _, stderr = call("generate", "a fox", "--jsonl", str(journal))
        (task,) = api.billed
        assert code == Exit.NOT_ALL
        assert f"  {task.external_task_id}  a fox\n" in stderr
        assert "with --retry-uncertain to create it again" in stderr
        api.fail_next_create(reset=True, created=True)
        code, stdout, stderr = call("create", "a fox")
        assert (code, stdout) == (Exit.NOT_ALL, "")
        assert "kling-omni query with its external id may find it" in stderr


def test_a_refusal_of_the_contents_is_not_sent_again(
    api: SimulatedCometAPI, call: Call, tmp_path: Path
) -> None:
    """It comes out as not created, with the API's words; a second run counts it as known."""
    journal = tmp_path / "run.jsonl"
    refusal = {"code": 1301, "message": "content is sensitive", "request_id": "r"}
    api.fail_next_create(status=400, body=refusal)
    command = ("generate", "a fox", "--jsonl", str(journal))
    code, _, stderr = call(*command)
    assert (code, len(api.billed)) == (Exit.NOT_ALL, 0)
    assert "1 of 1 done: 1 not created" in stderr
    code, _, stderr = call(*command)
    assert (code, len(api.billed)) == (Exit.NOT_ALL, 0)
    assert "content is sensitive" in stderr
    assert "1 not created; 1 of them by an earlier run" in stderr


def test_what_was_refused_for_a_while_is_created_by_the_next_run(
    api: SimulatedCometAPI, call: Call, tmp_path: Path
) -> None:
    """That nothing was created is in the journal, so nothing is uncertain after a crash."""
    journal = tmp_path / "run.jsonl"
    api.fail_next_create(status=429)
    command = ("generate", "a fox", "--jsonl", str(journal))
    call(*command)
    assert [line.get("intent") for line in lines_of(journal)][:2] == ["posting", "nothing"]
    crashed(journal, 2)
    code, _, stderr = call(*command)
    assert (code, "uncertain" in stderr) == (Exit.OK, False)


def test_a_refused_key_ends_the_run_with_its_own_code(
    api: SimulatedCometAPI, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """3, as with poll; where something has to be looked for first, too."""
    journal = tmp_path / "run.jsonl"
    command = ("generate", "a fox", "--jsonl", str(journal))
    call(*command)
    monkeypatch.setenv("COMETAPI_KEY", "sk-wrong")
    assert call("generate", "a hen")[0] == Exit.KEY_REFUSED
    assert call("create", "a hen")[0] == Exit.KEY_REFUSED
    crashed(journal, 1)
    code, _, stderr = call(*command)
    assert code == Exit.KEY_REFUSED
    assert "1 prompt has no outcome; run the same command to go on" in stderr
    assert len(api.billed) == 1


def test_images_that_are_missing_are_saved_by_a_later_run(
    api: SimulatedCometAPI, call: Call, tmp_path: Path
) -> None:
    """A run without --save, then one with it: the task is asked for again, not created."""
    journal, folder = tmp_path / "run.jsonl", tmp_path / "images"
    command = ("generate", "a fox", "--jsonl", str(journal), "--max-units", "8")
    call(*command)
    code, _, _ = call(*command, "--save", str(folder))
    assert (code, len(api.billed)) == (Exit.OK, 1)
    assert len(list(folder.glob("*.png"))) == 1


def test_a_key_is_created_once_whatever_its_journal(
    api: SimulatedCometAPI, call: Call, tmp_path: Path
) -> None:
    """A column key makes the external id, the same in each run; the vendor knows it again."""
    rows = written(tmp_path / "prompts.csv", "prompt,key", "a fox,42/1", "a fox,42/1", "a hen,42/2")
    code, _, _ = call("generate", "--from", rows)
    assert (code, len(api.billed)) == (Exit.OK, 2)
    journal = tmp_path / "run.jsonl"
    code, _, _ = call("generate", "--from", rows, "--jsonl", str(journal))
    assert (code, len(api.billed)) == (Exit.OK, 2)
    other = written(tmp_path / "others.csv", "prompt,key", "a wolf,42/1")
    code, _, stderr = call("generate", "--from", other, "--jsonl", str(journal))
    assert (code, len(api.billed)) == (Exit.USAGE, 2)
    assert "key '42/1' names another order in the journal" in stderr


def test_units_are_never_passed(api: SimulatedCometAPI, call: Call, tmp_path: Path) -> None:
    """What does not fit is left and named; a later run with more units creates it."""
    rows = written(tmp_path / "prompts.txt", "a fox", "a hen", "", "# a note", "a wolf")
    journal = tmp_path / "run.jsonl"
    command = ("generate", "--from", rows, "--jsonl", str(journal))
    code, _, stderr = call(*command, "--max-units", "20")
    assert (code, len(api.billed)) == (Exit.NOT_ALL, 2)
    assert "1 prompt is not created: --max-units 20 would be passed" in stderr
    code, _, _ = call(*command, "--max-units", "20")
    assert (code, len(api.billed)) == (Exit.NOT_ALL, 2)
    code, _, _ = call(*command, "--max-units", "24")
    assert (code, len(api.billed)) == (Exit.OK, 3)


def test_units_that_a_task_did_not_cost_are_spent_on_the_next(
    api: SimulatedCometAPI, call: Call
) -> None:
    """A series of unknown length reserves nine images, 72 units, and costs four."""
    image = "https://images.test/fox.png"
    series = ("--model", "kling-v3-omni", "--result-type", "series", "--image", image)
    code, _, stderr = call("generate", "a fox", "a hen", "a wolf", *series, "--max-units", "110")
    # 72 of 110; then 32 are spent and 72 reserved; then 64 are spent, and 72 more would not fit.
    assert (code, [task.units for task in api.billed]) == (Exit.NOT_ALL, [32, 32])
    assert "1 prompt is not created" in stderr


def test_an_uncertain_create_keeps_its_units(call: Call, tmp_path: Path) -> None:
    """Neither this run nor the next spends them on something else."""
    journal = tmp_path / "run.jsonl"
    with simulated(by_external_id=False) as api:
        api.fail_next_create(reset=True, created=False)
        command = ("generate", "a fox", "a hen", "--jsonl", str(journal))
        for _ in range(2):
            code, _, stderr = call(*command, "--max-units", "10")
            assert (code, len(api.billed)) == (Exit.NOT_ALL, 0)
            assert "1 prompt is not created: --max-units 10 would be passed" in stderr
        code, _, _ = call(*command, "--max-units", "24", "--retry-uncertain")
        assert (code, len(api.billed)) == (Exit.OK, 2)


def test_a_price_that_nobody_knows_is_refused(
    api: SimulatedCometAPI, call: Call, tmp_path: Path
) -> None:
    """Before anything is sent; without --max-units it is created, and its price stays unknown."""
    code, _, stderr = call("generate", "a fox", "--model", "kling-v9", "--max-units", "100")
    assert (code, len(api.billed)) == (Exit.USAGE, 0)
    assert "no price is published for kling-v9 ('a fox')" in stderr
    rows = written(tmp_path / "p.jsonl", '{"prompt": "a fox", "extra": {"strength": 3}}')
    journal = tmp_path / "run.jsonl"
    code, _, _ = call("generate", "--from", rows, "--jsonl", str(journal))
    assert code == Exit.OK
    code, _, stderr = call("generate", "a hen", "--jsonl", str(journal), "--max-units", "100")
    assert (code, len(api.billed)) == (Exit.USAGE, 1)
    assert "the journal has an order whose price is not published" in stderr


def test_a_dry_run_sends_and_writes_nothing(
    api: SimulatedCometAPI, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It tells what is left to do and what that costs, with no key at all."""
    journal = tmp_path / "run.jsonl"
    call("generate", "a fox", "--jsonl", str(journal))
    before = journal.read_bytes()
    monkeypatch.delenv("COMETAPI_KEY")
    command = ("a fox", "a hen", "--dry-run")
    for verb in ("generate", "create"):
        code, stdout, stderr = call(verb, *command, "--jsonl", str(journal), "--max-units", "20")
        assert (code, stdout) == (Exit.OK, "done\t8\ta fox\ncreate\t8\ta hen\n")
        assert "to create: 1 prompt, 1 image, 8 units" in stderr
        assert "12 of 20 units are left" in stderr
    code, stdout, _ = call("generate", *command, "--jsonl", str(tmp_path / "none.jsonl"))
    assert stdout == "create\t8\ta fox\ncreate\t8\ta hen\n"
    code, stdout, stderr = call("generate", "a fox", "--model", "kling-v9", "--dry-run")
    assert (stdout, "units not known" in stderr) == ("create\t?\ta fox\n", True)
    assert journal.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["run.jsonl"]
    assert len(api.billed) == 1


def test_create_prints_ids_and_waits_for_nothing(
    api: SimulatedCometAPI, call: Call, tmp_path: Path
) -> None:
    """Run again with its journal it prints the same ids; generate then brings the images."""
    journal = tmp_path / "run.jsonl"
    command = ("a fox", "a hen", "--jsonl", str(journal))
    code, stdout, _ = call("create", *command)
    task_ids = [task.task_id for task in api.billed]
    assert (code, stdout.split(), len(task_ids)) == (Exit.OK, task_ids, 2)
    assert not any(api.queries_of(task_id) for task_id in task_ids)
    assert call("create", *command)[1].split() == task_ids
    assert call("generate", *command)[0] == Exit.OK
    assert call("create", *command)[1].split() == task_ids
    assert len(api.billed) == 2


def test_create_goes_on_after_what_is_wrong_with_one_order(
    api: SimulatedCometAPI, call: Call
) -> None:
    """The refused one is told; what the next would meet too ends the run."""
    refusal = {"code": 1301, "message": "content is sensitive", "request_id": "r"}
    api.fail_next_create(status=400, body=refusal)
    code, stdout, stderr = call("create", "a fox", "a hen")
    (task,) = api.billed
    assert (code, stdout.split()) == (Exit.NOT_ALL, [task.task_id])
    assert "content is sensitive" in stderr
    api.fail_next_create(status=429, times=3)
    code, stdout, stderr = call("create", "a fox", "a hen")
    assert (code, stdout, len(api.billed)) == (Exit.NOT_ALL, "", 1)
    assert "2 prompts have no outcome\n" in stderr


def test_json_lines_go_to_stdout(api: SimulatedCometAPI, call: Call) -> None:
    """With - for a journal each line is an outcome with its order."""
    code, stdout, _ = call("generate", "a fox", "--jsonl", "-", "--quiet")
    (task,) = api.billed
    line = json.loads(stdout)
    assert (code, line["task_id"]) == (Exit.OK, task.task_id)
    assert (line["order"], line["external_task_id"]) == (
        {"prompt": "a fox"},
        task.external_task_id,
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("a", "fox"), '2 words are so many prompts: put quotes around "a fox"'),
        (("prompts.csv",), "a file, not a prompt: write generate --from prompts.csv"),
        ((), "no prompts: give some between quotes, or a file of them with --from"),
        (("a fox", "-n", "12"), "n must be a whole number from 1 to 9, not 12"),
        (("a fox", "--watermarked"), "give --save too"),
        (("a fox", "--max-tasks", "0"), "Must be >= 1"),
        (("a fox", "--image", "none.png"), "images[0]: 'none.png' cannot be read"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_sent(
    arguments: tuple[str, ...], told: str, api: SimulatedCometAPI, call: Call
) -> None:
    """The text says what to write instead."""
    code, _, stderr = call("generate", *arguments)
    assert (code, len(api.billed)) == (Exit.USAGE, 0)
    assert told in stderr


def test_create_has_no_use_for_json_on_stdout(api: SimulatedCometAPI, call: Call) -> None:
    """Its ids are there."""
    code, _, stderr = call("create", "a fox", "--jsonl", "-")
    assert (code, len(api.billed)) == (Exit.USAGE, 0)
    assert "--jsonl is a journal here" in stderr


def test_options_are_for_rows_that_do_not_say_otherwise(
    api: SimulatedCometAPI, call: Call, tmp_path: Path
) -> None:
    """A cell that is filled counts, an empty one leaves the option."""
    rows = written(tmp_path / "p.csv", "prompt;n;resolution", "a fox;;2k", "a hen;3;")
    code, _, _ = call(
        *("generate", "--from", rows, "-n", "2", "--resolution", "4k", "--model", "kling-v3-omni"),
        *("--aspect-ratio", "1:1", "--watermark"),
    )
    assert code == Exit.OK
    assert [(task.images, task.units) for task in api.billed] == [(2, 16), (3, 48)]


def test_a_foreign_file_is_no_journal(api: SimulatedCometAPI, call: Call, tmp_path: Path) -> None:
    """It is left as it is, and nothing is created."""
    journal = tmp_path / "letter.txt"
    written(journal, "Dear Madam", "no journal")
    for more in ((), ("--dry-run",)):
        code, _, stderr = call("generate", "a fox", "--jsonl", str(journal), *more)
        assert (code, len(api.billed)) == (Exit.USAGE, 0)
        assert "line 1 is not an outcome of this program" in stderr
    code, _, stderr = call("generate", "a fox", "--jsonl", str(tmp_path), "--dry-run")
    assert code == Exit.USAGE


def test_an_interruption_tells_what_is_left(
    api: SimulatedCometAPI, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a journal how to go on; nothing where nothing was begun."""
    journal = tmp_path / "run.jsonl"
    begun = True

    async def interrupted(work: Work, session: KlingOmniSession, *_: object, **__: object) -> None:
        async with session:
            if begun:
                work.begin(session)
            raise KeyboardInterrupt

    monkeypatch.setattr(generate, "generate_all", interrupted)
    code, _, stderr = call("generate", "a fox", "--jsonl", str(journal))
    told = "kling-omni: interrupted\n1 prompt has no outcome; run the same command to go on\n"
    assert (code, stderr, api.billed) == (Exit.INTERRUPTED, told, ())
    code, _, stderr = call("generate", "a fox")
    assert (code, stderr) == (
        Exit.INTERRUPTED,
        "kling-omni: interrupted\n1 prompt has no outcome\n",
    )
    begun = False
    code, _, stderr = call("generate", "a fox")
    assert (code, stderr) == (Exit.INTERRUPTED, "kling-omni: interrupted\n")


@pytest.mark.anyio
async def test_a_create_that_is_interrupted_is_noted_all_the_same(
    comet_api: SimulatedCometAPI, tmp_path: Path
) -> None:
    """Ctrl-C cancels the run, and its journal still gets the answer that is on its way."""
    journal = tmp_path / "run.jsonl"
    comet_api.fail_next_create(delay=2.0)
    with OrderJournal(str(journal), is_done=lambda _: True, store=None) as ledger:
        work = Work(match([ImageOrder("a fox")], [], lambda _: "fox"), Budget(None), ledger)
        running = asyncio.create_task(
            generate_all(
                work,
                new_session(comet_api),
                ledger.append,
                Silent(),
                saving=NOWHERE,
                journal=ledger,
                max_tasks=None,
                retry=False,
            )
        )
        await comet_api.wait_for_queries(1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    (task,) = comet_api.billed
    posting, created = lines_of(journal)
    assert (posting["intent"], created["intent"]) == ("posting", "created")
    assert created["task_id"] == task.task_id


def test_the_gallery_and_poll_read_such_a_journal(
    api: SimulatedCometAPI, call: Call, tmp_path: Path
) -> None:
    """Images stand on the page; intents say nothing there, and to a run of ids."""
    folder = tmp_path / "images"
    journal = folder / "run.jsonl"
    refusal = {"code": 1301, "message": "content is sensitive"}
    api.fail_next_create(status=400, body=refusal, times=2)
    prompts = ("a fox", "a hen", "a wolf")
    call("generate", *prompts, "--jsonl", str(journal), "--save", str(folder))
    assert call("gallery", str(folder))[0] == Exit.OK
    page = (folder / "index.html").read_text("utf-8")
    assert page.count("<img ") == 1
    assert "content is sensitive" in page
    (task,) = api.billed
    code, _, stderr = call("poll", task.task_id, "--jsonl", str(journal), "--save", str(folder))
    assert (code, "1 of them by an earlier run" in stderr) == (Exit.OK, True)
