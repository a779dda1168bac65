// The fourth tab: the page that runs the model in the visitor's own browser.

const intro = make("p");
const frame = make("iframe", { allow: "camera", onload: tellLanguage });
element.firstElementChild.append(intro, frame);

// The page is told of the new language, not reloaded, so that its photo and result stay.
function tellLanguage() {
  frame.contentWindow?.postMessage({ language: language() }, location.origin);
}

function relabel() {
  intro.textContent = say("device.intro");
  frame.title = say("device.title");
  tellLanguage();
}

document.addEventListener(LANGUAGE_EVENT, relabel);
relabel();
frame.src = `${props.address}?lang=${language()}`;
