/* The page "Try it": what the reader handles. The model runs in worker.js, which is loaded when the
   reader starts it. Where a browser lacks what it needs, the page stays as it is: a picture and a
   sentence. */
import { Words } from "./words.js";

const root = document.getElementById("mgca-try");
const at = (name) => new URL(name, import.meta.url);
const POINTS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 28]; // along each side
const HEAT = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]]; // viridis

if (root && globalThis.WebAssembly && globalThis.Worker && globalThis.OffscreenCanvas && globalThis.DecompressionStream) offer();

/** An element with properties, attributes (names with a dash, role, for) and children. */
function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role" || key === "for") node.setAttribute(key, value);
    else node[key] = value;
  }
  node.append(...children);
  return node;
}

/** The button that starts it all, instead of the sentence that it can't be. */
function offer() {
  const size = (root.dataset.bytes / 1e6).toFixed(0);
  const button = make("button", { type: "button", className: "try-start" }, `Start here (loads ${size} MB)`);
  const bar = make("progress", { max: 1, value: 0, hidden: true, "aria-label": "Loading" });
  const status = make("p", { className: "try-status", role: "status" });
  root.querySelector(".try-lacking").replaceWith(make("p", {}, button, " ", bar), status);
  button.onclick = async () => {
    button.disabled = true;
    bar.hidden = false;
    status.textContent = "Loading the model and the words …";
    try {
      const model = new Model((share) => { bar.value = share; });
      const { words, about } = await model.ask("start");
      root.replaceChildren();
      new Handling(model, new Words(words), about);
    } catch (error) {
      status.textContent = `It could not be loaded: ${error.message}`;
      button.disabled = false;
      bar.hidden = true;
    }
  };
}

/** The worker, asked and answering. */
class Model {
  constructor(progress) {
    this.waiting = new Map();
    this.progress = progress;
    this.worker = new Worker(at("worker.js"), { type: "module" });
    this.worker.onmessage = ({ data: { id, type, error, ...answer } }) => {
      if (type === "progress") return this.progress(answer.share);
      const [resolve, reject] = this.waiting.get(id);
      this.waiting.delete(id);
      error ? reject(new Error(error)) : resolve(answer);
    };
    this.worker.onerror = (event) => {
      for (const [, reject] of this.waiting.values()) reject(new Error(event.message || "its script did not load"));
    };
  }

  ask(type, what = {}) {
    const id = crypto.getRandomValues(new Uint32Array(1))[0];
    this.worker.postMessage({ id, type, ...what });
    return new Promise((resolve, reject) => this.waiting.set(id, [resolve, reject]));
  }
}

/** One picture with its labels, or the similarities of a word. */
class View {
  constructor(title) {
    this.canvas = make("canvas", { role: "img", "aria-label": title });
    this.caption = make("figcaption", {}, title);
    this.figure = make("figure", {}, this.canvas, this.caption);
    this.title = title;
  }

  open({ width, height, rgba }) {
    Object.assign(this.canvas, { width, height });
    this.photo = rgba;
    this.paint(() => null);
  }

  /** The photograph under colours: colour(pixel) is [red, green, blue], or null for none. */
  paint(colour, alpha = 0.6) {
    const { width, height } = this.canvas, out = new ImageData(new Uint8ClampedArray(this.photo), width, height);
    for (let n = 0, m = 0; m < out.data.length; n++, m += 4) {
      const over = colour(n);
      if (over) for (let c = 0; c < 3; c++) out.data[m + c] += alpha * (over[c] - out.data[m + c]);
    }
    this.canvas.getContext("2d").putImageData(out, 0, 0);
  }
}

class Handling {
  constructor(model, words, about) {
    Object.assign(this, { model, words, about, names: [], photo: null, held: null });
    this.running = false;
    this.views = [new View("Pixel unit"), new View("Adaptive unit")];
    this.bar = make("progress", { max: 1, value: 0, hidden: true, "aria-label": "Computing" });
    this.status = make("p", { className: "try-status", role: "status" }, "Choose a photograph.");
    this.under = make("p", { className: "try-under" });
    this.legend = make("ul", { className: "try-legend" });
    this.model.progress = (share) => { this.bar.value = share; };
    root.append(this.photographs(), this.wordForm(), this.legend, this.sliders(), this.status, this.bar,
      make("div", { className: "try-views" }, ...this.views.map((view) => view.figure)), this.under, this.saving());
    this.views.forEach((view) => this.follow(view.canvas));
    this.ready();
  }

  // ---------------------------------------------------------------- what is asked for

  photographs() {
    const input = make("input", { type: "file", accept: "image/*", id: "try-file" });
    input.onchange = () => input.files.length && this.open(input.files[0]);
    const ready = Object.entries(this.about.photos).map(([name, { title, words, credit }]) => {
      const image = make("img", { src: at(`${name}.jpg`), alt: "", width: 96, height: 64 });
      const button = make("button", { type: "button", title: credit }, image, title);
      button.onclick = async () => this.open(await (await fetch(at(`${name}.jpg`))).blob(), words);
      return button;
    });
    root.ondragover = (event) => event.preventDefault();
    root.ondrop = (event) => {
      event.preventDefault();
      const [file] = event.dataTransfer.files;
      if (file) this.open(file);
    };
    return make("div", { className: "try-photos" },
      make("label", { className: "try-file", for: "try-file" }, "Choose or drop a photograph, or take one of these: ", input),
      make("div", { className: "try-ready" }, ...ready));
  }

  wordForm() {
    const list = make("datalist", { id: "try-list" });
    const input = make("input", { type: "text", id: "try-word", autocomplete: "off", autocapitalize: "none", spellcheck: false });
    input.setAttribute("list", "try-list");
    input.oninput = () => list.replaceChildren(...this.words.suggestions(input.value).map((value) => make("option", { value })));
    this.told = make("p", { className: "try-told", role: "status" });
    const form = make("form", { className: "try-form" },
      make("label", { for: "try-word" }, "Words: "), input, list, make("button", { type: "submit" }, "Add"));
    form.onsubmit = (event) => {
      event.preventDefault();
      for (const text of input.value.split(",")) if (Words.tidy(text)) this.add(Words.tidy(text));
      input.value = "";
      list.replaceChildren();
    };
    return make("div", {}, form, this.told);
  }

  add(name) {
    this.told.textContent = "";
    const most = this.about.colours.length - 1;
    if (this.names.includes(name)) this.told.textContent = `“${name}” is there already.`;
    else if (this.names.length >= most) this.told.textContent = `No more than ${most} words at once.`;
    else if (!this.words.has(name)) this.offerNearest(name);
    else this.take([...this.names, name]);
  }

  /** A word that is not in the table says so, and the nearest can be taken. */
  offerNearest(name) {
    const nearest = this.words.nearest(name);
    this.told.append(`“${name}” is not among the ${this.words.list.length.toLocaleString("en")} words here. `);
    if (nearest.length) this.told.append("Nearest in spelling: ");
    for (const other of nearest) {
      const button = make("button", { type: "button" }, other);
      button.onclick = () => this.add(other);
      this.told.append(button, " ");
    }
  }

  take(names) {
    this.names = names;
    this.held = null;
    this.drawLegend();
    this.update();
  }

  sliders() {
    const slider = (id, label, properties, changed) => {
      const input = make("input", { type: "range", id, ...properties }), value = make("output", { for: id });
      const said = () => { value.textContent = changed(Number(input.value)); };
      input.oninput = () => { said(); this.update(); };
      said();
      return [make("div", { className: "try-slider" }, make("label", { for: id }, label), input, value), input];
    };
    const usual = POINTS.indexOf(Math.sqrt(this.about.config.meta_points));
    const [points] = slider("try-points", "Meta-points in a window", { min: 0, max: POINTS.length - 1, value: usual < 0 ? 5 : usual }, (n) => {
      this.side = POINTS[n];
      return `${this.side ** 2}`;
    });
    const box = make("input", { type: "checkbox", id: "try-background" });
    const [threshold, range] = slider("try-threshold", "Threshold of the background", { min: 0, max: 1, step: 0.01, value: 0.5, disabled: true }, (value) => {
      this.threshold = value;
      return value.toFixed(2);
    });
    box.onchange = () => {
      range.disabled = !box.checked;
      this.update();
    };
    this.background = () => (box.checked ? this.threshold : null);
    return make("div", { className: "try-sliders" }, points,
      make("label", { className: "try-check" }, box, " Pixels where no word is sure enough are background"), threshold);
  }

  saving() {
    this.save = make("button", { type: "button", disabled: true }, "Save the labels of the adaptive unit (PNG)");
    this.save.onclick = () => this.attempt(async () => {
      const { file } = await this.model.ask("save", this.settings());
      const link = make("a", { href: URL.createObjectURL(file), download: "labels.png" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    });
    return make("p", {}, this.save);
  }

  settings() {
    return { names: this.names, side: this.side, background: this.background() };
  }

  // ---------------------------------------------------------------- what is answered

  busy(text) {
    root.dataset.state = "busy";
    if (text) this.status.textContent = text;
  }

  ready(text) {
    root.dataset.state = "ready";
    if (text) this.status.textContent = text;
  }

  /** Say what went wrong, where something does. */
  async attempt(work) {
    try {
      await work();
    } catch (error) {
      this.ready(error.message);
    }
  }

  open(file, words = null) {
    return this.attempt(async () => {
      const start = performance.now();
      this.busy("Looking at the photograph …");
      Object.assign(this.bar, { hidden: false, value: 0 });
      try {
        this.photo = await this.model.ask("open", { file });
      } finally {
        this.bar.hidden = true;
      }
      this.forget();
      this.views.forEach((view) => view.open(this.photo));
      root.classList.add("try-open");
      this.took = start;
      if (words) this.take([...words]);
      else this.update();
    });
  }

  /** There are no labels, of another photograph or of no words. */
  forget() {
    Object.assign(this, { maps: null, shares: null, repaint: null });
    this.save.disabled = true;
  }

  /** Segment as is asked now; what was asked for meanwhile is done after, once. */
  update() {
    return this.attempt(async () => {
      this.again = true;
      if (this.running || !this.photo) return;
      this.running = true;
      try {
        while (this.again) {
          this.again = false;
          if (!this.names.length) {
            this.forget();
            this.views.forEach((view) => view.paint(() => null));
            this.ready("Type words for what is in the photograph.");
            continue;
          }
          this.busy();
          const start = this.took ?? performance.now(), settings = this.settings();
          const { maps } = await this.model.ask("segment", settings);
          this.draw(maps, settings);
          const seconds = (performance.now() - start) / 1000;
          root.dataset[this.took ? "first" : "next"] = seconds;
          this.took = null;
          if (!this.again) this.ready(`Computed in ${seconds.toFixed(seconds < 1 ? 2 : 1)} s. Beside each word is its share, pixel · adaptive unit.`);
        }
      } finally {
        this.running = false;
      }
      if (this.held !== null) await this.showSimilarity(this.held);
    });
  }

  draw(maps, { names, background }) {
    const shift = background === null ? 1 : 0, colours = this.about.colours.slice(shift);
    const classes = shift ? names : ["background", ...names];
    this.maps = maps;
    this.shares = maps.map((map) => {
      const counts = classes.map(() => 0);
      for (const label of map) counts[label]++;
      return counts.map((count) => count / map.length);
    });
    this.views.forEach((view, n) => {
      view.paint((pixel) => colours[maps[n][pixel]]);
      const told = classes.map((name, label) => `${name} ${(100 * this.shares[n][label]).toFixed(0)} %`);
      view.canvas.setAttribute("aria-label", `${view.title}: ${told.join(", ")}`);
      view.caption.textContent = view.title;
    });
    this.repaint = () => this.draw(maps, { names, background });
    this.drawLegend();
    this.save.disabled = false;
  }

  drawLegend() {
    const skip = (this.shares?.[0].length ?? 0) - this.names.length; // the background comes first
    const held = document.activeElement?.dataset?.word; // a button that has the focus keeps it
    const items = this.names.map((name, n) => {
      const swatch = make("span", { className: "try-swatch" });
      swatch.style.background = `rgb(${this.about.colours[n + 1]})`;
      const parts = this.shares?.map((shares) => shares[n + skip]) ?? [];
      const share = parts.length && parts.every(Number.isFinite) ? ` ${parts.map((part) => (100 * part).toFixed(0)).join(" · ")} %` : "";
      const word = make("button", { type: "button", className: "try-word", "aria-pressed": this.held === n, "data-word": name }, swatch, name, make("small", {}, share));
      word.onpointerenter = (event) => event.pointerType === "mouse" && this.showSimilarity(n);
      word.onpointerleave = (event) => event.pointerType === "mouse" && this.release();
      word.onclick = () => {
        this.held = this.held === n ? null : n;
        this.drawLegend();
        this.held === null ? this.release() : this.showSimilarity(n);
      };
      const remove = make("button", { type: "button", className: "try-remove", "aria-label": `Remove ${name}` }, "×");
      remove.onclick = () => this.take(this.names.filter((_, other) => other !== n));
      return make("li", {}, word, remove);
    });
    this.legend.replaceChildren(...items);
    if (held) this.legend.querySelector(`[data-word="${CSS.escape(held)}"]`)?.focus();
  }

  release() {
    this.shown = null;
    if (this.held !== null) this.showSimilarity(this.held);
    else if (this.names.length) this.repaint?.();
  }

  /** The similarity map of a word, on both views, in the colours of one scale. */
  showSimilarity(n) {
    return this.attempt(async () => {
      if (!this.photo || this.running || !this.maps) return;
      this.shown = n;
      const { maps } = await this.model.ask("similarity", { number: n });
      if (this.shown !== n) return;
      let low = Infinity, high = -Infinity;
      for (const value of maps[0]) {
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
      this.views.forEach((view, which) => {
        view.paint((pixel) => heat((maps[which][pixel] - low) / (high - low || 1)), 0.8);
        view.caption.textContent = `${view.title}: similarity to “${this.names[n]}”, ${low.toFixed(2)} dark to ${high.toFixed(2)} bright`;
      });
    });
  }

  /** What each word's similarity is under the pointer. */
  follow(canvas) {
    let asking = false;
    const look = async (event) => {
      if (asking || this.running || !this.maps || !this.names.length) return;
      const box = canvas.getBoundingClientRect();
      const along = (place, length, size) => Math.min(size - 1, Math.max(0, Math.floor((place / length) * size)));
      const x = along(event.clientX - box.left, box.width, canvas.width), y = along(event.clientY - box.top, box.height, canvas.height);
      asking = true;
      try {
        const names = this.names, { cosines } = await this.model.ask("point", { x, y, names });
        this.under.textContent = `Under the pointer, pixel · unit: ${names.map((name, n) => `${name} ${cosines[0][n].toFixed(2)} · ${cosines[1][n].toFixed(2)}`).join(", ")}`;
      } finally {
        asking = false;
      }
    };
    canvas.addEventListener("pointermove", look);
    canvas.addEventListener("pointerdown", look);
  }
}

function heat(value) {
  const place = Math.min(Math.max(value, 0), 1) * (HEAT.length - 1), below = Math.min(Math.floor(place), HEAT.length - 2);
  return HEAT[below].map((from, c) => from + (place - below) * (HEAT[below + 1][c] - from));
}
