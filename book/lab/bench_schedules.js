// Bench 1.  Two schedules beside each other: how much noise each step adds, how much of the data is left, and what that does to a picture.
"use strict";

(() => {
  const KINDS = [["linear", "linear β"], ["cosine", "cosine"], ["sigmoid", "sigmoid"], ["quadratic", "quadratic β"], ["flow", "flow matching"]];
  const uses_beta = kind => kind === "linear" || kind === "quadratic", either = (state, test) => test(state.a) || test(state.b);
  const SIDE = 64, FRAMES = 9;

  // A landscape, as grey in [−1, 1]: sun, hills, a house.  Drawn by formulas, so that the page needs no picture.
  function landscape() {
    return Float64Array.from({length: SIDE * SIDE}, (_, i) => {
      const x = (i % SIDE + 0.5) / SIDE, y = (Math.floor(i / SIDE) + 0.5) / SIDE;
      const far = 0.55 - 0.1 * Math.sin(5 * x + 0.6), near = 0.74 + 0.06 * Math.sin(7 * x);
      if (x > 0.30 && x < 0.52 && y > 0.60 && y < 0.80) return x > 0.38 && x < 0.44 && y > 0.68 ? -0.9 : 0.85;         // wall and door
      if (y < 0.61 && y > 0.46 + 1.1 * Math.abs(x - 0.41)) return -0.75;                                              // roof
      if (y > near) return -0.55 + 0.5 * (y - near);
      if (y > far) return -0.15 + 0.4 * (y - far);
      return Math.hypot(x - 0.76, y - 0.24) < 0.12 ? 1 : 0.25 + 0.5 * y;
    });
  }

  function schedule_of(kind, {T, beta_1, beta_T, s, tau, rescale}) {
    const back = rescale ? 1 : T / 1000;                        // `linear` rescales β by 1000/T; this takes it back
    if (uses_beta(kind)) return lab[kind](T, beta_1 * back, beta_T * back);
    return {cosine: () => lab.cosine(T, s), sigmoid: () => lab.sigmoid(T, -3, 3, tau), flow: () => lab.flow(T)}[kind]();
  }

  lab.bench({
    name: "schedules",
    controls: [
      {key: "a", label: "Schedule A", choices: KINDS, value: "linear"},
      {key: "b", label: "Schedule B", choices: KINDS, value: "cosine"},
      {key: "T", label: "Steps <i>T</i>", min: 10, max: 2000, step: 10, value: 1000},
      {key: "beta_1", label: "β<sub>1</sub>", min: 1e-5, max: 0.02, log: true, value: 1e-4, when: state => either(state, uses_beta)},
      {key: "beta_T", label: "β<sub><i>T</i></sub>", min: 1e-3, max: 0.2, log: true, value: 0.02, when: state => either(state, uses_beta)},
      {key: "rescale", label: "rescale β by 1000/<i>T</i>", check: true, value: true, when: state => either(state, uses_beta)},
      {key: "s", label: "<i>s</i> of the cosine", min: 0, max: 0.2, step: 0.001, value: 0.008, when: state => either(state, kind => kind === "cosine")},
      {key: "tau", label: "τ of the sigmoid", min: 0.2, max: 2, step: 0.05, value: 1, when: state => either(state, kind => kind === "sigmoid")},
      {key: "at", label: "Time t/T, in percent", min: 0, max: 100, step: 0.1, value: 35, bare: true, in: ".player"},
      {key: "loop", hidden: true, check: true, value: false},
    ],

    start(root, bench) {
      const $ = selector => root.querySelector(selector), picture = landscape(), eps = lab.seeded_noise(1, [0], SIDE * SIDE)(0);
      const play = lab.player(bench, $(".player"), () => 6), large = {a: $("#dissolve-a"), b: $("#dissolve-b")};
      const strips = {a: $("#strip-a"), b: $("#strip-b")}, cells = {};
      for (const which of ["a", "b"]) {
        cells[which] = Array.from({length: FRAMES}, () => document.createElement("canvas"));
        for (const cell of cells[which]) { cell.setAttribute("aria-hidden", "true"); strips[which].append(cell); }
      }
      let two = null, plots = {};

      // The ends of β can be dragged in the picture: a pointer near the left end moves β_1, elsewhere β_T.
      const beta = $("#plot-beta");
      const drag = event => {
        const box = beta.getBoundingClientRect(), left = plots.beta.share(event.clientX - box.left) < 0.5, value = plots.beta.value(event.clientY - box.top);
        const rescaled = bench.state.rescale ? value : value / (1000 / bench.state.T), [low, high] = left ? [1e-5, 0.02] : [1e-3, 0.2];
        bench.set({[left ? "beta_1" : "beta_T"]: Number(Math.min(Math.max(rescaled, low), high).toPrecision(3))});
      };
      beta.addEventListener("pointerdown", event => { if (either(bench.state, uses_beta)) { beta.setPointerCapture(event.pointerId); drag(event); } });
      beta.addEventListener("pointermove", event => { if (beta.hasPointerCapture(event.pointerId)) drag(event); });

      function row(which, {T}, t) {
        const schedule = two[which], snr = 10 * Math.log10(schedule.snr[t]);
        return [t, lab.words(schedule.beta[t]), lab.words(schedule.at(t)), lab.words(schedule.signal(t)), `${Math.abs(snr) < 0.05 ? "0" : lab.words(snr)} dB`];
      }

      return {
        leave: () => play.stop(),
        update(state, changed) {
          if ([...changed].some(key => key !== "at" && key !== "loop" && key !== "size") || !two) {
            two = {a: schedule_of(state.a, state), b: schedule_of(state.b, state)};
            for (const which of ["a", "b"]) {
              const schedule = two[which];
              cells[which].forEach((cell, i) => lab.paint(cell, lab.q_sample(schedule, picture, eps, Math.round(i * schedule.T / (FRAMES - 1)))));
              const left = `${which.toUpperCase()} ends with √ᾱ_T = ${lab.words(schedule.signal(schedule.T))} of the signal left.`;
              const warning = `${left} Sampling starts from pure noise: it would start from the wrong place.`;
              $(`#warn-${which}`).innerHTML = schedule.ends_in_noise ? "" : lab.indexed(warning);
            }
          }
          const t = Math.round(state.at / 100 * state.T), at = t / state.T, {a, b} = two;
          const lines = (name, change = v => v) => [
            {values: a[name].map(change), colour: "blue"},
            {values: b[name].map(change), colour: "vermilion", dash: [7, 4]},
          ];
          const per = v => v * state.T / 1000;
          plots.beta = lab.plot($("#plot-beta"), {lines: lines("beta", per), low: 1e-5, high: 1, log: true, at,
            ticks: [[1e-5, "10⁻⁵"], [1e-4, "10⁻⁴"], [1e-3, "0.001"], [1e-2, "0.01"], [0.1, "0.1"], [1, "1"]]});
          for (const which of ["b", "a"]) {
            if (!uses_beta(state[which])) continue;
            for (const end of [1, state.T]) {
              const {pen, X, Y} = plots.beta;
              pen.beginPath();
              pen.arc(X(end / state.T), Y(Math.max(per(two[which].beta[end]), 1e-5)), 5, 0, 7);
              pen.fillStyle = lab.colour("card"); pen.fill();
              pen.setLineDash([]); pen.lineWidth = 2; pen.strokeStyle = lab.colour(which === "a" ? "blue" : "vermilion"); pen.stroke();
            }
          }
          lab.plot($("#plot-alpha"), {lines: lines("alpha_bar"), low: 0, high: 1, at, ticks: [[0, "0"], [0.5, "0.5"], [1, "1"]]});
          lab.plot($("#plot-snr"), {lines: lines("snr", v => 10 * Math.log10(v)), low: -60, high: 50, at,
            ticks: [[40, "40 dB"], [20, "20"], [0, "0"], [-20, "−20"], [-40, "−40"], [-60, "−60"]]});
          for (const which of ["a", "b"]) {
            lab.paint(large[which], lab.q_sample(two[which], picture, eps, t));
            const values = row(which, state, t).map(value => `<td>${value}</td>`).join("");
            $(`#row-${which}`).innerHTML = `<th scope="row">${which.toUpperCase()}<span> ${state[which]}</span></th>${values}`;
          }
          const [left, right] = ["a", "b"].map(which => 100 * two[which].at(t));
          large.a.setAttribute("aria-label", `A picture under schedule A at t = ${t}: ${lab.words(left)} percent of its power is left.`);
          large.b.setAttribute("aria-label", `A picture under schedule B at t = ${t}: ${lab.words(right)} percent of its power is left.`);
          lab.say(`At t = ${t} of ${state.T}, ${state.a} keeps ${lab.words(left)} percent of the signal's power and ${state.b} ${lab.words(right)}.`);
        },
      };
    },
  });
})();
