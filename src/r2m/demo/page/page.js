// Sends one file after another to /detect and shows what is answered. Texts are never read as HTML.

const MARKS = { real: "●", unsure: "◆", fake: "▲" };
const DASHES = ["none", "8 5", "2 4", "12 4 2 4"]; // of the curves of several people
const byId = (id) => document.getElementById(id);
const explain = byId("explain");
const waiting = []; // [file, its article, whether it was scored and only maps are asked for]
let unexplained = []; // [file, its article], scored without maps
let busy = false;
let about = null;

/** Make an SVG element inside another. */
function draw(parent, name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

function said(probability) {
  if (probability < 0.0005) return "< 0.001";
  return probability >= 0.9995 ? "> 0.999" : probability.toFixed(3);
}

function cuts() {
  const { real_below: low, fake_from: high } = about;
  return low === high ? [high] : [low, high];
}

function cutsInWords() {
  const [low, high] = [said(about.real_below), said(about.fake_from)];
  return low === high ? `fake from ${high}` : `real below ${low}, fake from ${high}, unsure between`;
}

async function asked(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch {
    return { reason: "no answer: the server has ended, or did not take the file" };
  }
  try {
    return await response.json();
  } catch {
    return { reason: `no answer: ${response.status} ${response.statusText}` };
  }
}

function add(files) {
  for (const file of files) {
    const article = byId("result").content.cloneNode(true).firstElementChild;
    for (const part of article.querySelectorAll("p, svg, table, figure")) {
      part.toggleAttribute("hidden", true); // SVG elements have no property of this name
    }
    article.querySelector("h2").textContent = file.name;
    article.setAttribute("aria-busy", "true");
    tell(article, "waits");
    byId("results").prepend(article);
    waiting.push([file, article, false]);
  }
  work();
}

/** Show maps, and ask for those of files that were scored without; or hide all maps. */
function explainOrNot() {
  byId("results").classList.toggle("explained", explain.checked);
  if (!explain.checked) return;
  for (const [file, article] of unexplained) {
    article.setAttribute("aria-busy", "true");
    waiting.push([file, article, true]);
  }
  unexplained = [];
  work();
}

async function work() {
  if (busy) return;
  busy = true;
  while (waiting.length) {
    const [file, article, isScored] = waiting.shift();
    const withMaps = explain.checked;
    if (withMaps || !isScored) {
      const left = waiting.length ? `; ${waiting.length} more` : "";
      byId("status").textContent = `${isScored ? "Explaining" : "Scoring"} ${file.name}${left} …`;
      if (!isScored) tell(article, "is being scored …");
      const answer = await score(file, withMaps);
      if (!isScored) show(article, file.name, answer);
      if (withMaps && (isScored || answer.decision)) showExplanations(article, answer);
      if (!withMaps && answer.decision) unexplained.push([file, article]);
      byId("status").textContent = `${file.name}: ${isScored ? "explained" : inWords(answer)}`;
    } else {
      unexplained.push([file, article]); // maps are not wanted any more
    }
    article.removeAttribute("aria-busy");
    if (explain.checked) explainOrNot(); // those that were scored while it was checked
  }
  busy = false;
}

async function score(file, withMaps) {
  if (about?.fake_from === undefined) await introduce();
  if (about.reason) return about;
  if (file.size > about.megabytes * 1e6) return { reason: `too large: more than ${about.megabytes} MB` };
  const address = `detect?${new URLSearchParams({ name: file.name, explain: withMaps })}`;
  return asked(address, { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
}

function inWords(answer) {
  return answer.decision ? `${answer.decision}, ${said(answer.probability)} probability of being fake` : answer.reason;
}

function tell(article, text) {
  const message = article.querySelector(".message");
  message.hidden = !text;
  message.textContent = text;
}

function show(article, name, answer) {
  tell(article, answer.reason);
  const faces = answer.faces ?? [];
  if (answer.picture) showPicture(article, name, answer.picture, faces);
  if (!answer.decision) return;
  showDecision(article, answer);
  if (faces.length > 1) showTable(article, faces);
  const people = faces.filter((face) => face.curve.length);
  if (people.length) showCurve(article, people);
}

function showPicture(article, name, picture, faces) {
  const figure = article.querySelector(".shown");
  figure.hidden = false;
  article.querySelector(".parts").classList.add("both");
  const there = faces.filter((face) => face.box);
  const frame = picture.seconds === null ? "" : `, at ${picture.seconds.toFixed(1)} s`;
  const image = figure.querySelector("img");
  image.src = picture.image;
  image.alt = `${name}${frame}, with boxes around ${there.length === 1 ? "a face" : `${there.length} faces`}`;
  if (!there.length) image.alt = name + frame;
  figure.querySelector(".picture").style.setProperty("--aspect", picture.width / picture.height);
  const caption = `The frame at ${picture.seconds?.toFixed(1)} s, where the face looks most like a fake`;
  figure.querySelector("figcaption").textContent = frame && caption;
  const boxes = figure.querySelector(".boxes");
  boxes.removeAttribute("hidden");
  boxes.setAttribute("viewBox", `0 0 ${picture.width} ${picture.height}`);
  const size = 0.05 * Math.max(picture.width, picture.height);
  for (const face of there) {
    const [x, y, width, height] = face.box;
    draw(boxes, "rect", { x, y, width, height, class: "under" });
    draw(boxes, "rect", { x, y, width, height, class: `over ${face.decision}` });
    const label = faces.length > 1 ? `${MARKS[face.decision]} ${face.number + 1}` : MARKS[face.decision];
    const top = Math.max(y - 0.4 * size, size);
    const text = draw(boxes, "text", { x: Math.max(x, 0), y: top }, label);
    text.style.fontSize = `${size}px`;
  }
}

function showDecision(article, answer) {
  const decision = article.querySelector(".decision");
  decision.classList.add(answer.decision);
  decision.querySelector(".mark").textContent = MARKS[answer.decision];
  decision.querySelector("strong").textContent = answer.decision;
  article.querySelector(".number").textContent = said(answer.probability);
  article.querySelector(".cuts").textContent = cutsInWords();
  const scale = article.querySelector(".scale");
  scale.classList.add(answer.decision);
  scale.setAttribute("viewBox", "0 0 352 28");
  draw(scale, "rect", { x: 0, y: 8, width: 352, height: 12, rx: 3, class: "track" });
  draw(scale, "rect", { x: 0, y: 8, width: Math.max(3, 352 * answer.probability), height: 12, rx: 3, class: "bar" });
  for (const cut of cuts()) {
    const x = Math.min(Math.max(352 * cut, 1), 351);
    draw(scale, "line", { x1: x, x2: x, y1: 0, y2: 28, class: "cut" });
  }
  for (const part of article.querySelectorAll(".decision, .probability, .cuts")) part.hidden = false;
  scale.removeAttribute("hidden");
}

function showTable(article, faces) {
  const table = article.querySelector(".faces");
  table.hidden = false;
  for (const face of faces) {
    const row = table.tBodies[0].insertRow();
    row.insertCell().textContent = face.number + 1;
    const decision = row.insertCell();
    decision.textContent = `${MARKS[face.decision]} ${face.decision}`;
    decision.className = face.decision;
    row.insertCell().textContent = said(face.probability);
  }
}

function showCurve(article, people) {
  const figure = article.querySelector(".time");
  figure.hidden = false;
  const svg = figure.querySelector(".curve");
  svg.removeAttribute("hidden");
  const ranges = people.map((face) => {
    const levels = face.curve.map(([, probability]) => probability);
    const range = `${said(Math.min(...levels))} to ${said(Math.max(...levels))}`;
    return `face ${face.number + 1}: ${range} on ${levels.length} frames`;
  });
  svg.setAttribute("aria-label", `Probability of being fake over time. ${ranges.join("; ")}`);
  let width = 0;
  const redraw = () => {
    if (figure.clientWidth === width) return;
    width = figure.clientWidth;
    drawCurve(svg, people, width);
  };
  redraw(); // observers wait for the page to be seen
  new ResizeObserver(redraw).observe(figure);
}

/** Draw curves as wide as they are shown: a unit is a pixel, so that letters have their size at any width. */
function drawCurve(svg, people, width) {
  svg.replaceChildren();
  const [left, right, top, bottom, height] = [34, people.length > 1 ? 62 : 16, 10, 34, 210];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const times = people.flatMap((face) => face.curve.map(([seconds]) => seconds));
  const [first, last] = [Math.min(...times), Math.max(...times)];
  const x = (seconds) => left + ((width - left - right) * (seconds - first)) / (last - first || 1);
  const y = (probability) => top + (height - top - bottom) * (1 - probability);
  for (const level of [0, 0.5, 1]) {
    draw(svg, "line", { x1: left, x2: width - right, y1: y(level), y2: y(level), class: "axis" });
    draw(svg, "text", { x: left - 8, y: y(level) + 4, "text-anchor": "end" }, level);
  }
  for (const [seconds, anchor] of [[first, "start"], [last, "end"]]) {
    draw(svg, "text", { x: x(seconds), y: height - 12, "text-anchor": anchor }, `${seconds.toFixed(1)} s`);
    if (first === last) break;
  }
  for (const cut of cuts()) draw(svg, "line", { x1: left, x2: width - right, y1: y(cut), y2: y(cut), class: "cut" });
  for (const face of people) {
    const line = draw(svg, "g", { class: face.decision });
    const points = face.curve.map(([seconds, probability]) => [x(seconds), y(probability)]);
    const dashes = DASHES[face.number % DASHES.length];
    draw(line, "polyline", { points: points.map((point) => point.join(",")).join(" "), "stroke-dasharray": dashes });
    for (const [cx, cy] of points) draw(line, "circle", { cx, cy, r: 3.5 });
  }
  if (people.length === 1) return;
  // Names beside the ends of their curves, from the top down and not on each other.
  let least = 0;
  const ends = people.map((face) => [y(face.curve.at(-1)[1]) + 4, face]).sort(([a], [b]) => a - b);
  for (const [end, face] of ends) {
    least = Math.max(least, end);
    const place = { x: width - right + 10, y: least, class: `name ${face.decision}` };
    draw(svg, "text", place, `face ${face.number + 1}`);
    least += 15;
  }
}

/** Maps of faces, of a video of those on its frame; or why there are none. */
function showExplanations(article, answer) {
  const figure = article.querySelector(".explanations");
  figure.hidden = false;
  const faces = answer.faces ?? [];
  const mapped = faces.filter((face) => face.image);
  if (!mapped.length) {
    figure.querySelector("figcaption").textContent = answer.unexplained || answer.reason;
    return;
  }
  for (const face of mapped) {
    const map = document.createElement("figure");
    const image = document.createElement("img");
    image.src = face.image;
    image.alt = `face ${face.number + 1}, coloured by what raises the probability of fake`;
    map.append(image);
    if (faces.length > 1) {
      const caption = document.createElement("figcaption");
      caption.className = face.decision;
      caption.textContent = `${MARKS[face.decision]} face ${face.number + 1}`;
      map.append(caption);
    }
    figure.querySelector(".maps").append(map);
  }
}

async function introduce() {
  about = await asked("about");
  if (about.reason) return;
  byId("detector").textContent = `Detector: ${about.model}; ${cutsInWords()}.`;
  byId("limit").textContent = `(up to ${about.megabytes} MB each)`;
  byId("files").accept = about.suffixes.join(",");
}

const drop = byId("drop");
explain.addEventListener("change", explainOrNot);
byId("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = "";
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) drop.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  add(event.dataTransfer.files);
});
introduce();
