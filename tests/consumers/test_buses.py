"""Flights over message buses, to other processes. None of them unpickles what it is sent."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import bluesky.plans as bp
import pytest
from bluesky import RunEngine
from event_model import NumpyEncoder

from busy_callback_flyer import BusyFlyer

pytest.importorskip("zmq", reason="bluesky's 0MQ needs it")
from bluesky.callbacks.zmq import Publisher

from busy_callback_flyer.messages import pack

TIMEOUT = 60.0
MOST_BYTES = 1_000_000
"""Of a message that Kafka and NATS take by default."""

LISTENER = """
import json, sys
from bluesky.callbacks.zmq import RemoteDispatcher
from busy_callback_flyer.messages import unpack
from event_model import NumpyEncoder

dispatcher = RemoteDispatcher(sys.argv[1], deserializer=unpack)
dispatcher.subscribe(lambda name, doc: print(json.dumps([name, doc], cls=NumpyEncoder), flush=True))
dispatcher.start()
"""

KAFKA_LISTENER = """
import json, sys
from bluesky_kafka import RemoteDispatcher
from busy_callback_flyer.messages import unpack
from event_model import NumpyEncoder

broker, topic = sys.argv[1:]
earliest = {"auto.offset.reset": "earliest"}
dispatcher = RemoteDispatcher([topic], broker, group_id=topic, consumer_config=earliest, deserializer=unpack)
dispatcher.subscribe(lambda name, doc: print(json.dumps([name, doc], cls=NumpyEncoder), flush=True))
dispatcher.start()
"""

HELLO = {"uid": "hello", "time": 0.0}

Documents = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def listener(proxy: tuple[str, str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", LISTENER, proxy[1]], stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def says_hello(publish: Publisher, listener: subprocess.Popen[str]) -> None:
    """Who joins a 0MQ proxy hears what is said from some moment on: talk until it does."""
    assert listener.stdout is not None
    while not select.select([listener.stdout], [], [], 0.1)[0]:
        assert listener.poll() is None
        publish("start", HELLO)


@pytest.mark.timeout(TIMEOUT)  # a process that hears nothing is read for ever
@pytest.mark.parametrize("layout", ["rows", "array"])
def test_another_process_hears_it_all(
    request: pytest.FixtureRequest,
    layout: str,
    proxy: tuple[str, str],
    listener: subprocess.Popen[str],
    fly: Callable[..., Documents],
) -> None:
    publish = Publisher(proxy[0], serializer=pack)
    request.addfinalizer(publish.close)
    says_hello(publish, listener)
    documents = fly(publish, points=200, layout=layout, page_size=60)
    check_heard(listener, documents, pages=4 if layout == "rows" else 1)


def check_heard(listener: subprocess.Popen[str], documents: Documents, *, pages: int) -> None:
    """All that was sent, from the start to the stop."""
    heard: list[Any] = []
    assert listener.stdout is not None
    for line in listener.stdout:
        name, doc = json.loads(line)
        if doc != HELLO:
            heard.append([name, doc])
        if name == "stop":
            break
    assert heard == json.loads(json.dumps(documents, cls=NumpyEncoder))
    assert [name for name, _ in heard].count("event_page") == pages


@pytest.fixture(scope="module")
def kafka() -> Iterator[str]:
    """Address of a broker of librdkafka, which is there as long as the client that brings it."""
    confluent_kafka = pytest.importorskip("confluent_kafka")
    client = confluent_kafka.Producer({"test.mock.num.brokers": 1})
    (broker,) = client.list_topics(timeout=TIMEOUT).brokers.values()
    assert broker.host == "127.0.0.1"
    yield f"{broker.host}:{broker.port}"
    del client


@pytest.mark.timeout(TIMEOUT)  # a process that hears nothing is read for ever
@pytest.mark.parametrize("layout", ["rows", "array"])
def test_another_process_hears_it_all_by_kafka(layout: str, kafka: str, fly: Callable[..., Documents]) -> None:
    bluesky_kafka = pytest.importorskip("bluesky_kafka")
    quiet = {"log_level": 0}  # the broker goes before it
    publish = bluesky_kafka.Publisher(layout, kafka, "ifly", quiet, flush_on_stop_doc=True, serializer=pack)
    documents = fly(publish, points=200, layout=layout, page_size=60)
    command = [sys.executable, "-c", KAFKA_LISTENER, kafka, layout]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listener:
        try:
            check_heard(listener, documents, pages=4 if layout == "rows" else 1)
        finally:
            listener.kill()


def test_any_flight_goes_by_messages_of_a_size_that_buses_take(
    make_flyer: Callable[..., BusyFlyer], controller: Callable[..., None], run_engine: RunEngine
) -> None:
    """The points of a page, not of a flight, make a message; as many as there are by default."""
    sizes: list[int] = []
    run_engine.subscribe(lambda name, page: sizes.append(len(pack(page))), "event_page")
    controller(npts=256, duration=0.1)
    flyer = make_flyer()
    run_engine(bp.fly([flyer]))
    (size,) = sizes
    assert size / 256 * flyer.page_size < MOST_BYTES
