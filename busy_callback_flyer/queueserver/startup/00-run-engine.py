"""The RunEngine. Its documents go to a message bus: no consumer holds it up, and each runs where it likes."""

import os

from bluesky import RunEngine
from bluesky.callbacks.zmq import Publisher

from busy_callback_flyer.callbacks import PointTimes
from busy_callback_flyer.messages import pack

RE = RunEngine()
publish = Publisher(os.environ.get("BLUESKY_0MQ_IN", "127.0.0.1:5577"), serializer=pack)
RE.subscribe(PointTimes(publish, "ifly_xArr"))
