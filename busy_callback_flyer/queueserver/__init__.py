"""A queue server to copy: what `start-re-manager` takes, and what files its runs in Tiled from behind the bus.

``config.yml`` has the addresses, all of them on loopback; ``startup/`` a RunEngine, a flyer, a plan, and who may run
what; ``bus_to_tiled.py`` is a process of its own.
"""
