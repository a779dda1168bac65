/**
 * Resize images as OpenCV does, so that the browser and Python see the same face.
 * The canvas's own resizing differs between browsers.
 */

/**
 * Pixels of an image: RGBA, as a canvas gives them, or RGB, 0 to 255.
 * @typedef {{width: number, height: number, data: Uint8ClampedArray}} Pixels
 */

/** Round to the nearest whole number, halves to the even one, as Python and OpenCV do. */
export function roundHalfToEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/**
 * The source pixels that a target pixel is computed from, along one axis.
 * @typedef {{count: number, indices: Int32Array, weights: Float32Array}} Taps `count` a pixel.
 */

/** Average over the area that a target pixel covers (INTER_AREA), for shrinking an axis. */
function areaTaps(source, target) {
  const scale = source / target;
  const count = Math.ceil(scale) + 1;
  const indices = new Int32Array(target * count);
  const weights = new Float32Array(target * count);
  for (let i = 0; i < target; i++) {
    const start = i * scale;
    const end = Math.min(start + scale, source);
    const first = Math.floor(start);
    for (let k = 0; k < count; k++) {
      const covered = Math.min(first + k + 1, end) - Math.max(first + k, start);
      indices[i * count + k] = Math.min(first + k, source - 1);
      weights[i * count + k] = Math.max(covered, 0) / (end - start);
    }
  }
  return { count, indices, weights };
}

/** Interpolate linearly between two pixels (INTER_LINEAR), with weights in whole 2048ths. */
function linearTaps(source, target) {
  const count = 2;
  const indices = new Int32Array(target * count);
  const weights = new Float32Array(target * count);
  for (let i = 0; i < target; i++) {
    const position = Math.fround((i + 0.5) * (source / target) - 0.5);
    const first = Math.floor(position);
    for (let k = 0; k < count; k++) {
      indices[i * count + k] = Math.min(Math.max(first + k, 0), source - 1);
      weights[i * count + k] = roundHalfToEven(2048 * (1 - Math.abs(position - first - k)));
    }
  }
  return { count, indices, weights };
}

/**
 * Resize an image or a part of it by a factor, to at least one pixel, without aliasing.
 * Return RGB pixels, or the source itself if nothing changes.
 */
export function resizeBy(source, scale, part = { x: 0, y: 0, width: source.width, height: source.height }) {
  const width = Math.max(1, roundHalfToEven(part.width * scale));
  const height = Math.max(1, roundHalfToEven(part.height * scale));
  const isWhole = part.width === source.width && part.height === source.height;
  if (isWhole && width === source.width && height === source.height) return source;
  return { width, height, data: resize(source, part, width, height, scale < 0.5) };
}

/**
 * Resize a part of an image to RGB (rows, columns, 3), by averages over areas (for shrinking) or
 * by interpolation.
 */
export function resize(source, part, columns, rows, average) {
  const tapsOf = average ? areaTaps : linearTaps;
  const across = tapsOf(part.width, columns);
  const down = tapsOf(part.height, rows);
  const result = new Uint8ClampedArray(rows * columns * 3); // it rounds, and halves to the even
  const sum = new Float32Array(columns * 3);
  // Neighbouring rows of the result share source rows: each is resized once.
  const ready = new Int32Array(down.count).fill(-1);
  const lines = Array.from({ length: down.count }, () => new Float32Array(columns * 3));
  for (let y = 0; y < rows; y++) {
    sum.fill(0);
    for (let k = 0; k < down.count; k++) {
      const weight = down.weights[y * down.count + k];
      if (weight === 0) continue;
      const index = down.indices[y * down.count + k];
      const slot = index % down.count;
      if (ready[slot] !== index) {
        resizeLine(source, part.x, part.y + index, across, lines[slot]);
        ready[slot] = index;
      }
      const line = lines[slot];
      // OpenCV interpolates in integers and drops the last bits.
      if (average) for (let i = 0; i < sum.length; i++) sum[i] += weight * line[i];
      else for (let i = 0; i < sum.length; i++) sum[i] += (weight * (line[i] >> 4)) >> 16;
    }
    if (!average) for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] + 2) >> 2;
    result.set(sum, y * columns * 3);
  }
  return result;
}

/** Resize row `y` of the source, from `x` on, to `line`, RGB (columns, 3). */
function resizeLine(source, x, y, taps, line) {
  const { data } = source;
  const step = data.length / (source.width * source.height);
  const { count, indices, weights } = taps;
  const start = (y * source.width + x) * step;
  for (let tap = 0, out = 0; out < line.length; out += 3) {
    let red = 0;
    let green = 0;
    let blue = 0;
    for (let k = 0; k < count; k++, tap++) {
      const weight = weights[tap];
      const pixel = start + indices[tap] * step;
      red += weight * data[pixel];
      green += weight * data[pixel + 1];
      blue += weight * data[pixel + 2];
    }
    line[out] = red;
    line[out + 1] = green;
    line[out + 2] = blue;
  }
}
