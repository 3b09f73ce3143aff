// Bench 4.  A bug, its film beside the healthy one, and the invariant that catches it.
"use strict";

(() => {
  const FRAMES = 7;

  lab.bench({
    name: "clinic",
    controls: [
      {key: "patient", label: "Bug", choices: lab.PATIENTS.map(({name}, i) => [String(i), lab.indexed_text(name)]), value: "11"},
      {key: "y", label: "Class", choices: Array.from({length: 10}, (_, k) => [String(k), String(k)]), value: "8",
        when: state => lab.PATIENTS[state.patient].film !== "cloud"},
      {key: "seed", label: "Seed", min: 0, max: 999, step: 1, value: 0},
    ],

    start(root, bench) {
      const $ = selector => root.querySelector(selector);
      let films = {healthy: [], sick: []};

      const worker = lab.worker(answer => {
        if (answer.done) { if (answer.name === "sick") { root.dataset.done = "true"; lab.say("Both films are drawn."); } }
        else films[answer.name].push(answer);
        bench.redraw();
      });
      worker.open({file: FILES["digits.safetensors"], digits: lab.DIGITS});

      function show(name, patient) {
        const states = films[name], place = $(`#film-${name}`), of = states.length ? states[0].of : 0;
        const numbers = Array.from({length: FRAMES}, (_, i) => Math.round(i * (of - 1) / (FRAMES - 1))).filter(i => i < states.length && i >= 0);
        const grey = name === "sick" && patient.part === "denormalise" ? patient.sick : undefined;
        while (place.children.length > numbers.length) place.lastChild.remove();
        while (place.children.length < numbers.length) {
          const column = document.createElement("div");
          column.className = "frame";
          column.innerHTML = "<canvas></canvas><canvas></canvas><span></span>";
          place.append(column);
        }
        numbers.forEach((number, i) => {
          const {t, x_t, x_0} = states[number], [above, below] = place.children[i].querySelectorAll("canvas");
          place.classList.toggle("points", patient.film === "cloud");
          if (patient.film === "cloud") { lab.scatter(above, x_t, 2.6); lab.scatter(below, x_0, 2.6); }
          else { lab.paint(above, x_t, grey); lab.paint(below, x_0, grey); }
          place.children[i].lastChild.textContent = t;
        });
        if (patient.film === "cloud" && states.length === of && of) {
          const end = states[of - 1].x_t, far = end.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
          const mean = [0, 1].map(d => lab.words(end.reduce((sum, v, i) => sum + (i % 2 === d ? v : 0), 0) / (end.length / 2), 2));
          $(`#far-${name}`).textContent = `ends with mean (${mean.join(", ")}), farthest coordinate ${lab.words(far, 3)}`;
        } else $(`#far-${name}`).textContent = "";
      }

      const move = by => bench.set({patient: String((Number(bench.state.patient) + by + lab.PATIENTS.length) % lab.PATIENTS.length)});
      $("#clinic-next").addEventListener("click", () => move(1));
      $("#clinic-before").addEventListener("click", () => move(-1));

      return {
        update(state, changed) {
          const patient = lab.PATIENTS[state.patient], [healthy, sick] = lab.invariant(patient);
          if ([...changed].some(key => key !== "size")) {
            films = {healthy: [], sick: []};
            root.dataset.done = "false";
            worker.ask({kind: "clinic", patient: Number(state.patient), y: Number(state.y), seed: state.seed});
            const texts = {name: patient.name, see: patient.see, test: patient.test, quantity: `${patient.quantity} (wanted: ${patient.wanted})`};
            for (const id of Object.keys(texts)) $(`#bug-${id}`).innerHTML = lab.indexed(texts[id]);
            for (const [name, {value, holds}] of [["healthy", healthy], ["sick", sick]]) {
              $(`#value-${name}`).innerHTML = `<strong>${lab.words(value, 4)}</strong> ${holds ? "✓ holds" : "✗ fails"}`;
              $(`#value-${name}`).className = holds ? "holds" : "fails";
            }
            lab.say(`${patient.name}. The invariant: ${patient.test}. Healthy: ${lab.words(healthy.value)}. With the bug: ${lab.words(sick.value)}, it fails.`);
          }
          for (const name of ["healthy", "sick"]) show(name, patient);
        },
      };
    },
  });
})();
