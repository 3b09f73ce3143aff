// The Gaussian algebra between x_0, x_t, ε and v.   Beside: ddpm_tutorial/forward.py
//
// [1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. arXiv:2006.11239
// [2] Salimans, Ho. Progressive Distillation for Fast Sampling of Diffusion Models. arXiv:2202.00512
//
// x_0, x_t, eps are flat typed arrays: B points or B images one after the other.  All of them are at the same time t, an integer.
// A denoiser is a function  eps = denoiser(x_t, t).
"use strict";

room(lab => {
  // [1] eq. 4:  x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε.
  // The noises of all steps are independent, so one ε stands for all of them: any t is one line away, and training needs no walk.
  function q_sample(schedule, x_0, eps, t) {
    const signal = schedule.signal(t), noise = schedule.noise(t);
    return x_0.map((x, i) => signal * x + noise * eps[i]);
  }

  // [1] eq. 2, from any s < t:  x_t = √α x_s + √(1-α) ε  with  α = ᾱ_t/ᾱ_s.   One step of the walk that q_sample skips.
  function q_step(schedule, x_s, eps, t, s) {
    const alpha = ratio(schedule, t, s), kept = Math.sqrt(alpha), fresh = Math.sqrt(1 - alpha);
    return x_s.map((x, i) => kept * x + fresh * eps[i]);
  }

  // [1] eqs. 6-7, for any s < t: mean and variance of q(x_s | x_t, x_0).
  // We stand at x_t, somebody tells us x_0: where were we at time s?   Two witnesses.  x_0 says: around √ᾱ_s x_0, with variance 1-ᾱ_s.  x_t says: around
  // x_t/√α, with
  // variance β/α.  Precisions add, and the mean is both opinions weighted by theirs.
  function q_posterior(schedule, x_t, x_0, t, s) {
    const alpha = ratio(schedule, t, s), beta = 1 - alpha;                              // α_t and β_t when s = t-1
    const alpha_bar_t = schedule.at(t), alpha_bar_s = schedule.at(s);
    const c_0 = Math.sqrt(alpha_bar_s) * beta / (1 - alpha_bar_t);
    const c_t = Math.sqrt(alpha) * (1 - alpha_bar_s) / (1 - alpha_bar_t);
    const mean = x_t.map((x, i) => c_0 * x_0[i] + c_t * x);
    return [mean, (1 - alpha_bar_s) / (1 - alpha_bar_t) * beta];                        // s = 0 gives exactly (x_0, 0): no special case
  }

  // [1] eq. 15, which is eq. 4 solved for x_0:  x̂_0 = (x_t - √(1-ᾱ_t) ε) / √ᾱ_t.   Near T it divides by almost nothing, and makes every error in ε large.
  function x0_from_eps(schedule, x_t, eps, t) {
    const signal = schedule.signal(t), noise = schedule.noise(t);
    return x_t.map((x, i) => (x - noise * eps[i]) / signal);
  }

  // [1] eq. 4 solved for ε, for t ≥ 1.
  function eps_from_x0(schedule, x_t, x_0, t) {
    const signal = schedule.signal(t), noise = schedule.noise(t);
    if (noise === 0) throw new RangeError("t is 0; there is no noise to name, a denoiser is asked at 1 ≤ t ≤ T");
    return x_t.map((x, i) => (x - signal * x_0[i]) / noise);
  }

  // Read a network's output as ε, whatever it was trained to predict.   Two equations with two unknowns: x_t = a x_0 + b ε with a = √ᾱ_t, b = √(1-ᾱ_t), and
  // v = a ε - b x_0 ([2] section 4), so a v + b x_t = (a² + b²) ε = ε;   or the velocity u = ε - x_0, so x_t + a u = (a + b) ε.
  function to_eps(schedule, x_t, out, t, predict = "eps") {
    const a = schedule.signal(t), b = schedule.noise(t);
    switch (predict) {
      case "eps":      return out;
      case "x0":       return eps_from_x0(schedule, x_t, out, t);
      case "v":        return x_t.map((x, i) => a * out[i] + b * x);
      case "velocity": return x_t.map((x, i) => (x + a * out[i]) / (a + b));
    }
  }

  // A network as a denoiser.  y: one label for each image of the batch.
  function denoiser(net, schedule, y, predict = "eps") {
    return (x_t, t) => to_eps(schedule, x_t, net.forward(x_t, t, y), t, predict);
  }

  // The score ∇ log q_t(x_t) = -ε̂ / √(1-ᾱ_t): the direction in which the noisy data get denser.  The arrows of the cloud are this.
  function score(denoiser, schedule) {
    return (x_t, t) => denoiser(x_t, t).map(e => -e / schedule.noise(t));
  }

  // α = ᾱ_t/ᾱ_s for s < t.
  function ratio(schedule, t, s) {
    if (!(s < t)) throw new RangeError(`s = ${s} is not before t = ${t}: this needs 0 ≤ s < t ≤ T`);
    return schedule.at(t) / schedule.at(s);
  }

  Object.assign(lab, {denoiser, eps_from_x0, q_posterior, q_sample, q_step, score, to_eps, x0_from_eps});
});
