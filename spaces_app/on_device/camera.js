/** The device's cameras. */

export class Camera {
  constructor(video) {
    this.video = video;
    this.facing = "user";
    this.stream = null;
  }

  get on() {
    return this.stream !== null;
  }

  /** Start the camera on the chosen side, or throw a DOMException: not allowed, missing or busy. */
  async start() {
    if (!navigator.mediaDevices) throw new DOMException("", "NotFoundError");
    this.stop();
    const size = { width: { ideal: 640 }, height: { ideal: 480 } };
    this.stream = await navigator.mediaDevices.getUserMedia({
      video: { facingMode: this.facing, ...size },
      audio: false,
    });
    this.video.srcObject = this.stream;
    await this.video.play();
  }

  /** Switch to the camera on the other side of the device; if it does not start, the side stays. */
  async flip() {
    const before = this.facing;
    this.facing = before === "user" ? "environment" : "user";
    try {
      await this.start();
    } catch (error) {
      this.facing = before;
      throw error;
    }
  }

  /** Stop the camera. */
  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.video.srcObject = null;
  }

  /** Return whether the device has several cameras. */
  async hasOther() {
    const devices = await navigator.mediaDevices.enumerateDevices();
    return devices.filter((device) => device.kind === "videoinput").length > 1;
  }

  /** Wait for the next frame. */
  async nextFrame() {
    await new Promise((resolve) => {
      if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(resolve);
      else requestAnimationFrame(resolve);
    });
  }
}
