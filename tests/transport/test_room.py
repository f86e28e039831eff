"""Room for connections, which all addresses share. What comes of it for clients is in `tests/pipeline/test_accept.py`."""

from __future__ import annotations

import anyio
import pytest

from conftest import LOOPS
from gatekeep.transport import _accept
from gatekeep.transport._accept import Room


@pytest.mark.parametrize("takes_it", [True, False])
def test_all_who_wait_for_room_hear_of_it_at_once(
    loop: str, takes_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who hears of it first may be an address to which nobody connects."""
    monkeypatch.setattr(_accept, "LOOK_AGAIN", 600)
    room = Room(2, lambda: None)
    went_on = []

    async def wait(name: str) -> None:
        await room.wait()
        went_on.append(name)
        if takes_it:
            room.enter()

    async def main() -> None:
        room.enter()
        room.enter()
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for name in ("first", "second"):
                    tasks.start_soon(wait, name)
                await anyio.wait_all_tasks_blocked()
                assert room.crowded
                room.leave()
                await anyio.wait_all_tasks_blocked()
                assert (len(went_on), room.crowded) == ((1, True) if takes_it else (2, False))
                room.leave()
        assert sorted(went_on) == ["first", "second"]
        assert not room.crowded

    backend, options = LOOPS[loop]
    anyio.run(main, backend=backend, backend_options=options)
