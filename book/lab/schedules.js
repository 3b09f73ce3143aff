// The noise schedule: how much of the data is left at time t.   Beside: ddpm_tutorial/schedules.py
//
// [1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. arXiv:2006.11239
// [2] Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. arXiv:2102.09672
// [3] Jabri, Fleet, Chen. Scalable Adaptive Computation for Iterative Generation. arXiv:2212.11972
// [4] Rombach et al. High-Resolution Image Synthesis with Latent Diffusion Models. arXiv:2112.10752
// [5] Lipman et al. Flow Matching for Generative Modeling. arXiv:2210.02747
//
// Diffusion destroys an image a little at a time: at every step some of the signal is taken away, and as much noise is mixed in, so that the variance stays 1.
//
//     x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε,         1 = ᾱ_0  >  ᾱ_1  >  …  >  ᾱ_T ≈ 0
//
// t = 0 is the data and t = 1 … T are noisy images; so every table has T+1 entries, and ᾱ_0 = 1 is one of them.
// Numbers of JavaScript are float64 already: nothing here needs a second look at rounding.
"use strict";

room(lab => {
  const BETA_MAX = 0.999;     // [2] section 3.2: β_t = 1 would be a division by √ᾱ_t = 0
  const SIGNAL_MAX = 0.05;    // sampling starts from N(0, I); with more signal than this left at T it starts from the wrong place

  // A diffusion is one decreasing sequence  1 = ᾱ_0 > ᾱ_1 > … > ᾱ_T ≈ 0.
  class Schedule {
    constructor(alpha_bar) {
      this.alpha_bar = Float64Array.from(alpha_bar);            // (T+1,); index t is the paper's t
      if (this.alpha_bar[0] !== 1) throw new RangeError(`alpha_bar[0] is ${this.alpha_bar[0]}; it must be exactly 1, because t = 0 is the data`);
      for (let t = 1; t < this.alpha_bar.length; t++)
        if (!(this.alpha_bar[t] < this.alpha_bar[t - 1] && this.alpha_bar[t] > 0))
          throw new RangeError(`alpha_bar must fall strictly and stay positive; at t = ${t} it is ${this.alpha_bar[t]}`);
    }

    get T() { return this.alpha_bar.length - 1; }

    // β_t = 1 - ᾱ_t/ᾱ_{t-1}, the variance of the noise added between t-1 and t; β_0 = 0.
    get beta() { return this.alpha_bar.map((a, t) => t ? 1 - a / this.alpha_bar[t - 1] : 0); }

    // The signal-to-noise ratio ᾱ_t / (1-ᾱ_t); infinite at t = 0.  In dB: 10·log10.
    get snr() { return this.alpha_bar.map(a => a / (1 - a)); }

    // λ_t = log(ᾱ_t / (1-ᾱ_t)).
    get log_snr() { return this.snr.map(Math.log); }

    at(t) {
      if (!(Number.isInteger(t) && t >= 0 && t <= this.T)) throw new RangeError(`t is ${t}; it must be an integer in 0 … T = ${this.T}, where 0 is the data`);
      return this.alpha_bar[t];
    }

    // √ᾱ_t, what multiplies x_0 in x_t; and √(1-ᾱ_t), what multiplies ε.  Their squares add up to 1: the mixture keeps the variance of the data.
    signal(t) { return Math.sqrt(this.at(t)); }
    noise(t) { return Math.sqrt(1 - this.at(t)); }

    // Is pure noise the right place to start from?
    get ends_in_noise() { return this.signal(this.T) <= SIGNAL_MAX; }
  }

  // [1] above eq. 4:  ᾱ_t = ∏_{s≤t} (1 - β_s), with ᾱ_0 = 1 in front.   beta: β_1 … β_T.
  // A step multiplies the power of the signal by 1-β, and t steps by the product; the noises are independent, so their variances add up to the rest, 1-ᾱ_t.
  function from_betas(beta) {
    const alpha_bar = [1];
    for (const b of beta) alpha_bar.push(alpha_bar[alpha_bar.length - 1] * (1 - b));
    return new Schedule(alpha_bar);
  }

  // [1] section 4:  β_t linear from 1e-4 to 0.02 at T = 1000; other T rescale β by 1000/T, so that every T ends in noise.
  // The same β in 50 steps leave 78 % of the signal's amplitude at the end, while sampling starts from pure noise: switch `rescale` off and see.
  function linear(T = 1000, beta_1 = 1e-4, beta_T = 0.02) {
    return from_betas(line(beta_1, beta_T, T).map(b => Math.min(b * (1000 / T), BETA_MAX)));
  }

  // √β_t linear, the "scaled linear" schedule of the code of [4].
  function quadratic(T = 1000, beta_1 = 1e-4, beta_T = 0.02) {
    return from_betas(line(Math.sqrt(beta_1), Math.sqrt(beta_T), T).map(r => Math.min(r * r * (1000 / T), BETA_MAX)));
  }

  // [2] eq. 17:  ᾱ_t = f(t)/f(0),  f(t) = cos²((t/T + s)/(1 + s) · π/2).   The small s keeps the first steps from adding almost nothing.
  function cosine(T = 1000, s = 0.008) {
    return from_curve(times(T).map(u => Math.cos((u + s) / (1 + s) * Math.PI / 2) ** 2));
  }

  // [3]:  ᾱ_t falls from 1 to 0 along a sigmoid between start and end; a larger τ makes the middle gentler.
  function sigmoid(T = 1000, start = -3, end = 3, tau = 1) {
    const curve = times(T).map(u => 1 / (1 + Math.exp((start + (end - start) * u) / tau)));
    return from_curve(curve.map(c => c - curve[T]));
  }

  // Flow matching as a schedule: the straight path (1-u) x_0 + u ε, u = t/T ([5]), scaled to variance 1.   A path is known by its signal-to-noise ratio,
  // here ((1-u)/u)².
  function flow(T = 1000) {
    return from_curve(times(T).map(u => (1 - u) ** 2 / ((1 - u) ** 2 + u ** 2)));
  }

  const SCHEDULES = {linear, cosine, sigmoid, quadratic, flow};
  const by_name = (name, T = 1000) => SCHEDULES[name](T);

  const times = T => Array.from({length: T + 1}, (_, t) => t / T);                        // 0, 1/T, …, 1
  const line = (first, last, T) => Array.from({length: T}, (_, i) => T === 1 ? last : first + (last - first) * i / (T - 1));

  // ᾱ is built again from the capped β, so that the two never disagree.
  const from_curve = curve => from_betas(curve.slice(1).map((c, i) => Math.min(1 - c / curve[i], BETA_MAX)));

  Object.assign(lab, {Schedule, SCHEDULES, SIGNAL_MAX, by_name, cosine, flow, from_betas, linear, quadratic, sigmoid});
});
