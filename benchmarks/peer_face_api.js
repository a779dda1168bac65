// @vladmandic/face-api on photos from standard input: node peer_face_api.js NPM_FOLDER
const path = require('path');
const { createRequire } = require('module');
const { answerPhotos } = require('./peer_photos.js');

const load = createRequire(path.join(process.argv[2], 'index.js'));
const tf = load('@tensorflow/tfjs');
const wasm = load('@tensorflow/tfjs-backend-wasm');
const faceapi = load('@vladmandic/face-api/dist/face-api.node-wasm.js');
console.log = console.info = console.error; // standard output is for answers

(async () => {
  wasm.setWasmPaths(`${path.dirname(load.resolve('@tensorflow/tfjs-backend-wasm'))}/`);
  wasm.setThreadsCount(1);
  await tf.setBackend('wasm');
  await tf.ready();
  const models = `${path.dirname(load.resolve('@vladmandic/face-api/package.json'))}/model`;
  const { ssdMobilenetv1, faceLandmark68Net, ageGenderNet } = faceapi.nets;
  for (const net of [ssdMobilenetv1, faceLandmark68Net, ageGenderNet]) await net.loadFromDisk(models);
  // The library's own default, 0.5, misses most tight crops; its demo takes 0.1.
  const options = new faceapi.SsdMobilenetv1Options({ minConfidence: 0.1 });
  await answerPhotos(async (pixels, width, height) => {
    const image = tf.tensor3d(pixels, [height, width, 3], 'int32');
    const found = await faceapi.detectAllFaces(image, options).withFaceLandmarks().withAgeAndGender();
    tf.dispose(image);
    return found.map(({ detection: { box }, gender, genderProbability, age }) => ({
      box: [box.x, box.y, box.x + box.width, box.y + box.height],
      male: gender === 'male' ? genderProbability : 1 - genderProbability,
      age,
    }));
  });
})();
