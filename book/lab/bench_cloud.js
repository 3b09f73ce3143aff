// Bench 2.  A cloud on the plane whose perfect denoiser is known: nothing here was trained, and every error is the method's own.
"use strict";

(() => {
  const CELL = 36;                                              // pixels from arrow to arrow
  const EXTENT = 2.7;                                           // the window shows ±2.7: a cloud of noise, N(0, I), just fits
  const POINTS = /^(-?\d{1,3}_-?\d{1,3}_[01])?(\.-?\d{1,3}_-?\d{1,3}_[01])*$/;
  const EXAMPLE = "-120_-60_0.-80_-90_0.-30_-100_0.30_-90_0.80_-60_0.-60_70_1.60_70_1";       // a face, to begin with

  // "12_-34_0.…": hundredths of x and y, and a class, for each click.
  const clicks_of = text => text ? text.split(".").map(p => p.split("_").map(Number)).map(([x, y, label]) => ({mean: [x / 100, y / 100], label})) : [];
  const text_of = clicks => clicks.map(({mean: [x, y], label}) => [Math.round(x * 100), Math.round(y * 100), label].join("_")).join(".");

  function mixture_of({data, points, spread}) {
    if (data === "ring") return lab.ring();
    if (data === "moons") return lab.moons();
    const clicks = clicks_of(points);
    if (!clicks.length) clicks.push({mean: [0, 0], label: 0});                         // a mixture needs a component
    return new lab.Mixture(clicks.map(c => c.mean), spread ** 2, null, clicks.map(c => c.label));
  }

  const rms = (x, y) => Math.sqrt(x.reduce((sum, v, i) => sum + (v - y[i]) ** 2, 0) / (x.length / 2));
  const stochastic = state => state.walk === "backward" && lab.is_random(state.sampler, state.eta);

  lab.bench({
    name: "cloud",
    controls: [
      {key: "data", label: "Data", choices: [["ring", "ring of eight"], ["moons", "two moons"], ["clicks", "your own clicks"]], value: "ring"},
      {key: "pen", label: "A click adds a point of", choices: [["0", "class 0 (blue)"], ["1", "class 1 (vermilion)"]], value: "0",
        when: state => state.data === "clicks"},
      {key: "spread", label: "Spread of each point", min: 0, max: 0.4, step: 0.01, value: 0.06, when: state => state.data === "clicks"},
      {key: "walk", label: "Walk", value: "backward",
        choices: [["backward", "noise → data"], ["forward", "data → noise"], ["return", "data → noise → data (inversion)"]]},
      {key: "sampler", label: "Sampler", choices: lab.SAMPLERS, value: "ddim", when: state => state.walk === "backward"},
      {key: "eta", label: "η, fresh noise", min: 0, max: 1, step: 0.05, value: 0, when: state => state.walk === "backward" && state.sampler === "ddim"},
      {key: "steps", label: "Steps", min: 1, max: 100, step: 1, value: 20},
      {key: "spacing", label: "Times even in", choices: [["t", "t"], ["snr", "log SNR"]], value: "t", when: state => state.walk === "backward"},
      {key: "y", label: "Class", choices: [["all", "all"], ...Array.from({length: 8}, (_, k) => [String(k), String(k)])], value: "all"},
      {key: "scale", label: "Guidance scale", min: 0, max: 8, step: 0.1, value: 1, when: state => state.y !== "all"},
      {key: "schedule", label: "Schedule", choices: Object.keys(lab.SCHEDULES).map(name => [name, name]), value: "linear"},
      {key: "n", label: "Particles", min: 50, max: 2000, step: 50, value: 500},
      {key: "seed", label: "Seed", min: 0, max: 999, step: 1, value: 0},
      {key: "arrows", label: "arrows: the score", check: true, value: true, in: ".player"},
      {key: "paths", label: "paths", check: true, value: true, in: ".player"},
      {key: "loop", label: "again and again", check: true, value: false, in: ".player"},
      {key: "at", label: "Place in the walk, in percent", min: 0, max: 100, step: 0.1, value: 100, bare: true, in: ".player"},
      {key: "points", hidden: true, value: EXAMPLE, pattern: POINTS},
    ],

    start(root, bench) {
      const $ = selector => root.querySelector(selector), canvas = $("#plane");
      const play = lab.player(bench, $(".player"), state => state.walk === "return" ? 8 : 5);
      const worker = lab.worker(({x_0}) => { reference = x_0; tell(bench.state); });
      let mixture, schedule, denoise, states, hues, inside = 0, reference = null, grid = null, cursor = [0, 0], focused = false;

      function walk(state) {
        mixture = mixture_of(state);
        schedule = lab.by_name(state.schedule);
        const y = state.y === "all" || !mixture.labels.includes(Number(state.y)) ? null : Number(state.y), all = mixture.denoiser(schedule);
        denoise = y === null ? all : lab.classifier_free(mixture.denoiser(schedule, y), all, state.scale);
        const numbers = Array.from({length: state.n}, (_, i) => i), noise = lab.seeded_noise(state.seed, numbers, 2), x_T = noise(1000);
        const uniform = lab.seeded_noise(state.seed + 1000, numbers, 1)(0), in_log_snr = state.spacing === "snr" && state.walk === "backward";
        const times = in_log_snr ? lab.timesteps_in_log_snr(schedule, state.steps) : lab.timesteps(1000, state.steps);
        const share = i => 0.5 + Math.atan(1.7 * uniform[i]) / Math.PI;                   // a number in 0 … 1 from one in N(0, 1), well enough
        if (state.walk === "backward") {
          const step = lab.make_step(state.sampler, state.eta), random = lab.is_random(state.sampler, state.eta);
          states = [...lab.sample(denoise, schedule, x_T, step, times, random ? noise : null)];
        } else {
          const only = y === null ? mixture : part_of(mixture, y), [x_0] = only.sample(state.n, x_T, share), up = [...times].reverse();
          if (state.walk === "forward") {
            states = [{t: 0, x_t: x_0}];
            for (let k = 0; k + 1 < up.length; k++) states.push({t: up[k + 1], x_t: lab.q_step(schedule, states[k].x_t, noise(up[k]), up[k + 1], up[k])});
          } else {
            const there = [...lab.invert(denoise, schedule, x_0, state.steps)];
            states = [...there, ...[...lab.sample(denoise, schedule, there[there.length - 1].x_t, lab.ddim_step, times)].slice(1)];
          }
        }
        const ends = states[state.walk === "forward" ? 0 : states.length - 1].x_t;
        hues = Array.from({length: state.n}, (_, i) => mixture.labels[nearest(ends[2 * i], ends[2 * i + 1])] % 8);
        inside = 0;
        for (let i = 0; i < state.n; i++) {
          const k = nearest(ends[2 * i], ends[2 * i + 1]);
          if (Math.hypot(ends[2 * i] - mixture.means[2 * k], ends[2 * i + 1] - mixture.means[2 * k + 1]) <= 3 * Math.sqrt(mixture.variance[k]) + 1e-6) inside++;
        }
        reference = null;
        if (state.walk !== "backward") return;
        const {variance, labels} = mixture, {schedule: name, scale} = state;
        worker.ask({kind: "ode", means: rows(mixture), variance: [...variance], labels, schedule: name, y, scale, x: x_T});
      }

      const rows = ({means, K}) => Array.from({length: K}, (_, k) => [means[2 * k], means[2 * k + 1]]);

      function part_of(whole, y) {
        const of_class = whole.labels.map((label, k) => label === y ? k : -1).filter(k => k >= 0);
        return new lab.Mixture(of_class.map(k => rows(whole)[k]), of_class.map(k => whole.variance[k]));
      }

      function nearest(x, y) {
        let best = 0, least = Infinity;
        for (let k = 0; k < mixture.K; k++) {
          const d = (x - mixture.means[2 * k]) ** 2 + (y - mixture.means[2 * k + 1]) ** 2;
          if (d < least) { least = d; best = k; }
        }
        return best;
      }

      // Where the film is: between states k and k+1, a share f of the way; and the time that belongs to it.
      function place(state) {
        const p = state.at / 100 * (states.length - 1), k = Math.min(Math.floor(p), states.length - 2);
        const f = lab.still.matches && play.playing ? Math.round(p - k) : p - k;          // less motion: from state to state, and nothing in between
        return {k, f, t: Math.round(states[k].t + f * (states[k + 1].t - states[k].t))};
      }

      function draw(state, {k, f, t}) {
        const [pen, w, h] = lab.fitted(canvas), scale = Math.min(w, h) / 2 / EXTENT, X = x => w / 2 + x * scale, Y = y => h / 2 - y * scale;
        const palette = lab.COLOURS.map(lab.colour), from = states[k].x_t, to = states[k + 1].x_t;
        // The data: a disc of two standard deviations for each Gaussian.
        pen.fillStyle = lab.colour("data");
        for (let m = 0; m < mixture.K; m++) {
          pen.beginPath();
          pen.arc(X(mixture.means[2 * m]), Y(mixture.means[2 * m + 1]), Math.max(2 * Math.sqrt(mixture.variance[m]) * scale, 4), 0, 7);
          pen.fill();
        }
        if (state.arrows) field(pen, w, h, scale, t);
        if (state.paths) {
          pen.lineWidth = 1;
          pen.globalAlpha = 0.45;
          const smooth = !stochastic(state) && state.walk !== "forward";                 // jagged paths of all would be a thicket
          for (let i = 0; i < Math.min(smooth ? 60 : 8, state.n); i++) {
            pen.strokeStyle = palette[hues[i]];
            pen.beginPath();
            pen.moveTo(X(states[0].x_t[2 * i]), Y(states[0].x_t[2 * i + 1]));
            for (let m = 1; m <= k; m++) pen.lineTo(X(states[m].x_t[2 * i]), Y(states[m].x_t[2 * i + 1]));
            pen.lineTo(X(from[2 * i] + f * (to[2 * i] - from[2 * i])), Y(from[2 * i + 1] + f * (to[2 * i + 1] - from[2 * i + 1])));
            pen.stroke();
          }
          pen.globalAlpha = 1;
        }
        const dots = palette.map(dot);                          // stamps: much faster than 500 circles
        for (let i = 0; i < state.n; i++) {
          const x = from[2 * i] + f * (to[2 * i] - from[2 * i]), y = from[2 * i + 1] + f * (to[2 * i + 1] - from[2 * i + 1]);
          pen.drawImage(dots[hues[i]], X(x) - 3, Y(y) - 3, 6, 6);
        }
        if (state.data === "clicks") for (const {mean: [x, y], label} of clicks_of(state.points)) {
          pen.beginPath(); pen.arc(X(x), Y(y), 5, 0, 7);
          pen.lineWidth = 2; pen.strokeStyle = lab.colour("ink"); pen.fillStyle = palette[label]; pen.fill(); pen.stroke();
        }
        if (state.data === "clicks" && focused) {               // the keyboard's pen
          pen.strokeStyle = lab.colour("ink"); pen.lineWidth = 1.5;
          pen.beginPath();
          pen.moveTo(X(cursor[0]) - 10, Y(cursor[1])); pen.lineTo(X(cursor[0]) + 10, Y(cursor[1]));
          pen.moveTo(X(cursor[0]), Y(cursor[1]) - 10); pen.lineTo(X(cursor[0]), Y(cursor[1]) + 10);
          pen.stroke();
        }
      }

      const stamps = {};
      function dot(colour) {
        if (stamps[colour]) return stamps[colour];
        const stamp = stamps[colour] = document.createElement("canvas"), pen = stamp.getContext("2d");
        stamp.width = stamp.height = 24;                        // sharp on any screen
        pen.fillStyle = colour;
        pen.arc(12, 12, 9, 0, 7);
        pen.fill();
        return stamp;
      }

      // An arrow is the score times √(1−ᾱ_t), which is −ε̂: away from the noise.  Its direction is exact, its length is squeezed to fit its cell.
      // It changes slowly, and drawing it costs more than all else: while the film runs it is drawn anew for every twentieth t only.
      function field(target, w, h, scale, t) {
        t = Math.max(play.playing ? Math.round(t / 20) * 20 : t, 1);
        const key = [t, w, h, target.canvas.width, lab.colour("arrow")].join();
        if (grid && grid.key === key) return target.drawImage(grid.sheet, 0, 0, w, h);
        const cell = CELL / scale, columns = Math.floor(w / 2 / CELL), rows = Math.floor(h / 2 / CELL), x = [];
        const X = x => w / 2 + x * scale, Y = y => h / 2 - y * scale;
        for (let i = -columns; i <= columns; i++) for (let j = -rows; j <= rows; j++) x.push(i * cell, j * cell);
        const points = Float64Array.from(x), noise = schedule.noise(t), pull = lab.score(denoise, schedule)(points, t).map(v => v * noise);
        const sheet = document.createElement("canvas"), pen = sheet.getContext("2d");
        sheet.width = target.canvas.width;
        sheet.height = target.canvas.height;
        pen.scale(sheet.width / w, sheet.height / h);
        grid = {key, sheet};
        pen.strokeStyle = lab.colour("arrow");
        pen.lineWidth = 1.2;
        pen.beginPath();
        for (let i = 0; i < points.length; i += 2) {
          const length = Math.hypot(pull[i], pull[i + 1]);
          if (length < 1e-9) continue;
          const reach = cell * 0.8 * Math.tanh(0.8 * length), dx = pull[i] / length * reach * scale, dy = -pull[i + 1] / length * reach * scale;
          const x = X(points[i]), y = Y(points[i + 1]), head = 0.28;
          pen.moveTo(x, y);
          pen.lineTo(x + dx, y + dy);
          pen.moveTo(x + dx - head * (dx + 0.7 * dy), y + dy - head * (dy - 0.7 * dx));
          pen.lineTo(x + dx, y + dy);
          pen.lineTo(x + dx - head * (dx - 0.7 * dy), y + dy - head * (dy + 0.7 * dx));
        }
        pen.stroke();
        target.drawImage(sheet, 0, 0, w, h);
      }

      // The numbers under the picture.
      function tell(state) {
        const {t} = place(state), end = states[states.length - 1].x_t, snr = t ? `${lab.words(10 * Math.log10(schedule.snr[t]), 3)} dB` : "no noise";
        const goal = {backward: reference, return: states[0].x_t}[state.walk], distance = goal && goal.length === end.length ? rms(goal, end) : NaN;
        const guided = state.y !== "all" && state.scale > 0 && state.scale !== 1, calls = state.walk === "forward" ? 0 : (states.length - 1) * (guided ? 2 : 1);
        $("#cloud-t").textContent = t;
        $("#cloud-snr").textContent = snr;
        $("#cloud-calls").textContent = calls;
        $("#cloud-inside").textContent = state.walk === "forward" ? "–" : `${Math.round(100 * inside / state.n)} %`;
        $("#cloud-rms").textContent = Number.isNaN(distance) ? (state.walk === "backward" ? "…" : "–") : lab.words(distance);
        $("#cloud-rms").dataset.ready = String(!Number.isNaN(distance));
        $("#cloud-rms-name").innerHTML = state.walk === "return" ? "RMS distance of there and back" : "RMS distance to the ODE’s end";
        const apart = "This walk draws new noise, so each particle ends somewhere else than the ODE’s would. The distance is no error then.";
        $("#cloud-note").textContent = stochastic(state) ? apart : "";
        const clickable = state.data === "clicks", keys = clickable ? " Arrow keys move the cross, Enter adds a point there or takes it away." : "";
        canvas.setAttribute("aria-label", `${state.n} particles at t = ${t}, signal to noise ${snr}.${keys}`);
        canvas.setAttribute("role", clickable ? "application" : "img");
        canvas.tabIndex = clickable ? 0 : -1;
        const ends = state.walk === "forward" ? "" : `In the end ${Math.round(100 * inside / state.n)} percent lie within three σ of the data.`;
        if (!play.playing) lab.say(`t = ${t}. ${ends} ${Number.isNaN(distance) ? "" : `RMS distance ${lab.words(distance)}.`}`);
      }

      // Clicks, with the pointer or with the keyboard: a click near a point takes it away.
      function click([x, y]) {
        const clicks = clicks_of(bench.state.points), near = clicks.findIndex(({mean}) => Math.hypot(mean[0] - x, mean[1] - y) < 0.12);
        if (near >= 0) clicks.splice(near, 1);
        else if (clicks.length < 60) clicks.push({mean: [x, y], label: Number(bench.state.pen)});
        bench.set({points: text_of(clicks)});
      }
      const snapped = v => Math.max(-2.6, Math.min(2.6, v));
      canvas.addEventListener("click", event => {
        if (bench.state.data !== "clicks") return;
        const box = canvas.getBoundingClientRect(), scale = Math.min(box.width, box.height) / 2 / EXTENT;
        click([(event.clientX - box.left - box.width / 2) / scale, -(event.clientY - box.top - box.height / 2) / scale].map(snapped));
      });
      canvas.addEventListener("keydown", event => {
        const move = {ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1]}[event.key];
        if (bench.state.data !== "clicks" || !(move || event.key === "Enter" || event.key === " ")) return;
        event.preventDefault();
        if (move) cursor = [snapped(cursor[0] + move[0]), snapped(cursor[1] + move[1])];
        else click(cursor);
        bench.redraw();
      });
      for (const [kind, value] of [["focus", true], ["blur", false]]) canvas.addEventListener(kind, () => { focused = value; bench.redraw(); });

      const film_only = new Set(["at", "size", "loop", "pen", "arrows", "paths"]);
      return {
        leave: () => play.stop(),
        update(state, changed) {
          if (!states || [...changed].some(key => !film_only.has(key))) { walk(state); grid = null; }
          for (const option of [...$("#cloud-y").options].slice(1)) option.hidden = option.disabled = !mixture.labels.includes(Number(option.value));
          draw(state, place(state));
          tell(state);
          root.classList.toggle("clickable", state.data === "clicks");
          root.film = {states, play};                           // for whoever looks with the browser's console, and for the tests
        },
      };
    },
  });
})();
