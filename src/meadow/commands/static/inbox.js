// The inbox: one photo after the other, one key a class. What is decided is written at once.

const KEYS = "1234567890abcdefghijklmopqrstvwyz"; // without n, u and x, which are taken
const $ = (id) => document.getElementById(id);
const percent = (p) => `${(100 * p).toFixed(p > 0.99 || p < 0.01 ? 1 : 0)} %`;
const plural = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;
const REASONS = {
  unsure: "the model is not sure",
  far: "it is unlike what the model learned from",
  random: "it was drawn at random",
};

let classes = [];
let waiting = []; // photos nobody has decided on
let at = 0; // the one that is shown
let before = []; // what was decided: photos, and where they were
let busy = false;
const image = new Image();

async function ask(path, body) {
  const response = await fetch(path, body && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`status ${response.status}`);
  return response.json();
}

/** Do one thing at a time; what fails is said, and changes nothing. */
async function alone(task) {
  if (busy) return;
  busy = true;
  try {
    await task();
    $("notice").textContent = "";
  } catch {
    $("notice").textContent = "It was not written: `meadow data inbox` does not answer, or the disk is full.";
  } finally {
    busy = false;
  }
}

function tell({ photos, decided, drawn, correct, low, high }) {
  $("progress").textContent = `${decided} of ${plural(photos, "photo")}`;
  $("accuracy").textContent = drawn
    ? `Of ${plural(drawn, "photo")} drawn at random and labelled ${correct} ${correct === 1 ? "was" : "were"}`
      + ` classified correctly: ${percent(correct / drawn)}, of many more ${percent(low)} to ${percent(high)} (95 % interval).`
    : "";
}

function show() {
  const photo = waiting[at];
  $("photo").hidden = !photo;
  $("done").hidden = Boolean(photo);
  for (const id of ["undo", "back"]) $(id).disabled = !before.length;
  if (!photo) {
    $("end").textContent = waiting.length
      ? `${plural(waiting.length, "photo")} left for later. Load the page again to see them.`
      : "Nothing is left. Load the page again for those that have come since.";
    $("said").textContent = $("end").textContent;
    return;
  }
  const { label, probabilities, prediction_set: set, kept, name } = photo;
  image.src = `photos/${name}`;
  image.alt = `Photo ${at + 1} of ${waiting.length}`;
  const others = set.length > 1 ? `, or one of ${set.length} classes` : "";
  $("answer").textContent = `The model says ${label}, ${percent(probabilities[label])}${others}`;
  $("why").textContent = `Kept because ${kept.map((why) => REASONS[why] ?? why).join(", and ")}.`;
  $("said").textContent = `${$("answer").textContent}. ${$("why").textContent}`;
}

const decide = (label) => alone(async () => {
  const photo = waiting[at];
  if (!photo) return;
  tell(await ask("label", { photo: photo.name, label }));
  before.push({ photo, place: at });
  waiting.splice(at, 1);
  show();
});

const undo = () => alone(async () => {
  const last = before.at(-1);
  if (!last) return;
  if (last.photo) {
    tell(await ask("label", { photo: last.photo.name, label: null }));
    waiting.splice(last.place, 0, last.photo);
  }
  before.pop();
  at = last.place;
  show();
});

const next = () => alone(async () => {
  if (!waiting[at]) return;
  before.push({ photo: null, place: at });
  at += 1;
  show();
});

function button(name, key) {
  const made = document.createElement("button");
  made.type = "button";
  if (key) {
    const cap = document.createElement("kbd");
    cap.textContent = key;
    made.append(cap, " ");
  }
  made.append(name);
  made.addEventListener("click", () => decide(name));
  return made;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const place = KEYS.indexOf(event.key.toLowerCase());
  if (event.key === "x") decide("");
  else if (event.key === "n") next();
  else if (event.key === "u") undo();
  else if (place >= 0 && place < classes.length) decide(classes[place]);
});

$("drop").addEventListener("click", () => decide(""));
$("next").addEventListener("click", next);
for (const id of ["undo", "back"]) $(id).addEventListener("click", undo);

$("shown").append(image);
const state = await ask("photos");
({ classes, waiting } = state);
$("classes").append(...classes.map((name, i) => button(name, KEYS[i])));
tell(state);
show();
