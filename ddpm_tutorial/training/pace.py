"""How long a run is: seconds become a number of steps, once."""

import time
from dataclasses import replace

import torch

from .devices import gathered
from .state import TrainState

CALIBRATION = range(10, 40)                                     # the steps that are timed; the first few of a process are slow


class Pace:
    """Watches the first steps of a run that was given seconds, and then stores how many steps they are.

    From then on the clock has no say: the learning rate, and with it the whole run, is a function of the step, so it can be resumed elsewhere.
    """

    def __init__(self, state: TrainState):
        self.state = state
        self.began: tuple[int, float] | None = None             # a step, and when it was done

    def watch(self) -> None:
        """Call it after each step."""
        state, step = self.state, self.state.step
        if state.config.steps is not None:
            return
        if self.began is None:
            if step > CALIBRATION.start:
                self.began = step, time.perf_counter()
        elif step - self.began[0] >= len(CALIBRATION):
            speed = (step - self.began[0]) / (time.perf_counter() - self.began[1])          # steps per second
            steps = torch.tensor([max(step, round(state.config.seconds * speed))], device=state.model.device)
            state.config = replace(state.config, steps=int(gathered(steps)[0]))             # the first process's clock, for all
