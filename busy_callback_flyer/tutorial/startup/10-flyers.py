"""The flyers. Nothing waits here for an IOC: a profile starts without it, and a kickoff tells what is missing."""

from busy_callback_flyer import BusyFlyer
from busy_callback_flyer.plans import fly, recover  # noqa: F401 - for the prompt

ifly = BusyFlyer("prj:", name="ifly", labels={"flyers"}, flight_timeout=600)
