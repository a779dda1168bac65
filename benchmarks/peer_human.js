// @vladmandic/human on photos from standard input: node peer_human.js NPM_FOLDER
const fs = require('fs');
const http = require('http');
const path = require('path');
const { createRequire } = require('module');
const { answerPhotos } = require('./peer_photos.js');

const load = createRequire(path.join(process.argv[2], 'index.js'));
const wasm = load('@tensorflow/tfjs-backend-wasm');
const folder = path.join(process.argv[2], 'node_modules/@vladmandic/human');
const { Human } = require(path.join(folder, 'dist/human.node-wasm.js'));
console.log = console.info = console.error; // standard output is for answers

// It reads its models by HTTP alone.
const models = http.createServer((request, response) => {
  const file = path.join(folder, 'models', path.basename(request.url));
  fs.readFile(file, (error, content) => response.writeHead(error ? 404 : 200).end(content));
});
models.listen(0, '127.0.0.1', async () => {
  const wasmPath = `${path.dirname(load.resolve('@tensorflow/tfjs-backend-wasm'))}/`;
  wasm.setWasmPaths(wasmPath);
  wasm.setThreadsCount(1);
  const off = { enabled: false };
  const human = new Human({
    backend: 'wasm',
    wasmPath,
    modelBasePath: `http://127.0.0.1:${models.address().port}/`,
    debug: false,
    cacheSensitivity: 0,
    filter: off,
    face: {
      enabled: true,
      detector: { maxDetected: 10 },
      iris: off,
      description: { enabled: true, minConfidence: 0 },
      emotion: off,
      antispoof: off,
      liveness: off,
    },
    body: off,
    hand: off,
    object: off,
    gesture: off,
  });
  await human.load();
  await human.tf.ready();
  await answerPhotos(async (pixels, width, height) => {
    const image = human.tf.tensor3d(pixels, [height, width, 3], 'int32');
    const result = await human.detect(image);
    human.tf.dispose(image);
    return (result.face || [])
      // A face that its description did not take has neither.
      .filter((face) => ['male', 'female'].includes(face.gender) && face.age > 0)
      .map(({ box: [x, y, w, h], gender, genderScore, age }) => ({
        box: [x, y, x + w, y + h],
        male: gender === 'male' ? 0.5 + genderScore / 2 : 0.5 - genderScore / 2,
        age,
      }));
  });
  models.close();
});
