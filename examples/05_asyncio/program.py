"""An asyncio program with work of its own, and a gateway beside it."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from gatekeep import Gateway, Settings


async def take_readings(database: Path) -> None:
    """The program's own work: a reading each half second."""
    with closing(sqlite3.connect(database)) as readings:
        readings.execute("CREATE TABLE reading (degrees INTEGER)")
        while True:
            readings.execute("INSERT INTO reading VALUES (?)", (random.randrange(10, 30),))
            readings.commit()
            await asyncio.sleep(0.5)


async def main(address: str, database: Path) -> None:
    """Do both until somebody wants it to stop."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    settings = Settings.for_app(
        "pages:application",
        bind=address,
        threads=1,
        request_timeout=1,
        env=[f"READINGS={database}"],
        python_path=[str(Path(__file__).parent)],
    )
    work = asyncio.create_task(take_readings(database))
    async with Gateway(settings).serving() as served:
        print(f"serving at {served.url}", flush=True)
        await stop.wait()
        ended = served.statistics().by_outcome()
    work.cancel()
    print("requests:", ", ".join(f"{count} {outcome}" for outcome, count in ended.items()) or "none")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(sys.argv[1] if sys.argv[1:] else "127.0.0.1:8000", Path(folder, "readings")))
