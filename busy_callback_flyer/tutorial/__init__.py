"""A flyer for a busy record, built in five steps: modules to be read in this order, and to be run.

1. `step1_bare_minimum`: the least that the RunEngine takes for a flyer.
2. `step2_template`: something goes on in flight, and a callback tells of its end.
3. `step3_trivial_data`: one number is collected.
4. `step4_array_data`: an array is collected, a point at its own time.
5. `step5_working_flyer`: a busy record and the controller's arrays, by callback and by polling.

``python -m busy_callback_flyer.tutorial`` walks through them. The first four need no EPICS; for the
last one it brings up the embedded IOC. At a prompt, the same::

    from bluesky import RunEngine
    from busy_callback_flyer.tutorial import step2_template
    step2_template.demonstrate(RunEngine())
"""

from __future__ import annotations

__all__ = ["STEPS"]

STEPS = (
    "step1_bare_minimum",
    "step2_template",
    "step3_trivial_data",
    "step4_array_data",
    "step5_working_flyer",
)
