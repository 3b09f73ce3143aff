// What all benches share: controls made from a list, their state in the address, and a few ways to draw.
//
// A bench is {name, controls, start}.  A control is one of
//   {key, label, choices: [[value, words], …], value}                  a list to choose from
//   {key, label, min, max, step, value, log}                           a slider with a field of its own; log: even in factors
//   {key, label, check: true, value}                                   yes or no
//   {key, value, hidden: true}                                         no control, but in the address: a drawing, a place in time
// and may have  hint (a title),  in (where in the bench it stands),  when (state → is it of use now?).
// start(root, bench) → {update(state, changed), enter(), leave()}.   update runs at most once a frame.
"use strict";

(() => {
  const benches = {}, $ = (selector, root = document) => root.querySelector(selector);
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let current = null, theme = "auto";

  // ------------------------------------------------------------------------------------------------------------------------------ numbers

  // "0.02", "0,02", "1.000,5" and "1,000.5": whichever of comma and point comes last is the decimal one.  NaN where there is no number.
  function parse_number(text) {
    const cleaned = String(text).trim().replace(/[\s'’_]/g, "").replace("−", "-"), last = Math.max(cleaned.lastIndexOf(","), cleaned.lastIndexOf("."));
    const whole = last < 0 ? cleaned : cleaned.slice(0, last).replace(/[.,]/g, "") + "." + cleaned.slice(last + 1);
    return /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(whole) ? Number(whole) : NaN;
  }

  // At most `digits` of them, and no 1e-7 where a person reads.
  function words(value, digits = 3) {
    if (!Number.isFinite(value)) return value > 0 ? "∞" : value < 0 ? "−∞" : "–";
    const size = Math.abs(value);
    if (size && (size < 1e-4 || size >= 1e5)) {
      const [front, power] = value.toExponential(Math.max(digits - 2, 0)).split("e");
      return `${front.replace("-", "−")}·10${[...String(Number(power))].map(c => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] || "⁻").join("")}`;
    }
    return String(Number(value.toPrecision(digits))).replace("-", "−");
  }

  const within = ({min, max, step, log}, value) => {
    const snapped = log ? Number(value.toPrecision(3)) : min + Math.round((value - min) / step) * step;
    return Number(Math.min(Math.max(snapped, min), max).toFixed(10));
  };

  // ------------------------------------------------------------------------------------------------------------------------------ benches

  function bench(definition) {
    const root = document.getElementById(definition.name), state = {}, inputs = {}, changed = new Set();
    const self = {state, root, set, written: true};
    let waiting = false, parts = null;
    for (const control of definition.controls) {
      state[control.key] = control.value;
      if (!control.hidden) inputs[control.key] = make(control, $(control.in || ".controls", root), value => set({[control.key]: value}));
    }

    function set(patch, quietly = false) {                      // quietly: the address waits, as while a film runs
      for (const [key, value] of Object.entries(patch)) {
        if (state[key] === value) { if (inputs[key]) inputs[key].show(value); continue; }
        state[key] = value;
        changed.add(key);
        if (inputs[key]) inputs[key].show(value);
      }
      if (!quietly) write_address();
      soon();
    }

    function soon() {
      if (waiting || current !== self) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        if (current !== self) return;
        for (const control of definition.controls) if (control.when) inputs[control.key].row.hidden = !control.when(state);
        const now = new Set(changed);
        changed.clear();
        parts.update(state, now);
      });
    }

    self.enter = () => {
      if (!parts) {
        parts = definition.start(root, self);
        new ResizeObserver(() => { changed.add("size"); soon(); }).observe(root);
        for (const key of Object.keys(state)) changed.add(key);
      }
      changed.add("size");
      soon();
      if (parts.enter) parts.enter();
    };
    self.leave = () => { if (parts && parts.leave) parts.leave(); };
    self.redraw = () => { changed.add("size"); soon(); };

    self.read = params => {
      const patch = {};
      for (const control of definition.controls) patch[control.key] = params.has(control.key) ? read(control, params.get(control.key)) : control.value;
      set(patch, true);
    };
    self.write = params => {
      for (const {key, value} of definition.controls) {
        if (state[key] !== value) params.set(key, String(typeof value === "boolean" ? Number(state[key]) : state[key]));
      }
    };
    $(".reset", root).addEventListener("click", () => set(Object.fromEntries(definition.controls.map(({key, value}) => [key, value]))));
    benches[definition.name] = self;
  }

  function read(control, text) {
    if (control.choices) return control.choices.some(([value]) => String(value) === text) ? text : control.value;
    if (control.check) return text === "1";
    if (control.hidden && typeof control.value === "string") return control.pattern.test(text) ? text : control.value;
    const value = parse_number(text);
    return Number.isNaN(value) ? control.value : within(control, value);
  }

  // One control, as its label, its input and what shows a value in them.
  function make(control, place, changed) {
    const row = document.createElement("div"), id = `${place.closest(".bench").id}-${control.key}`, {label, hint} = control;
    row.className = "control";
    if (hint) row.title = hint;
    if (control.choices) {
      const options = control.choices.map(([value, text]) => `<option value="${value}">${text}</option>`).join("");
      row.innerHTML = `<label for="${id}">${label}</label><select id="${id}">${options}</select>`;
      const select = $("select", row);
      select.addEventListener("change", () => changed(select.value));
      place.append(row);
      select.value = control.value;
      return {row, show: value => { select.value = value; }};
    }
    if (control.check) {
      row.innerHTML = `<label class="check"><input type="checkbox" id="${id}"><span>${label}</span></label>`;
      const box = $("input", row);
      box.addEventListener("change", () => changed(box.checked));
      place.append(row);
      box.checked = control.value;
      return {row, show: value => { box.checked = value; }};
    }
    const {min, max, step, log} = control, to = v => log ? Math.log10(v) : v, from = v => log ? 10 ** v : v;
    const spoken = `${label.replace(/<[^>]*>/g, "")}, as a number`;
    row.innerHTML = control.bare ? `<label for="${id}" class="unseen">${label}</label>`
      : `<label for="${id}">${label}</label><input class="number" type="text" inputmode="decimal" aria-label="${spoken}" autocomplete="off">`;
    row.insertAdjacentHTML("beforeend", `<input type="range" id="${id}" min="${to(min)}" max="${to(max)}" step="${log ? 0.01 : step}">`);
    const field = $(".number", row), slider = $("[type=range]", row);
    slider.addEventListener("input", () => changed(within(control, from(Number(slider.value)))));
    if (field) field.addEventListener("change", () => {
      const value = parse_number(field.value);
      changed(Number.isNaN(value) ? Number(slider.dataset.value) : within(control, value));
    });
    const show = value => {
      slider.value = to(value);
      slider.dataset.value = value;
      slider.setAttribute("aria-valuetext", words(value, 4));
      if (field && (document.activeElement !== field || parse_number(field.value) !== value)) field.value = String(value);
    };
    place.append(row);
    show(control.value);
    return {row, show};
  }

  // ------------------------------------------------------------------------------------------------------------------------------ the address

  // "Look at this": everything that differs from how the page begins stands behind the #.
  function write_address() {
    const params = new URLSearchParams({bench: name_of(current)});
    if (theme !== "auto") params.set("theme", theme);
    current.write(params);
    const hash = `#${params}`;
    if (hash === location.hash) return;
    try { history.replaceState(null, "", hash); } catch { location.replace(hash); }
  }

  function read_address() {
    const params = new URLSearchParams(location.hash.slice(1)), asked = benches[params.get("bench")] || benches.schedules;
    show_theme(["light", "dark"].includes(params.get("theme")) ? params.get("theme") : "auto");
    asked.read(params);
    go(name_of(asked));
  }

  const name_of = asked => Object.keys(benches).find(name => benches[name] === asked);

  function go(name) {
    if (current && current !== benches[name]) current.leave();
    current = benches[name];
    for (const section of document.querySelectorAll(".bench")) section.hidden = section.id !== name;
    for (const tab of document.querySelectorAll("nav [data-bench]")) tab.setAttribute("aria-current", tab.dataset.bench === name ? "page" : "false");
    current.enter();
  }

  function show_theme(value) {
    theme = value;
    $("#theme").value = value;
    if (value === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = value;
    if (current) current.redraw();
  }

  // ------------------------------------------------------------------------------------------------------------------------------ drawing

  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const COLOURS = ["blue", "vermilion", "green", "purple", "orange", "sky", "grey", "yellow"];        // Okabe and Ito's, told apart by colour-blind readers

  // A canvas as sharp as the screen: its context in CSS pixels, its width and its height.
  function fitted(canvas) {
    const ratio = devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
    if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
      canvas.width = Math.round(w * ratio);
      canvas.height = Math.round(h * ratio);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, w, h);
    return [pen, w, h];
  }

  // Lines over t/T.   lines: [{values, colour, dash}];  ticks: [[value, words], …];  at: a vertical line;  returns how pixels belong to values.
  function plot(canvas, {lines, low, high, ticks, at, log}) {
    const [pen, w, h] = fitted(canvas), left = 46, right = 10, top = 10, bottom = 24;
    const scale = log ? Math.log10 : v => v, a = scale(low), b = scale(high);
    const X = u => left + u * (w - left - right), Y = v => top + (b - Math.min(Math.max(scale(v), a - 1), b + 1)) / (b - a) * (h - top - bottom);
    pen.font = "12px system-ui, sans-serif";
    pen.textBaseline = "middle";
    pen.lineWidth = 1;
    pen.strokeStyle = colour("line");
    pen.fillStyle = colour("soft");
    pen.textAlign = "right";
    for (const [value, text] of ticks) {
      pen.beginPath(); pen.moveTo(left, Y(value)); pen.lineTo(w - right, Y(value)); pen.stroke();
      pen.fillText(text, left - 6, Y(value));
    }
    for (const [u, text, align] of [[0, "t/T = 0", "left"], [0.5, "0.5", "center"], [1, "1", "right"]]) {
      pen.textAlign = align;
      pen.fillText(text, X(u), h - 8);
    }
    pen.save();
    pen.beginPath(); pen.rect(left, top - 2, w - left - right, h - top - bottom + 4); pen.clip();
    pen.strokeStyle = colour("soft");
    pen.beginPath(); pen.moveTo(X(at), top); pen.lineTo(X(at), h - bottom); pen.stroke();
    for (const {values, colour: name, dash} of lines) {
      pen.strokeStyle = colour(name);
      pen.lineWidth = 2.2;
      pen.setLineDash(dash || []);
      pen.beginPath();
      const T = values.length - 1, stride = Math.max(1, Math.floor(T / 400));
      let begun = false;
      for (let t = 0; t <= T; t = t === T ? T + 1 : Math.min(t + stride, T)) {
        if (!Number.isFinite(scale(values[t]))) continue;
        pen[begun ? "lineTo" : "moveTo"](X(t / T), Y(values[t]));
        begun = true;
      }
      pen.stroke();
    }
    pen.restore();
    const value = y => { const v = b - (y - top) / (h - top - bottom) * (b - a); return log ? 10 ** v : v; };
    return {pen, X, Y, value, share: x => (x - left) / (w - left - right)};
  }

  // An image in [−1, 1] on a canvas of as many pixels; CSS makes it large without smearing.
  function paint(canvas, x, grey = lab.HEALTHY.denormalise) {
    const side = Math.sqrt(x.length), pen = canvas.getContext("2d");
    if (canvas.width !== side) canvas.width = canvas.height = side;
    const image = pen.createImageData(side, side);
    for (let i = 0; i < x.length; i++) {
      image.data[4 * i] = image.data[4 * i + 1] = image.data[4 * i + 2] = grey(x[i]);
      image.data[4 * i + 3] = 255;
    }
    pen.putImageData(image, 0, 0);
  }

  // "x_0", "ᾱ_t" with their index below the line: as HTML, and as text for a list, which knows no HTML.
  const indexed = text => text.replace(/([A-Za-zᾱβε√])(\u0302?)_(\{[^}]*\}|[0-9A-Za-z∅])/g, "$1$2<sub>$3</sub>");
  const indexed_text = text => text.replace(/_0/g, "₀").replace(/_1/g, "₁").replace(/_t/g, "ₜ").replace(/_s/g, "ₛ");

  // Points in the plane, [x, y, x, y, …], within ±extent.
  function scatter(canvas, x, extent, size = 1.6) {
    const [pen, w, h] = fitted(canvas), k = Math.min(w, h) / 2 / extent;
    pen.fillStyle = colour("blue");
    for (let i = 0; i < x.length; i += 2) pen.fillRect(w / 2 + x[i] * k - size / 2, h / 2 - x[i + 1] * k - size / 2, size, size);
  }

  // A place in a film: a play button and a slider, both in `place`; the bench's state `at` is 0 … 100.
  function player(bench, place, seconds) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "play";
    place.prepend(button);
    let playing = false, last = 0;
    const show = () => {
      button.textContent = playing ? "❚❚ Pause" : "▶ Play";
      button.setAttribute("aria-label", playing ? "Pause" : "Play");
    };
    const self = {
      get playing() { return playing; },
      start() { playing = true; last = 0; if (bench.state.at >= 100) bench.set({at: 0}, true); show(); requestAnimationFrame(frame); },
      stop() { if (!playing) return; playing = false; show(); bench.set({at: Math.round(bench.state.at * 10) / 10}); },
    };
    function frame(now) {
      if (!playing) return;
      const passed = last ? Math.min(now - last, 100) : 0;      // a tab that slept goes on where it was
      last = now;
      self.frames = (self.frames || 0) + 1;
      let at = bench.state.at + passed / 10 / seconds(bench.state);
      if (at >= 100) at = bench.state.loop ? at % 100 : 100;
      bench.set({at}, true);
      if (at === 100) self.stop(); else requestAnimationFrame(frame);
    }
    button.addEventListener("click", () => playing ? self.stop() : self.start());
    show();
    return self;
  }

  // A sentence for those who hear the page, said when it has stood still for a moment.
  let saying = 0;
  function say(sentence) {
    clearTimeout(saying);
    saying = setTimeout(() => { $("#said").textContent = sentence; }, 600);
  }

  // ------------------------------------------------------------------------------------------------------------------------------ begin

  function begin() {
    const notebooks = $("meta[name=notebooks]").content;        // where the course lies; the book puts its own pages there
    for (const link of document.querySelectorAll("[data-notebook]")) {
      link.href = notebooks.replace("{}", link.dataset.notebook);
      link.target = "_top";                                     // out of the frame, where the book shows the laboratory in one
    }
    for (const tab of document.querySelectorAll("nav [data-bench]")) tab.addEventListener("click", event => {
      event.preventDefault();
      go(tab.dataset.bench);
      write_address();
      scrollTo(0, 0);
    });
    $("#theme").addEventListener("change", event => { show_theme(event.target.value); write_address(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => current.redraw());
    addEventListener("hashchange", read_address);
    read_address();
    $("#copy").addEventListener("click", async () => {
      write_address();
      try { await navigator.clipboard.writeText(location.href); say("The address is copied."); $("#copy").textContent = "Copied"; }
      catch { $("#copy").textContent = "It is in the address bar"; }
      setTimeout(() => { $("#copy").textContent = "Copy link"; }, 2000);
    });
  }

  Object.assign(lab, {COLOURS, begin, bench, benches, colour, fitted, indexed, indexed_text, paint, parse_number, player, plot, say, scatter, still, words});
})();
