// Bugs that have been in public code, some for years, beside the healthy part, and the number that tells them apart.   Beside: exercise 07, the bug clinic.
//
// Every walk of the clinic is put together from parts, so that a bug is one part changed.  Each patient has
//   name       as in the register of the exercise
//   test       the sentence that is true of the healthy part, and not of this one
//   film       which walk shows it: digits from the network, or a cloud with its exact denoiser
//   measure    part → a number;  wanted says which numbers are healthy, in words, and holds decides
// Five more bugs of the exercise are bugs of *training*: their films would need a training run, so they stay there.
"use strict";

room(lab => {
  const {Mixture, cosine, ddim_step, ddpm_step, eps_from_x0, q_sample, timesteps, x0_from_eps} = lab;
  const clamp = x => Math.min(Math.max(x, -1), 1), T = 1000;

  // ---------------------------------------------------------------------------------------------------------------- the healthy parts

  const HEALTHY = {
    times: timesteps,
    following: (t, times) => times[times.indexOf(t) + 1],
    guide: (eps_y, eps_null, scale) => eps_null.map((e, i) => e + scale * (eps_y[i] - e)),
    keep(schedule, x_t, eps, t) {                               // clip x̂_0, and form ε anew
      const x_0 = x0_from_eps(schedule, x_t, eps, t).map(clamp);
      return [x_0, eps_from_x0(schedule, x_t, x_0, t)];
    },
    // seen: {x_t, x_0, eps, raw}, of which x_0 and eps are what `keep` made of the raw ε.
    step: (schedule, {x_0, eps}, t, s) => x_0.map((x, i) => schedule.signal(s) * x + schedule.noise(s) * eps[i]),     // DDIM, η = 0
    normalise: grey => grey / 127.5 - 1,
    denormalise: x => Math.min(Math.max(Math.round((x + 1) * 127.5), 0), 255),
    // Tables of an ancestral sampler: β_1 … β_T, ᾱ_0 … ᾱ_T, and where the step from t leads, ᾱ_{t-1}.
    tables(schedule) {
      return {beta: schedule.beta.slice(1), alpha_bar: schedule.alpha_bar, leads_to: schedule.alpha_bar.slice(0, -1)};
    },
  };

  // DDPM's step with the large variance, and DDIM's with η = 1: two of the patients are to be compared with these.
  const large_step = (schedule, {x_t, eps}, t, s, z) => ddpm_step(schedule, x_t, eps, t, s, z, "large");
  const noisy_step = (schedule, {x_t, eps}, t, s, z) => ddim_step(schedule, x_t, eps, t, s, z, 1);

  // A digit, made of these parts.   start: {x_t, t}, where the walk begins (by default noise, at the first of the times).
  function* drawn(cond, uncond, schedule, noise, parts = {}, {S = 30, scale = 3, start = null} = {}) {
    const {times, following, guide, keep, step} = {...HEALTHY, ...parts};
    const list = start ? timesteps(start.t, S) : times(T, S);
    let x = start ? start.x_t : noise(T);
    for (const t of list.slice(0, -1)) {
      const s = following(t, list, T);
      const raw = guide(cond(x, t), uncond(x, t), scale), [x_0, eps] = keep(schedule, x, raw, t);
      yield {t, x_t: x, x_0};
      x = step(schedule, {x_t: x, x_0, eps, raw}, t, s, noise(t));
    }
    yield {t: 0, x_t: x, x_0: x};
  }

  // DDPM's Algorithm 2 from tables, as it stands in much public code, on three small clouds with their perfect denoiser; yields 7 states.
  // ε has the error that float32 leaves in any network's answer, one part in 2²⁴: one of the bugs makes a catastrophe of it, which exact numbers would hide.
  const clouds = new Mixture([[0.3, 0.9], [0.9, 0.3], [-0.3, -0.1]], 0.005);

  function* ancestral({beta, alpha_bar, leads_to}, noise) {
    const perfect = clouds.denoiser(new lab.Schedule(alpha_bar)), T = beta.length, shown = timesteps(T, 6);
    let x = noise(T);
    for (let t = T; t > 0; t--) {
      const a_t = alpha_bar[t], a_s = leads_to[t - 1], b = beta[t - 1], z = noise(t), eps = perfect(x, t).map((e, i) => e * (1 + 2 ** -24 * Math.sign(z[i])));
      const x_0 = x.map((v, i) => (v - Math.sqrt(1 - a_t) * eps[i]) / Math.sqrt(a_t));
      if (shown.includes(t)) yield {t, x_t: x, x_0};
      const sigma = t > 1 ? Math.sqrt((1 - a_s) / (1 - a_t) * b) : 0;
      x = x.map((v, i) => (Math.sqrt(a_s) * b * x_0[i] + Math.sqrt(1 - b) * (1 - a_s) * v) / (1 - a_t) + sigma * z[i]);
    }
    yield {t: 0, x_t: x, x_0: x};
  }

  // ---------------------------------------------------------------------------------------------------------------- what the measures probe with

  const greys = Array.from({length: 256}, (_, grey) => grey);
  const one = value => Float64Array.of(value);
  const schedule = cosine(T), t = 600, s = 500;                 // a pair of times somewhere in the middle
  // A step is a·x_t + b·ε + σ·z with numbers a, b, σ: read σ off by sending z = 1 and nothing else.
  const nothing = {x_t: one(0), x_0: one(0), eps: one(0), raw: one(0)};
  const sigma_of = (step, t, s) => step(schedule, nothing, t, s, one(1))[0];

  // ---------------------------------------------------------------------------------------------------------------- the patients

  const PATIENTS = [
    {
      name: "the data are on the wrong scale", test: "black is −1 and white is 1", film: "picture", part: "normalise",
      sick: grey => grey / 255,
      see: "A scanned digit is noised to t = 500 and denoised. The network has only ever seen black as −1: the background it gets is grey, and it must explain "
        + "that away as noise.",
      quantity: "black becomes", measure: f => f(0), wanted: "−1", holds: v => v === -1,
    },
    {
      name: "the decimals are cut off", test: "all 256 grey values survive the way in and out", film: "digits", part: "denormalise",
      sick: x => Math.trunc(Math.min(Math.max((x + 1) * 127.5, 0), 255)),
      see: "Nothing. One grey level in 256 is not to be seen, and so this bug lives long.",
      quantity: "grey values that come back", measure: f => greys.filter(grey => f(Math.fround(Math.fround(grey / 127.5) - 1)) === grey).length,
      wanted: "256", holds: v => v === 256,
    },
    {
      name: "the chain ends with signal", test: "√ᾱ_T is at most 0.05", film: "cloud", part: "tables",
      sick() {
        const alpha_bar = [1], beta = Array.from({length: 50}, (_, i) => 1e-4 + (0.02 - 1e-4) * i / 49);       // T = 50, and nobody rescaled β by 1000/50
        for (const b of beta) alpha_bar.push(alpha_bar[alpha_bar.length - 1] * (1 - b));
        return {beta, alpha_bar, leads_to: alpha_bar.slice(0, -1)};
      },
      see: "The clouds look right. But the walk starts from noise around 0 where the tables expect the data, only somewhat shrunken: too many points end in "
        + "the lowest cloud, and the mean is wrong.",
      quantity: "√ᾱ_T", measure: f => Math.sqrt(f(schedule).alpha_bar.slice(-1)[0]), wanted: "at most 0.05", holds: v => v <= 0.05,
    },
    {
      name: "β and ᾱ tell two stories", test: "ᾱ_t is the product of 1−β_1 … 1−β_t, for every t", film: "cloud", part: "tables",
      sick({alpha_bar: capped}) {
        const f = t => Math.cos((t / T + 0.008) / 1.008 * Math.PI / 2) ** 2, alpha_bar = capped.map((_, t) => f(t) / f(0));
        const beta = Array.from({length: T}, (_, i) => Math.min(1 - alpha_bar[i + 1] / alpha_bar[i], 0.999));  // β is capped, and ᾱ was not told
        return {beta, alpha_bar, leads_to: alpha_bar.slice(0, -1)};
      },
      see: "One of a thousand steps is wrong, the first: ᾱ_T is 10⁻³³ there, x̂_0 divides by its root, and the rounding of ε, one part in 10 million, "
        + "becomes everything.",
      quantity: "largest relative gap between ᾱ_t and the product",
      measure(f) {
        const {beta, alpha_bar} = f(schedule);
        let product = 1, gap = 0;
        beta.forEach((b, i) => { product *= 1 - b; gap = Math.max(gap, Math.abs(product / alpha_bar[i + 1] - 1)); });
        return gap;
      },
      wanted: "0, up to 10⁻⁹", holds: v => v < 1e-9,
    },
    {
      name: "the table is shifted to the wrong side", test: "the last step leads to ᾱ_0 = 1", film: "cloud", part: "tables",
      sick: s => ({...HEALTHY.tables(s), leads_to: Float64Array.of(...s.alpha_bar.slice(2), s.alpha_bar[s.T])}),
      see: "Each step leads to where one step more noise is. Tiny each time, and a thousand times in the same direction: x_t does not shrink onto the data "
        + "but spreads without end.",
      quantity: "the last step leads to ᾱ =", measure: f => f(schedule).leads_to[0], wanted: "1", holds: v => v === 1,
    },
    {
      name: "noise in the last step", test: "at s = 0, x_s does not depend on z", film: "digits", S: 100, healthy: large_step, part: "step",
      sick(schedule, {x_t, eps}, t, s, z) {
        const [mean] = lab.q_posterior(schedule, x_t, x0_from_eps(schedule, x_t, eps, t), t, s), sigma = Math.sqrt(1 - schedule.at(t) / schedule.at(s));
        return mean.map((m, i) => m + sigma * z[i]);            // at s = 0, too
      },
      see: "Hardly anything here: a grain of three grey levels over the finished digit. The fewer the steps, the larger the last one, "
        + "and the coarser the grain.",
      quantity: "σ of the step to s = 0", measure: f => sigma_of(f, 10, 0), wanted: "0", holds: v => v === 0,
    },
    {
      name: "the clipped x_0 is not used", test: "with an ε that is far too large, x_s is another one with clipping than without",
      film: "digits", S: 100, healthy: large_step, part: "step",
      sick: (schedule, {x_t, raw}, t, s, z) => ddpm_step(schedule, x_t, raw, t, s, z, "large"),               // the step is made with the raw ε after all
      see: "x̂_0 in the film is clipped and looks orderly, but no step ever looks at it. Some pixels of x_t end outside [−1, 1]; the screen, which clips too, "
        + "shows none of it.",
      quantity: "what clipping changes in x_s",
      measure(f) {
        const x_t = one(0.5), raw = one(5), [x_0, eps] = HEALTHY.keep(schedule, x_t, raw, t);
        const without = x0_from_eps(schedule, x_t, raw, t);
        return Math.abs(f(schedule, {x_t, x_0, eps, raw}, t, s, one(0))[0] - f(schedule, {x_t, x_0: without, eps: raw, raw}, t, s, one(0))[0]);
      },
      wanted: "more than 0", holds: v => v > 1e-6,
    },
    {
      name: "a stride in place of the list", test: "a step leads to the next entry of the list", film: "digits", part: "following",
      sick: (t, times, T) => Math.max(t - Math.floor(T / (times.length - 1)), 0),
      see: "Almost nothing: 1,000 / 30 is not whole, so the walk is where 967 − 33 = 934 is, and asks as if it were at 933.",
      quantity: "steps of 30 that lead to another time", measure: f => timesteps(T, 30).filter((t, i, list) => t && f(t, list, T) !== list[i + 1]).length,
      wanted: "0", holds: v => v === 0,
    },
    {
      name: "scale 1 is not the conditional model", test: "scale 0 gives ε_∅, scale 1 gives ε_y", film: "digits", part: "guide",
      sick: (eps_y, eps_null, scale) => eps_y.map((e, i) => e + scale * (e - eps_null[i])),
      see: "A digit like any other: it was guided by 4 where 3 was asked for. Whoever copies a scale from one code to the other gets another model.",
      quantity: "with scale 1, the share of ε_y", measure: f => f(one(1), one(0), 1)[0], wanted: "1", holds: v => v === 1,
    },
    {
      name: "more new noise than there is room for", test: "old and new noise together have the variance 1−ᾱ_s",
      film: "digits", healthy: noisy_step, part: "step",
      sick(schedule, {x_0, eps}, t, s, z) {
        const a_s = schedule.at(s), variance = s ? 1 - schedule.at(t) : 0;                                     // σ² = η² (1-ᾱ_t)
        const kept = Math.sqrt(Math.max(1 - a_s - variance, 0));                                               // and a max that hides the negative root
        return x_0.map((x, i) => Math.sqrt(a_s) * x + kept * eps[i] + Math.sqrt(variance) * z[i]);
      },
      see: "With η = 1 every step throws all of its noise away and draws new, and more of it: a grainy x_t until the end, and grey, broken strokes.",
      quantity: "variance of the noise in x_s, divided by 1−ᾱ_s",
      measure(f) {                                              // x_t = ε·√(1-ᾱ_t), so x̂_0 = 0: what is left in x_s is noise, old and new
        const pure = {x_t: one(schedule.noise(t)), x_0: one(0), eps: one(1), raw: one(1)};
        return (f(schedule, pure, t, s, one(0))[0] ** 2 + sigma_of(f, t, s) ** 2) / (1 - schedule.at(s));
      },
      wanted: "1, up to 10⁻⁹", holds: v => Math.abs(v - 1) < 1e-9,
    },
    {
      name: "guided in some channels only", test: "with scale 0 every channel is the unconditional one", film: "digits", part: "guide",
      sick: (eps_y, eps_null, scale) => eps_null.map((e, i) => i < 3 * 64 ? e + scale * (eps_y[i] - e) : eps_y[i]),
      see: "Nothing at all: a digit has one channel, and the first three are guided. A network with four (or one that predicts variances, too) shows it.",
      quantity: "of 6 channels, conditional at scale 0",
      measure: f => f(new Float64Array(6 * 64).fill(1), new Float64Array(6 * 64), 0).reduce((a, b) => a + b) / 64,
      wanted: "0", holds: v => v === 0,
    },
    {
      name: "x_0 and ε no longer explain x_t", test: "√ᾱ_t x_0 + √(1−ᾱ_t) ε is x_t, after clipping, too", film: "digits", part: "keep",
      sick: (schedule, x_t, eps, t) => [x0_from_eps(schedule, x_t, eps, t).map(clamp), eps],
      see: "x̂_0 is clipped and the old ε kept. What clipping took away is lost in every step: strokes swell and wash out.",
      quantity: "largest gap in √ᾱ_t x_0 + √(1−ᾱ_t) ε = x_t",
      measure(f) {
        const x_t = Float64Array.of(-2, -0.5, 0.5, 2), [x_0, eps] = f(schedule, x_t, Float64Array.of(1, -1, 0.2, 0.5), t);
        return Math.max(...q_sample(schedule, x_0, eps, t).map((x, i) => Math.abs(x - x_t[i])));
      },
      wanted: "0, up to 10⁻⁹", holds: v => v < 1e-9,
    },
    {
      name: "the walk does not start from pure noise", test: "the list of times begins with T", film: "digits", part: "times",
      sick: (T, S) => [...Array.from({length: S}, (_, k) => (S - 1 - k) * Math.floor(T / S) + 1), 0],
      see: "Little, with 30 steps: 958 is nearly 1,000. With 3 steps it would be 667, where the network expects a quarter of the power to be picture.",
      quantity: "the first of the times", measure: f => f(T, 30)[0], wanted: "1000", holds: v => v === T,
    },
  ];

  // Both films of a patient: parts of the healthy walk, and of the sick one.
  function parts_of(patient) {
    const base = patient.healthy ? {step: patient.healthy} : {};
    return [base, {...base, [patient.part]: patient.sick}];
  }

  // The number of the healthy part and of the sick one.
  function invariant(patient) {
    return [patient.healthy || HEALTHY[patient.part], patient.sick].map(part => {
      const value = patient.measure(part);
      return {value, holds: patient.holds(value)};
    });
  }

  Object.assign(lab, {HEALTHY, PATIENTS, ancestral, drawn, invariant, parts_of});
});
