/* The report's script: light and dark, and the explorer of responses.
 *
 * All that comes from data goes to the page as text (textContent), never as markup. One response at a time is decoded
 * and in the page. Parts, in order: format, data, colours, state, list, text, detail, map, keys, start.
 */
(() => {
"use strict";

const find = (id) => document.getElementById(id);

/** An element with a class, text and children. */
function make(tag, className = "", text = null, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== null) element.textContent = text;
  element.append(...children);
  return element;
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** At most one call of `work` a frame, however often it is asked for. */
function onceAFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}

// ---- Light and dark -------------------------------------------------------------------------------------------

const darkPreferred = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;
const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : darkPreferred.matches);
const onTheme = []; // called after a change

function themeChanged() {
  find("theme").textContent = isDark() ? "Light" : "Dark";
  onTheme.forEach((call) => call());
}

function startTheme() {
  const key = "tokenshift-theme";
  try {
    const stored = localStorage.getItem(key);
    if (stored === "light" || stored === "dark") root.dataset.theme = stored;
  } catch {
    // some browsers keep nothing for files; the system's preference holds then
  }
  find("theme").hidden = false;
  find("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try {
      localStorage.setItem(key, root.dataset.theme);
    } catch {
      // as above
    }
    themeChanged();
  });
  darkPreferred.addEventListener("change", themeChanged);
  themeChanged();
}

startTheme();
if (!find("data")) return; // a report without responses

// ---- Format ---------------------------------------------------------------------------------------------------

/** Three significant digits. */
function digits(value) {
  if (Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value < 0 ? "−∞" : "∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size < 1e-3 || size >= 1e5 ? value.toExponential(2) : value.toPrecision(3);
  return text.replaceAll("-", "−");
}

const whole = (value) => value.toLocaleString("en");

const MARKS = { " ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍" };

/** A token's text on one line, with what cannot be seen made visible. */
function visible(text) {
  if (text === "") return "∅";
  return text.replace(/[\s\p{Cc}\p{Cf}]/gu, (character) => MARKS[character] ?? hexadecimal(character));
}

const hexadecimal = (character) => `‹${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}›`;

// ---- Data: see explorer_data.py, which packs it ---------------------------------------------------------------

const data = JSON.parse(find("data").textContent);
const responses = data.responses;
const JS_NAMES = { js: "JS", js_top_p: "JS, top-p truncated" };
const CODED = ["beside", "forward_kl", "reverse_kl", "entropy_base", "entropy_rl"];
const LOGPS = ["logp_base", "logp_rl"];
const RANKS = ["rank_base", "rank_rl"];
const MISSING = 65535;
const INFINITE = 65534;
const BELOW = 65533; // of log-probabilities
const NEW = 255; // in RL's list and not in the base's

/** A value from 0 up. */
function valueOf(code) {
  if (code === 0) return 0;
  if (code === MISSING) return NaN;
  if (code === INFINITE) return Infinity;
  return data.value_floor * Math.exp((code - 1) * data.value_step);
}

/** A log-probability and its probability, as text: three decimals and three digits are as exact as the codes. */
function logpText(code) {
  if (code === MISSING) return "–";
  if (code === INFINITE) return "−∞";
  const text = (code * data.logp_step).toFixed(3);
  return (code === BELOW ? "< " : "") + (Number(text) ? `−${text}` : "0");
}
function probabilityText(code) {
  if (code === MISSING) return "–";
  return (code === BELOW ? "< " : "") + digits(probability(code));
}
const probability = (code) => (code >= INFINITE ? 0 : Math.exp(-code * data.logp_step));

async function inflate(id) {
  const bytes = Uint8Array.from(atob(find(id).textContent), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Reads arrays of unsigned integers that lie as byte planes, the lowest first, one array after another. */
class Planes {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  take(count, width) {
    const values = width === 4 ? new Uint32Array(count) : width === 2 ? new Uint16Array(count) : new Uint8Array(count);
    for (let plane = 0; plane < width; plane++) {
      for (let place = 0; place < count; place++) values[place] |= this.bytes[this.at++] << (8 * plane);
    }
    return values;
  }
}

/** JS of every response, a Float32Array each. */
async function decodeJs() {
  const total = responses.reduce((sum, response) => sum + response.length, 0);
  const all = new Float32Array(new Planes(await inflate("js")).take(total, 4).buffer);
  let start = 0;
  return responses.map(({ length }) => all.subarray(start, (start += length)));
}

/**
 * One response: codes and ranks by name, (T,) each; `texts` (T,) the tokens; `lists`, the base's and RL's, each with
 * `texts` (k, T) and `logps`, under the base and under RL, codes (k, T). Texts are places in `data.texts`.
 */
function decodeResponse(bytes, length, k) {
  const planes = new Planes(bytes);
  const found = { texts: planes.take(length, 4) };
  for (const name of [...CODED, ...LOGPS]) found[name] = planes.take(length, 2);
  for (const name of RANKS) found[name] = planes.take(length, 4);

  const size = k * length;
  const base = { texts: planes.take(size, 4), logps: [planes.take(size, 2), planes.take(size, 2)] };
  for (let at = 0; at < size; at++) base.logps[1][at] += base.logps[0][at]; // modulo 65536, as it was packed

  const places = planes.take(size, 1);
  const count = places.reduce((sum, place) => sum + (place === NEW), 0);
  const fresh = { texts: planes.take(count, 4), logps: [null, planes.take(count, 2)] };
  fresh.logps[0] = planes.take(count, 2);
  for (let at = 0; at < count; at++) fresh.logps[0][at] += fresh.logps[1][at];

  const rl = { texts: new Uint32Array(size), logps: [new Uint16Array(size), new Uint16Array(size)] };
  for (let at = 0, next = 0; at < size; at++) {
    const isNew = places[at] === NEW;
    const source = isNew ? fresh : base;
    const from = isNew ? next++ : places[at] * length + (at % length);
    rl.texts[at] = source.texts[from];
    rl.logps[0][at] = source.logps[0][from];
    rl.logps[1][at] = source.logps[1][from];
  }
  found.lists = [base, rl];
  return found;
}

const KEPT = 6;
const decoded = new Map(); // the last few, the latest at the end

/** A response decoded, with its `index`, `length`, `k` and `js`. */
async function load(index) {
  let response = decoded.get(index);
  decoded.delete(index);
  if (!response) {
    const { length, k } = responses[index];
    response = decodeResponse(await inflate(`response-${index}`), length, k);
    Object.assign(response, { index, length, k, js: js[index] });
  }
  decoded.set(index, response);
  if (decoded.size > KEPT) decoded.delete(decoded.keys().next().value);
  return response;
}

// ---- Colours --------------------------------------------------------------------------------------------------

const LOW = Math.log(data.near_zero);
const RANGE = Math.log(data.largest) - LOW;

/** How strongly a JS is shaded, from 0 at near_zero to 1 at ln 2, on a log scale. */
const heat = (js) => (js > 0 ? clamp((Math.log(js) - LOW) / RANGE, 0, 1) : 0);

/** What a custom property's colour comes to now, for the canvas. */
function colour(name) {
  const probe = find("map");
  probe.style.color = `var(${name})`;
  const found = getComputedStyle(probe).color;
  probe.style.color = "";
  return found;
}

// ---- State ----------------------------------------------------------------------------------------------------

let js = []; // of every response, a Float32Array each
let highs = []; // of every response, how many tokens lie above the threshold
let largest = []; // of every response, the largest JS
let threshold = data.high;
let fits = []; // responses in the list, in its order
let current = -1; // the response that is chosen in the list, perhaps still being decoded
let shown = null; // the decoded one that is in the page
let tokens = []; // its spans
let stop = 0; // the token that the tab key reaches
let detailed = -1; // the token in the detail panel

// in float32 as the data is, so that counts are those of numpy
const isHigh = (value) => value > Math.fround(threshold);

// ---- List -----------------------------------------------------------------------------------------------------

const rows = []; // a button a response
const VERDICTS = { true: ["correct", "✓ correct"], false: ["incorrect", "✗ incorrect"], null: ["unjudged", "unjudged"] };
const SLICES = 32;

const kinds = [...new Set(responses.map((response) => response.trajectory))];

/** A strip of the largest JS by position, as a gradient: it follows light and dark by itself. */
function strip(values) {
  const bar = make("span", "strip");
  if (!values.length) return bar;
  const stops = [];
  const slices = Math.min(SLICES, values.length);
  for (let slice = 0; slice < slices; slice++) {
    const from = Math.floor((slice * values.length) / slices);
    const to = Math.max(from + 1, Math.floor(((slice + 1) * values.length) / slices));
    const strength = Math.round(100 * heat(values.subarray(from, to).reduce((a, b) => Math.max(a, b), 0)));
    const [start, end] = [slice, slice + 1].map((at) => `${((100 * at) / slices).toFixed(1)}%`);
    stops.push(`color-mix(in oklab, var(--peak) ${strength}%, transparent) ${start} ${end}`);
  }
  bar.style.backgroundImage = `linear-gradient(to right, ${stops.join(", ")})`;
  return bar;
}

function makeRow(response, index) {
  const [verdict, label] = VERDICTS[response.correct];
  const head = make("span", "row-head", null, make("span", "row-name", `Problem ${response.problem} · ${response.sample}`));
  if (kinds.length > 1) head.append(make("span", "badge", response.trajectory));
  head.append(make("span", `badge ${verdict}`, label));
  const row = make("button", "row", null, head, make("span", "row-numbers"), strip(js[index]));
  row.type = "button";
  row.tabIndex = -1;
  row.dataset.index = index;
  rows.push(row);
}

function countHighs() {
  highs = js.map((values) => values.reduce((sum, value) => sum + isHigh(value), 0));
  rows.forEach((row, index) => {
    const { length } = responses[index];
    const share = length ? ` (${digits((100 * highs[index]) / length)} %)` : "";
    row.querySelector(".row-numbers").textContent = `${whole(length)} tokens, ${whole(highs[index])} high${share}`;
  });
}

/** Whether a problem's number is among those typed: numbers and ranges ("3, 8-12"), none for all. */
function problemFilter(text) {
  const ranges = [...text.matchAll(/(\d+)(?:\s*[-–]\s*(\d+))?/g)].map(([, from, to]) => [+from, +(to ?? from)]);
  return (problem) => !ranges.length || ranges.some(([from, to]) => from <= problem && problem <= to);
}

const byProblem = (a, b) =>
  responses[a].problem - responses[b].problem || responses[a].sample - responses[b].sample || a - b;
const share = (index) => (responses[index].length ? highs[index] / responses[index].length : 0);
const ORDERS = {
  problem: byProblem,
  share: (a, b) => share(b) - share(a) || byProblem(a, b),
  largest: (a, b) => largest[b] - largest[a] || byProblem(a, b),
  length: (a, b) => responses[b].length - responses[a].length || byProblem(a, b),
};

/** Put into the list what fits the filters, and show the first where the current response does not. */
function applyFilters() {
  const isWanted = problemFilter(find("problem").value);
  const [verdict, kind, withHigh] = [find("verdict").value, find("kind").value, find("with-high").checked];
  fits = responses
    .map((_, index) => index)
    .filter((index) => {
      const response = responses[index];
      return (
        isWanted(response.problem) &&
        (verdict === "any" || VERDICTS[response.correct][0] === verdict) &&
        (kind === "" || response.trajectory === kind) &&
        (!withHigh || highs[index] > 0)
      );
    })
    .sort(ORDERS[find("order").value]);
  find("list").replaceChildren(...fits.map((index) => make("li", "", null, rows[index])));
  find("count").textContent = `${whole(fits.length)} of ${whole(responses.length)} responses`;
  if (!fits.length) select(-1);
  else if (!fits.includes(current)) select(fits[0]);
  else revealRow();
}

function revealRow() {
  const [list, row] = [find("list"), rows[current]];
  if (!row) return;
  // by hand: scrollIntoView would move the page as well
  const above = row.offsetTop - list.offsetTop;
  if (above < list.scrollTop) list.scrollTop = above;
  const below = above + row.offsetHeight - list.clientHeight;
  if (below > list.scrollTop) list.scrollTop = below;
}

/** Go `by` responses on in the list, round its ends. */
function stepResponse(by) {
  if (!fits.length) return;
  const at = fits.indexOf(current);
  select(fits[(at + by + fits.length) % fits.length]);
}

// ---- Text -----------------------------------------------------------------------------------------------------

/** Show a response; -1 for none. */
async function select(index) {
  const before = current;
  if (index === before) return;
  const inText = find("text").contains(document.activeElement);
  const inList = find("list").contains(document.activeElement);
  current = index;
  for (const at of [before, index]) {
    if (at < 0) continue;
    rows[at].tabIndex = at === index ? 0 : -1;
    rows[at].setAttribute("aria-current", at === index);
  }
  revealRow();
  if (inList && index >= 0) rows[index].focus({ preventScroll: true });
  find("text").setAttribute("aria-busy", "true");
  const response = index < 0 ? null : await load(index);
  if (current !== index) return; // another was asked for while this one was decoded
  render(response);
  if (inText && tokens.length) focusToken(0);
}

function render(response) {
  shown = response;
  stop = 0;
  clearDetail();
  find("name").textContent = response ? nameOf(response.index) : "No response fits the filters";
  find("prompt-part").hidden = !response;
  find("prompt").textContent = response ? data.prompts[responses[response.index].prompt] : "";
  const fragment = document.createDocumentFragment();
  tokens = response ? Array.from(response.texts, (text, index) => makeToken(data.texts[text], index)) : [];
  fragment.append(...tokens);
  if (tokens.length) tokens[0].tabIndex = 0;
  else if (response) fragment.append(make("em", "", "This response has no tokens."));
  find("text").replaceChildren(fragment);
  find("text").dataset.response = response ? response.index : -1;
  find("text").removeAttribute("aria-busy");
  find("pane").scrollTop = 0;
  markHighs();
}

function nameOf(index) {
  const { problem, sample, trajectory } = responses[index];
  return `Problem ${problem}, sample ${sample}` + (trajectory ? `, ${trajectory}` : "");
}

function makeToken(text, index) {
  const token = make("span", "token", text);
  token.dataset.index = index;
  token.tabIndex = -1;
  token.setAttribute("role", "option");
  const strength = heat(shown.js[index]);
  if (strength > 0) token.style.setProperty("--heat", `${(100 * strength).toFixed(1)}%`);
  if (text.trim() === "") {
    token.classList.add("blank");
    // breaks and nothing have no width of their own
    const mark = text === "" ? "∅" : text.replace(/[^\n\r\t]/g, "").replace(/[\n\r\t]/g, (space) => MARKS[space]);
    if (mark) token.dataset.mark = mark;
  }
  return token;
}

/** Underline what lies above the threshold. */
function markHighs() {
  if (!shown) {
    find("place").textContent = "";
  } else {
    tokens.forEach((token, index) => token.classList.toggle("high", isHigh(shown.js[index])));
    find("detail").querySelector(".main")?.classList.toggle("high-value", isHigh(shown.js[detailed]));
    tellPlace();
  }
  drawMap();
}

function tellPlace(note = "") {
  let text = `${whole(highs[shown.index])} high`;
  if (detailed >= 0 && isHigh(shown.js[detailed])) {
    const place = shown.js.subarray(0, detailed + 1).reduce((sum, value) => sum + isHigh(value), 0);
    text = `${whole(place)} of ${text}`;
  }
  find("place").textContent = text + note;
}

/** Scroll to a token: the pane, and the page as far as pane or panel are out of sight. */
function reveal(index) {
  const [pane, token] = [find("pane"), tokens[index]];
  const top = token.offsetTop; // the pane is its offset parent
  const bottom = top + token.offsetHeight;
  if (top < pane.scrollTop || bottom > pane.scrollTop + pane.clientHeight) {
    pane.scrollTop = (top + bottom - pane.clientHeight) / 2;
  }
  // on narrow screens the panel sticks to the window's edge by itself
  if (getComputedStyle(find("detail")).position !== "sticky") find("detail").scrollIntoView({ block: "nearest" });
  pane.scrollIntoView({ block: "nearest" });
}

function focusToken(index) {
  reveal(index);
  tokens[index].focus({ preventScroll: true });
}

/** The only token that the tab key reaches is the one focused last. */
function moveStop(index) {
  tokens[stop].tabIndex = -1;
  stop = index;
  tokens[stop].tabIndex = 0;
}

/** Go to the next (1) or previous (-1) high token from the one in the detail panel, round the ends. */
function jumpToHigh(by) {
  if (!shown || !highs[shown.index]) return;
  const count = tokens.length;
  let at = detailed >= 0 ? detailed : by > 0 ? -1 : count;
  let wrapped = false;
  do {
    at += by;
    if (at < 0 || at >= count) {
      at = (at + count) % count;
      wrapped = true;
    }
  } while (!isHigh(shown.js[at]));
  focusToken(at);
  tellPlace(wrapped ? (by > 0 ? ", from the start again" : ", from the end again") : "");
}

/** The token above (-1) or below (1) another, or itself where there is none. */
function tokenOfLine(index, by) {
  // a token that is broken over lines (often only its space stays behind) counts for its widest part
  const box = (at) => [...tokens[at].getClientRects()].reduce((a, b) => (b.width > a.width ? b : a));
  const from = box(index);
  let best = index;
  let line = null; // bottom edge of the line that is searched
  for (let at = index + by; at >= 0 && at < tokens.length; at += by) {
    const to = box(at);
    if (Math.abs(to.bottom - from.bottom) < from.height / 2) continue;
    if (line !== null && Math.abs(to.bottom - line) >= from.height / 2) break;
    if (line === null || Math.abs(to.left - from.left) < Math.abs(box(best).left - from.left)) best = at;
    line = to.bottom;
  }
  return best;
}

const MOVES = {
  ArrowLeft: (at) => at - 1,
  ArrowRight: (at) => at + 1,
  ArrowUp: (at) => tokenOfLine(at, -1),
  ArrowDown: (at) => tokenOfLine(at, 1),
  Home: () => 0,
  End: () => tokens.length - 1,
};

function startText() {
  const text = find("text");
  const indexOf = (event) => {
    const token = event.target.closest(".token");
    return token ? Number(token.dataset.index) : -1;
  };
  text.addEventListener("pointerover", (event) => {
    if (indexOf(event) >= 0) detail(indexOf(event));
  });
  text.addEventListener("focusin", (event) => {
    const index = indexOf(event);
    if (index < 0) return;
    moveStop(index);
    detail(index);
  });
  text.addEventListener("keydown", (event) => {
    const index = indexOf(event);
    const move = MOVES[event.key];
    if (index < 0 || !move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    focusToken(clamp(move(index), 0, tokens.length - 1));
  });
  find("pane").addEventListener("scroll", drawMap, { passive: true });
}

// ---- Detail ---------------------------------------------------------------------------------------------------

const HINT = "Point at a token, or tab to the text and use the arrow keys, to see what both models made of it.";

function clearDetail() {
  if (detailed >= 0 && tokens[detailed]) tokens[detailed].classList.remove("detailed");
  if (detailed >= 0 && tokens[detailed]) tokens[detailed].removeAttribute("aria-selected");
  detailed = -1;
  find("detail").replaceChildren(make("p", "hint", HINT));
  find("detail").classList.add("empty");
}

function pair(className, name, value) {
  return make("div", className, null, make("dt", "", name), make("dd", "", value));
}

/** Table of both models' values. */
function bothModels(index) {
  const lines = [
    ["entropy", ...["entropy_base", "entropy_rl"].map((name) => digits(valueOf(shown[name][index])))],
    ["log-prob.", ...LOGPS.map((name) => logpText(shown[name][index]))],
    ["prob.", ...LOGPS.map((name) => probabilityText(shown[name][index]))],
    ["rank", ...RANKS.map((name) => whole(shown[name][index]))],
  ];
  const head = make("tr", "", null, make("td"), make("th", "base", "base"), make("th", "rl", "RL"));
  const body = lines.map(([name, ...cells]) => {
    const row = make("tr", "", null, make("th", "", name), ...cells.map((cell) => make("td", "", cell)));
    row.dataset.name = name;
    return row;
  });
  return make("table", "both", null, make("thead", "", null, head), make("tbody", "", null, ...body));
}

/** One model's most probable tokens, with their probabilities under both. */
function listTable(which, index) {
  const { length, k } = shown;
  const { texts, logps } = shown.lists[which];
  const sampled = shown[RANKS[which]][index] - 1; // ranks and lists break ties alike
  const table = make("table", "top");
  table.append(make("caption", "", which === 0 ? "Base's most probable" : "RL's most probable"));
  const heads = [make("th", "", "token"), make("th", "base", "base"), make("th", "rl", "RL")];
  table.append(make("thead", "", null, make("tr", "", null, ...heads)));
  const body = make("tbody");
  for (let rank = 0; rank < k; rank++) {
    const at = rank * length + index;
    const name = make("th", "", null, make("bdi", "", visible(data.texts[texts[at]])));
    const row = make("tr", "", null, name);
    if (rank === sampled) {
      row.className = "sampled";
      name.prepend(make("span", "unseen", "sampled: "));
    }
    ["base", "rl"].forEach((model, under) => {
      const code = logps[under][at];
      const bar = make("span", `bar ${model}`);
      bar.style.setProperty("--share", probability(code).toFixed(3));
      row.append(make("td", "", probabilityText(code), bar));
    });
    body.append(row);
  }
  table.append(body);
  return table;
}

/** Show a token's numbers. */
function detail(index) {
  if (index === detailed) return;
  if (detailed >= 0) {
    tokens[detailed].classList.remove("detailed");
    tokens[detailed].removeAttribute("aria-selected");
  }
  detailed = index;
  tokens[index].classList.add("detailed");
  tokens[index].setAttribute("aria-selected", "true");
  const value = shown.js[index];
  const numbers = make("dl", "numbers", null);
  numbers.append(
    pair(isHigh(value) ? "main high-value" : "main", JS_NAMES[data.shaded], digits(value)),
    pair(data.beside, JS_NAMES[data.beside], digits(valueOf(shown.beside[index]))),
    pair("forward_kl", "forward KL(base‖RL)", digits(valueOf(shown.forward_kl[index]))),
    pair("reverse_kl", "reverse KL(RL‖base)", digits(valueOf(shown.reverse_kl[index]))),
  );
  const text = make("p", "token-text", null, make("bdi", "", visible(data.texts[shown.texts[index]])));
  const position = make("p", "position", `position ${whole(index)} of ${whole(tokens.length)}, counted from 0`);
  find("detail").classList.remove("empty");
  find("detail").replaceChildren(
    make("div", "summary", null, text, position, numbers, bothModels(index)),
    listTable(0, index),
    listTable(1, index),
  );
  tellPlace();
  drawMap();
}

// ---- Map: a column a token, or the largest of several, over the response ---------------------------------------

let peaks = []; // per column of pixels, the token of the largest JS

function paintMap() {
  const canvas = find("map");
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((size) => Math.round(size * scale));
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  peaks = [];
  const count = tokens.length;
  canvas.setAttribute("aria-label", `JS of the ${whole(count)} tokens from first to last; click to go to one`);
  if (!count || !width) return;
  const values = shown.js;
  const [hot, ink] = [colour("--peak"), colour("--ink")];
  const bar = Math.max(1, width / count);
  for (let column = 0; column < width; column++) {
    const from = Math.floor((column * count) / width);
    const to = Math.max(from + 1, Math.floor(((column + 1) * count) / width));
    let peak = from;
    for (let at = from + 1; at < to; at++) if (values[at] > values[peak]) peak = at;
    peaks.push(peak);
    const size = heat(values[peak]) * (height - 6 * scale);
    context.fillStyle = hot;
    context.fillRect(column, height - size, 1, size);
    if (isHigh(values[peak])) {
      context.fillStyle = ink; // a cap, so that high ones differ by more than colour
      context.fillRect(column, height - size - 2 * scale, 1, 2 * scale);
    }
  }
  context.strokeStyle = ink;
  context.lineWidth = scale;
  const [first, last] = inView();
  const left = (first * width) / count;
  context.globalAlpha = 0.6;
  context.strokeRect(left + 0.5, 0.5, Math.max(2, ((last + 1) * width) / count - left - 1), height - 1);
  context.globalAlpha = 1;
  if (detailed >= 0) {
    const middle = ((detailed + 0.5) * width) / count;
    context.fillStyle = ink;
    context.fillRect(middle - scale / 2, 0, Math.max(1, Math.min(bar, scale)), height);
    context.beginPath();
    context.moveTo(middle - 4 * scale, 0);
    context.lineTo(middle + 4 * scale, 0);
    context.lineTo(middle, 5 * scale);
    context.fill();
  }
}

const drawMap = onceAFrame(paintMap);

/** First and last token that the pane shows. Tokens lie in order, so halving finds them. */
function inView() {
  const pane = find("pane");
  const firstFrom = (edge) => {
    let [low, high] = [0, tokens.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (tokens[middle].offsetTop + tokens[middle].offsetHeight > edge) high = middle;
      else low = middle + 1;
    }
    return low;
  };
  const first = firstFrom(pane.scrollTop);
  const last = firstFrom(pane.scrollTop + pane.clientHeight);
  return [clamp(first, 0, tokens.length - 1), clamp(last, 0, tokens.length - 1)];
}

function startMap() {
  const canvas = find("map");
  let dragged = false;
  const go = (event) => {
    if (!peaks.length) return;
    const box = canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) * peaks.length) / box.width);
    focusToken(peaks[clamp(column, 0, peaks.length - 1)]);
  };
  canvas.addEventListener("pointerdown", (event) => {
    event.preventDefault(); // it would take the focus from the token
    dragged = true;
    canvas.setPointerCapture(event.pointerId);
    go(event);
  });
  canvas.addEventListener("pointermove", (event) => dragged && go(event));
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (dragged = false));
  new ResizeObserver(drawMap).observe(canvas);
  find("prompt-part").addEventListener("toggle", drawMap);
  onTheme.push(drawMap);
}

// ---- Threshold ------------------------------------------------------------------------------------------------

const SLIDER = 1000;

const thresholdChanged = onceAFrame(() => {
  countHighs();
  applyFilters();
  markHighs();
});

function setThreshold(value, { fromNumber = false } = {}) {
  threshold = value;
  if (!fromNumber) find("threshold").value = value;
  find("slider").value = value > 0 ? Math.round((SLIDER * (Math.log(value) - LOW)) / RANGE) : 0;
  find("slider").setAttribute("aria-valuetext", `${digits(value)} nats`);
  thresholdChanged();
}

function startThreshold() {
  find("slider").addEventListener("input", (event) => {
    const value = Math.exp(LOW + (RANGE * event.target.value) / SLIDER);
    setThreshold(Number(value.toPrecision(3)));
    find("slider").value = event.target.value; // what is rounded for the number must not move the handle
  });
  find("threshold").addEventListener("input", (event) => {
    const value = event.target.valueAsNumber;
    if (value >= 0) setThreshold(value, { fromNumber: true });
  });
  find("legend-low").textContent = data.near_zero;
  setThreshold(threshold);
}

// ---- Keys -----------------------------------------------------------------------------------------------------

const KEYS = {
  n: () => jumpToHigh(1),
  p: () => jumpToHigh(-1),
  j: () => stepResponse(1),
  k: () => stepResponse(-1),
  Escape: () => {
    if (find("text").contains(document.activeElement)) document.activeElement.blur();
    clearDetail();
    if (shown) tellPlace();
    drawMap();
  },
};

function startKeys() {
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("select, input:not([type=range], [type=checkbox])");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (Object.hasOwn(KEYS, event.key)) {
      event.preventDefault();
      KEYS[event.key]();
    }
  });
}

// ---- Start ----------------------------------------------------------------------------------------------------

function startList() {
  const list = find("list");
  list.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row) select(Number(row.dataset.index));
  });
  list.addEventListener("keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    stepResponse(by);
  });
  for (const id of ["problem", "verdict", "kind", "order", "with-high"]) find(id).addEventListener("input", applyFilters);
  document.querySelector(".controls").addEventListener("submit", (event) => event.preventDefault());
  for (const kind of kinds) {
    const option = make("option", "", kind);
    option.value = kind;
    find("kind").append(option);
  }
  find("kind-label").hidden = kinds.length < 2;
  find("next-high").addEventListener("click", () => jumpToHigh(1));
  find("previous-high").addEventListener("click", () => jumpToHigh(-1));
}

async function start() {
  js = await decodeJs();
  largest = js.map((values) => values.reduce((a, b) => Math.max(a, b), 0));
  responses.forEach(makeRow);
  startList();
  startText();
  startMap();
  startKeys();
  find("explorer").hidden = false;
  startThreshold();
}

start().catch((error) => {
  console.error(error);
  const note = make("p", "", `The responses cannot be shown: ${error.message}`);
  find("explorer").before(note);
});
})();
