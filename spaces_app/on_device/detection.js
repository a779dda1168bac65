/** Find faces by YuNet, in the steps of `label2label.faces.detection` in Python. */

import { warp } from "./alignment.js";
import { centreOf, rollOf, sizeOf } from "./face.js";
import { resizeBy, roundHalfToEven } from "./resampling.js";

const STRIDES = [8, 16, 32]; // of YuNet's three grids
const DIVISOR = 32; // its input's sides are multiples of this
const GLANCE_SIDE = 320; // pixels of a video frame's longer side: its faces are large

export class FaceDetector {
  /**
   * `session` is onnxruntime-web's of YuNet, `settings` the `detector` part of `page.json` (Python's
   * constants), `template` the five landmarks of an upright face.
   */
  constructor(ort, session, settings, template) {
    this.ort = ort;
    this.session = session;
    this.settings = settings;
    this.rollOf = (face) => rollOf(face, template);
    this.isUpright = (face) => Math.abs(this.rollOf(face)) < settings.turned_roll;
  }

  /** Find the faces of one photo, of any size and roll, from left to right. */
  async detect(photo) {
    const { reduced_side, enough_side, turned_side, fair, score_threshold } = this.settings;
    const scale = reduced_side / Math.sqrt(photo.width * photo.height);
    const reduced = scale < 0.5 ? resizeBy(photo, scale) : photo;
    const upright = await this.look(photo, reduced, enough_side, 0);
    let found = await this.lookClosely(photo, upright);
    if (!found.some((face) => face.score >= fair && this.isUpright(face))) {
      // No confident upright face: the photo itself may be rotated.
      const hints = [];
      for (const turns of [1, 2, 3]) {
        hints.push(...(await this.look(photo, reduced, turned_side, turns)));
      }
      found = found.concat(await this.lookClosely(photo, hints));
      // The close-ups miss profiles that fill the photo.
      if (!found.length) found = upright.filter((face) => face.score >= score_threshold);
    }
    return this.keepDistinctFaces(found).sort((one, other) => one.box[0] - other.box[0]);
  }

  /** Find the faces of a video frame on one small canvas, from left to right. */
  async glance(frame) {
    const scale = Math.min(1, GLANCE_SIDE / Math.max(frame.width, frame.height));
    const faces = await this.lookAt(frame, frame, scale, 0);
    return faces
      .filter((face) => face.score >= this.settings.score_threshold)
      .sort((one, other) => one.box[0] - other.box[0]);
  }

  /**
   * Return candidate faces in the whole photo, turned counterclockwise, from canvases of increasing
   * size: up to `enough`, unless small faces are found. `reduced` is a copy for small canvases.
   */
  async look(photo, reduced, enough, turns) {
    const { first_side, enough_side, reduced_side, least_part } = this.settings;
    const { hint, fair, small_face } = this.settings;
    const meanSide = Math.sqrt(photo.width * photo.height);
    const least = turns ? 0 : Math.min(enough_side, meanSide / least_part);
    const found = [];
    for (let side = first_side, before = 0; ; side *= 2) {
      const scale = side === first_side ? side / meanSide : Math.min(1, side / meanSide);
      if (scale <= before) return found;
      const source = side <= reduced_side ? reduced : photo;
      const faces = await this.lookAt(photo, source, scale, turns);
      found.push(...faces.filter((face) => face.score >= hint));
      const isSure = found.some((face) => face.score >= fair);
      const isSmall = faces.some((face) => sizeOf(face) * scale < small_face);
      if (!isSmall && (isSure || side >= enough) && side >= least) return found;
      before = scale;
    }
  }

  /**
   * Run YuNet on the photo or a smaller `source`, in tiles, with `scale` canvas pixels per photo pixel
   * and turned counterclockwise.
   */
  async lookAt(photo, source, scale, turns) {
    const { tile_side, tile_overlap } = this.settings;
    const [ratioX, ratioY] = [photo.width / source.width, photo.height / source.height];
    const zoom = scale * ratioX;
    const split = (side) => splitSide(side, tile_side / zoom, tile_overlap / zoom);
    const found = [];
    for (const [top, bottom] of split(source.height)) {
      for (const [left, right] of split(source.width)) {
        const tile = { x: left, y: top, width: right - left, height: bottom - top };
        let canvas = resizeBy(source, zoom, tile);
        const { width, height } = canvas;
        for (let turn = 0; turn < turns; turn++) canvas = turnQuarter(canvas);
        const toPhoto = (point) => {
          let [x, y] = point;
          // The right edge before a turn is the top edge after it.
          for (let turn = turns; turn > 0; turn--) [x, y] = [(turn % 2 ? width : height) - y, x];
          [x, y] = [left + (x * tile.width) / width, top + (y * tile.height) / height];
          return [x * ratioX, y * ratioY];
        };
        for (const { box, score, landmarks } of await this.runYunet(canvas)) {
          const [[x0, y0], [x1, y1]] = [toPhoto(box.slice(0, 2)), toPhoto(box.slice(2))];
          const corners = [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
          const face = { box: corners, score, landmarks: landmarks.map(toPhoto) };
          found.push(...clipFace(face, photo));
        }
      }
    }
    return found;
  }

  /** Return the candidates that are faces, with exact landmarks. */
  async lookClosely(photo, hints) {
    const { sure, score_threshold } = this.settings;
    const faces = [];
    for (const hint of this.keepDistinctFaces(hints)) {
      // With a confident upright face in the photo, doubtful candidates are not rotated.
      const turn = !faces.some((face) => face.score >= sure && this.isUpright(face));
      const face = await this.lookCloselyAt(photo, hint, turn);
      if (face && face.score >= score_threshold) faces.push(face);
    }
    return faces;
  }

  /**
   * Return a candidate's face, if it is one, from an upright close-up large enough for exact
   * landmarks. With `turn`, a doubtful candidate is also rotated by quarter turns.
   */
  async lookCloselyAt(photo, hint, turn) {
    const { sure, score_threshold, turned_sure, turned_lead, faint } = this.settings;
    const roll = this.rollOf(hint);
    const first = await this.see(photo, hint, roll);
    const views = first ? [first] : [];
    const isDoubtful = !first || first.score < score_threshold;
    for (const degrees of turn || !isDoubtful ? [180, 90, -90] : []) {
      if (views.some((face) => face.score >= sure)) break;
      const view = await this.see(photo, hint, 90 * Math.round(roll / 90) + degrees);
      if (view) views.push(view);
    }
    views.sort((one, other) => other.score - one.score);
    const [best] = views;
    const upright = views.find(this.isUpright);
    if (!best || best === upright) return upright;
    // YuNet finds profiles upside down too, but with lower scores than inverted faces.
    const lead = Math.max(upright?.score ?? 0, faint) + turned_lead;
    return best.score >= turned_sure || best.score >= lead ? best : upright;
  }

  /** Return a candidate's face, after rotation by its roll in degrees, which is refined. */
  async see(photo, hint, roll) {
    let face = await this.seeTurned(photo, hint, roll);
    let before = roll;
    for (const steady of this.settings.steady_rolls) {
      if (!face || Math.abs(turnBetween(this.rollOf(face), before)) <= steady) break;
      before = this.rollOf(face);
      face = (await this.seeTurned(photo, face, before)) ?? face;
    }
    return face;
  }

  /** Return a candidate's face, after rotation by a roll in degrees. */
  async seeTurned(photo, hint, roll) {
    const { close_side, close_face } = this.settings;
    const scale = close_face / sizeOf(hint);
    const cosine = Math.cos((roll * Math.PI) / 180);
    const sine = Math.sin((roll * Math.PI) / 180);
    const [a, b] = [scale * cosine, scale * sine];
    const [x, y] = centreOf(hint);
    const middle = close_side / 2;
    const toCanvas = { a, b, tx: middle - a * x - b * y, c: -b, d: a, ty: middle + b * x - a * y };
    const data = warp(photo, toCanvas, close_side, false);
    const faces = await this.runYunet({ width: close_side, height: close_side, data });
    for (const { box, score, landmarks } of faces) {
      const offset = [(box[0] + box[2]) / 2 - middle, (box[1] + box[3]) / 2 - middle];
      const [width, height] = [box[2] - box[0], box[3] - box[1]];
      const size = (width + height) / 2 / close_face;
      if (Math.max(...offset.map(Math.abs)) > close_face / 3 || size <= 0.5 || size >= 2) {
        continue; // another face, beside the candidate
      }
      const back = ([u, v]) => [(cosine * u - sine * v) / scale, (sine * u + cosine * v) / scale];
      const toPhoto = (point) => {
        const [u, v] = back(point);
        return [x + u, y + v];
      };
      // Bounding box of the ellipse inscribed in the rotated box.
      const [halfX, halfY] = [
        Math.hypot(cosine * width, sine * height) / (2 * scale),
        Math.hypot(sine * width, cosine * height) / (2 * scale),
      ];
      const [cx, cy] = toPhoto(offset);
      const face = {
        box: [cx - halfX, cy - halfY, cx + halfX, cy + halfY],
        score,
        landmarks: landmarks.map(([u, v]) => toPhoto([u - middle, v - middle])),
      };
      return clipFace(face, photo)[0];
    }
  }

  /** Find upright faces of 10 to 300 pixels in RGB pixels, best first. */
  async runYunet({ width: columns, height: rows, data }) {
    const { small_hint, nms_threshold } = this.settings;
    const width = Math.ceil(columns / DIVISOR) * DIVISOR;
    const height = Math.ceil(rows / DIVISOR) * DIVISOR;
    const step = data.length / (columns * rows);
    const input = new Float32Array(3 * height * width); // BGR planes, 0 to 255
    for (let y = 0, pixel = 0; y < rows; y++) {
      for (let x = 0, i = y * width; x < columns; x++, i++, pixel += step) {
        input[i] = data[pixel + 2];
        input[i + height * width] = data[pixel + 1];
        input[i + 2 * height * width] = data[pixel];
      }
    }
    const tensor = new this.ort.Tensor("float32", input, [1, 3, height, width]);
    const outputs = await this.session.run({ [this.session.inputNames[0]]: tensor });
    return keepDistinct(decode(outputs, width, small_hint), overlapOfUnion, nms_threshold);
  }

  /** Keep the face with the highest score among overlapping ones. */
  keepDistinctFaces(faces) {
    return keepDistinct(faces, overlapOfSmaller, this.settings.same_face_overlap);
  }
}

/** Decode YuNet's outputs to faces in pixels of its input, possibly overlapping. */
function decode(outputs, width, threshold) {
  const faces = [];
  const clamp = (value) => Math.min(Math.max(value, 0), 1);
  for (const stride of STRIDES) {
    const [cls, obj, bbox, kps] = ["cls", "obj", "bbox", "kps"].map(
      (name) => outputs[`${name}_${stride}`].data,
    );
    for (let i = 0; i < cls.length; i++) {
      const score = Math.sqrt(clamp(cls[i]) * clamp(obj[i]));
      if (score < threshold) continue;
      const column = i % (width / stride);
      const row = Math.floor(i / (width / stride));
      const [x, y] = [(column + bbox[4 * i]) * stride, (row + bbox[4 * i + 1]) * stride];
      const halfWidth = (Math.exp(bbox[4 * i + 2]) * stride) / 2;
      const halfHeight = (Math.exp(bbox[4 * i + 3]) * stride) / 2;
      faces.push({
        box: [x - halfWidth, y - halfHeight, x + halfWidth, y + halfHeight],
        score,
        landmarks: [0, 1, 2, 3, 4].map((k) => [
          (column + kps[10 * i + 2 * k]) * stride,
          (row + kps[10 * i + 2 * k + 1]) * stride,
        ]),
      });
    }
  }
  return faces;
}

/** Suppress faces that overlap one with a higher score by more than a limit; best first. */
function keepDistinct(faces, overlapOf, limit) {
  const kept = [];
  for (const face of [...faces].sort((one, other) => other.score - one.score)) {
    if (kept.every((other) => overlapOf(face.box, other.box) <= limit)) kept.push(face);
  }
  return kept;
}

const areaOf = ([x0, y0, x1, y1]) => Math.max(x1 - x0, 0) * Math.max(y1 - y0, 0);

const sharedArea = (one, other) =>
  areaOf([
    Math.max(one[0], other[0]),
    Math.max(one[1], other[1]),
    Math.min(one[2], other[2]),
    Math.min(one[3], other[3]),
  ]);

/** Intersection of two boxes over the smaller area, 0 to 1. */
function overlapOfSmaller(one, other) {
  return sharedArea(one, other) / Math.min(areaOf(one), areaOf(other));
}

/** Intersection of two boxes over their union, 0 to 1. */
export function overlapOfUnion(one, other) {
  const shared = sharedArea(one, other);
  return shared / (areaOf(one) + areaOf(other) - shared);
}

/** Return the face with its box clipped to the photo, or no face if it lies outside. */
function clipFace(face, photo) {
  const box = face.box.map((value, i) =>
    Math.min(Math.max(value, 0), i % 2 ? photo.height : photo.width),
  );
  return box[2] > box[0] && box[3] > box[1] ? [{ ...face, box }] : [];
}

/** Split a photo's side into equal overlapping parts [start, end] of at most `most` pixels. */
function splitSide(side, most, overlap) {
  const count = Math.max(1, Math.ceil((side - overlap) / (most - overlap)));
  const step = (side - overlap) / count;
  return Array.from({ length: count }, (_, i) => [
    roundHalfToEven(i * step),
    Math.min(side, Math.ceil((i + 1) * step + overlap)),
  ]);
}

/** Return the angle from one direction to another in degrees, -180 to 180. */
function turnBetween(one, other) {
  return ((((other - one + 180) % 360) + 360) % 360) - 180;
}

/** Rotate an image by a quarter turn, counterclockwise. */
function turnQuarter({ width, height, data }) {
  const step = data.length / (width * height);
  const turned = new Uint8ClampedArray(data.length);
  for (let y = 0, out = 0; y < width; y++) {
    for (let x = 0; x < height; x++) {
      const pixel = (x * width + width - 1 - y) * step;
      for (let k = 0; k < step; k++) turned[out++] = data[pixel + k];
    }
  }
  return { width: height, height: width, data: turned };
}
