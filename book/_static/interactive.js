/* Figures that a reader handles: <mgca-figure kind="..." data="notebook/name">.

   The data is a script, interactive/<notebook>/<name>.js, which calls mgcaInteractive(name, data):
   a page opened from a folder may load scripts, though it may not fetch files. It is asked for when
   the figure comes near the window. mgca/interactive.py writes it and describes its contents. Until
   it is there, without scripts and on paper, the figure is the picture inside the element. */
(() => {
  "use strict";

  const FOLDER = new URL("../interactive/", document.currentScript.src);
  const arrived = new Map(); // by name: what to do with the data

  window.mgcaInteractive = (name, data) => arrived.get(name)?.(data);

  const loaded = new Map();
  function load(name) {
    if (!loaded.has(name)) {
      loaded.set(name, new Promise((resolve, reject) => {
        arrived.set(name, resolve);
        const script = document.createElement("script");
        script.src = new URL(`${name}.js`, FOLDER);
        script.onerror = () => reject(new Error(`${script.src} could not be loaded`));
        document.head.append(script);
      }));
    }
    return loaded.get(name);
  }

  // ---------------------------------------------------------------- small helpers

  let count = 0;
  const unique = () => `mgca-${++count}`;

  /** An element with properties, attributes (names with a dash, role) and children. */
  function make(tag, properties = {}, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(properties)) {
      if (key.includes("-") || key === "role" || key === "for") node.setAttribute(key, value);
      else node[key] = value;
    }
    node.append(...children);
    return node;
  }

  /** An element of a drawing. */
  function draw(tag, attributes = {}, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  /** The numbers of an array that Python has encoded; its shape is beside them. */
  function numbers({ type, shape, data }) {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    if (type === "uint8") return bytes;
    const wide = new Uint16Array(bytes.buffer);
    if (type === "uint16") return wide;
    const out = new Uint16Array(shape.reduce((a, b) => a * b, 1));
    let at = 0;
    for (let i = 0; i < wide.length; i += 2) {
      out.fill(wide[i], at, at + wide[i + 1]);
      at += wide[i + 1];
    }
    return out;
  }

  function picture(address) {
    return new Promise((resolve, reject) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => reject(new Error("a picture could not be read"));
      image.src = address;
    });
  }

  /** A labelled <select>; choose(index) is called when another option is taken. */
  function selection(label, options, choose) {
    const id = unique();
    const select = make("select", { id, onchange: () => choose(select.selectedIndex) },
      ...options.map((text) => make("option", {}, text)));
    return Object.assign(make("span", { className: "mgca-field" }, make("label", { for: id }, label), select), { select });
  }

  function checkbox(label, checked, toggle, ...marks) {
    const box = make("input", { type: "checkbox", checked, onchange: () => toggle(box.checked) });
    return make("label", { className: "mgca-check" }, box, ...marks, label);
  }

  const colour = (rgb, alpha = 1) => `rgba(${rgb[0]},${rgb[1]},${rgb[2]},${alpha})`;
  const swatch = (rgb) => {
    const node = make("span", { className: "mgca-swatch" });
    node.style.background = colour(rgb);
    return node;
  };
  const status = () => make("p", { className: "mgca-status", role: "status" });

  // ---------------------------------------------------------------- a picture made of cells

  const SIDE = 720; // of the canvas, in its own pixels

  /** A canvas over which a cursor moves: mouse, tap, arrow keys. A click or a key pins it. */
  class Cells {
    constructor(label, changed) {
      this.changed = changed;
      this.canvas = make("canvas", { tabIndex: 0, role: "application", "aria-label": label });
      this.context = this.canvas.getContext("2d");
      this.cell = null;
      this.pinned = false;
      const at = (event) => {
        const box = this.canvas.getBoundingClientRect();
        const along = (place, length, cells) =>
          Math.min(cells - 1, Math.max(0, Math.floor((place / length) * cells)));
        return [along(event.clientX - box.left, box.width, this.width),
          along(event.clientY - box.top, box.height, this.height)];
      };
      this.canvas.addEventListener("pointermove", (event) => {
        if (this.pinned || event.pointerType !== "mouse") return;
        const cell = at(event);
        if (String(cell) !== String(this.cell)) this.move(cell);
      });
      this.canvas.addEventListener("pointerleave", () => this.pinned || this.move(null));
      this.canvas.addEventListener("click", (event) => {
        const cell = at(event);
        this.pinned = !(this.pinned && String(cell) === String(this.cell));
        this.move(cell);
      });
      this.canvas.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.altKey || event.metaKey) return;
        const step = event.shiftKey ? 5 : 1;
        const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
        if (by) {
          const [x, y] = this.cell ?? [this.width >> 1, this.height >> 1];
          this.pinned = true;
          this.move(this.cell ? [Math.min(this.width - 1, Math.max(0, x + by[0])),
            Math.min(this.height - 1, Math.max(0, y + by[1]))] : [x, y]);
        } else if (event.key === "Escape" && this.cell) {
          this.pinned = false;
          this.move(null);
        } else return;
        event.preventDefault();
      });
    }

    /** Another picture of so many cells. */
    show(image, height, width) {
      Object.assign(this, { image, height, width, cell: null, pinned: false });
      this.canvas.width = SIDE;
      this.canvas.height = Math.round((SIDE * image.height) / image.width);
    }

    move(cell) {
      this.cell = cell;
      this.changed();
    }

    /** Index of the cell under the cursor, or -1. */
    get index() {
      return this.cell ? this.cell[1] * this.width + this.cell[0] : -1;
    }

    /** The picture, under colours (RGBA by cell) if there are any. */
    paint(colours) {
      const { context, canvas } = this;
      context.drawImage(this.image, 0, 0, canvas.width, canvas.height);
      if (!colours) return;
      const small = make("canvas", { width: this.width, height: this.height });
      const data = new ImageData(this.width, this.height);
      for (let n = 0; n < this.width * this.height; n++) data.data.set(colours(n), 4 * n);
      small.getContext("2d").putImageData(data, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(small, 0, 0, canvas.width, canvas.height);
      context.imageSmoothingEnabled = true;
    }

    /** Lines between neighbouring cells that differ. */
    borders(differ, style, thickness) {
      const { context, canvas, width, height } = this;
      const [dx, dy] = [canvas.width / width, canvas.height / height];
      context.beginPath();
      for (let y = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          const n = y * width + x;
          if (x + 1 < width && differ(n, n + 1)) {
            context.moveTo((x + 1) * dx, y * dy);
            context.lineTo((x + 1) * dx, (y + 1) * dy);
          }
          if (y + 1 < height && differ(n, n + width)) {
            context.moveTo(x * dx, (y + 1) * dy);
            context.lineTo((x + 1) * dx, (y + 1) * dy);
          }
        }
      }
      context.lineCap = "square";
      context.lineWidth = thickness;
      context.strokeStyle = style;
      context.stroke();
    }

    /** A mark of black and white at a cell, seen on any colour. */
    mark(x, y, radius, square = false) {
      const { context, canvas } = this;
      const [dx, dy] = [canvas.width / this.width, canvas.height / this.height];
      context.beginPath();
      if (square) context.rect(x * dx, y * dy, dx, dy);
      else context.arc((x + 0.5) * dx, (y + 0.5) * dy, radius, 0, 2 * Math.PI);
      context.lineWidth = square ? 6 : 3;
      context.strokeStyle = "black";
      context.stroke();
      if (!square) {
        context.fillStyle = "white";
        context.fill();
        return;
      }
      context.lineWidth = 2.5;
      context.strokeStyle = "white";
      context.stroke();
    }
  }

  // ---------------------------------------------------------------- kind "units"

  async function units(live, data) {
    const pictures = await Promise.all(data.images.map((own) => picture(own.picture)));
    const cache = new Map();
    const read = (array) => {
      if (!cache.has(array)) cache.set(array, numbers(array));
      return cache.get(array);
    };
    let own, step, units, named, truth, shown;
    const view = { borders: true, points: true };
    const colourings = ["classes", "units", "photograph", "exact mask"];

    const cells = new Cells("Picture under its units. Arrow keys move over it, Escape leaves.", update);
    const about = status();
    const under = status();
    const legend = make("ul", { className: "mgca-legend" });
    const slider = make("input", { type: "range", id: unique(), min: 0, max: data.images[0].steps.length - 1,
      step: 1, value: data.start, oninput: restep });
    const images = selection("Image", data.images.map((one) => one.title), choose);
    const colouring = selection("Colours", colourings, () => update());
    const title = make("span", { className: "mgca-value", "aria-hidden": "true" });
    live.append(
      make("div", { className: "mgca-controls" }, images, colouring,
        checkbox("borders of units", true, (on) => { view.borders = on; update(); }),
        checkbox("meta-points", true, (on) => { view.points = on; update(); })),
      make("div", { className: "mgca-slider" }, make("label", { for: slider.id }, "Meta-points"), slider, title),
      make("div", { className: "mgca-split" }, make("div", {}, cells.canvas),
        make("div", {}, legend, about, under)));

    function choose() {
      own = data.images[images.select.selectedIndex];
      const [height, width] = own.steps.find((one) => one.assignment).assignment.shape;
      truth = own.truth && read(own.truth);
      const mask = colouring.select.options[3];
      mask.disabled = mask.hidden = !truth;
      if (!truth && colouring.select.selectedIndex === 3) colouring.select.selectedIndex = 0;
      cells.show(pictures[images.select.selectedIndex], height, width);
      restep();
    }

    function restep() {
      step = own.steps[slider.valueAsNumber];
      const single = step.points === null;
      const total = cells.width * cells.height;
      named = read(step.named);
      units = single ? Uint16Array.from({ length: total }, (_, n) => n) : read(step.assignment);
      shown = units.map((unit) => named[unit]);
      title.textContent = single ? "pixel" : `${step.points ** 2}`;
      slider.setAttribute("aria-valuetext", single ? "pixel, no meta-points" : `${step.points ** 2} meta-points`);
      const counts = new Map();
      for (const label of shown) counts.set(label, (counts.get(label) ?? 0) + 1);
      legend.replaceChildren(...[...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([label, cover]) =>
        make("li", {}, swatch(own.colours[label]), `${own.classes[label]} `,
          make("span", { className: "mgca-quiet" }, `${Math.round((100 * cover) / total)}\u00a0%`))));
      about.textContent = (single ? `Each of ${total} pixel embeddings by itself` : `${step.points ** 2} units`) +
        `: ${step.regions} ${step.regions === 1 ? "region" : "regions"} of one class` +
        (step.right === null ? "." : `, ${step.right.toFixed(1)}\u00a0% of the pixels right.`);
      update();
    }

    function unitColour(unit) {
      // Steps of the golden ratio keep neighbouring numbers apart in hue.
      const hue = (unit * 0.618034) % 1;
      const channel = (shift) => {
        const k = (shift + hue * 6) % 6;
        return 255 * (0.9 - 0.6 * Math.max(0, Math.min(k, 4 - k, 1)));
      };
      return [channel(5), channel(3), channel(1), 160];
    }

    function update() {
      const kind = colourings[colouring.select.selectedIndex];
      const paint = {
        classes: (n) => [...own.colours[shown[n]], 160],
        units: (n) => unitColour(units[n]),
        "exact mask": (n) => (truth[n] === 255 ? [255, 255, 255, 255] : [...own.colours[truth[n]], 160]),
      }[kind];
      cells.paint(paint);
      if (view.borders && step.points !== null) {
        cells.borders((a, b) => units[a] !== units[b], "rgba(255,255,255,.85)", 2);
      }
      const at = cells.index;
      const chosen = at < 0 ? -1 : units[at];
      if (chosen >= 0) {
        const edge = (a, b) => (units[a] === chosen) !== (units[b] === chosen);
        cells.borders(edge, "black", 8);
        cells.borders(edge, "white", 4);
      }
      if (view.points && step.points !== null) {
        const centre = (i, size) => Math.floor(((2 * i + 1) * size) / (2 * step.points));
        const radius = Math.min(6, 90 / step.points);
        for (let i = 0; i < step.points; i++) {
          for (let j = 0; j < step.points; j++) cells.mark(centre(j, cells.width), centre(i, cells.height), radius);
        }
      }
      if (at < 0) {
        under.textContent = "Point at the picture, or move over it with the arrow keys, to see one unit.";
        return;
      }
      cells.mark(...cells.cell, 0, true);
      const size = units.reduce((sum, unit) => sum + (unit === chosen), 0);
      const told = truth && truth[at] !== 255 ? `; the mask says ${own.classes[truth[at]]}` : "";
      const column = `Row ${cells.cell[1] + 1}, column ${cells.cell[0] + 1}: `;
      under.textContent = column + (step.points === null ? "" : `unit ${chosen + 1}, ${size} ${size === 1 ? "pixel" : "pixels"}, `) +
        `named ${own.classes[shown[at]]}${told}.`;
    }

    choose();
  }

  // ---------------------------------------------------------------- kind "similarity"

  // Viridis at nine even steps.
  const VIRIDIS = ["440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725"]
    .map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));

  function viridis(share) {
    const at = Math.min(share, 0.9999) * (VIRIDIS.length - 1);
    const [low, high] = [VIRIDIS[Math.floor(at)], VIRIDIS[Math.floor(at) + 1]];
    return low.map((value, i) => value + (high[i] - value) * (at % 1));
  }

  async function similarity(live, data) {
    const pictures = await Promise.all(data.photographs.map((own) => picture(own.picture)));
    const cache = new Map();
    let own, maps, word, rows;
    const cells = new Cells("Photograph. Arrow keys move over its pixels, Escape leaves.", update);
    const photographs = selection("Photograph", data.photographs.map((one) => one.title), choose);
    const kinds = selection("Unit", Object.keys(data.photographs[0].maps), () => remap());
    const bars = make("div", { className: "mgca-bars", role: "group", "aria-label": "Words" });
    const under = status();
    const scale = make("div", { className: "mgca-scale" });
    live.append(
      make("div", { className: "mgca-controls" }, photographs, kinds),
      make("div", { className: "mgca-split" }, make("div", {}, cells.canvas, scale),
        make("div", {}, bars, under)));

    const value = (byte) => (own.low + ((own.high - own.low) * byte) / 255).toFixed(2).replace("-0.00", "0.00");

    function choose() {
      own = data.photographs[photographs.select.selectedIndex];
      word = null;
      rows = own.words.map((name, index) => {
        const fill = make("span", { className: "mgca-fill" });
        const number = make("span", { className: "mgca-number" });
        const button = make("button", { type: "button", "aria-pressed": "false", onclick: () => {
          word = word === index ? null : index;
          update();
        } }, make("span", { className: "mgca-word" }, name), make("span", { className: "mgca-bar" }, fill), number);
        return { button, fill, number };
      });
      bars.replaceChildren(...rows.map((row) => row.button));
      const [, height, width] = Object.values(own.maps)[0].shape;
      cells.show(pictures[photographs.select.selectedIndex], height, width);
      remap();
    }

    function remap() {
      const array = own.maps[kinds.select.value];
      if (!cache.has(array)) cache.set(array, numbers(array));
      maps = cache.get(array);
      update();
    }

    function update() {
      const total = cells.width * cells.height;
      const of = (index, n) => maps[index * total + n];
      cells.paint(word === null ? null : (n) => [...viridis(of(word, n) / 255), 205]);
      const at = cells.index;
      if (at >= 0) cells.mark(...cells.cell, 0, true);
      const order = at < 0 ? [] : own.words.map((_, i) => i).sort((a, b) => of(b, at) - of(a, at) || a - b);
      rows.forEach(({ button, fill, number }, index) => {
        button.setAttribute("aria-pressed", String(index === word));
        button.classList.toggle("mgca-best", index === order[0]);
        fill.style.width = at < 0 ? "0" : `${(100 * of(index, at)) / 255}%`;
        number.textContent = at < 0 ? "" : value(of(index, at));
      });
      scale.replaceChildren(...(word === null ? [] : [make("span", {}, own.low.toFixed(2)),
        make("span", { className: "mgca-ramp" }), make("span", {}, own.high.toFixed(2)),
        make("span", {}, `cosine similarity to ${own.words[word]}`)]));
      under.textContent = at < 0
        ? "Point at a pixel, click to hold it, or move with the arrow keys. A word shows its map."
        : `Row ${cells.cell[1] + 1}, column ${cells.cell[0] + 1}: ${own.words[order[0]]}, ` +
          `${value(of(order[0], at))}` + (order.length > 1
          ? `; then ${own.words[order[1]]}, ${value(of(order[1], at))}.` : ".") +
          (cells.pinned ? " Held." : "");
    }

    choose();
  }

  // ---------------------------------------------------------------- kind "ablation"

  const SHAPES = [
    (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`,
    (r) => `M${-r} ${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
    (r) => `M0 ${-1.2 * r}L${1.1 * r} ${r}H${-1.1 * r}z`,
    (r) => `M0 ${-1.3 * r}L${1.3 * r} 0L0 ${1.3 * r}L${-1.3 * r} 0z`,
  ];
  const marker = (index, x, y) =>
    draw("path", { class: "mgca-marker", d: SHAPES[index % SHAPES.length](4.5), transform: `translate(${x} ${y})` });

  function steps(low, high) {
    const raw = (high - low || 1) / 4;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= raw) * power;
    const first = Math.floor(low / step);
    const last = Math.ceil(high / step - 1e-9);
    return Array.from({ length: Math.max(1, last - first) + 1 }, (_, i) => (first + i) * step);
  }

  function ablation(live, data) {
    const hidden = new Set(); // names of series
    let own, rows, chosen = null;
    const chart = draw("svg", { tabindex: 0, role: "application" });
    const under = status();
    const series = make("fieldset", { className: "mgca-series" });
    const table = make("table");
    const choices = selection(data.what ?? "Ablation", data.ablations.map((one) => one.title), choose);
    const datasets = selection("Data set", data.datasets, () => choose());
    const metrics = selection("Measure", data.metrics, () => choose());
    live.append(
      make("div", { className: "mgca-controls" }, choices, datasets, metrics), series,
      make("div", { className: "mgca-chart" }, chart), under,
      make("details", {}, make("summary", {}, "What is drawn, as a table"),
        make("div", { className: "mgca-scroll", tabIndex: 0, role: "region", "aria-label": "Table of what is drawn" }, table)));

    const visible = () => own.series.map((_, s) => s).filter((s) => !hidden.has(own.series[s].name));
    const tone = (s) => `mgca-series-${s % 6}${own.series[s].paper ? " mgca-paper" : ""}`;
    const find = (s, tick) => rows.find((row) => row[3] === s && row[4] === tick);
    const written = (row) => `${row[5].toFixed(digits())}${row[6] === null ? "" : ` ± ${row[6].toFixed(digits())}`}`;
    const digits = () => (rows.every((row) => row[5] < 10) ? 2 : 1);

    function choose() {
      own = data.ablations[choices.select.selectedIndex];
      rows = data.rows.filter((row) => row[0] === choices.select.selectedIndex &&
        row[1] === datasets.select.selectedIndex && row[2] === metrics.select.selectedIndex);
      chosen = null;
      const present = own.series.map((_, s) => s).filter((s) => rows.some((row) => row[3] === s));
      series.replaceChildren(make("legend", {}, "Series"), ...present.map((s) => {
        const sample = draw("svg", { width: 34, height: 14, "aria-hidden": "true", class: tone(s) },
          draw("line", { x1: 1, x2: 33, y1: 7, y2: 7, class: "mgca-line" }), marker(s, 17, 7));
        return checkbox(own.series[s].name, !hidden.has(own.series[s].name), (on) => {
          if (on) hidden.delete(own.series[s].name); else hidden.add(own.series[s].name);
          render();
        }, sample);
      }));
      render();
    }

    function render() {
      const shown = visible();
      const width = Math.max(260, chart.parentNode.clientWidth);
      const slot = (width - 52) / own.ticks.length;
      const turned = Math.max(...own.ticks.map((tick) => 8 * tick.length)) > slot - 4;
      const [left, top, bottom] = [46, 26, turned ? 104 : 50];
      const height = Math.max(250, Math.min(400, 0.55 * width)) + bottom;
      chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
      chart.setAttribute("height", height);
      chart.setAttribute("aria-label", `${own.title}: ${metrics.select.value} on ${datasets.select.value}. ` +
        "Left and right arrow keys read the values, which the table below has too.");
      const drawn = rows.filter((row) => shown.includes(row[3]));
      const ends = drawn.flatMap((row) => [row[5] - (row[6] ?? 0), row[5] + (row[6] ?? 0)]);
      const levels = steps(...(ends.length ? [Math.min(...ends), Math.max(...ends)] : [0, 1]));
      const [low, high] = [levels[0], levels[levels.length - 1]];
      const y = (value) => top + (height - top - bottom) * (1 - (value - low) / (high - low));
      const x = (tick) => left + (tick + 0.5) * slot;
      const places = levels[1] - levels[0] < 0.1 ? 2 : levels[1] - levels[0] < 1 ? 1 : 0;
      const parts = [draw("text", { x: 2, y: 14, class: "mgca-axis" }, metrics.select.value)];
      for (const level of levels) {
        parts.push(draw("line", { x1: left, x2: width, y1: y(level), y2: y(level), class: "mgca-grid" }),
          draw("text", { x: left - 6, y: y(level) + 4, "text-anchor": "end" }, level.toFixed(places)));
      }
      own.ticks.forEach((tick, t) => parts.push(draw("text", turned
        ? { x: 0, y: 0, "text-anchor": "end", transform: `translate(${x(t) + 4} ${height - bottom + 18}) rotate(-40)` }
        : { x: x(t), y: height - bottom + 20, "text-anchor": "middle" }, tick)));
      parts.push(draw("text", { x: (left + width) / 2, y: height - 6, "text-anchor": "middle", class: "mgca-axis" }, own.axis));
      if (chosen !== null) parts.push(draw("line", { x1: x(chosen), x2: x(chosen), y1: top, y2: height - bottom, class: "mgca-guide" }));
      shown.forEach((s, place) => {
        const shift = (place - (shown.length - 1) / 2) * Math.min(8, slot / 6);
        const points = own.ticks.map((_, t) => find(s, t)).filter(Boolean);
        const group = draw("g", { class: tone(s) }, draw("polyline", { class: "mgca-line",
          points: points.map((row) => `${x(row[4]) + shift},${y(row[5])}`).join(" ") }));
        for (const row of points) {
          const at = x(row[4]) + shift;
          if (row[6] !== null) group.append(draw("line", { x1: at, x2: at, y1: y(row[5] - row[6]), y2: y(row[5] + row[6]), class: "mgca-error" }));
          group.append(marker(s, at, y(row[5])));
        }
        parts.push(group);
      });
      chart.replaceChildren(...parts);
      chart.mgcaAt = (place) => Math.min(own.ticks.length - 1, Math.max(0, Math.floor((place - left) / slot)));
      tell(shown);
      table.replaceChildren(
        make("caption", {}, `${own.title}: ${metrics.select.value} on ${datasets.select.value}`),
        make("thead", {}, make("tr", {}, make("th", { scope: "col" }, own.axis),
          ...shown.map((s) => make("th", { scope: "col" }, own.series[s].name)))),
        make("tbody", {}, ...own.ticks.map((tick, t) => make("tr", {}, make("th", { scope: "row" }, tick),
          ...shown.map((s) => make("td", {}, find(s, t) ? written(find(s, t)) : ""))))));
    }

    function tell(shown) {
      if (chosen === null) {
        under.textContent = rows.length
          ? "Point at the plot, or move along it with the arrow keys, to read its numbers."
          : "There are no numbers of this measure here.";
        return;
      }
      const values = shown.map((s) => [s, find(s, chosen)]).filter(([, row]) => row).map(([s, row]) =>
        `${own.series[s].name} ${written(row)}${row[6] === null ? "" : ` (${row[7]} seeds)`}`);
      under.textContent = `${own.axis} ${own.ticks[chosen]}: ${values.join("; ") || "nothing drawn"}.`;
    }

    function move(tick) {
      if (tick === chosen) return;
      chosen = tick;
      render();
    }
    const pointed = (event) => {
      const box = chart.getBoundingClientRect();
      move(chart.mgcaAt(((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width));
    };
    chart.addEventListener("pointermove", pointed);
    chart.addEventListener("click", pointed);
    chart.addEventListener("keydown", (event) => {
      const last = own.ticks.length - 1;
      const to = { ArrowLeft: Math.max(0, (chosen ?? 1) - 1), ArrowRight: Math.min(last, (chosen ?? -1) + 1),
        Home: 0, End: last, Escape: null }[event.key];
      if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      move(to);
    });
    choose();
    let before = chart.parentNode.clientWidth;
    new ResizeObserver(() => {
      if (chart.parentNode.clientWidth === before) return;
      before = chart.parentNode.clientWidth;
      render();
    }).observe(chart.parentNode);
  }

  // ---------------------------------------------------------------- the element

  const KINDS = { units, similarity, ablation };

  async function start(element) {
    const live = make("div", { className: "mgca-live", role: "group",
      "aria-label": element.getAttribute("label") ?? "" });
    const still = element.querySelector(".mgca-still");
    try {
      const data = await load(element.getAttribute("data"));
      still.after(live);
      element.setAttribute("live", ""); // first, because what is hidden has no width
      await KINDS[element.getAttribute("kind")](live, data);
    } catch (error) {
      live.remove();
      element.removeAttribute("live");
      console.warn("A figure stays a picture:", error);
    }
  }

  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      near.unobserve(entry.target);
      start(entry.target);
    }
  }, { rootMargin: "400px" });

  const begin = () => document.querySelectorAll("mgca-figure").forEach((element) => near.observe(element));
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
