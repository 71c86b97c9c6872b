"""The RunEngine. Its documents go to a message bus: no consumer holds it up, and each runs where it likes."""

import os
from functools import partial

import msgpack
import msgpack_numpy
from bluesky import RunEngine
from bluesky.callbacks.zmq import Publisher

from busy_callback_flyer.callbacks import PointTimes

RE = RunEngine()
publish = Publisher(
    os.environ.get("BLUESKY_0MQ_IN", "127.0.0.1:5577"),
    serializer=partial(msgpack.packb, default=msgpack_numpy.encode),  # pickle would run what it is sent
)
RE.subscribe(PointTimes(publish, "ifly_xArr"))
