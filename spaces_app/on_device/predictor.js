/** From the pixels of a photo to the attributes of every face in it. */

import { alignFace } from "./alignment.js";
import { FaceDetector } from "./detection.js";

// In a video the face is near, and the next frame comes soon: a glance at this size is enough.
const GLANCE_SIDE = 320; // pixels
const MOST_FACES = 16; // predicted at once

/**
 * A face and its attributes.
 * @typedef {import("./detection.js").Face & {probabilities: number[], crop: Uint8ClampedArray}}
 *     PredictedFace probabilities 0 to 1 in the order of the model's attributes; the crop is RGB.
 */

export class AttributePredictor {
  /**
   * @param {object} ort onnxruntime-web.
   * @param {object} model session of the attribute model.
   * @param {object} detector session of YuNet.
   * @param {object} page the contents of `page.json`.
   */
  constructor(ort, model, detector, page) {
    this.ort = ort;
    this.model = model;
    this.detector = new FaceDetector(ort, detector, page.detector);
    this.page = page;
  }

  /**
   * Attributes of every face in one photo or video frame.
   * @param {import("./resampling.js").Pixels} photo
   * @param {boolean} glance look once and quickly, as a video allows.
   * @returns {Promise<{faces: PredictedFace[], milliseconds: {detection: number, attributes: number}}>}
   *     faces from left to right; attributes' milliseconds are all faces' together.
   */
  async predict(photo, glance) {
    const start = performance.now();
    const longer = Math.max(photo.width, photo.height);
    const faces = glance
      ? await this.detector.detectAt(photo, Math.min(1, GLANCE_SIDE / longer), 0)
      : await this.detector.detect(photo);
    faces.sort((one, other) => one.box[0] - other.box[0]);
    const found = performance.now();
    const predicted = [];
    for (let i = 0; i < faces.length; i += MOST_FACES) {
      predicted.push(...(await this.predictFaces(photo, faces.slice(i, i + MOST_FACES))));
    }
    const milliseconds = { detection: found - start, attributes: performance.now() - found };
    return { faces: predicted, milliseconds };
  }

  /**
   * @param {import("./resampling.js").Pixels} photo
   * @param {import("./detection.js").Face[]} faces
   * @returns {Promise<PredictedFace[]>}
   */
  async predictFaces(photo, faces) {
    const { alignment_template: template, crop_size: size, attributes } = this.page;
    const crops = faces.map((face) => alignFace(photo, face.landmarks, template, size));
    const input = new Uint8Array(faces.length * size * size * 3);
    crops.forEach((crop, i) => input.set(crop, i * crop.length));
    const tensor = new this.ort.Tensor("uint8", input, [faces.length, size, size, 3]);
    const { probabilities } = await this.model.run({ pixel_values: tensor });
    return faces.map((face, i) => ({
      ...face,
      crop: crops[i],
      probabilities: Array.from(
        probabilities.data.subarray(i * attributes.length, (i + 1) * attributes.length),
      ),
    }));
  }
}
