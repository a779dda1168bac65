/** Find faces as `label2label.faces.detection` does in Python: YuNet, at one or two sizes. */

import { resize, roundHalfToEven } from "./resampling.js";

const STRIDES = [8, 16, 32]; // of YuNet's three grids
const DIVISOR = 32; // its input's sides are multiples of this

/**
 * One face, in pixels of the photo; (0, 0) is the outer corner of the top left pixel.
 * @typedef {object} Face
 * @property {number[]} box [x0, y0, x1, y1], left, top, right, bottom.
 * @property {number} score the detector's confidence, 0 to 1.
 * @property {number[][]} landmarks five [x, y]: viewer's left eye, right eye, nose tip, viewer's
 *     left and right mouth corners.
 */

export class FaceDetector {
  /**
   * @param {object} ort onnxruntime-web.
   * @param {object} session of YuNet's file.
   * @param {object} settings the `detector` part of `page.json`.
   */
  constructor(ort, session, settings) {
    this.ort = ort;
    this.session = session;
    this.settings = settings;
  }

  /**
   * Find the faces of one photo.
   * @param {import("./resampling.js").Pixels} photo
   * @returns {Promise<Face[]>} from left to right.
   */
  async detect(photo) {
    const { close_up_side, whole_side, margin, same_face_overlap } = this.settings;
    const longer = Math.max(photo.width, photo.height);
    let faces = await this.detectAt(photo, close_up_side / longer, margin);
    if (longer > close_up_side) {
      faces = faces.concat(await this.detectAt(photo, Math.min(1, whole_side / longer), 0));
    }
    return keepDistinct(faces, overlapOfSmaller, same_face_overlap).sort(
      (one, other) => one.box[0] - other.box[0],
    );
  }

  /**
   * Find the faces of a photo that is scaled and surrounded by a black margin first.
   * @param {import("./resampling.js").Pixels} photo
   * @param {number} scale
   * @param {number} margin of the scaled photo's longer side.
   * @returns {Promise<Face[]>} surest first.
   */
  async detectAt(photo, scale, margin) {
    const columns = Math.max(1, roundHalfToEven(photo.width * scale));
    const rows = Math.max(1, roundHalfToEven(photo.height * scale));
    const border = roundHalfToEven(margin * Math.max(columns, rows));
    const width = Math.ceil((columns + 2 * border) / DIVISOR) * DIVISOR;
    const height = Math.ceil((rows + 2 * border) / DIVISOR) * DIVISOR;
    const whole = { x: 0, y: 0, width: photo.width, height: photo.height };
    const pixels = resize(photo, whole, columns, rows);
    const input = new Float32Array(3 * height * width); // BGR planes, 0 to 255
    for (let y = 0, pixel = 0; y < rows; y++) {
      for (let x = 0, i = (y + border) * width + border; x < columns; x++, i++, pixel += 3) {
        input[i] = pixels[pixel + 2];
        input[i + height * width] = pixels[pixel + 1];
        input[i + 2 * height * width] = pixels[pixel];
      }
    }
    const tensor = new this.ort.Tensor("float32", input, [1, 3, height, width]);
    const outputs = await this.session.run({ [this.session.inputNames[0]]: tensor });
    const found = keepDistinct(
      decode(outputs, width, this.settings.score_threshold),
      overlapOfUnion,
      this.settings.nms_threshold,
    );
    const toPhoto = ([x, y]) => [
      ((x - border) * photo.width) / columns,
      ((y - border) * photo.height) / rows,
    ];
    return found
      .map(({ box, score, landmarks }) => ({
        box: [...toPhoto(box.slice(0, 2)), ...toPhoto(box.slice(2))].map((value, i) =>
          Math.min(Math.max(value, 0), i % 2 ? photo.height : photo.width),
        ),
        score,
        landmarks: landmarks.map(toPhoto),
      }))
      .filter(({ box: [x0, y0, x1, y1] }) => x1 > x0 && y1 > y0); // else found in the margin
  }
}

/**
 * Faces that YuNet's outputs tell, in pixels of its input, overlapping ones included.
 * @param {object} outputs tensors by name: `cls`, `obj`, `bbox` and `kps` of each stride.
 * @param {number} width of the input in pixels.
 * @param {number} threshold least score.
 * @returns {Face[]}
 */
export function decode(outputs, width, threshold) {
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

/**
 * Of faces that overlap by more than a limit, keep the surest.
 * @param {Face[]} faces
 * @param {(one: number[], other: number[]) => number} overlapOf two boxes, 0 to 1.
 * @param {number} limit
 * @returns {Face[]} surest first.
 */
export function keepDistinct(faces, overlapOf, limit) {
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

/** Area that two boxes share, over the smaller one's. */
export function overlapOfSmaller(one, other) {
  return sharedArea(one, other) / Math.min(areaOf(one), areaOf(other));
}

/** Area that two boxes share, over the area that they cover together. */
export function overlapOfUnion(one, other) {
  const shared = sharedArea(one, other);
  return shared / (areaOf(one) + areaOf(other) - shared);
}
