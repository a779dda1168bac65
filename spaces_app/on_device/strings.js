/** What the page says, in English and Korean; the attributes' names are in `page.json`. */

export const LANGUAGES = { en: "English", ko: "한국어" };

const ENGLISH = {
  title: "Facial attributes on your device",
  lead: "A light Label2label model reads a face as a sentence of attributes, in this browser.",
  privacy: "Photos and video never leave this device.",
  privacyDetail:
    "The page has fetched the model once and runs it here. Its security policy forbids it to send anything to any other server, and it works without a network once it has loaded.",
  skip: "Skip to the attributes",
  language: "Language",
  stage: "Photo or video",
  camera: "Use camera",
  stop: "Stop camera",
  flip: "Other camera",
  upload: "Choose a photo",
  example: "Try an example",
  exampleCredit: "Eileen Collins, NASA, public domain",
  drop: "or drop or paste one here",
  loading: "Loading the model",
  loadFailed: "The model could not be loaded: {reason}. Reload the page to try again.",
  ready: "Ready. Choose a photo or use the camera.",
  working: "Looking for faces",
  noFace: "No face found. Try a photo in which the face is larger, upright and well lit.",
  noFaceLive: "No face in view",
  found: { one: "1 face found", other: "{count} faces found" },
  notImage: "{name} is not an image that this browser can read. Choose a JPEG, PNG or WebP file.",
  tooSmall: "{size} pixels are too few to show a face: at least {least}.",
  cameraDenied: "The camera may not be used. Allow it in the browser's settings for this page.",
  cameraMissing: "No camera was found. Choose a photo instead.",
  cameraFailed: "The camera could not be started: {reason}",
  failed: "The photo could not be read: {reason}",
  live: "Live",
  faces: "Faces",
  face: "Face {number}",
  clockwise: "turned {value}° clockwise",
  counterclockwise: "turned {value}° counterclockwise",
  flaws: { small: "small", cut: "cut by the edge", "turned away": "turned away" },
  present: "What the model sees",
  nothing: "Nothing above its threshold.",
  all: "All attributes",
  empty: "The attributes of a face appear here.",
  yes: "yes",
  no: "no",
  detection: "Find faces",
  attributes: "Attributes, per face",
  rate: "Video",
  perSecond: "{value} frames/s",
  milliseconds: "{value} ms",
  model: "Model: {size} MB, run by {runtime} on one thread.",
  save: "Save as JSON",
  caution:
    "These are guesses that follow the labels of celebrity photos. Several are opinions, and “male” is what people perceived, not who someone is. Do not use them to decide about people.",
  groups: {
    hair: "Hair",
    "facial hair": "Facial hair",
    accessories: "Accessories",
    "make-up": "Make-up",
    expression: "Expression",
    "eyes and brows": "Eyes and brows",
    "face shape": "Face shape",
    person: "Impression",
    image: "Image",
    other: "Other",
  },
};

const KOREAN = {
  title: "내 기기에서 보는 얼굴 속성",
  lead: "가벼운 Label2label 모델이 얼굴을 속성의 문장으로 읽습니다. 모두 이 브라우저 안에서 이루어집니다.",
  privacy: "사진과 영상은 이 기기를 떠나지 않습니다.",
  privacyDetail:
    "페이지가 모델을 한 번 받아 와 이 기기에서 실행합니다. 보안 정책이 다른 서버로 보내는 것을 막고, 한 번 불러온 뒤에는 네트워크 없이도 작동합니다.",
  skip: "속성으로 건너뛰기",
  language: "언어",
  stage: "사진 또는 영상",
  camera: "카메라 사용",
  stop: "카메라 끄기",
  flip: "다른 카메라",
  upload: "사진 선택",
  example: "예시 보기",
  exampleCredit: "아일린 콜린스, NASA, 퍼블릭 도메인",
  drop: "또는 여기에 끌어다 놓거나 붙여 넣으세요",
  loading: "모델을 불러오는 중",
  loadFailed: "모델을 불러오지 못했습니다: {reason}. 페이지를 새로 고쳐 보세요.",
  ready: "준비되었습니다. 사진을 선택하거나 카메라를 켜세요.",
  working: "얼굴을 찾는 중",
  noFace: "얼굴을 찾지 못했습니다. 얼굴이 더 크고 바르며 밝은 사진을 써 보세요.",
  noFaceLive: "화면에 얼굴이 없습니다",
  found: { one: "얼굴 1개를 찾았습니다", other: "얼굴 {count}개를 찾았습니다" },
  notImage:
    "{name}: 이 브라우저가 읽을 수 있는 이미지가 아닙니다. JPEG, PNG, WebP 파일을 선택하세요.",
  tooSmall: "{size} 픽셀은 얼굴을 보기에 너무 작습니다. 적어도 {least} 픽셀이어야 합니다.",
  cameraDenied: "카메라를 쓸 수 없습니다. 브라우저 설정에서 이 페이지에 허용해 주세요.",
  cameraMissing: "카메라가 없습니다. 대신 사진을 선택하세요.",
  cameraFailed: "카메라를 켜지 못했습니다: {reason}",
  failed: "사진을 읽지 못했습니다: {reason}",
  live: "실시간",
  faces: "얼굴",
  face: "얼굴 {number}",
  clockwise: "시계 방향으로 {value}° 회전",
  counterclockwise: "시계 반대 방향으로 {value}° 회전",
  flaws: { small: "작은 얼굴", cut: "가장자리에서 잘림", "turned away": "옆을 향함" },
  present: "모델이 본 속성",
  nothing: "기준을 넘은 속성이 없습니다.",
  all: "모든 속성",
  empty: "얼굴의 속성이 여기에 나타납니다.",
  yes: "예",
  no: "아니요",
  detection: "얼굴 찾기",
  attributes: "얼굴당 속성",
  rate: "영상",
  perSecond: "초당 {value}장",
  milliseconds: "{value} ms",
  model: "모델: {size} MB, {runtime}, 스레드 1개.",
  save: "JSON으로 저장",
  caution:
    "유명인 사진에 붙은 라벨을 따른 추측입니다. 일부는 의견이며, ‘남성’은 그 사람이 누구인지가 아니라 사람들이 느낀 인상입니다. 사람에 대한 결정에 쓰지 마세요.",
  groups: {
    hair: "머리카락",
    "facial hair": "수염",
    accessories: "착용한 것",
    "make-up": "화장",
    expression: "표정",
    "eyes and brows": "눈과 눈썹",
    "face shape": "얼굴형",
    person: "인상",
    image: "이미지",
    other: "기타",
  },
};

const STRINGS = { en: ENGLISH, ko: KOREAN };

/** The texts of one language, a key of `LANGUAGES`. */
export class Words {
  constructor(language) {
    this.language = language;
    this.strings = STRINGS[language];
  }

  /** Return a text, or its form for `values.count`, with its placeholders, `{name}`, filled. */
  say(key, values = {}) {
    const text = this.strings[key];
    const form = values.count === 1 ? text.one : (text.other ?? text);
    return form.replace(/\{(\w+)\}/g, (_, place) => values[place]);
  }

  /** Return the title of a group of `page.json`. */
  titleOf(group) {
    return this.strings.groups[group] ?? group;
  }
}

/** Choose the first language: the one asked for in the address (`lang`), or the browser's. */
export function firstLanguage() {
  const asked = new URLSearchParams(location.search).get("lang") ?? "";
  const wanted = [asked, ...navigator.languages].map((name) => name.slice(0, 2));
  return wanted.find((name) => name in LANGUAGES) ?? "en";
}
