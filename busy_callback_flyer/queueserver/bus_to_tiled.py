"""Files the runs that come over bluesky's 0MQ in Tiled, in a process of its own.

    TILED_API_KEY=... python -m busy_callback_flyer.queueserver.bus_to_tiled 127.0.0.1:5578 http://127.0.0.1:8000

What comes is on disk at once, a file a run; a run that is complete is sent from there to Tiled, and its file is
deleted once it is there. So a Tiled that is down, slow or not up yet holds up nobody, and loses nothing.
"""

from __future__ import annotations

import argparse
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from bluesky.callbacks.zmq import RemoteDispatcher
from bluesky_tiled_plugins import TiledWriter
from event_model import RunRouter
from tiled.client import from_uri

from busy_callback_flyer.messages import pack, unpack, unpack_all

logger = logging.getLogger(__name__)

TRY_AGAIN = 30.0
"""Seconds until runs that Tiled was not there for are offered again."""

Consumer = Callable[[str, dict[str, Any]], None]


def address(tiled: str) -> str:
    """Without a key, if it has one."""
    return tiled.split("?")[0]


def spool(folder: Path, complete: Callable[[], object]) -> Consumer:
    """A consumer that keeps runs in files of a folder: ``<uid>.part``, and once complete ``<uid>.run``.

    Parameters
    ----------
    folder : Path
    complete : callable
        Called when a run is.
    """

    def keep_run(_: str, start: dict[str, Any]) -> tuple[list[Consumer], list[Any]]:
        uid: str = start["uid"]
        if not uid or Path(uid).name != uid:  # it names a file, and comes from whoever sends
            raise ValueError(f"{uid!r} is no uid")
        part = folder / f"{uid}.part"
        file = part.open("wb")

        def keep(name: str, doc: dict[str, Any]) -> None:
            file.write(pack((name, doc)))
            file.flush()
            if name == "stop":
                os.fsync(file.fileno())
                file.close()
                part.rename(part.with_suffix(".run"))
                complete()

        return [keep], []

    router = RunRouter([keep_run])

    def take(name: str, doc: dict[str, Any]) -> None:
        try:
            if name == "stop" and not folder.joinpath(f"{doc['run_start']}.part").exists():
                raise KeyError(doc["run_start"])
            router(name, doc)
        except KeyError as of:
            logger.error("%s goes nowhere: what it belongs to, %s, was not heard", name, of)

    for part in folder.glob("*.part"):
        logger.warning("%s is the beginning of a run, whose end was not heard", part)
    return take


def send(folder: Path, tiled: str) -> None:
    """File in Tiled what is complete, the oldest first, as far as Tiled is there."""
    files = sorted(folder.glob("*.run"), key=lambda file: file.stat().st_mtime)
    if not files:
        return
    try:
        client = from_uri(tiled)
    except Exception as error:  # not there, or the key is wrong
        logger.error("%d runs wait in %s, as Tiled at %s cannot be had: %s", len(files), folder, address(tiled), error)
        return
    for file in files:
        try:
            _send(file, client)
        except httpx.TransportError as error:
            logger.error("%s waits, as Tiled at %s is gone: %s", file, address(tiled), error)
            return
        except Exception as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.is_server_error:
                logger.error("%s waits, as Tiled at %s has failed: %s", file, address(tiled), error)
                continue
            refused = file.rename(file.with_suffix(".refused"))
            logger.exception("Tiled does not take %s; renamed to %s it is tried again", refused, file.name)


def _send(file: Path, client: Any) -> None:
    uid = file.stem
    there = client.get(uid)
    if there is None or not there.metadata.get("stop"):
        with file.open("rb") as messages:
            documents = list(unpack_all(messages))
        if not documents or documents[-1][0] != "stop":
            raise ValueError(f"{file} is cut short")
        _tell_missing(uid, documents)
        if there is not None:  # Tiled went, or this process, in the middle of it; here is the whole
            client.delete_contents(uid, recursive=True, external_only=False)
        write = TiledWriter(client)
        for name, doc in documents:
            write(name, doc)
    logger.info("run %s is in Tiled", uid)
    file.unlink()


def _tell_missing(uid: str, documents: list[tuple[str, dict[str, Any]]]) -> None:
    """A bus may drop what it cannot pass on."""
    streams = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
    heard: Counter[str] = Counter()
    for name, doc in documents:
        if name in ("event", "event_page"):
            heard[streams[doc["descriptor"]]] += np.size(doc["seq_num"])
        elif name == "stream_datum":
            heard[streams[doc["descriptor"]]] += doc["indices"]["stop"] - doc["indices"]["start"]
    for stream, count in (documents[-1][1].get("num_events") or {}).items():
        if heard[stream] < count:
            logger.error("run %s: of %d events in %s, %d were heard", uid, count, stream, heard[stream])


def main() -> None:
    """Listen, write and send, until interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("bus", help="where the proxy publishes, as 127.0.0.1:5578")
    parser.add_argument("tiled", help="of the server; its key is in TILED_API_KEY")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="for runs on their way (%(default)s)")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logger.setLevel(logging.INFO)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    complete = threading.Event()
    complete.set()  # there may be some of the last time

    def keep_sending() -> None:
        while True:
            complete.wait(TRY_AGAIN)
            complete.clear()
            try:
                send(arguments.folder, arguments.tiled)
            except Exception:
                logger.exception("what is in %s waits", arguments.folder)

    dispatcher = RemoteDispatcher(arguments.bus, deserializer=unpack)
    dispatcher.subscribe(spool(arguments.folder, complete.set))
    threading.Thread(target=keep_sending, daemon=True).start()
    logger.info("listening at %s, filing at %s by way of %s", arguments.bus, address(arguments.tiled), arguments.folder)
    try:
        dispatcher.start()
    except KeyboardInterrupt:
        logger.info("ended")


if __name__ == "__main__":
    main()
