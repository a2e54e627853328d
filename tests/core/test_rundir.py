from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgexfer.core.errors import DiskError, Interrupted, RunError
from edgexfer.core.rundir import (
    SCHEMA,
    RunInfo,
    differences,
    open_run,
    read_events,
    read_run,
)

WANTED = RunInfo(
    schema=SCHEMA,
    kind="distill",
    status="running",
    config={"train": {"epochs": 3, "lr": 0.1}},
    data={"path": "digits"},
    data_fingerprint="d" * 64,
    parents={"teacher": "t" * 64},
)


def test_a_new_run_is_running_and_reads_back(tmp_path: Path) -> None:
    with open_run(tmp_path / "runs" / "a", WANTED) as run:
        info = read_run(run.path)
        assert info == replace(WANTED, created_utc=info.created_utc)
        assert info.status == "running"
        assert info.created_utc.endswith("Z")
        run.set(status="done", result={"n": 1})
        assert run.done
    assert read_run(tmp_path / "runs" / "a").result == {"n": 1}


def test_the_same_settings_take_the_run_up_again(tmp_path: Path) -> None:
    with open_run(tmp_path, WANTED) as run:
        stamp = run.info.created_utc
    with open_run(tmp_path, WANTED) as again:
        assert again.info.created_utc == stamp


def test_a_setting_that_the_run_did_not_know_yet_is_its_default(tmp_path: Path) -> None:
    defaults = {"train": {"epochs": 1, "balance": "fixed"}, "model": {"size": None}}
    config = {"train": {**WANTED.config["train"], "balance": "fixed"}, "model": {"size": None}}
    later = replace(WANTED, config=config)
    open_run(tmp_path, WANTED).close()
    open_run(tmp_path, later, defaults=defaults).close()
    with pytest.raises(RunError, match=r"train.balance: None -> 'fixed'"):
        open_run(tmp_path, later)
    config["train"]["balance"] = "pcgrad"
    with pytest.raises(RunError, match=r"train.balance: 'fixed' -> 'pcgrad'"):
        open_run(tmp_path, later, defaults=defaults)


@pytest.mark.parametrize(
    ("change", "what", "fix"),
    [
        ({"kind": "finetune"}, "is a distill run, not finetune", "choose another --out"),
        (
            {"config": {"train": {"epochs": 4, "lr": 0.1}}},
            "was begun with other settings: train.epochs: 3 -> 4",
            "go back to the old settings",
        ),
        ({"config": {"train": {"epochs": 3}}}, "train.lr: 0.1 -> None", "choose another --out"),
        ({"parents": {"teacher": "u" * 64}}, "made from.teacher: 'tttt", "choose another --out"),
        (
            {"data_fingerprint": "e" * 64},
            "data: the images, labels or splits have changed",
            "choose another --out",
        ),
        (
            {"config": {"a": 1, "b": 2, "c": 3, "train": {"epochs": 3, "lr": 0.1}}, "parents": {}},
            "(+1 more)",
            "choose another --out",
        ),
    ],
)
def test_other_settings_are_refused_with_the_difference(
    tmp_path: Path, change: dict[str, Any], what: str, fix: str
) -> None:
    open_run(tmp_path, WANTED).close()
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(RunError) as caught:
        open_run(tmp_path, replace(WANTED, **change))
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert (tmp_path / "run.json").read_bytes() == before
    open_run(tmp_path, WANTED).close()  # the lock was let go of


def test_a_run_that_goes_on_is_running_again(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), open_run(tmp_path, WANTED):
        raise ValueError("x")
    assert read_run(tmp_path).status == "failed"
    with open_run(tmp_path, WANTED):
        assert read_run(tmp_path).status == "running"


def test_what_failed_before_it_kept_anything_is_begun_anew_with_other_settings(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match="x"), open_run(tmp_path, WANTED) as run:
        run.log({"event": "teacher"})
        raise ValueError("x")
    other = replace(WANTED, config={"other": 1}, parents={})
    with open_run(tmp_path, other) as run:
        assert run.info.config == {"other": 1}
        assert read_run(tmp_path).config == {"other": 1}
        assert read_events(tmp_path) == []


def test_what_failed_after_it_kept_something_is_not_begun_anew(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), open_run(tmp_path, WANTED):
        (tmp_path / "checkpoints").mkdir()
        raise ValueError("x")
    with pytest.raises(RunError, match="was begun with other settings"):
        open_run(tmp_path, replace(WANTED, config={"other": 1}))


def test_a_kill_before_the_first_note_does_not_close_the_folder(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("process 1")
    (tmp_path / ".run.json.tmp.1").write_text('{"sche')
    with open_run(tmp_path, WANTED):
        assert read_run(tmp_path).status == "running"


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(RunError, match="is not empty and holds no run") as caught:
        open_run(tmp_path, WANTED)
    assert caught.value.fix == "choose another --out"
    assert [p.name for p in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(DiskError, match="is a file, not a folder"):
        open_run(tmp_path / "f", WANTED)


def test_a_second_process_is_told_who_works_there(tmp_path: Path) -> None:
    with open_run(tmp_path, WANTED):
        code = f"""
import sys
from edgexfer.core.errors import RunError
from edgexfer.core.rundir import RunInfo, open_run
try:
    open_run({str(tmp_path)!r}, RunInfo({SCHEMA!r}, "distill", "running", {{}}, {{}}, ""))
except RunError as error:
    print(error.what)
    print(error.fix)
"""
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
    what, fix = done.stdout.splitlines()
    assert "process " in what
    assert "works in this run" in what
    assert fix == "wait for it, or choose another --out"


def test_a_killed_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    code = f"""
import os, signal
from edgexfer.core.rundir import RunInfo, open_run
run = open_run({str(tmp_path / "r")!r}, RunInfo({SCHEMA!r}, "distill", "running", {{}}, {{}}, ""))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    wanted = RunInfo(SCHEMA, "distill", "running", {}, {}, "")
    with open_run(tmp_path / "r", wanted) as run:
        assert run.info.status == "running"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (KeyboardInterrupt(), "interrupted"),
        (Interrupted("stopped", "go on"), "interrupted"),
        (ValueError("x"), "failed"),
    ],
)
def test_a_run_says_how_it_ended(tmp_path: Path, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), open_run(tmp_path, WANTED):
        raise error
    assert read_run(tmp_path).status == status


def test_a_done_run_stays_done(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="late"), open_run(tmp_path, WANTED) as run:
        run.set(status="done")
        raise ValueError("late")
    assert read_run(tmp_path).status == "done"


def test_other_processes_of_one_training_never_write(tmp_path: Path) -> None:
    with open_run(tmp_path / "r", WANTED, leader=False) as run:
        run.set(status="done")
        run.log({"event": "x"})
        run.rewind_log(0)
        assert run.done
    assert not (tmp_path / "r").exists()


def test_events_append_and_a_torn_line_is_left_out(tmp_path: Path) -> None:
    assert read_events(tmp_path) == []
    with open_run(tmp_path, WANTED) as run:
        run.log({"event": "val", "step": 1, "top1_pct": None})
        run.log({"event": "val", "step": 2})
        with (tmp_path / "metrics.jsonl").open("a") as stream:
            stream.write('{"event": "va')
        assert [e["step"] for e in read_events(tmp_path)] == [1, 2]
        run.log({"event": "resume", "step": 3})
        assert [e["step"] for e in read_events(tmp_path)] == [1, 2, 3]
        with pytest.raises(ValueError, match="not JSON compliant"):
            run.log({"loss": float("nan")})


def test_rewinding_drops_what_will_be_written_again(tmp_path: Path) -> None:
    with open_run(tmp_path, WANTED) as run:
        run.rewind_log(5)
        for step in range(1, 9):
            run.log({"step": step})
        run.log({"event": "without a step"})
        run.rewind_log(5)
        assert [e.get("step") for e in read_events(tmp_path)] == [1, 2, 3, 4, 5, None]
    assert not list(tmp_path.glob(".*.tmp.*"))


@pytest.mark.parametrize(
    ("content", "what", "fix"),
    [
        ("{", "not readable as JSON", "delete the folder and run the stage again"),
        ("{}", "key schema is missing", "delete the folder and run the stage again"),
        (
            json.dumps(
                {
                    "schema": "edgexfer.run/9",
                    "kind": "",
                    "status": "",
                    "config": {},
                    "data": {},
                    "data_fingerprint": "",
                }
            ),
            "schema is 'edgexfer.run/9', expected 'edgexfer.run/1'",
            "delete the folder and run the stage again",
        ),
    ],
)
def test_a_damaged_run_is_named(tmp_path: Path, content: str, what: str, fix: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError) as caught:
        read_run(tmp_path)
    assert what in caught.value.what
    assert caught.value.fix == fix


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run \(run\.json is missing\)") as caught:
        read_run(tmp_path)
    assert caught.value.fix == "name a run's folder"


JSON = st.recursive(
    st.integers() | st.text("ab"), lambda x: st.dictionaries(st.text("ab"), x), max_leaves=8
)


@given(JSON, JSON)
def test_differences_are_none_just_where_two_values_are_equal(one: Any, two: Any) -> None:
    assert differences(one, one) == []
    if differences(one, two) == []:
        assert one == two
    assert len(differences(one, two)) == len(differences(two, one))
