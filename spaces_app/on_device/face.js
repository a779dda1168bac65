/** What is known of one face that was found in a photo, as `label2label.faces.face` in Python. */

import { estimateSimilarity } from "./alignment.js";

/**
 * A face detected in a photo, in pixels of the photo; (0, 0) is the outer corner of its top left
 * pixel.
 * @typedef {object} Face
 * @property {number[]} box [x0, y0, x1, y1], left, top, right, bottom.
 * @property {number} score the detector's confidence, 0 to 1.
 * @property {number[][]} landmarks five [x, y]: viewer's left eye, right eye, nose tip, viewer's
 *     left and right mouth corners, as seen when the face is upright.
 */

/** Return the side, in pixels, of a square of the box's area. */
export function sizeOf({ box: [x0, y0, x1, y1] }) {
  return Math.sqrt((x1 - x0) * (y1 - y0));
}

/** Return [x, y] of the box's middle. */
export function centreOf({ box: [x0, y0, x1, y1] }) {
  return [(x0 + x1) / 2, (y0 + y1) / 2];
}

/** Scale a face from pixels of a copy to pixels of the photo. */
export function scaleFace(face, copy, photo) {
  const scales = [photo.width / copy.width, photo.height / copy.height];
  const scale = (values) => values.map((value, i) => value * scales[i % 2]); // x, y, x, y
  return { ...face, box: scale(face.box), landmarks: face.landmarks.map(scale) };
}

/** Return a face's clockwise roll to an upright `template` in degrees, -180 to 180. */
export function rollOf({ landmarks }, template) {
  const { a, c } = estimateSimilarity(template, landmarks);
  return degrees(Math.atan2(c, a));
}

/**
 * Estimate the yaw to the viewer's right in degrees, -90 to 90. `noseDepth` is how far the nose tip
 * lies in front of eyes and mouth, relative to the eyes' distance.
 */
function yawOf({ landmarks: [leftEye, rightEye, nose, leftMouth, rightMouth] }, noseDepth) {
  const eyes = meanOf([leftEye, rightEye]);
  const mouth = meanOf([leftMouth, rightMouth]);
  const length = Math.max(Math.hypot(mouth[0] - eyes[0], mouth[1] - eyes[1]), 1e-6);
  const across = [(mouth[1] - eyes[1]) / length, -(mouth[0] - eyes[0]) / length];
  const along = (from, to) => (to[0] - from[0]) * across[0] + (to[1] - from[1]) * across[1];
  const breadth = Math.max(along(leftEye, rightEye), 1e-6);
  return degrees(Math.atan(along(eyes, nose) / (noseDepth * breadth)));
}

/**
 * List why predictions for a face are less reliable: "small", "cut" (by the edge), "turned away".
 * `limits` are the `face` part of `page.json`.
 */
export function findFlaws(face, { width, height }, limits) {
  const margin = limits.cut_margin * sizeOf(face);
  const isCut = face.landmarks.some(
    ([x, y]) => Math.min(x, y) < margin || x > width - margin || y > height - margin,
  );
  const isAway = Math.abs(yawOf(face, limits.nose_depth)) > limits.turned_away;
  return [
    ...(sizeOf(face) < limits.small_face ? ["small"] : []),
    ...(isCut ? ["cut"] : []),
    ...(isAway ? ["turned away"] : []),
  ];
}

const degrees = (radians) => (radians * 180) / Math.PI;

function meanOf(points) {
  return [0, 1].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length);
}
