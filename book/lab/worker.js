// The network at work where it freezes nothing: in a worker.
//
// A page from disk may not start a worker from a file, but it may from text: so the text of all rooms goes there, and the same functions run there as in Node.
// Where even that is refused, the same `serve` runs on the page, step by step with pauses.
"use strict";

room(lab => {
  const pause = () => new Promise(resolve => setTimeout(resolve));
  const STEPS = {
    "ddim": (_, eta) => (schedule, x_t, eps, t, s, z) => lab.ddim_step(schedule, x_t, eps, t, s, z, eta),
    "small": () => lab.ddpm_step,
    "large": () => (schedule, x_t, eps, t, s, z) => lab.ddpm_step(schedule, x_t, eps, t, s, z, "large"),
    "2m": () => lab.dpm_solver_2m(),                            // a new one for every walk: it remembers
  };
  const SAMPLERS = [["ddim", "DDIM"], ["2m", "DPM-Solver++ (2M)"], ["small", "DDPM, small variance"], ["large", "DDPM, large variance"]];
  const make_step = (sampler, eta = 0) => STEPS[sampler](sampler, eta);
  const is_random = (sampler, eta) => sampler === "small" || sampler === "large" || (sampler === "ddim" && eta > 0);

  // What a worker does with a message {id, kind, …}.  A newer message makes an older walk stop at its next step.
  function serve(post) {
    let model = null, newest = 0;

    async function walk(id, name, states, of) {
      let index = 0, began = Date.now();
      for (const {t, x_t, x_0} of states) {
        if (id !== newest) return;
        post({id, name, index: index++, of, t, x_t, x_0});
        await pause();
      }
      if (id === newest) post({id, name, done: true, ms: Date.now() - began});
    }

    const tasks = {
      // A digit from noise, from a drawing (SDEdit), or with some of its pixels given.
      async digit({id, y, scale, sampler, spacing, steps, eta, seed, mode, from, picture, hidden}) {
        const {schedule, of} = model, noise = lab.seeded_noise(seed, [0], 64);
        let denoise = lab.clipped(lab.classifier_free(of(y), of(10), y === 10 ? 0 : scale), schedule), x = noise(schedule.T), times;
        if (mode === "drawing") {
          x = lab.q_sample(schedule, picture, x, from);
          times = lab.timesteps(from, Math.min(steps, from));
        } else {
          times = spacing === "snr" ? lab.timesteps_in_log_snr(schedule, steps) : lab.timesteps(schedule.T, steps);
        }
        if (mode === "hidden") denoise = lab.known(denoise, schedule, picture, hidden.map(h => !h));
        await walk(id, "digit", lab.sample(denoise, schedule, x, make_step(sampler, eta), times, is_random(sampler, eta) ? noise : null), times.length);
      },

      // The same digit, or the same cloud, with a healthy part and with a sick one.
      async clinic({id, patient: index, y, seed}) {
        const patient = lab.PATIENTS[index], parts = lab.parts_of(patient), films = ["healthy", "sick"];
        for (const i of [0, 1]) {
          if (patient.film === "cloud") {
            const indices = Array.from({length: 400}, (_, k) => k), tables = (parts[i].tables || lab.HEALTHY.tables)(lab.cosine(1000));
            await walk(id, films[i], lab.ancestral(tables, lab.seeded_noise(seed, indices, 2)), 7);
          } else {
            const {schedule, of} = model, noise = lab.seeded_noise(seed, [0], 64), options = {S: patient.S || 30};
            if (patient.film === "picture") {
              const grey = [...lab.DIGITS[y]].map(letter => Math.round((letter.charCodeAt(0) - 97) * 255 / 16));
              const x_0 = Float64Array.from(grey, parts[i].normalise || lab.HEALTHY.normalise);
              options.start = {x_t: lab.q_sample(schedule, x_0, noise(500), 500), t: 500};
            }
            await walk(id, films[i], lab.drawn(of(y), of(10), schedule, noise, parts[i], options), options.S + 1);
          }
        }
      },

      // Where the probability-flow ODE ends: a thousand steps of second order, as exact as the table of ᾱ allows (1e-4 on the ring).
      async ode({id, means, variance, labels, schedule: name, y, scale, x}) {
        const schedule = lab.by_name(name), mixture = new lab.Mixture(means, variance, null, labels), all = mixture.denoiser(schedule);
        const denoise = y === null ? all : lab.classifier_free(mixture.denoiser(schedule, y), all, scale);
        const states = lab.sample(denoise, schedule, x, lab.dpm_solver_2m(), lab.timesteps(schedule.T));
        let last, count = 0;
        for (const state of states) {
          last = state.x_t;
          if (++count % 50 === 0) await pause();
          if (id !== newest) return;
        }
        post({id, x_0: last});
      },
    };

    return message => {
      if (message.kind === "open") {
        const {tensors, config} = lab.read(message.file), net = new lab.UNet(config.unet, tensors), schedule = lab.by_name(config.schedule, config.timesteps);
        model = {schedule, of: y => lab.denoiser(net, schedule, [y], config.predict)};
        lab.DIGITS = message.digits;
      } else {
        newest = message.id;
        tasks[message.kind](message);
      }
    };
  }

  // A worker that knows all rooms; listen(answer) is called for every answer to the newest question.
  function worker(listen) {
    let id = 0, send;
    const heard = answer => { if (answer.id === id) listen(answer); };
    try {
      const text = `"use strict"; globalThis.lab = {}; const rooms = [${ROOMS.join(",\n")}]; for (const build of rooms) build(lab);
        const receive = lab.serve(answer => postMessage(answer)); onmessage = event => receive(event.data);`;
      const thread = new Worker(URL.createObjectURL(new Blob([text], {type: "text/javascript"})));
      thread.onmessage = event => heard(event.data);
      send = message => thread.postMessage(message);
    } catch {
      send = lab.serve(heard);
    }
    return {open: message => send({kind: "open", ...message}), ask: message => send({...message, id: ++id})};
  }

  Object.assign(lab, {SAMPLERS, is_random, make_step, serve, worker});
});
