/* The worker: loads the model and the words, and answers the page. Nothing is sent anywhere: all that
   is asked for over the network are the files of this site that about.json lists. */
import * as ort from "../onnxruntime/ort.wasm.bundle.min.js";
import { axisTaps, Resizer, resizedSize, windowStarts } from "./geometry.js";
import { labelImage } from "./png.js";
import * as unit from "./units.js";
import { Embeddings, Words } from "./words.js";

const SHOWN = 1024; // pixels of the longer side of what is shown
const BAND = 256; // rows of a photograph that are read at once
const at = (name) => new URL(name, import.meta.url);

let about, network, nearest, words, embeddings;
let photo = null; // of the present photograph: sizes, windows, taps
let asked = null; // the words asked for, and their scores

/** A file, unpacked if it is packed; tells how many bytes have come. */
async function load(name, came) {
  const response = await fetch(at(name));
  if (!response.ok) throw new Error(`${name} could not be loaded (${response.status})`);
  const parts = [];
  for (let reader = response.body.getReader(), part; !(part = await reader.read()).done; ) {
    parts.push(part.value);
    came(part.value.length);
  }
  let blob = new Blob(parts);
  const [first, second] = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  // A server may have unpacked it already.
  if (first === 0x1f && second === 0x8b)
    blob = await new Response(blob.stream().pipeThrough(new DecompressionStream("gzip"))).blob();
  return blob.arrayBuffer();
}

async function start() {
  about = await (await fetch(at("about.json"))).json();
  const files = ["../onnxruntime/ort-wasm-simd-threaded.wasm.gz", "model.onnx", "nearest.onnx", "words.txt", "words.bin.gz"];
  const all = files.reduce((sum, name) => sum + about.bytes[name.startsWith("../") ? name.slice(3) : `try/${name}`], 0);
  let come = 0;
  const came = (more) => postMessage({ type: "progress", share: Math.min((come += more) / all, 1) });
  const [program, model, product, list, table] = await Promise.all(files.map((name) => load(name, came)));
  ort.env.wasm.wasmBinary = program;
  ort.env.wasm.numThreads = 1; // more need headers that a static server does not send
  network = await ort.InferenceSession.create(new Uint8Array(model));
  nearest = await ort.InferenceSession.create(new Uint8Array(product));
  words = new Words(new TextDecoder().decode(list).trimEnd().split("\n"));
  embeddings = new Embeddings(table, about.table);
  return { words: words.list, about };
}

/** Model.embed: the photograph's windows, their pixel embeddings, and what is shown of it. */
async function open({ file }) {
  const { config } = about;
  // As mgca.utils.images.open_image: upright, colours as stored, laid on white where transparent.
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" })
    .catch(() => { throw new Error("This is no photograph that the browser can read."); });
  const { width, height } = bitmap;
  const [tall, wide] = resizedSize(height, width, config);
  if (Math.min(tall, wide) < config.window) {
    bitmap.close();
    throw new Error("This photograph is too long and narrow: cut a part out of it, at most four times as long as wide.");
  }
  const scale = Math.min(1, SHOWN / Math.max(width, height));
  const shown = { height: Math.round(height * scale), width: Math.round(width * scale) };
  const small = new Resizer(height, width, tall, wide);
  const picture = new Resizer(height, width, shown.height, shown.width);
  const band = new OffscreenCanvas(width, Math.min(BAND, height));
  const context = band.getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < height; top += band.height) {
    const rows = Math.min(band.height, height - top);
    context.fillStyle = "white";
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, top, width, rows, 0, 0, width, rows);
    const { data } = context.getImageData(0, 0, width, rows);
    small.feed(data, top, width);
    picture.feed(data, top, width);
  }
  bitmap.close();
  const down = windowStarts(tall, config.window, config.stride);
  const across = windowStarts(wide, config.window, config.stride);
  const next = { height, width, tall, wide, shown, down, across, windows: [] };
  const image = small.finish(), side = config.window;
  const input = new Float32Array(3 * side * side);
  for (const top of down.starts) {
    for (const left of across.starts) {
      for (let c = 0, to = 0; c < 3; c++)
        for (let y = 0; y < side; y++)
          for (let x = 0; x < side; x++, to++)
            input[to] = (image[3 * ((top + y) * wide + left + x) + c] / 255 - about.mean[c]) / about.std[c];
      const { [about.output]: out } = await network.run({ [about.input]: new ort.Tensor("float32", input, [1, 3, side, side]) });
      const [, dim, positionsDown, positionsAcross] = out.dims;
      Object.assign(next, { dim, positionsDown, positionsAcross });
      next.windows.push({ pixels: out.data, unitPixels: unit.unitLength(out.data, dim) });
      postMessage({ type: "progress", share: next.windows.length / (down.starts.length * across.starts.length) });
    }
  }
  next.taps = taps(next, shown);
  photo = next;
  asked = null;
  const rgb = picture.finish(), rgba = new Uint8ClampedArray((rgb.length / 3) * 4).fill(255);
  for (let n = 0, m = 0; n < rgb.length; n += 3, m += 4) {
    rgba[m] = rgb[n];
    rgba[m + 1] = rgb[n + 1];
    rgba[m + 2] = rgb[n + 2];
  }
  return { ...shown, rgba };
}

/** The taps of an image of this size, along both axes. */
function taps(photo, { height, width }) {
  const { window, blend } = about.config;
  return [
    axisTaps(height, photo.tall, photo.down, window, photo.positionsDown, blend),
    axisTaps(width, photo.wide, photo.across, window, photo.positionsAcross, blend),
  ];
}

/** Rows of a table as a grid of all windows beside each other; row(window, position) numbers them. */
function gridOf(row) {
  const { positionsDown: high, positionsAcross: long, down, across } = photo;
  const width = across.starts.length * long, index = new Uint32Array(down.starts.length * high * width);
  for (let y = 0, to = 0; y < down.starts.length * high; y++)
    for (let x = 0; x < width; x++, to++)
      index[to] = row(Math.floor(y / high) * across.starts.length + Math.floor(x / long), (y % high) * long + (x % long));
  return { index, width };
}

/** The tables of scores, of pixels and of units, for these words and so many meta-points a side. */
async function score({ names, side, background }) {
  const alone = names.length === 1 && background !== null;
  const all = alone ? [...names, ...about.rest.filter((word) => word !== names[0])] : names;
  const key = all.join("\n");
  const { dim, positionsDown: high, positionsAcross: long, windows } = photo, size = high * long;
  if (asked?.key !== key) {
    const texts = all.map((name) => embeddings.of(words.place.get(name)));
    const pixel = new Float32Array(windows.length * size * all.length);
    windows.forEach((each, n) => pixel.set(unit.pixelScores(each.unitPixels, texts, dim), n * size * all.length));
    asked = { key, texts, side: null, pixel: { scores: pixel, grid: gridOf((window, place) => window * size + place) } };
  }
  if (asked.side !== side) {
    const rows = Math.min(side, high), columns = Math.min(side, long), points = rows * columns;
    const index = unit.metaPointIndex(high, long, rows, columns);
    const table = new Float32Array(windows.length * points * all.length), assigned = [];
    for (const [n, { pixels, unitPixels }] of windows.entries()) {
      const { assignment } = await nearest.run({
        pixels: new ort.Tensor("float32", unitPixels, [dim, size]),
        index: new ort.Tensor("int64", BigInt64Array.from(index, BigInt), [points]),
      });
      assigned.push(Uint16Array.from(assignment.data, Number));
      const units = unit.averages(pixels, dim, assigned[n], index);
      table.set(unit.unitScores(units, asked.texts, dim), n * points * all.length);
    }
    asked.side = side;
    asked.unit = { scores: table, grid: gridOf((window, place) => window * points + assigned[window][place]) };
  }
  const { temperature } = about;
  return ["pixel", "unit"].map((kind) => {
    const { scores, grid } = asked[kind];
    const table = alone ? unit.againstRest(scores, all.length, temperature) : scores;
    const rule = { background, temperature: alone ? null : temperature };
    return { table, grid, words: names.length, rule };
  });
}

/** Model.segment at the size that is shown, with pixels and with units. */
async function segment(settings) {
  const maps = (await score(settings)).map(({ table, grid, words, rule }) =>
    unit.labels(table, words, grid, ...photo.taps, rule));
  return { maps };
}

/** The similarity of one word at each pixel that is shown, with pixels and with units. */
function similarity({ number }) {
  const count = asked.texts.length, size = photo.shown.height * photo.shown.width;
  return {
    maps: ["pixel", "unit"].map((kind) => {
      const { scores, grid } = asked[kind], out = new Float32Array(size);
      const one = Float32Array.from({ length: scores.length / count }, (_, row) => scores[row * count + number]);
      unit.eachPixel(one, 1, grid, ...photo.taps, (y, x, [value]) => { out[y * photo.shown.width + x] = value; });
      return out;
    }),
  };
}

/** The similarity of each word at one pixel, with pixels and with units. */
function point({ x, y, names }) {
  const [rows, columns] = photo.taps, count = asked.texts.length;
  return {
    cosines: ["pixel", "unit"].map((kind) => {
      const { scores, grid } = asked[kind];
      const out = names.map(() => 0);
      unit.eachPixel(scores, count, grid, [rows[y]], [columns[x]], (_, __, sums) => names.forEach((___, k) => { out[k] = sums[k]; }));
      return out;
    }),
  };
}

/** The labels of the units at the size of the photograph, as a file. */
async function save(settings) {
  const [, { table, grid, words, rule }] = await score(settings);
  const labels = unit.labels(table, words, grid, ...taps(photo, photo), rule);
  const shift = settings.background === null ? 1 : 0; // the first colour is the background's
  const classes = shift ? settings.names : ["background", ...settings.names];
  const colours = about.colours.slice(shift, shift + classes.length);
  return { file: await labelImage(labels, photo.height, photo.width, colours, classes) };
}

const ANSWERS = { start, open, segment, similarity, point, save };
let last = Promise.resolve(); // one question at a time, in the order they came

onmessage = ({ data: { id, type, ...rest } }) => {
  last = last.then(() => ANSWERS[type](rest)).then(
    (answer) => postMessage({ id, ...answer }),
    (error) => postMessage({ id, error: error.message ?? String(error) }),
  );
};
