"""The state file of a copy: whole or refused."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

import homebound
from homebound.block import Fault, FaultDisk, MemoryDisk
from homebound.block._copying.checkpoints import Checkpoints
from homebound.block._copying.engine import PIECE, Copy
from homebound.block._copying.state import (
    CopyState,
    StateError,
    check_same,
    load_state,
    remove_state,
    save_state,
)
from homebound.testing import settle

if TYPE_CHECKING:
    from pathlib import Path

STATE = CopyState({"path": "/a", "size": 9}, {"path": "/b", "size": 10}, None, 5)


def test_what_is_saved_is_loaded(tmp_path: Path):
    path = str(tmp_path / "state")
    assert load_state(path) is None
    for state in (STATE, CopyState({}, {"uri": "nbd://\udcff"}, "b0", 1 << 62)):
        save_state(path, state)
        assert load_state(path) == state
    assert [each.name for each in tmp_path.iterdir()] == ["state"]
    remove_state(path)
    remove_state(path)
    assert load_state(path) is None


def test_any_damage_is_noticed(tmp_path: Path):
    path = tmp_path / "state"
    save_state(str(path), STATE)
    whole = path.read_bytes()
    for index in range(len(whole)):
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 2]) + whole[index + 1 :])
        try:
            assert load_state(str(path)) == STATE  # only the layout of the text has changed
        except StateError as error:
            assert "is damaged; remove it to begin anew" in str(error)  # noqa: PT017
        path.write_bytes(whole[:index])
        if whole[index:].strip():
            with pytest.raises(StateError):
                load_state(str(path))


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"checksum": 1}', "[" * 100_000, "\0"])
def test_what_is_no_state_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "state"
    path.write_text(text)
    with pytest.raises(StateError, match="is not the state of a copy"):
        load_state(str(path))


def test_a_later_version_is_refused(tmp_path: Path):
    path = tmp_path / "state"
    save_state(str(path), STATE)
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "version": 2}))
    with pytest.raises(StateError):
        load_state(str(path))


def test_what_is_another_copy_is_told():
    check_same("s", STATE, CopyState({"path": "/a", "size": 9}, {"path": "/b", "size": 10}))
    with pytest.raises(StateError, match=r"its target has another size \(10 then, 11 now\)"):
        check_same("s", STATE, CopyState({"path": "/a", "size": 9}, {"path": "/b", "size": 11}))
    with pytest.raises(StateError, match=r"its source has another path \('/a' then, None now\)"):
        check_same("s", STATE, CopyState({"size": 9}, {"path": "/b", "size": 10}))
    with pytest.raises(StateError, match="its bitmap is None, not 'b0'"):
        check_same("s", STATE, CopyState(STATE.source, STATE.target, "b0"))


def test_where_no_file_can_be(tmp_path: Path):
    with pytest.raises(StateError, match=r"cannot write the state file .*: No such file"):
        save_state(str(tmp_path / "no" / "state"), STATE)
    (tmp_path / "a").touch()
    with pytest.raises(StateError, match=r"cannot write the state file .*: Not a directory"):
        save_state(str(tmp_path / "a" / "state"), STATE)
    (tmp_path / "taken").mkdir()
    with pytest.raises(StateError, match=r"cannot write the state file .*: Is a directory"):
        save_state(str(tmp_path / "taken"), STATE)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "taken"]  # and no draft
    with pytest.raises(StateError, match=r"cannot read the state file .*: Is a directory"):
        load_state(str(tmp_path))


def test_a_checkpoint_says_only_what_is_flushed(tmp_path: Path):
    path = str(tmp_path / "state")

    async def main() -> list[int]:
        seen = []
        with MemoryDisk(3 * PIECE) as below, MemoryDisk(3 * PIECE) as target:
            await below.write(0, b"x" * 3 * PIECE)
            late = FaultDisk(
                below, [Fault(command="read", range=range(PIECE, PIECE + 1), hang=True)]
            )
            stuck = FaultDisk(target, [Fault(command="flush", nth=1, hang=True)])
            copy = Copy(late, stuck)
            checkpoints = Checkpoints(copy, path, CopyState({}, {}))
            await checkpoints.begin()
            running = asyncio.ensure_future(copy.run())
            await settle()
            saving = asyncio.ensure_future(checkpoints.save())
            await settle()
            seen.append(done_in(path))  # the flush hangs
            late.release()
            await settle()
            seen.append(copy.done_until)
            stuck.release()
            await saving
            seen.append(done_in(path))  # what was done before that flush began
            await running
            await checkpoints.save()
        return [*seen, done_in(path)]

    assert homebound.run(main()) == [0, 3 * PIECE, PIECE, 3 * PIECE]


def done_in(path: str) -> int:
    state = load_state(path)
    assert state is not None
    return state.done
