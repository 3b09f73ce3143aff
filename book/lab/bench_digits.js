// Bench 3.  The network that the package ships, evaluated on the page: 702,753 weights, 8×8 pixels.
"use strict";

(() => {
  const FRAMES = 11, LEVELS = "abcdefghijklmnopq";              // 0 … 16, as the scanner of 1998 had it
  const pixels_of = picture => Float64Array.from([...picture], letter => LEVELS.indexOf(letter) / 8 - 1);
  const hidden_of = text => [...text].flatMap(digit => [8, 4, 2, 1].map(bit => (parseInt(digit, 16) & bit) > 0));
  const digit_of = four => [8, 4, 2, 1].reduce((sum, bit, k) => sum + (four[k] ? bit : 0), 0).toString(16);
  const text_of = hidden => Array.from({length: 16}, (_, i) => digit_of(hidden.slice(4 * i, 4 * i + 4))).join("");

  // Which of the states make the film.
  function chosen({length}) {
    const n = Math.min(FRAMES, length);
    return Array.from({length: n}, (_, i) => Math.round(i * (length - 1) / Math.max(n - 1, 1)));
  }

  lab.bench({
    name: "digits",
    controls: [
      {key: "mode", label: "Begin with", value: "noise",
        choices: [["noise", "noise"], ["drawing", "a drawing (SDEdit)"], ["hidden", "a digit with a part hidden"]]},
      {key: "y", label: "Class", choices: [...Array.from({length: 10}, (_, k) => [String(k), String(k)]), ["10", "none"]], value: "3"},
      {key: "scale", label: "Guidance scale", min: 0, max: 8, step: 0.1, value: 2, when: state => state.y !== "10"},
      {key: "sampler", label: "Sampler", choices: lab.SAMPLERS, value: "ddim"},
      {key: "eta", label: "η, fresh noise", min: 0, max: 1, step: 0.05, value: 0, when: state => state.sampler === "ddim"},
      {key: "steps", label: "Steps", min: 1, max: 100, step: 1, value: 20},
      {key: "spacing", label: "Times even in", choices: [["t", "t"], ["snr", "log SNR"]], value: "t", when: state => state.mode !== "drawing"},
      {key: "from", label: "Noise the drawing to t", min: 10, max: 1000, step: 10, value: 600, when: state => state.mode === "drawing"},
      {key: "seed", label: "Seed", min: 0, max: 999, step: 1, value: 0},
      {key: "ink", label: "The pen", value: "white", in: ".pens",
        choices: [["white", "draws white"], ["grey", "draws grey"], ["black", "draws black"], ["hide", "hides"], ["show", "shows again"]]},
      {key: "at", label: "Place in the walk, in percent", min: 0, max: 100, step: 0.1, value: 100, bare: true, in: ".player"},
      {key: "loop", hidden: true, check: true, value: false},
      {key: "picture", hidden: true, value: lab.DIGITS[4], pattern: /^[a-q]{64}$/},
      {key: "hide", hidden: true, value: "00000000ffffffff", pattern: /^[0-9a-f]{16}$/},
    ],

    start(root, bench) {
      const $ = selector => root.querySelector(selector), play = lab.player(bench, $(".player"), () => 4), pad = $("#pad"), film = $("#digits-film");
      let states = [], of = 0, frames = null, cursor = 0, focused = false, dirty = true;

      const worker = lab.worker(answer => {
        if (answer.done) $("#digits-ms").textContent = `${lab.words(answer.ms / 1000, 2)} s`;
        else { states.push(answer); of = answer.of; }
        $("#digits-progress").textContent = answer.done ? "done" : `${states.length} of ${of}`;
        root.dataset.done = String(Boolean(answer.done));
        frames = null;
        dirty = true;
        bench.redraw();
        if (answer.done) lab.say(`The walk has ended after ${calls(bench.state)} calls of the network.`);
      });
      worker.open({file: FILES["digits.safetensors"], digits: lab.DIGITS});

      const calls = ({y, scale}) => (states.length - 1) * (y !== "10" && scale !== 0 && scale !== 1 ? 2 : 1);

      function ask({mode, y, scale, sampler, spacing, steps, eta, seed, from, picture, hide}) {
        states = [];
        frames = null;
        root.dataset.done = "false";
        worker.ask({kind: "digit", mode, y: Number(y), scale, sampler, spacing, steps, eta, seed, from, picture: pixels_of(picture), hidden: hidden_of(hide)});
      }

      // One column of the film for each chosen state: x_t above, x̂_0 below, t under both.
      function show_film() {
        const numbers = chosen(states);
        film.replaceChildren(...numbers.map(i => {
          const column = document.createElement("div"), {t, x_t, x_0} = states[i];
          column.className = "frame";
          for (const x of [x_t, x_0]) { const cell = document.createElement("canvas"); lab.paint(cell, x); column.append(cell); }
          column.insertAdjacentHTML("beforeend", `<span>${t}</span>`);
          column.addEventListener("click", () => bench.set({at: 100 * i / Math.max(states.length - 1, 1)}));
          return column;
        }));
        frames = numbers;
      }

      // The drawing: a canvas of 8×8 cells for the pointer and the keyboard.
      function draw_pad({mode, picture, hide}) {
        const [pen, w] = lab.fitted(pad), cell = w / 8, x = pixels_of(picture), hidden = hidden_of(hide);
        for (let i = 0; i < 64; i++) {
          const left = i % 8 * cell, top = Math.floor(i / 8) * cell, grey = lab.HEALTHY.denormalise(x[i]);
          pen.fillStyle = `rgb(${grey} ${grey} ${grey})`;
          pen.fillRect(left, top, cell + 0.5, cell + 0.5);
          if (mode === "hidden" && hidden[i]) {                 // a second cue besides the colour: stripes
            pen.fillStyle = lab.colour("orange");
            pen.fillRect(Math.floor(left), Math.floor(top), Math.ceil(cell) + 1, Math.ceil(cell) + 1);
            pen.strokeStyle = lab.colour("stripe"); pen.lineWidth = 1.5;
            pen.beginPath();
            pen.moveTo(left + 2, top + cell - 2); pen.lineTo(left + cell - 2, top + 2);
            pen.stroke();
          }
        }
        if (!focused) return;
        pen.strokeStyle = lab.colour("sky");                    // the keyboard's pen
        pen.lineWidth = 3;
        pen.strokeRect(cursor % 8 * cell + 1.5, Math.floor(cursor / 8) * cell + 1.5, cell - 3, cell - 3);
      }

      function put(i) {
        const {ink, picture, hide, mode} = bench.state;
        if (ink === "hide" || ink === "show") {
          if (mode !== "hidden") return;
          const hidden = hidden_of(hide);
          hidden[i] = ink === "hide";
          bench.set({hide: text_of(hidden)});
        } else {
          bench.set({picture: picture.slice(0, i) + {white: "q", grey: "i", black: "a"}[ink] + picture.slice(i + 1)});
        }
      }
      const cell_at = event => {
        const box = pad.getBoundingClientRect();
        const c = Math.floor((event.clientX - box.left) / box.width * 8), r = Math.floor((event.clientY - box.top) / box.height * 8);
        return c >= 0 && c < 8 && r >= 0 && r < 8 ? 8 * r + c : -1;
      };
      const touch = event => { const i = cell_at(event); if (i >= 0) put(i); };
      pad.addEventListener("pointerdown", event => { pad.setPointerCapture(event.pointerId); touch(event); });
      pad.addEventListener("pointermove", event => { if (pad.hasPointerCapture(event.pointerId)) touch(event); });
      pad.addEventListener("keydown", event => {
        const move = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key], inside = v => Math.min(Math.max(v, 0), 7);
        if (!(move || event.key === "Enter" || event.key === " ")) return;
        event.preventDefault();
        if (move) cursor = 8 * inside(Math.floor(cursor / 8) + move[0]) + inside(cursor % 8 + move[1]);
        else put(cursor);
        lab.say(`Row ${Math.floor(cursor / 8) + 1}, column ${cursor % 8 + 1}.`);
        draw_pad(bench.state);
      });
      for (const [kind, value] of [["focus", true], ["blur", false]]) pad.addEventListener(kind, () => { focused = value; draw_pad(bench.state); });
      for (const button of root.querySelectorAll("[data-digit]")) {
        const {digit} = button.dataset;
        button.addEventListener("click", () => bench.set({picture: lab.DIGITS[digit], y: digit}));
      }
      $("#pad-clear").addEventListener("click", () => bench.set({picture: "a".repeat(64), ink: "white"}));
      $("#digits-new").addEventListener("click", () => bench.set({seed: (bench.state.seed + 1) % 1000}));

      const film_only = new Set(["at", "size", "loop", "ink"]);
      let waiting = 0, asked = false;
      return {
        leave: () => play.stop(),
        update(state, changed) {
          const drawing = state.mode !== "noise";
          $(".drawing").hidden = !drawing;
          for (const option of $(".pens select").options) option.hidden = option.disabled = ["hide", "show"].includes(option.value) && state.mode !== "hidden";
          if (changed.has("mode")) bench.set({ink: state.mode === "hidden" ? "hide" : "white"}, true);
          if (drawing) draw_pad(state);
          if ([...changed].some(key => !film_only.has(key))) {
            clearTimeout(waiting);
            root.dataset.done = "false";
            waiting = setTimeout(() => ask(bench.state), asked ? 120 : 0);                // a slider that is being dragged asks once
            asked = true;
          }
          if (!states.length) return;
          if (dirty) { show_film(); dirty = false; }
          const i = Math.round(state.at / 100 * (states.length - 1)), {t, x_t, x_0} = states[i];
          lab.paint($("#digits-xt"), x_t);
          lab.paint($("#digits-x0"), x_0);
          $("#digits-t").textContent = t;
          $("#digits-calls").textContent = calls(state);
          $("#digits-xt").setAttribute("aria-label", `The noisy image at t = ${t}`);
          $("#digits-x0").setAttribute("aria-label", `What the network believes the digit to be, at t = ${t}`);
          if (frames) [...film.children].forEach((column, k) => column.classList.toggle("now", Math.abs(frames[k] - i) <= (states.length - 1) / FRAMES / 2));
          root.film = {states, play};
        },
      };
    },
  });
})();
