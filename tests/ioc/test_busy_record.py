"""The record type busy of the embedded IOC, row by row, against what the synApps record does."""

from __future__ import annotations

import pytest

from busy_callback_flyer.ioc import IOCError
from busy_callback_flyer.ioc.busy_record import busy_definition

from .client import RemoteClient

EPICS_EPOCH = 631152000  # 1990, in seconds of 1970
INVALID = 3


def test_it_is_a_busy_record(client: RemoteClient) -> None:
    assert client.get("t:plain.RTYP") == "busy"
    assert client.choices("t:plain") == ("Done", "Busy")
    assert client.choices("t:named") == ("Fly", "Taxi")


def test_after_boot_it_is_done_invalid_and_of_1990(client: RemoteClient) -> None:
    assert client.state("t:mytaxi") == (0, INVALID, EPICS_EPOCH)
    client.watch("t:mytaxi")
    client.put("t:mytaxi", 0)
    assert client.events("t:mytaxi") == [0]  # the alarm changed
    assert client.state("t:mytaxi")[:2] == (0, 0)


def test_put_callback_is_held_until_anybody_writes_done(client: RemoteClient, other_client: RemoteClient) -> None:
    client.put("t:plain", 0)
    client.watch("t:plain")
    client.put_callback("t:plain", 1)
    client.wait_for_events("t:plain", [1])
    assert not client.returned("t:plain")
    other_client.put("t:plain", 0)
    client.wait_until_returned("t:plain")
    assert client.events("t:plain") == [1, 0]


def test_put_callback_of_zero_returns_at_once(client: RemoteClient) -> None:
    client.put("t:plain", 0)
    client.put_and_wait("t:plain", 0)


def test_put_callback_of_another_client_is_queued_and_flies_again(
    client: RemoteClient, other_client: RemoteClient
) -> None:
    client.put("t:plain", 0)
    client.watch("t:plain")
    client.put_callback("t:plain", 1)
    client.wait_for_events("t:plain", [1])
    other_client.put_callback("t:plain", 1)
    assert not other_client.returned("t:plain")
    client.put("t:plain", 0)
    client.wait_until_returned("t:plain")
    client.wait_for_events("t:plain", [1, 0, 1])
    assert not other_client.returned("t:plain")
    client.put("t:plain", 0)
    other_client.wait_until_returned("t:plain")
    assert client.events("t:plain") == [1, 0, 1, 0]


def test_put_callback_of_zero_by_another_client_waits_for_done(
    client: RemoteClient, other_client: RemoteClient
) -> None:
    client.put("t:plain", 0)
    client.watch("t:plain")
    client.put_callback("t:plain", 1)
    client.wait_for_events("t:plain", [1])
    other_client.put_callback("t:plain", 0)
    assert not other_client.returned("t:plain")
    assert client.events("t:plain") == [1]
    client.put("t:plain", 0)
    client.wait_until_returned("t:plain")
    other_client.wait_until_returned("t:plain")


def test_writing_what_it_is_posts_nothing_but_processes(client: RemoteClient) -> None:
    client.put_and_wait("t:traced", 0)
    client.put_and_wait("t:out_history.RES", 1)
    runs = client.get("t:forward_runs")
    client.watch("t:traced")
    for value in (1, 1, 0, 0):
        client.put("t:traced", value)
    assert client.events("t:traced") == [1, 0]
    assert client.get_array("t:out_history") == [1, 1, 0, 0]  # OUT is written at each
    assert client.get("t:forward_runs") == runs + 2  # FLNK runs at zero only


@pytest.mark.parametrize(
    ("busy", "started"), [("t:traced", "t:out_history"), ("t:raw", "t:raw_chain")], ids=["soft", "raw"]
)
def test_what_out_starts_is_stamped_before_the_record_is(busy: str, started: str, client: RemoteClient) -> None:
    client.put(busy, 0)
    client.watch(busy)
    for value in (1, 0):
        client.put(busy, value)
        event = client.stamp_of_event(busy)
        assert EPICS_EPOCH < client.state(started)[2] <= event == client.state(busy)[2]
    assert client.events(busy) == [1, 0]


def test_a_record_whose_time_is_its_devices_is_not_stamped(client: RemoteClient) -> None:
    client.put("t:still", 0)
    client.watch("t:still")
    client.put("t:still", 1)
    assert client.stamp_of_event("t:still") == EPICS_EPOCH
    assert client.get("t:still_out") == 1
    assert client.state("t:still_out")[2] > EPICS_EPOCH


def test_forward_link_does_not_run_at_busy(client: RemoteClient) -> None:
    client.put_and_wait("t:traced", 0)
    runs = client.get("t:forward_runs")
    client.put_callback("t:traced", 1)
    assert not client.returned("t:traced")
    assert client.get("t:forward_runs") == runs
    client.put("t:traced", 0)
    client.wait_until_returned("t:traced")
    assert client.get("t:forward_runs") == runs + 1


def test_high_ends_it(client: RemoteClient) -> None:
    client.put("t:high", 0)
    client.watch("t:high")
    client.put_and_wait("t:high", 1)
    assert client.events("t:high") == [1, 0]


def test_put_callback_waits_for_what_out_started(client: RemoteClient) -> None:
    ends = client.get("t:slow_end")
    client.put_callback("t:outlasted", 1)
    client.put("t:outlasted", 0)
    client.wait_until_returned("t:outlasted")
    assert client.get("t:slow_end") > ends


def test_reset_within_its_own_processing_posts_nothing(client: RemoteClient) -> None:
    client.put("t:inward", 0)
    client.watch("t:inward")
    client.put_and_wait("t:inward", 1)
    assert client.events("t:inward") == []
    assert client.get("t:inward") == 0


def test_disabled_it_stays_busy_and_the_put_callback_returns(client: RemoteClient) -> None:
    client.put("t:disabled", 0)
    client.put("t:disabled.DISV", 1)
    client.watch("t:disabled")
    client.put_and_wait("t:disabled", 1)
    assert client.get("t:disabled") == 1
    client.put("t:disabled.DISV", 0)
    client.put("t:disabled", 0)


def test_closed_loop_takes_the_value_of_dol(client: RemoteClient) -> None:
    client.put("t:demand", 0)
    client.put_and_wait("t:closed_loop", 1)  # returns: it was Done all the same
    assert client.get("t:closed_loop") == 0


def test_get_of_an_array_returns_as_many_elements_as_were_put(client: RemoteClient) -> None:
    client.put_and_wait("t:x_array", [1.0, 2.0, 3.0])
    assert client.get_array("t:x_array") == [1.0, 2.0, 3.0]
    assert client.get("t:x_array.NORD") == 3


def test_zero_length_flights_in_numbers(client: RemoteClient, other_client: RemoteClient) -> None:
    client.put("t:plain", 0)
    client.watch("t:plain")
    flights = 50
    for flight in range(1, flights + 1):
        client.put_callback("t:plain", 1)
        client.wait_for_events("t:plain", [1, 0] * (flight - 1) + [1])
        other_client.put("t:plain", 0)
        client.wait_until_returned("t:plain")
        client.wait_for_events("t:plain", [1, 0] * flight)


def test_a_bo_that_is_defined_otherwise_is_refused() -> None:
    with pytest.raises(IOCError, match="not defined in the way"):
        busy_definition("recordtype(ao) {}")
