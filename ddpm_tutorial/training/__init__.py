"""The workshop: how a model gets its weights.

Read `loop.py` first: Algorithm 1 of the DDPM paper at one glance.  `draws.py` says what is random in a step, and makes it a function of the
step's number; `devices.py` says where it runs and in what precision.  `checkpoint.py` puts a run on disk and takes it up again, `run.py` adds a
progress bar, a log and Ctrl-C, and `recipes.py` has what each data set is trained with.
"""

from .checkpoint import resume, save
from .devices import best_precision, device, gathered, processes
from .draws import draw
from .loop import Progress, TrainConfig, TrainState, learning_rate, train
from .recipes import RECIPES, recipe

__all__ = ["RECIPES", "Progress", "TrainConfig", "TrainState", "best_precision", "device", "draw", "gathered", "learning_rate", "processes", "recipe", "resume",
           "save", "train"]
