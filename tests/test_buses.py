"""Flights over message buses, to other processes. None of them unpickles what it is sent."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import msgpack
import msgpack_numpy
import pytest
from bluesky import RunEngine
from event_model import NumpyEncoder

from busy_callback_flyer import BusyFlyer

from .conftest import free_ports

pytest.importorskip("zmq", reason="bluesky's 0MQ needs it")
from bluesky.callbacks.zmq import Publisher

TIMEOUT = 60.0
MOST_BYTES = 1_000_000
"""Of a message that Kafka and NATS take by default."""

LISTENER = """
import json, sys
from functools import partial
import msgpack, msgpack_numpy
from bluesky.callbacks.zmq import RemoteDispatcher
from event_model import NumpyEncoder

dispatcher = RemoteDispatcher(sys.argv[1], deserializer=partial(msgpack.unpackb, object_hook=msgpack_numpy.decode))
dispatcher.subscribe(lambda name, doc: print(json.dumps([name, doc], cls=NumpyEncoder), flush=True))
dispatcher.start()
"""

KAFKA_LISTENER = """
import json, sys
from bluesky_kafka import RemoteDispatcher
from event_model import NumpyEncoder

broker, topic = sys.argv[1:]
dispatcher = RemoteDispatcher([topic], broker, group_id=topic, consumer_config={"auto.offset.reset": "earliest"})
dispatcher.subscribe(lambda name, doc: print(json.dumps([name, doc], cls=NumpyEncoder), flush=True))
dispatcher.start()
"""

HELLO = {"uid": "hello", "time": 0.0}

Documents = list[tuple[str, dict[str, Any]]]


def packed(document: Any) -> bytes:
    message: bytes = msgpack.packb(document, default=msgpack_numpy.encode)
    return message


def proxy_command(to: str, of: str) -> list[str]:
    """That starts a proxy between two addresses."""
    command = str(Path(sys.executable).with_name("bluesky-0MQ-proxy"))
    usage = subprocess.run([command, "--help"], capture_output=True, text=True, timeout=TIMEOUT).stdout
    if "--in-address" not in usage:
        pytest.skip("the proxy of this bluesky takes ports alone, and would listen outside loopback")
    return [command, "--in-address", f"tcp://{to}", "--out-address", f"tcp://{of}"]


@pytest.fixture(scope="module")
def proxy() -> Iterator[tuple[str, str]]:
    """Where one publishes to, and where one listens."""
    to, of = (f"127.0.0.1:{port}" for port in free_ports(2))
    with subprocess.Popen(proxy_command(to, of), stdout=subprocess.DEVNULL) as process:
        yield to, of
        process.kill()


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
    make_flyer: Callable[..., BusyFlyer],
    controller: Callable[..., None],
    run_engine: RunEngine,
    documents: Documents,
) -> None:
    publish = Publisher(proxy[0], serializer=packed)
    request.addfinalizer(publish.close)
    says_hello(publish, listener)
    run_engine.subscribe(publish)
    controller(npts=200, duration=0.1)
    run_engine(bp.fly([make_flyer(layout=layout, page_size=60)]))
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
def test_another_process_hears_it_all_by_kafka(
    layout: str,
    kafka: str,
    make_flyer: Callable[..., BusyFlyer],
    controller: Callable[..., None],
    run_engine: RunEngine,
    documents: Documents,
) -> None:
    bluesky_kafka = pytest.importorskip("bluesky_kafka")
    quiet = {"log_level": 0}  # the broker goes before it
    run_engine.subscribe(bluesky_kafka.Publisher(layout, kafka, "ifly", quiet, flush_on_stop_doc=True))
    controller(npts=200, duration=0.1)
    run_engine(bp.fly([make_flyer(layout=layout, page_size=60)]))
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
    run_engine.subscribe(lambda name, page: sizes.append(len(packed(page))), "event_page")
    controller(npts=256, duration=0.1)
    flyer = make_flyer()
    run_engine(bp.fly([flyer]))
    (size,) = sizes
    assert size / 256 * flyer.page_size < MOST_BYTES
