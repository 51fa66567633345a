/* Semantic units and scores: mgca/units.py, and what mgca/model.py and mgca/inference do with them.
   The product that finds each pixel's meta-point is nearest.onnx; all else is here. A window's pixel
   embeddings are (C, N), one channel after the other, as the network gives them. */

/** F.normalize(pixels, dim=1) of one window: (C, N) with columns of length 1. */
export function unitLength(pixels, dim) {
  const count = pixels.length / dim, squares = new Float64Array(count), out = new Float32Array(pixels.length);
  for (let c = 0, at = 0; c < dim; c++) for (let n = 0; n < count; n++, at++) squares[n] += pixels[at] ** 2;
  for (let n = 0; n < count; n++) squares[n] = Math.max(Math.sqrt(squares[n]), 1e-12);
  for (let c = 0, at = 0; c < dim; c++) for (let n = 0; n < count; n++, at++) out[at] = pixels[at] / squares[n];
  return out;
}

/** units.meta_point_index, placement "centre": pixels of a uniform grid of meta-points. */
export function metaPointIndex(height, width, rows, columns) {
  const along = (points, size) =>
    Array.from({ length: points }, (_, n) => Math.floor(((2 * n + 1) * size) / (2 * points)));
  return along(rows, height).flatMap((y) => along(columns, width).map((x) => y * width + x));
}

/** units.semantic_units: each unit is the average of its pixels as they are; rows (G, C).
    A meta-point is in its own unit. */
export function averages(pixels, dim, assignment, index) {
  index.forEach((pixel, unit) => { assignment[pixel] = unit; });
  const count = pixels.length / dim, units = new Float64Array(index.length * dim);
  const members = new Uint32Array(index.length);
  for (let n = 0; n < count; n++) members[assignment[n]]++;
  for (let c = 0, at = 0; c < dim; c++)
    for (let n = 0; n < count; n++, at++) units[assignment[n] * dim + c] += pixels[at];
  for (let at = 0; at < units.length; at++) units[at] /= members[Math.floor(at / dim)];
  return units;
}

/** Model.scores with units: cosines (G, K) of units (G, C) and the words' unit vectors (K, C). */
export function unitScores(units, texts, dim) {
  const count = units.length / dim, out = new Float32Array(count * texts.length);
  for (let g = 0; g < count; g++) {
    const unit = units.subarray(g * dim, (g + 1) * dim);
    const length = Math.max(Math.hypot(...unit), 1e-12);
    texts.forEach((text, k) => {
      let sum = 0;
      for (let c = 0; c < dim; c++) sum += unit[c] * text[c];
      out[g * texts.length + k] = sum / length;
    });
  }
  return out;
}

/** Model.scores of the pixel unit: cosines (N, K) of unit pixels (C, N) and the words (K, C). */
export function pixelScores(unitPixels, texts, dim) {
  const count = unitPixels.length / dim, out = new Float32Array(count * texts.length);
  texts.forEach((text, k) => {
    const sums = new Float64Array(count);
    for (let c = 0, at = 0; c < dim; c++) for (let n = 0; n < count; n++, at++) sums[n] += text[c] * unitPixels[at];
    for (let n = 0; n < count; n++) out[n * texts.length + k] = sums[n];
  });
  return out;
}

/** scoring.against_rest: the probability (R, 1) of the first of K words, of scores (R, K). */
export function againstRest(scores, words, temperature) {
  const out = new Float32Array(scores.length / words);
  for (let row = 0; row < out.length; row++)
    out[row] = bestProbability(scores.subarray(row * words, (row + 1) * words), 0, temperature);
  return out;
}

/** The softmax over the scores, at one of them. */
function bestProbability(scores, at, temperature) {
  let sum = 0;
  for (let k = 0; k < scores.length; k++) sum += Math.exp((scores[k] - scores[at]) / temperature);
  return 1 / sum;
}

/** score_map.PixelScores: the scores of an image's pixels, row by row, of its positions' scores.

    `scores` (R, K) are those of rows of a table, `grid` the row of each position, all windows beside
    each other, `rows` and `columns` the taps along both axes. Calls visit(y, x, scores (K,)). */
export function eachPixel(scores, words, grid, rows, columns, visit) {
  const wide = grid.width, across = new Map(); // of the positions' rows that are in use
  const row = (number) => {
    if (!across.has(number)) {
      const line = new Float32Array(columns.length * words);
      columns.forEach((taps, x) => {
        for (const [place, weight] of taps) {
          const from = grid.index[number * wide + place] * words;
          for (let k = 0; k < words; k++) line[x * words + k] += weight * scores[from + k];
        }
      });
      across.set(number, line);
    }
    return across.get(number);
  };
  const sums = new Float32Array(words);
  rows.forEach((taps, y) => {
    const used = taps.map(([place, weight]) => [row(place), weight]);
    for (let x = 0, at = 0; x < columns.length; x++, at += words) {
      sums.fill(0);
      for (const [line, weight] of used) for (let k = 0; k < words; k++) sums[k] += weight * line[at + k];
      visit(y, x, sums);
    }
    if (across.size > 64) for (const number of across.keys()) if (!taps.some(([place]) => place === number)) across.delete(number);
  });
}

/** Segmentation.labels: (H, W), the best word; with a threshold 0 is background, words follow. */
export function labels(scores, words, grid, rows, columns, { background, temperature }) {
  const out = new Uint8Array(rows.length * columns.length), wide = columns.length;
  eachPixel(scores, words, grid, rows, columns, (y, x, sums) => {
    let best = 0;
    for (let k = 1; k < words; k++) if (sums[k] > sums[best]) best = k;
    if (background === null) out[y * wide + x] = best;
    else {
      const probability = temperature === null ? sums[best] : bestProbability(sums, best, temperature);
      out[y * wide + x] = probability > background ? best + 1 : 0;
    }
  });
  return out;
}
