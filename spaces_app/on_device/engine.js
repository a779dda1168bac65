/** The page's side of the worker that runs the models. */

export class Engine {
  /** Start loading; `onProgress` is called with the loaded fraction, 0 to 1. */
  constructor(onProgress) {
    const module = new URL("worker.js", import.meta.url).href;
    // A worker from a blob obeys this page's Content-Security-Policy; one from a file would not.
    const starter = new Blob([`import ${JSON.stringify(module)};`], { type: "text/javascript" });
    this.worker = new Worker(URL.createObjectURL(starter), { type: "module" });
    this.waiting = new Map();
    this.lastId = 0;
    /** @type {Promise<object>} the contents of `page.json`, once all is loaded. */
    this.page = new Promise((resolve, reject) => {
      this.worker.onerror = (event) => reject(new Error(event.message || "worker.js"));
      this.worker.onmessage = ({ data }) => {
        if (data.id !== undefined) this.settle(data);
        else if (data.error !== undefined) reject(new Error(data.error));
        else if (data.page) resolve(data.page);
        else onProgress(data.progress);
      };
    });
  }

  /** Predict the faces of an ImageBitmap, which goes to the worker, as `AttributePredictor.predict`. */
  predict(bitmap, kind) {
    const id = ++this.lastId;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, bitmap, kind }, [bitmap]);
    });
  }

  /** Answer the one who asked. */
  settle({ id, error, ...result }) {
    const { resolve, reject } = this.waiting.get(id);
    this.waiting.delete(id);
    if (error === undefined) resolve(result);
    else reject(new Error(error));
  }
}
