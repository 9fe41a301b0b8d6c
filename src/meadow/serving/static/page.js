// The page of the service: takes photos by picker, camera, drop and paste, asks the API about each
// as any other client would, and says the answer in plain words.

const AT_ONCE = 2; // requests under way, so that a hundred photos do not crowd out other clients
const TRIES = 4; // of a request that a busy service turned away
const BARS = 5;
const LITTLE = 0.02; // a fall in confidence that is not worth figures
const SCRIM = [9, 14, 10]; // over what the answer does not rest on

const $ = (id) => document.getElementById(id);
const cards = new Map(); // li → { file, retry }
let key = "";
let limits = null; // what a photo may be, once the service has said

// ---- Words

/** 0.973 → "97 %"; never "100 %" or "0 %", which no classifier can know. */
function percent(p) {
  if (p > 0.999) return "over 99.9 %";
  if (p < 0.001) return "under 0.1 %";
  const digits = p > 0.99 || p < 0.01 ? 1 : 0;
  return `${(100 * p).toFixed(digits)} %`;
}

/** ["a", "b", "c"] → "a, b or c". */
function list(names) {
  if (names.length < 2) return names.join("");
  return `${names.slice(0, -1).join(", ")} or ${names.at(-1)}`;
}

const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

/** What an answer comes to: the kind of it, a verdict, and how sure that is. */
function verdict(answer) {
  const { label, confidence, prediction_set: set, in_distribution: known } = answer;
  const names = Object.keys(answer.probabilities);
  if (!known) {
    return {
      kind: "neither",
      title: names.length === 2 ? "Probably neither" : "Probably none of these",
      sure: `It is unlike the photos that the model learned from. Forced to choose, it says ${label}.`,
    };
  }
  if (set.length === 1) return { kind: "clear", title: label, sure: `${percent(confidence)} sure` };
  if (set.length === 0) {
    return {
      kind: "unsure",
      title: "Not sure",
      sure: `No class fits well enough; the closest is ${label}, with ${percent(confidence)}.`,
    };
  }
  return {
    kind: "unsure",
    title: set.length <= 3 ? `Not sure: ${list(set)}` : `Not sure: one of ${set.length} classes`,
    sure: `More than one class is likely; first comes ${label}, with ${percent(confidence)}.`,
  };
}

/** Where on the photo the heat lies, in words. */
function place(heat) {
  const n = heat.length;
  const peak = Math.max(...heat.flat());
  let [hot, x, y] = [0, 0, 0];
  heat.forEach((row, i) => row.forEach((value, j) => {
    if (value < peak / 2) return;
    hot += 1;
    y += (i + 0.5) / n;
    x += (j + 0.5) / n;
  }));
  if (hot > n * n / 2) return "the whole photo";
  const third = (value) => Math.min(2, Math.floor(3 * value));
  return [
    ["the upper left", "the upper part", "the upper right"],
    ["the left", "the middle", "the right"],
    ["the lower left", "the lower part", "the lower right"],
  ][third(y / hot)][third(x / hot)];
}

/** What a heat map says. */
function because({ label, confidence, least_confidence: least, heat }) {
  if (!heat.flat().some((value) => value > 0)) {
    return `No part of the photo speaks for ${label} in particular.`;
  }
  if (confidence - least < LITTLE) {
    return `What counts most is ${place(heat)}, but no part decides alone: whichever is covered,`
      + ` ${label} keeps ${percent(least)} or more.`;
  }
  return `What counts most is ${place(heat)}. With the brightest part covered, ${label} falls from`
    + ` ${percent(confidence)} to ${percent(least)}.`;
}

// ---- The API

/** A photo without an answer, in words for people; `again`: trying again may help. */
class Refused extends Error {
  constructor(title, detail, { again = false, body = null } = {}) {
    super(title);
    this.detail = detail;
    this.again = again;
    this.body = body;
  }
}

// status → what it means to the one who gave the photo; "" leaves the detail to the service's message
const MEANING = {
  401: ["This service asks for a key", "Give it above."],
  408: ["Sending the photo took too long", "The connection may be slow."],
  413: ["This photo is too large", ""],
  415: ["Not a photo that this service takes", ""],
  422: ["This photo cannot be read", ""],
  429: ["The service is busy", "Others are asking it too."],
  503: ["The service is busy", "Others are asking it too."],
  504: ["The service took too long", "It may be busy."],
};
const AGAIN = new Set([401, 408, 429, 500, 502, 503, 504]);

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

/** Send a photo's own bytes, nothing shrunk: the answer is the one that the API gives. */
async function ask(path, file) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Refused("This file cannot be opened", "Is it a folder, or was it moved?");
  }
  for (let tried = 1; ; tried += 1) {
    let response;
    try {
      response = await fetch(path, {
        method: "POST",
        body: file,
        headers: {
          "Content-Type": file.type || "application/octet-stream",
          ...(key && { Authorization: `Bearer ${key}` }),
        },
      });
    } catch {
      throw new Refused("The service cannot be reached", "Is the connection up?", { again: true });
    }
    if ([429, 503].includes(response.status) && tried < TRIES) {
      const after = Number(response.headers.get("Retry-After")) || 1;
      await pause(Math.min(after, 10) * (0.75 + Math.random() / 2));
      continue;
    }
    const body = await response.json().catch(() => null);
    if (response.ok && body) return body;
    if (response.status === 401) askForKey();
    const [title, detail] = MEANING[response.status] ?? [`The service failed (${response.status})`, ""];
    const most = response.status === 413 && limits && `At most ${plural(Math.floor(limits.max_bytes / 2 ** 20), "megabyte")}`
      + ` and ${plural(Math.floor(limits.max_pixels / 1e6), "megapixel")} are taken.`;
    throw new Refused(title, most || detail || body?.error?.message || "", {
      again: AGAIN.has(response.status),
      body,
    });
  }
}

function askForKey() {
  $("wrong").hidden = !key;
  if (!$("key").hidden) return;
  $("key").hidden = false;
  $("secret").focus();
}

/** Run a task when fewer than AT_ONCE others are under way. */
const turn = (() => {
  const waiting = [];
  let running = 0;
  return async (task) => {
    if (running >= AT_ONCE) await new Promise((go) => waiting.push(go));
    else running += 1;
    try {
      return await task();
    } finally {
      const next = waiting.shift();
      if (next) next();
      else running -= 1;
    }
  };
})();

// ---- Cards

function say(text) {
  const line = document.createElement("p");
  line.textContent = text;
  $("said").append(line);
  while ($("said").children.length > 20) $("said").firstChild.remove();
}

function add(files) {
  $("notice").textContent = "";
  const first = $("answers").firstChild; // the new ones come before the old, in their own order
  for (const file of files) {
    const card = $("card").content.cloneNode(true).firstElementChild;
    const part = (name) => card.querySelector(`.${name}`);
    const image = new Image();
    const name = file.name || "pasted photo";
    part("name").textContent = name;
    part("name").title = name;
    part("remove").setAttribute("aria-label", `Remove ${name}`);
    part("remove").addEventListener("click", () => remove(card));
    part("again").addEventListener("click", () => classify(card));
    part("why").addEventListener("click", () => explain(card));
    image.alt = `Photo ${name}`;
    image.addEventListener("error", () => {
      part("photo").classList.add("none");
      part("photo").append("No preview");
    }, { once: true });
    image.addEventListener("load", () => {
      part("photo").style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
    });
    part("photo").prepend(image);
    image.src = URL.createObjectURL(file);
    cards.set(card, { file, name, failed: false });
    $("answers").insertBefore(card, first);
    classify(card);
  }
  count();
}

async function classify(card) {
  const state = cards.get(card);
  const part = (name) => card.querySelector(`.${name}`);
  card.className = "card waiting";
  card.setAttribute("aria-busy", "true");
  part("verdict").textContent = "Looking…";
  part("sure").textContent = "";
  part("actions").hidden = true;
  try {
    const answer = await turn(() => cards.has(card) ? ask("predict", state.file) : null);
    if (!cards.has(card)) return;
    const { kind, title, sure } = verdict(answer);
    card.className = `card ${kind}`;
    part("verdict").textContent = title;
    part("sure").textContent = sure;
    bars(card, answer, kind);
    part("why").hidden = false;
    part("again").hidden = true;
    part("actions").hidden = false;
    raw(card, answer);
    state.failed = false;
    say(`${state.name}: ${title}. ${sure}`);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    if (!cards.has(card)) return;
    card.className = "card failed";
    part("verdict").textContent = error.message;
    part("sure").textContent = error.detail;
    part("why").hidden = true;
    part("again").hidden = !error.again;
    part("actions").hidden = !error.again;
    if (error.body) raw(card, error.body);
    state.failed = true;
    say(`${state.name}: ${error.message}. ${error.detail}`);
  } finally {
    card.removeAttribute("aria-busy");
    count();
  }
}

function bars(card, { probabilities, prediction_set: set }, kind) {
  const sorted = Object.entries(probabilities).sort(([, a], [, b]) => b - a);
  const shown = sorted.slice(0, BARS);
  card.querySelector(".bars").replaceChildren(...shown.map(([name, p]) => {
    const bar = $("bar").content.cloneNode(true).firstElementChild;
    bar.classList.toggle("held", kind !== "neither" && set.includes(name));
    bar.querySelector(".class").textContent = name;
    bar.querySelector(".share").textContent = percent(p);
    // a frame later, so that it grows
    requestAnimationFrame(() => { bar.querySelector(".fill").style.width = `${100 * p}%`; });
    return bar;
  }));
  const others = sorted.slice(BARS);
  const rest = card.querySelector(".rest");
  rest.hidden = !others.length;
  rest.textContent = `${plural(others.length, "other class", "other classes")} together: `
    + percent(others.reduce((sum, [, p]) => sum + p, 0));
}

function raw(card, body) {
  const text = JSON.stringify(body, null, 2);
  card.querySelector("pre").textContent = text.replace(/\[[^[\]{}]*\]/g, (flat) => flat.replace(/\s+/g, " "));
  card.querySelector(".raw").hidden = false;
}

/** Show or hide what the answer rests on; the service is asked once. */
async function explain(card) {
  const state = cards.get(card);
  const part = (name) => card.querySelector(`.${name}`);
  const button = part("why");
  const [canvas, said] = [card.querySelector("canvas"), part("because")];
  if (button.getAttribute("aria-busy")) return;
  const shown = !said.hidden && state.explanation;
  if (!shown && !state.explanation) {
    button.setAttribute("aria-busy", "true");
    button.textContent = "Covering parts of it…";
    try {
      state.explanation = await turn(() => ask("explain", state.file));
      paint(canvas, card.querySelector("img"), state.explanation);
      said.textContent = because(state.explanation);
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `Bright: ${place(state.explanation.heat)}`);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      said.textContent = `${error.message}. ${error.detail}`;
      state.explanation = null;
    } finally {
      button.removeAttribute("aria-busy");
    }
    if (!cards.has(card)) return;
    say(said.textContent);
  }
  const show = !shown;
  said.hidden = !show;
  canvas.hidden = !show || !state.explanation;
  button.textContent = show && state.explanation ? "Show the whole photo" : "Show what this rests on";
}

/** Darken the photo where the answer does not rest on it. */
function paint(canvas, image, { heat, area }) {
  const width = 240;
  const height = Math.round(width * Math.min(4, image.naturalHeight / image.naturalWidth || 1));
  const [left, top, right, bottom] = area;
  // smooth from cell to cell: each pixel is a mean of cells, by a Gaussian of 0.6 cells
  const weights = (pixels, from, to, cells) => Array.from({ length: pixels }, (_, i) => {
    const at = ((i + 0.5) / pixels - from) / (to - from) * cells - 0.5;
    if (at < -0.5 || at > cells - 0.5) return null;
    const found = Array.from({ length: cells }, (_, j) => Math.exp(-((at - j) ** 2) / 0.72));
    const sum = found.reduce((a, b) => a + b);
    return found.map((value) => value / sum);
  });
  const columns = weights(width, left, right, heat[0].length);
  const rows = weights(height, top, bottom, heat.length);
  const value = (row, column) => row && column
    ? row.reduce((sum, a, i) => sum + a * column.reduce((s, b, j) => s + b * heat[i][j], 0), 0)
    : 0;
  const smooth = rows.map((row) => columns.map((column) => value(row, column)));
  const peak = Math.max(...smooth.map((row) => Math.max(...row)), 1e-6);
  const most = Math.max(...heat.flat()); // under 1 where hardly anything matters
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  smooth.flat().forEach((found, i) => {
    const bright = Math.min(1, found / peak * most);
    pixels.data.set([...SCRIM, 255 * 0.82 * (1 - bright)], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
}

function remove(card) {
  const next = card.nextElementSibling ?? card.previousElementSibling;
  URL.revokeObjectURL(card.querySelector("img").src);
  cards.delete(card);
  card.remove();
  (next?.querySelector(".remove") ?? $("choose")).focus();
  count();
}

function count() {
  const failed = [...cards.values()].filter((state) => state.failed).length;
  document.body.classList.toggle("empty", cards.size === 0);
  $("summary").hidden = cards.size === 0;
  $("count").textContent = plural(cards.size, "photo") + (failed ? `, ${failed} without an answer` : "");
}

// ---- Ways in

for (const id of ["choose", "camera"]) {
  $(id).addEventListener("change", (event) => {
    add(event.target.files);
    event.target.value = ""; // the same file may be chosen again
  });
}

document.addEventListener("paste", (event) => {
  if (event.target.closest?.("input")) return;
  const { files } = event.clipboardData;
  if (files.length) add(files);
  else $("notice").textContent = "What was pasted is not a photo.";
});

let within = 0; // dragenter and dragleave come for each element that is crossed
document.addEventListener("dragenter", () => {
  within += 1;
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", () => {
  within -= 1;
  if (within === 0) document.body.classList.remove("dragging");
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  within = 0;
  document.body.classList.remove("dragging");
  const { files } = event.dataTransfer;
  if (files.length) add(files);
  else $("notice").textContent = "That is a link or a text. Save the photo first, then drop its file.";
});

$("clear").addEventListener("click", () => {
  for (const card of [...cards.keys()]) remove(card);
});

$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  key = $("secret").value;
  $("secret").value = "";
  $("key").hidden = true;
  $("choose").focus();
  for (const [card, state] of cards) if (state.failed) classify(card);
  about();
});

// ---- What the model is

async function about() {
  const response = await fetch("model", { headers: key ? { Authorization: `Bearer ${key}` } : {} });
  if (response.status === 401) askForKey();
  if (!response.ok) return;
  const { classes, input, kept, metrics, version } = await response.json();
  limits = input;
  $("choose").accept = input.media_types.join();
  $("kept").textContent = kept
    ? `Some are kept for people to label, without name and place, for up to ${plural(kept.days, "day")}.`
    : "It is not kept.";
  $("formats").textContent = `${list(input.formats)}.`;
  if (classes.length <= 4) {
    const question = `${list(classes)}?`;
    $("question").textContent = question[0].toUpperCase() + question.slice(1);
  } else {
    $("classes").hidden = false;
    const [summary, names] = $("classes").children;
    summary.textContent = `The model tells ${classes.length} classes apart`;
    names.textContent = classes.join(", ");
  }
  const { accuracy, accuracy_low: low, accuracy_high: high, n_test: tested } = metrics ?? {};
  const measured = `On ${tested} test photos, which it had not seen, it was right for ${percent(accuracy)};`
    + ` of many more it would be ${percent(low)} to ${percent(high)} (95 % interval).`;
  $("model").textContent = `Model ${version}.${tested ? ` ${measured}` : ""}`;
}

about();
