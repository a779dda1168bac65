/** Bring a found face to the model's crop, as `label2label.faces.alignment` does in Python. */

import { resize, roundHalfToEven } from "./resampling.js";

// OpenCV's warpAffine adds positions in these parts of a pixel, and samples at those.
const PARTS = 1024;
const SAMPLES = 32;

// An affine transform {a, b, tx, c, d, ty} takes (x, y) to (a x + b y + tx, c x + d y + ty).

/**
 * Estimate the least-squares similarity transform between corresponding points [x, y].
 *
 * Umeyama (1991), equations 40 to 42; in the plane and without mirroring, the singular value
 * decomposition has this closed form.
 */
export function estimateSimilarity(source, target) {
  const n = source.length;
  const mean = (points, axis) => points.reduce((sum, point) => sum + point[axis], 0) / n;
  const [sx, sy, tx, ty] = [mean(source, 0), mean(source, 1), mean(target, 0), mean(target, 1)];
  let variance = 0;
  let along = 0;
  let turned = 0;
  for (let i = 0; i < n; i++) {
    const [x, y] = [source[i][0] - sx, source[i][1] - sy];
    const [u, v] = [target[i][0] - tx, target[i][1] - ty];
    variance += x * x + y * y;
    along += x * u + y * v;
    turned += x * v - y * u;
  }
  const [cos, sin] = [along / variance, turned / variance];
  return { a: cos, b: -sin, tx: tx - cos * sx + sin * sy, c: sin, d: cos, ty: ty - sin * sx - cos * sy };
}

/** Invert an affine transform. */
function invert({ a, b, tx, c, d, ty }) {
  const determinant = a * d - b * c;
  const [ia, ib, ic, id] = [d, -b, -c, a].map((value) => value / determinant);
  return { a: ia, b: ib, tx: -(ia * tx + ib * ty), c: ic, d: id, ty: -(ic * tx + id * ty) };
}

/**
 * Cut a face out of a photo so that its landmarks lie on the template; edge pixels repeat beyond it.
 * Return RGB (size, size, 3), 0 to 255.
 */
export function alignFace(photo, landmarks, template, size) {
  return warp(photo, estimateSimilarity(landmarks, template), size, true);
}

/**
 * Cut a square of RGB (size, size, 3) out of a photo by a similarity transform, without aliasing.
 * Beyond the photo, edge pixels repeat (`repeats`) or it is black.
 */
export function warp(photo, toCrop, size, repeats) {
  const toPhoto = invert(toCrop);
  const shrink = Math.min(Math.hypot(toCrop.a, toCrop.c), 1);
  const part = partUnderCrop(photo, toPhoto, size, shrink);
  const columns = Math.max(1, roundHalfToEven(part.width * shrink));
  const rows = Math.max(1, roundHalfToEven(part.height * shrink));
  const pixels = resize(photo, part, columns, rows, true);
  const [across, down] = [columns / part.width, rows / part.height];
  const crop = new Uint8ClampedArray(size * size * 3);
  // Points count from the corner of the first pixel, samples from its centre.
  const tx = ((toPhoto.a + toPhoto.b) / 2 + toPhoto.tx - part.x) * across - 0.5;
  const ty = ((toPhoto.c + toPhoto.d) / 2 + toPhoto.ty - part.y) * down - 0.5;
  const step = PARTS / SAMPLES;
  const sum = (one, other) =>
    Math.floor((Math.round(one * PARTS) + Math.round(other * PARTS) + step / 2) / step) / SAMPLES;
  for (let y = 0, out = 0; y < size; y++) {
    for (let x = 0; x < size; x++, out += 3) {
      const column = sum(toPhoto.a * across * x, toPhoto.b * across * y + tx);
      const row = sum(toPhoto.c * down * x, toPhoto.d * down * y + ty);
      interpolate(pixels, columns, rows, column, row, repeats, crop, out);
    }
  }
  return crop;
}

/** Return the photo's region under the crop, which is downscaled by `shrink`. */
function partUnderCrop(photo, toPhoto, size, shrink) {
  const corners = [[0, 0], [size, 0], [0, size], [size, size]];
  const xs = corners.map(([x, y]) => toPhoto.a * x + toPhoto.b * y + toPhoto.tx);
  const ys = corners.map(([x, y]) => toPhoto.c * x + toPhoto.d * y + toPhoto.ty);
  const margin = 2 / shrink; // interpolation reads one pixel further
  const [x, width] = clipRange(Math.min(...xs) - margin, Math.max(...xs) + margin, photo.width);
  const [y, height] = clipRange(Math.min(...ys) - margin, Math.max(...ys) + margin, photo.height);
  return { x, y, width, height };
}

/** Clip a range to whole pixels of an axis; return the first pixel and how many, at least one. */
function clipRange(from, to, length) {
  const first = Math.min(Math.max(Math.floor(from), 0), length - 1);
  return [first, Math.max(Math.min(Math.ceil(to), length), first + 1) - first];
}

/**
 * Interpolate RGB pixels (rows, columns, 3) bilinearly at (x, y), counted from the first pixel's
 * centre, and write the sample to `crop` from index `out` on. Outside, edge pixels repeat or it is
 * black.
 */
function interpolate(pixels, columns, rows, x, y, repeats, crop, out) {
  const [left, top] = [Math.floor(x), Math.floor(y)];
  const [fx, fy] = [x - left, y - top];
  const weight = (at, length, share) => (repeats || (at >= 0 && at < length) ? share : 0);
  const wx0 = weight(left, columns, 1 - fx);
  const wx1 = weight(left + 1, columns, fx);
  const wy0 = weight(top, rows, 1 - fy);
  const wy1 = weight(top + 1, rows, fy);
  const x0 = Math.min(Math.max(left, 0), columns - 1) * 3;
  const x1 = Math.min(Math.max(left + 1, 0), columns - 1) * 3;
  const y0 = Math.min(Math.max(top, 0), rows - 1) * columns * 3;
  const y1 = Math.min(Math.max(top + 1, 0), rows - 1) * columns * 3;
  for (let k = 0; k < 3; k++) {
    const above = pixels[y0 + x0 + k] * wx0 + pixels[y0 + x1 + k] * wx1;
    const below = pixels[y1 + x0 + k] * wx0 + pixels[y1 + x1 + k] * wx1;
    crop[out + k] = Math.floor(above * wy0 + below * wy1 + 0.5);
  }
}
