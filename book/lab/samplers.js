// Three steps (DDPM's, DDIM's, and one of second order), and the one loop that walks them.   Beside: ddpm_tutorial/samplers.py
//
// [1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. arXiv:2006.11239
// [2] Song, Meng, Ermon. Denoising Diffusion Implicit Models. arXiv:2010.02502  (its α_t is our ᾱ_t)
// [3] Lu et al. DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models. arXiv:2211.01095
//
// Standing at x_t, ask the denoiser for the noise in it, ε̂; then you also have its idea of the data, x̂_0.   A step uses the two to go from t to some s,
// both named:
// s = t-1 is DDPM's chain, a sub-sequence is DDIM's short walk, s > t is inversion.  Nobody computes a "previous timestep" from a stride.
"use strict";

room(lab => {
  const {eps_from_x0, q_posterior, x0_from_eps} = lab;

  // The times T = τ_S > … > τ_0 = 0 of a walk in S even steps, for any 1 ≤ S ≤ T.   i·T/S rounded, in integers: floats would repeat or skip a time.
  function timesteps(T, steps = T) {
    const S = steps;
    return Array.from({length: S + 1}, (_, k) => Math.floor((2 * (S - k) * T + S) / (2 * S)));
  }

  // The times of a walk in S steps that are even in log SNR: so it visits the same noise levels under every schedule.   Beyond ±8 there is nothing to do,
  // 2 % of the amplitude is signal there, or noise; the even part lies within, T stands before it and 0 behind.
  function timesteps_in_log_snr(schedule, steps) {
    const {T, log_snr} = schedule, S = steps, clamp = v => Math.min(Math.max(v, -8), 8), first = clamp(log_snr[T]), last = clamp(log_snr[1]);
    if (S === 1) return [T, 0];                                                         // one step has no even part
    const times = [T];
    for (let k = 1; k < S; k++) {
      const wanted = first + (last - first) * k / (S - 1);
      let t = T;
      while (t > 1 && Math.abs(log_snr[t - 1] - wanted) <= Math.abs(log_snr[t] - wanted)) t--;
      times.push(Math.max(Math.min(t, times[k - 1] - 1), S - k));                       // no time twice, and room for those that follow
    }
    return [...times, 0];
  }

  // [1] Algorithm 2, lines 3-4:  x_s = mean of q(x_s | x_t, x̂_0) + σ z,  s < t.
  // x̂_0 is an average over all data that may lie behind x_t, so the mean is right, but a walk of means would end in a blur: the noise z is what makes it
  // choose.
  // variance: "small" is σ² = β̃_t, right if the data were a single point; "large" is σ² = β_t, right if they were N(0, I).  The last step, s = 0, has σ = 0.
  function ddpm_step(schedule, x_t, eps, t, s, z = null, variance = "small") {
    const x_0 = x0_from_eps(schedule, x_t, eps, t);
    const [mean, small] = q_posterior(schedule, x_t, x_0, t, s);
    if (s === 0) return mean;
    const sigma = Math.sqrt(variance === "small" ? small : 1 - schedule.at(t) / schedule.at(s));
    return mean.map((m, i) => m + sigma * z[i]);
  }

  // [2] eq. 12:  x_s = √ᾱ_s x̂_0 + √(1-ᾱ_s-σ²) ε + σ z  with  σ² = η² β̃  ([2] eq. 16).
  // x_s must be data, √ᾱ_s of it, plus noise of variance 1-ᾱ_s; which noise, nobody says: the ε̂ that was just found (η = 0), new z, or some of each.
  // η = 0 draws nothing and may also go up (s > t), which is inversion; η = 1 is DDPM's "small" step.
  function ddim_step(schedule, x_t, eps, t, s, z = null, eta = 0) {
    const x_0 = x0_from_eps(schedule, x_t, eps, t);
    const alpha_bar_t = schedule.at(t), alpha_bar_s = schedule.at(s), signal = schedule.signal(s);
    if (eta === 0 || s === 0) return x_0.map((x, i) => signal * x + schedule.noise(s) * eps[i]);
    const fresh = eta ** 2 * (1 - alpha_bar_t / alpha_bar_s) / (1 - alpha_bar_t);       // the share of the noise in x_s that is drawn anew: σ² = fresh·(1-ᾱ_s)
    const kept = Math.sqrt((1 - alpha_bar_s) * (1 - fresh));                            // = √(1-ᾱ_s-σ²); this form cannot round to a negative number
    const sigma = Math.sqrt((1 - alpha_bar_s) * fresh);
    return x_0.map((x, i) => signal * x + kept * eps[i] + sigma * z[i]);
  }

  // [3] DPM-Solver++(2M): DDIM's step, with x̂_0 carried on along its own last change, as a straight line in λ = ½ log SNR.
  // It remembers one x̂_0, so each walk needs a new one.  The first step has no memory and the last (s = 0, λ infinite) no line: both are plain DDIM.
  function dpm_solver_2m() {
    let last = null;
    return (schedule, x_t, eps, t, s) => {
      const x_0 = x0_from_eps(schedule, x_t, eps, t);
      let D = x_0;
      if (last && s > 0) {
        const lambda = u => 0.5 * Math.log(schedule.at(u) / (1 - schedule.at(u)));
        const r = (lambda(t) - lambda(last.t)) / (lambda(s) - lambda(t));               // the last step, measured in this one's length
        const before = last.x_0;
        D = x_0.map((x, i) => x + (x - before[i]) / (2 * r));
      }
      last = {t, x_0};
      return ddim_step(schedule, x_t, eps_from_x0(schedule, x_t, D, t), t, s);          // ε is formed anew, so that D and ε explain x_t together
    };
  }

  // Walk along the times and yield each State {t, x_t, x_0} before it is left, and the last one at the end.   x_0 is what the denoiser believes, seen from
  // this x_t.
  function* sample(denoiser, schedule, x, step, times, noise = null) {
    step = step || ddim_step;
    for (let k = 0; k + 1 < times.length; k++) {
      const t = times[k], s = times[k + 1];
      const eps = denoiser(x, Math.max(t, 1));                                          // no denoiser is trained at t = 0, where inversion begins
      yield {t, x_t: x, x_0: x0_from_eps(schedule, x, eps, t)};
      x = step(schedule, x, eps, t, s, noise && t > s && s > 0 ? noise(t) : null);
    }
    const s = times[times.length - 1];
    yield {t: s, x_t: x, x_0: s === 0 ? x : x0_from_eps(schedule, x, denoiser(x, s), s)};
  }

  // DDIM inversion: the deterministic walk from the data up to x_T ([2] section 4.3, eq. 14 backwards).
  function invert(denoiser, schedule, x_0, steps) {
    return sample(denoiser, schedule, x_0, ddim_step, timesteps(schedule.T, steps).reverse());
  }

  // Walk to the end: the last x_t.
  function final(states) {
    let x;
    for (const state of states) x = state.x_t;
    return x;
  }

  // noise(t) → the next z for points (or images) number `indices`, each of `size` numbers.   Every index has its own stream, keyed by (seed, index): point
  // 7 is the
  // same in a cloud of ten and in one of a thousand.  These are not the Python's numbers (numpy's Philox and ziggurat): the same seed gives another picture
  // there.
  function seeded_noise(seed, indices, size) {
    const streams = indices.map(i => gaussian(seed, i));
    return () => {
      const z = new Float64Array(indices.length * size);
      streams.forEach((draw, b) => { for (let d = 0; d < size; d++) z[b * size + d] = draw(); });
      return z;
    };
  }

  // N(0, 1) numbers by Box and Muller's rule from 32-bit counters that are stirred well (Steele, Lea, Flood: SplitMix; the constants of MurmurHash3's
  // finaliser).
  function gaussian(seed, index) {
    let counter = stir(stir(seed >>> 0) + 0x9E3779B9 * (index + 1) >>> 0), spare = null;
    const uniform = () => (stir(counter = counter + 0x9E3779B9 >>> 0) + 0.5) / 4294967296;       // never 0, never 1
    return () => {
      if (spare !== null) { const z = spare; spare = null; return z; }
      const r = Math.sqrt(-2 * Math.log(uniform())), angle = 2 * Math.PI * uniform();
      spare = r * Math.sin(angle);
      return r * Math.cos(angle);
    };
  }

  function stir(h) {
    h = Math.imul(h ^ h >>> 16, 0x85EBCA6B);
    h = Math.imul(h ^ h >>> 13, 0xC2B2AE35);
    return (h ^ h >>> 16) >>> 0;
  }

  Object.assign(lab, {ddim_step, ddpm_step, dpm_solver_2m, final, invert, sample, seeded_noise, timesteps, timesteps_in_log_snr});
});
