"""Denoising diffusion, written to be read.

    schedule = cosine(T=1000)
    guided = clipped(classifier_free(cond, uncond, scale=2.0), schedule)
    x_0 = final(sample(guided, schedule, x_T, steps=50))

Start with schedules.py, then forward.py, samplers.py and guidance.py: they are the subject.  The notebooks walk through them in this order.
"""

from .ddpm import DDPM, DDPMConfig, drop_labels, loss
from .exact import Mixture, dataset_denoiser, ring, spiral
from .forward import Denoiser, denoiser, eps_from_x0, q_posterior, q_sample, q_step, score, target, to_eps, x0_from_eps
from .guidance import classifier, classifier_free, clipped, known, within
from .samplers import State, ddim_step, ddpm_step, dpm_solver_2m, final, invert, sample, seeded_noise, slerp, timesteps, timesteps_in_log_snr
from .schedules import Schedule, cosine, flow, from_betas, linear, quadratic, sigmoid
from .training.checkpoint import resume, save
from .training.loop import TrainConfig, TrainState, train
from .unet import MLP, UNet, UNetConfig, timestep_embedding

__version__ = "0.1.0"

__all__ = [
    "DDPM", "MLP", "DDPMConfig", "Denoiser", "Mixture", "Schedule", "State", "TrainConfig", "TrainState", "UNet", "UNetConfig",
    "classifier", "classifier_free", "clipped", "cosine", "dataset_denoiser", "ddim_step", "ddpm_step", "denoiser", "dpm_solver_2m", "drop_labels",
    "eps_from_x0", "final", "flow", "from_betas", "invert", "known", "linear", "loss", "q_posterior", "q_sample", "q_step", "quadratic", "resume",
    "ring", "sample", "save", "score", "seeded_noise", "sigmoid", "slerp", "spiral", "target", "timestep_embedding", "timesteps",
    "timesteps_in_log_snr", "to_eps", "train", "within", "x0_from_eps",
]
