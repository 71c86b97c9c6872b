"""Files the runs that come over bluesky's 0MQ in Tiled, in a process of its own.

    TILED_API_KEY=... python -m busy_callback_flyer.queueserver.bus_to_tiled 127.0.0.1:5578 http://127.0.0.1:8000

What comes is on disk at once, a file a run; a run that is complete is sent from there to Tiled, and its file is
deleted once it is there. So a Tiled that is down, slow or not up yet holds up nobody, and loses nothing. A run that
is in Tiled without its end is replaced only by one of which all was heard.
"""

from __future__ import annotations

import argparse
import logging
import os
import threading
from collections import defaultdict
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

    going: set[str] = set()

    def keep_run(_: str, start: dict[str, Any]) -> tuple[list[Consumer], list[Any]]:
        uid: str = start["uid"]
        if not uid or Path(uid).name != uid:  # it names a file, and comes from whoever sends
            raise ValueError(f"{uid!r} is no uid")
        part = folder / f"{uid}.part"
        going.add(uid)

        def keep(name: str, doc: dict[str, Any]) -> None:
            with part.open("wb" if name == "start" else "ab") as file:  # not kept open: a run may never end
                file.write(pack((name, doc)))
                if name == "stop":
                    file.flush()
                    os.fsync(file.fileno())
            if name == "stop":
                going.remove(uid)
                part.rename(part.with_suffix(".run"))
                complete()

        return [keep], []

    router = RunRouter([keep_run])

    def take(name: str, doc: dict[str, Any]) -> None:
        try:
            if name == "stop" and doc["run_start"] not in going:  # which the router takes without a word
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
        missing = _missing(documents)
        for what in missing:
            logger.error("run %s: %s", uid, what)
        if there is not None:  # Tiled went, or this process, in the middle of it; or somebody else writes it
            if missing:
                raise ValueError(f"run {uid} is in Tiled without its end, and not all of it was heard to replace it by")
            client.delete_contents(uid, recursive=True, external_only=False)
        write = TiledWriter(client)
        for name, doc in documents:
            write(name, doc)
    logger.info("run %s is in Tiled", uid)
    file.unlink()


def _missing(documents: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """What the bus has dropped, as far as the other documents tell."""
    missing = [] if documents[0][0] == "start" else ["its start was not heard"]
    counts = documents[-1][1].get("num_events")
    if counts is None:
        missing.append("its stop does not say how many events there were")
    streams = {doc["uid"]: doc["name"] for name, doc in documents if name == "descriptor"}
    heard: defaultdict[str, defaultdict[str, set[int]]] = defaultdict(lambda: defaultdict(set))  # by stream and source
    for name, doc in documents:
        if name in ("event", "event_page"):
            heard[streams[doc["descriptor"]]]["events"].update(np.atleast_1d(doc["seq_num"]).tolist())
        elif name == "stream_datum":
            numbers = range(doc["seq_nums"]["start"], doc["seq_nums"]["stop"])
            heard[streams[doc["descriptor"]]][doc["stream_resource"]].update(numbers)
    for stream, count in (counts or {}).items():
        if stream not in streams.values():
            missing.append(f"the descriptor of {stream} was not heard")
        least = min(map(len, heard[stream].values()), default=0)
        if least < count:
            missing.append(f"of {count} events in {stream}, {least} were heard")
    return missing + [f"what {datum} in {key} refers to was not heard" for key, datum in _unresolved(documents)]


def _unresolved(documents: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, str]]:
    """Data keys of events that refer to a datum, and the datum, where that was not heard."""
    external = {
        doc["uid"]: [key for key, data_key in doc["data_keys"].items() if "external" in data_key]
        for name, doc in documents
        if name == "descriptor"
    }
    datums = {
        datum
        for name, doc in documents
        if name in ("datum", "datum_page")
        for datum in np.atleast_1d(doc["datum_id"]).tolist()
    }
    return [
        (key, datum)
        for name, doc in documents
        if name in ("event", "event_page")
        for key in external[doc["descriptor"]]
        for datum in np.atleast_1d(doc["data"].get(key, [])).tolist()
        if isinstance(datum, str) and datum not in datums
    ]


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
