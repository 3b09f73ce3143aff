// Functions that bend a denoiser: denoiser → denoiser, so that no sampler knows about guidance.   Beside: ddpm_tutorial/guidance.py
//
// [1] Ho, Salimans. Classifier-Free Diffusion Guidance. arXiv:2207.12598
// [2] Kynkäänniemi et al. Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models. arXiv:2404.07724
// [3] Lugmayr et al. RePaint: Inpainting using Denoising Diffusion Probabilistic Models. arXiv:2201.09865
"use strict";

room(lab => {
  const {eps_from_x0, x0_from_eps} = lab;

  // [1] eq. 6 with scale = 1 + w:  ε̂ = ε_∅ + scale·(ε_y - ε_∅).   0 unconditional, 1 conditional, > 1 guided.   Scale 0 or 1 is the one denoiser and costs
  // one call.
  // By Bayes' rule for scores, ε_y - ε_∅ is the gradient of a classifier that nobody trained; scale times it makes y count `scale` times.
  function classifier_free(cond, uncond, scale) {
    if (scale === 0 || scale === 1) return scale ? cond : uncond;
    return (x_t, t) => {
      const eps_y = cond(x_t, t), eps_null = uncond(x_t, t);
      return eps_null.map((e, i) => e + scale * (eps_y[i] - e));
    };
  }

  // [2]: one denoiser at the times low ≤ t ≤ high, another at all others.
  function within(inside, outside, low, high) {
    return (x_t, t) => (low <= t && t <= high ? inside : outside)(x_t, t);
  }

  // Keep x̂_0 where images live:  ε → x̂_0 → clamp → ε.   ε is formed anew from the clamped x̂_0: the old ε would leave a pair that no longer explains x_t.
  function clipped(denoiser, schedule, low = -1, high = 1) {
    return through_x0(denoiser, schedule, x => Math.min(Math.max(x, low), high));
  }

  // Some pixels are known:  ε → x̂_0 → the known ones are put in → ε.   The network sees them in x_t, in noise, and makes the rest fit.
  // Not the exact conditional, which would also weigh each x̂_0 by how well it predicts what is known; [3] walks to and fro to mend that.
  function known(denoiser, schedule, x_0, mask) {
    return through_x0(denoiser, schedule, (x, i) => mask[i] ? x_0[i] : x);
  }

  function through_x0(denoiser, schedule, change) {
    return (x_t, t) => eps_from_x0(schedule, x_t, x0_from_eps(schedule, x_t, denoiser(x_t, t), t).map(change), t);
  }

  Object.assign(lab, {classifier_free, clipped, known, within});
});
