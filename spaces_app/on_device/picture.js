/** Faces marked on the photo or video, and their crops to choose from. */

import { make } from "./elements.js";

const SVG = "http://www.w3.org/2000/svg";

/** Mark every face's box, and the chosen one's landmarks, on an SVG over the picture. */
export function drawBoxes(svg, { width, height }, faces, chosen, choose) {
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren(
    ...faces.map(({ box: [x0, y0, x1, y1], landmarks }, index) => {
      const group = document.createElementNS(SVG, "g");
      group.classList.toggle("chosen", index === chosen);
      group.append(
        makeShape("rect", { x: x0, y: y0, width: x1 - x0, height: y1 - y0, rx: (x1 - x0) * 0.08 }),
      );
      const radius = Math.max((x1 - x0) * 0.018, width * 0.003);
      if (index === chosen) {
        group.append(...landmarks.map(([cx, cy]) => makeShape("circle", { cx, cy, r: radius })));
      }
      group.addEventListener("click", () => choose(index));
      return group;
    }),
  );
}

function makeShape(name, attributes) {
  const shape = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
  return shape;
}

/** Show every face's crop of `size` pixels with its remark, to choose one by mouse or keyboard. */
export function drawCrops(fieldset, faces, size, chosen, names, remarks, choose) {
  fieldset.hidden = faces.length === 0;
  const labels = [...fieldset.querySelectorAll("label")];
  labels.slice(faces.length).forEach((label) => label.remove());
  faces.forEach(({ crop }, index) => {
    const label = labels[index] ?? fieldset.appendChild(makeChoice(size));
    const [input, canvas, remark] = label.children;
    input.checked = index === chosen;
    input.setAttribute("aria-label", [names[index], remarks[index]].filter(Boolean).join(", "));
    remark.textContent = remarks[index];
    input.onchange = () => choose(index);
    canvas.getContext("2d").putImageData(toImageData(crop, size), 0, 0);
  });
}

function makeChoice(size) {
  const input = make("input", { type: "radio", name: "face" });
  return make("label", {}, input, make("canvas", { width: size, height: size }), make("small"));
}

/** Convert RGB (size, size, 3) to RGBA. */
function toImageData(crop, size) {
  const image = new ImageData(size, size);
  for (let i = 0, pixel = 0; i < crop.length; i += 3, pixel += 4) {
    image.data.set([crop[i], crop[i + 1], crop[i + 2], 255], pixel);
  }
  return image;
}
