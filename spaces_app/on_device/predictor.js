/** From the pixels of a photo to the attributes of every face in it. */

import { alignFace } from "./alignment.js";
import { FaceDetector } from "./detection.js";
import { scaleFace } from "./face.js";
import { resizeBy } from "./resampling.js";

const BATCH_SIZE = 16; // faces

/**
 * A face and its attributes.
 * @typedef {import("./face.js").Face & {probabilities: number[], crop: Uint8ClampedArray}}
 *     PredictedFace probabilities 0 to 1 in the order of the model's attributes; the crop is RGB.
 */

export class AttributePredictor {
  /** `ort` is onnxruntime-web, `model` and `detector` are its sessions, `page` is `page.json`. */
  constructor(ort, model, detector, page) {
    this.ort = ort;
    this.model = model;
    this.detector = new FaceDetector(ort, detector, page.detector, page.face.arcface_template);
    this.page = page;
  }

  /**
   * Predict the attributes of every face, from left to right; a "frame" is searched on one small canvas.
   * @param {import("./resampling.js").Pixels} photo
   * @param {"photo" | "jpeg" | "frame"} kind
   * @returns {Promise<{faces: PredictedFace[], milliseconds: {detection: number, attributes: number}}>}
   */
  async predict(photo, kind) {
    const start = performance.now();
    const { source, faces } = await this.findFaces(photo, kind);
    const found = performance.now();
    const predicted = [];
    for (let i = 0; i < faces.length; i += BATCH_SIZE) {
      predicted.push(...(await this.predictFaces(source, faces.slice(i, i + BATCH_SIZE))));
    }
    const milliseconds = { detection: found - start, attributes: performance.now() - found };
    return { faces: predicted.map((face) => scaleFace(face, source, photo)), milliseconds };
  }

  /**
   * Find the faces of a photo, of a JPEG at full size only if needed, as `find_faces` in Python.
   * Return the photo or a smaller copy as `source`, and the faces in its pixels.
   */
  async findFaces(photo, kind) {
    if (kind === "frame") return { source: photo, faces: await this.detector.glance(photo) };
    const { glance_pixels, glance_face, glance_score } = this.page.glance;
    const enough = (reduction) =>
      photo.width * photo.height >= glance_pixels * reduction ** 2 && kind === "jpeg";
    const reduction = [8, 4, 2].find(enough) ?? 1; // as a JPEG can be decoded
    if (reduction > 1) {
      const source = resizeBy(photo, 1 / reduction);
      const faces = await this.detector.detect(source);
      const isClear = ({ box: [x0, y0, x1, y1], score }) =>
        score >= glance_score && Math.min(x1 - x0, y1 - y0) >= glance_face;
      if (faces.length && faces.every(isClear)) return { source, faces };
    }
    return { source: photo, faces: await this.detector.detect(photo) };
  }

  /** Predict the attributes of found faces, in one batch. */
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
