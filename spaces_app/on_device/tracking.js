/** Track faces over video frames, and average their probabilities. */

import { overlapOfUnion } from "./detection.js";

const SAME_FACE = 0.3; // minimum overlap of a face's boxes in two frames
const NEWEST = 0.35; // weight of the newest frame in the mean

export class FaceTracker {
  constructor() {
    this.faces = [];
    this.lastTrack = 0;
  }

  /** Assign the faces of the next frame to tracks, and average their probabilities over time. */
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
