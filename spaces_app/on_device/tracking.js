/** Follow faces from one video frame to the next, so that their numbers do not flicker. */

import { overlapOfUnion } from "./detection.js";

const SAME_FACE = 0.3; // overlap between two frames
const NEWEST = 0.35; // weight of the newest frame in the mean

export class FaceTracker {
  constructor() {
    this.faces = [];
    this.lastTrack = 0;
  }

  /**
   * Give every face of a new frame its `track`, and average its probabilities over time.
   * @param {import("./predictor.js").PredictedFace[]} faces
   * @returns {(import("./predictor.js").PredictedFace & {track: number})[]}
   */
  follow(faces) {
    const before = [...this.faces];
    this.faces = faces.map((face) => {
      const overlaps = before.map((other) => overlapOfUnion(face.box, other.box));
      const best = overlaps.indexOf(Math.max(...overlaps));
      if (!(overlaps[best] > SAME_FACE)) return { ...face, track: ++this.lastTrack };
      const [same] = before.splice(best, 1);
      const probabilities = face.probabilities.map(
        (value, i) => NEWEST * value + (1 - NEWEST) * same.probabilities[i],
      );
      return { ...face, probabilities, track: same.track };
    });
    return this.faces;
  }
}
