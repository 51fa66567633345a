/* The geometry of inference: mgca/inference/windows.py, Pillow's resize, and the taps of
   mgca/inference/score_map.py. Names are those of the Python that each function mirrors. */

/** windows.resized_size: [height, width] of the resized image. */
export function resizedSize(height, width, { short_side, long_side }) {
  const scale = Math.min(short_side / Math.min(height, width), long_side / Math.max(height, width));
  return [height, width].map((side) => Math.max(1, Math.floor(side * scale + 0.5)));
}

/** windows.window_boxes along one axis: where the windows begin, and how long they are. */
export function windowStarts(size, window, stride) {
  const count = Math.floor(Math.max(size - window + stride - 1, 0) / stride) + 1;
  const starts = [];
  for (let n = 0; n < count; n++) starts.push(Math.max(Math.min(n * stride + window, size) - window, 0));
  return { starts, length: Math.min(window, size) };
}

/** score_map._bilinear: for each pixel [[position, weight], ...], corners not aligned. */
function bilinear(source, size) {
  return Array.from({ length: size }, (_, n) => {
    const place = Math.max(((n + 0.5) * source) / size - 0.5, 0);
    const below = Math.min(Math.floor(place), source - 1);
    const above = Math.min(below + 1, source - 1);
    const share = place - below;
    return above === below ? [[below, 1]] : [[below, 1 - share], [above, share]];
  });
}

/** score_map.axis_taps: windows upsampled, joined and resized to the original, along one axis. */
export function axisTaps(size, resized, { starts, length }, padded, positions, blend) {
  const inside = bilinear(positions, padded);
  const joined = Array.from({ length: resized }, () => []);
  const covering = new Float64Array(resized);
  starts.forEach((start, number) => {
    for (let n = 0; n < length; n++) {
      const share = blend === "middle" ? length / 2 - Math.abs(n + 0.5 - length / 2) : 1;
      covering[start + n] += share;
      for (const [place, weight] of inside[n])
        joined[start + n].push([number * positions + place, weight * share]);
    }
  });
  return bilinear(resized, size).map((pair) => {
    const taps = new Map();
    for (const [row, share] of pair) {
      for (const [place, weight] of joined[row]) {
        const more = (share * weight) / covering[row];
        if (more > 0) taps.set(place, (taps.get(place) ?? 0) + more);
      }
    }
    return [...taps];
  });
}

// ---------------------------------------------------------------- Pillow's resize

const BITS = 22; // of Pillow's weights, PRECISION_BITS of its Resample.c

/** precompute_coeffs of Pillow's Resample.c for the bilinear filter: [first, weights] by pixel. */
function coefficients(source, size) {
  const scale = source / size, support = Math.max(scale, 1);
  return Array.from({ length: size }, (_, n) => {
    const centre = (n + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - support + 0.5), 0);
    const last = Math.min(Math.trunc(centre + support + 0.5), source);
    const weights = [];
    for (let x = first; x < last; x++) weights.push(Math.max(1 - Math.abs((x - centre + 0.5) / support), 0));
    const sum = weights.reduce((a, b) => a + b, 0);
    return [first, Int32Array.from(weights, (weight) => Math.trunc(0.5 + (weight / sum) * (1 << BITS)))];
  });
}

/** Pillow's Image.resize(..., BILINEAR), bit for bit, of an image that comes in bands of rows. */
export class Resizer {
  constructor(height, width, newHeight, newWidth) {
    Object.assign(this, { newHeight, newWidth });
    this.across = coefficients(width, newWidth);
    this.down = coefficients(height, newHeight);
    this.between = new Uint8Array(height * newWidth * 3); // Pillow, too, rounds after each axis
  }

  /** Rows of the image from `top` on, RGBA. */
  feed(rgba, top, width) {
    const rows = rgba.length / 4 / width, { across, between, newWidth } = this;
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < newWidth; x++) {
        const [first, weights] = across[x];
        let red = 1 << (BITS - 1), green = red, blue = red;
        for (let n = 0, from = 4 * (y * width + first); n < weights.length; n++, from += 4) {
          red += rgba[from] * weights[n];
          green += rgba[from + 1] * weights[n];
          blue += rgba[from + 2] * weights[n];
        }
        const to = 3 * ((top + y) * newWidth + x);
        between[to] = red >> BITS;
        between[to + 1] = green >> BITS;
        between[to + 2] = blue >> BITS;
      }
    }
  }

  /** The resized image, RGB. */
  finish() {
    const { down, between, newHeight, newWidth } = this, line = 3 * newWidth;
    const out = new Uint8ClampedArray(newHeight * line);
    for (let y = 0; y < newHeight; y++) {
      const [first, weights] = down[y];
      for (let x = 0; x < line; x++) {
        let sum = 1 << (BITS - 1);
        for (let n = 0, from = first * line + x; n < weights.length; n++, from += line)
          sum += between[from] * weights[n];
        out[y * line + x] = sum >> BITS;
      }
    }
    return out;
  }
}
