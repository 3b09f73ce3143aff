"""The workshop: how a model gets its weights.

Read `loop.py` first: Algorithm 1 of the DDPM paper at one glance.  Then, as far as you are curious: `draws.py` says what is random in a step, and makes
it a function of the step's number; `gradient.py` computes the gradient of a batch in micro-batches, in half precision, in several processes;
`state.py` has the settings and what a run remembers; `pace.py` turns seconds into steps; `devices.py` says where it runs and in what precision.
Around the loop, `run.py` adds a progress bar, a log and Ctrl-C, `checkpoint.py` puts a run on disk and takes it up again, and `recipes.py` has what
each data set is trained with.
"""

from .checkpoint import resume, save
from .devices import best_precision, device, gathered, processes
from .draws import draw
from .loop import Progress, TrainConfig, TrainState, learning_rate, train
from .recipes import RECIPES, recipe

__all__ = ["RECIPES", "Progress", "TrainConfig", "TrainState", "best_precision", "device", "draw", "gathered", "learning_rate", "processes",
           "recipe", "resume", "save", "train"]
