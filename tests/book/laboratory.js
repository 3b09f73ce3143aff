// Run by test_laboratory_numbers.py:  node laboratory.js <book/lab> <numbers.json>  prints, for every comparison, the largest difference to the Python.
"use strict";
const fs = require("fs"), path = require("path");
const [folder, numbers] = process.argv.slice(2), python = JSON.parse(fs.readFileSync(numbers, "utf8"));
const files = ["room", "schedules", "forward", "samplers", "guidance", "exact", "unet", "weights", "digits.safetensors"];
for (const name of files) require(path.resolve(folder, `${name}.js`));

const found = {};

// The largest |ours - theirs| / max(1, |theirs|): absolute for small numbers, relative for large ones.  A missing or unreadable number is infinitely wrong.
function compare(what, ours, theirs) {
  let worst = ours.length === theirs.length ? found[what] || 0 : Infinity;
  for (let i = 0; i < theirs.length; i++) {
    const off = Math.abs(ours[i] - theirs[i]) / Math.max(1, Math.abs(theirs[i]));
    worst = Math.max(worst, Number.isFinite(off) ? off : Infinity);
  }
  found[what] = worst;
}

const given = (noises, size) => t => Float64Array.from(noises[t]);

for (const {name, args, alpha_bar, beta, log_snr} of python.schedules) {
  const schedule = lab.SCHEDULES[name](...args);
  compare(`schedules: ${name} ᾱ`, schedule.alpha_bar, alpha_bar);
  compare(`schedules: ${name} β`, schedule.beta, beta);
  compare(`schedules: ${name} log SNR`, schedule.log_snr.slice(1), log_snr);
}
for (const [T, S, times] of python.timesteps) compare("times: even", lab.timesteps(T, S), times);
for (const [name, T, S, times] of python.timesteps_in_log_snr) compare("times: even in log SNR", lab.timesteps_in_log_snr(lab.by_name(name, T), S), times);

const [start, ...steps] = python.steps, x = Float64Array.from(start.x), eps = Float64Array.from(start.eps), z = Float64Array.from(start.z);
for (const {schedule: [name, T], t, s, values} of steps) {
  const schedule = lab.by_name(name, T), constant = () => eps;
  const ours = {
    "q_sample": lab.q_sample(schedule, x, eps, t), "q_step": lab.q_step(schedule, x, eps, t, s), "q_posterior": lab.q_posterior(schedule, x, eps, t, s)[0],
    "x0_from_eps": lab.x0_from_eps(schedule, x, eps, t), "eps_from_x0": lab.eps_from_x0(schedule, x, eps, t), "to_eps v": lab.to_eps(schedule, x, eps, t, "v"),
    "to_eps x0": lab.to_eps(schedule, x, eps, t, "x0"), "score": lab.score(constant, schedule)(x, t),
    "ddpm_step small": lab.ddpm_step(schedule, x, eps, t, s, z),
    "ddpm_step large": lab.ddpm_step(schedule, x, eps, t, s, z, "large"), "ddim_step 0": lab.ddim_step(schedule, x, eps, t, s),
    "ddim_step 0.3": lab.ddim_step(schedule, x, eps, t, s, z, 0.3), "ddim_step 1": lab.ddim_step(schedule, x, eps, t, s, z, 1),
    "ddim_step up": lab.ddim_step(schedule, x, eps, s, t), "clipped": lab.clipped(constant, schedule)(x, t),
    "known": lab.known(constant, schedule, z, [...z].map(v => v > 0))(x, t), "within": lab.within(constant, () => eps.map(e => -e), 10, T)(x, t),
    "to_eps velocity": lab.to_eps(schedule, x, eps, t, "velocity"),
  };
  for (const key of Object.keys(values)) compare(`steps: ${key}`, ours[key], values[key]);
}

const cosine = lab.cosine(1000);
for (const {kind, means, variance, weights, labels, y, x, eps} of python.mixtures) {
  const mixture = kind ? lab[kind]() : new lab.Mixture(means, variance, weights, labels), denoise = mixture.denoiser(cosine, y);
  for (const [t, theirs] of eps) compare(`exact: ${kind || (variance ? "uneven mixture" : "finite data set")}`, denoise(Float64Array.from(x), t), theirs);
}

const [{x: x_T, z: noises}, ...walks] = python.walks, ring = lab.ring(), points = Float64Array.from(x_T);
const guided = lab.classifier_free(ring.denoiser(cosine, 2), ring.denoiser(cosine), 2.5), times = lab.timesteps(1000, 12);
const with_eta = eta => (schedule, x_t, eps, t, s, z) => lab.ddim_step(schedule, x_t, eps, t, s, z, eta);
const large = (schedule, x_t, eps, t, s, z) => lab.ddpm_step(schedule, x_t, eps, t, s, z, "large");
const walk = {
  "ddim": () => lab.sample(guided, cosine, points, lab.ddim_step, times), "2m": () => lab.sample(guided, cosine, points, lab.dpm_solver_2m(), times),
  "ddpm small": () => lab.sample(guided, cosine, points, lab.ddpm_step, times, given(noises)),
  "ddpm large": () => lab.sample(guided, cosine, points, large, times, given(noises)),
  "ddim 0.5": () => lab.sample(guided, cosine, points, with_eta(0.5), times, given(noises)),
  "invert": () => lab.invert(ring.denoiser(cosine), cosine, points.map(v => 0.4 * v), 12),
};
for (const {name, x_t} of walks) [...walk[name]()].forEach((state, i) => compare(`walks on the ring: ${name}`, state.x_t, x_t[i]));

const {tensors, config} = lab.read(FILES["digits.safetensors"]), net = new lab.UNet(config.unet, tensors), {network} = python;
const both = Float64Array.from(network.x), first = both.slice(0, 64), schedule = lab.by_name(config.schedule, config.timesteps);
for (const {t, y, out} of network.outputs) compare("network: output", net.forward(both, t, y), out);
compare("network: read as ε", lab.denoiser(net, schedule, [7], config.predict)(first, 400), network.eps);
const of = y => lab.denoiser(net, schedule, [y], config.predict);
const digit = lab.clipped(lab.classifier_free(of(7), of(10), 2), schedule), step = {"ddim": lab.ddim_step, "ddim 0.5": with_eta(0.5)};
for (const {name, x_t} of network.walks) {
  const states = [...lab.sample(digit, schedule, first, step[name] || lab.dpm_solver_2m(), lab.timesteps(1000, 20), given(network.z))];
  states.forEach((state, i) => compare(`network: guided walk of 20 steps, ${name}`, state.x_t, x_t[i]));
}

console.log(JSON.stringify(found));
