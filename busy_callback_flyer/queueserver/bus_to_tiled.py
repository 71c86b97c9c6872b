"""Writes the runs that come over bluesky's 0MQ to Tiled, in a process of its own, as long as it is let.

    TILED_API_KEY=... python -m busy_callback_flyer.queueserver.bus_to_tiled 127.0.0.1:5578 http://127.0.0.1:8000

A run that Tiled does not take goes to a file, a line a document, in the directory that the third argument names
("." by default); in rows only, as such a file knows no arrays.
"""

import sys
from functools import partial

import msgpack
import msgpack_numpy
from bluesky.callbacks.zmq import RemoteDispatcher
from bluesky_tiled_plugins import TiledWriter
from tiled.client import from_uri


def main(bus: str, tiled: str, backup_directory: str = ".") -> None:
    """Listen and write, until interrupted."""
    dispatcher = RemoteDispatcher(bus, deserializer=partial(msgpack.unpackb, object_hook=msgpack_numpy.decode))
    dispatcher.subscribe(TiledWriter(from_uri(tiled), backup_directory=backup_directory))
    try:
        dispatcher.start()
    except KeyboardInterrupt:
        dispatcher.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
