// All registrations, grouped by namespace, and the one loop that paints them.

import { byId, make } from "./dom.js";
import * as paint from "./paint.js";
import * as rows from "./row.js";
import * as lines from "./timeline.js";

const all = new Map();
const groups = new Map();
const still = matchMedia("(prefers-reduced-motion: reduce)");
const dark = matchMedia("(prefers-color-scheme: dark)");
let colour = paint.colours();

/** What the loop has cost: frames, cells and milliseconds of painting. When cells were told, and drawn. */
export const stats = { frames: 0, cells: 0, millis: 0, toldAt: null, drawnAt: null };

/** The pause between two frames, in milliseconds: a cell of 20 pixels drains by a fraction of a pixel in it. */
const PAUSE = 30;
/** The pause when nothing may move. */
const STILL_PAUSE = 1000;
/** How often timelines are drawn. */
const TIMELINES = 10_000;

const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const row = all.get(target.dataset.key);
    if (!row) continue;
    rows.fit(row);
    lines.draw(row.timeline, colour);
  }
});
const sights = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const row = all.get(target.dataset.key);
      if (row) row.seen = isIntersecting;
    }
  },
  // Rows are painted before they are scrolled to.
  { rootMargin: "800px 0px" },
);
dark.addEventListener("change", repaint);

function repaint() {
  colour = paint.colours();
  for (const row of all.values()) {
    row.painted = [];
    row.parts.canvas.getContext("2d").clearRect(0, 0, 1e5, 1e5);
    lines.draw(row.timeline, colour);
  }
  legendDrawn?.();
}

let legendDrawn = null;

/** Has the legend painted now, and whenever the colours change. */
export function onColours(draw) {
  legendDrawn = () => draw(colour);
  legendDrawn();
}

/** The row of a registration, if it is known. */
export function find(key) {
  return all.get(key);
}

/** All rows. */
export function each() {
  return all.values();
}

/** Forgets the registrations that are not among these. */
export function keepOnly(keys) {
  [...all.keys()].filter((key) => !keys.has(key)).forEach(remove);
}

/** Takes a registration with all its cells. */
export function put(key, told, cells) {
  stats.toldAt ??= performance.now();
  let row = all.get(key);
  if (!row) {
    row = rows.row(key);
    row.element.dataset.key = key;
    row.parts.buttons.dataset.key = key;
    all.set(key, row);
    insert(row, told);
    sizes.observe(row.parts.buttons);
    sights.observe(row.element);
  }
  rows.describe(row, told);
  rows.setCells(row, cells);
}

/** Takes what has changed of a registration. */
export function change(key, told, cells) {
  const row = all.get(key);
  if (!row) return;
  rows.describe(row, told);
  rows.changeCells(row, cells);
}

/** Takes beats: places of cells, and when they beat. */
export function beat(key, beats) {
  const cells = all.get(key)?.cells ?? [];
  for (const [place, at] of beats) {
    if (cells[place]) cells[place].beat = at;
  }
}

/** Takes the marks of a timeline. */
export function mark(key, marks) {
  const row = all.get(key);
  if (!row) return;
  lines.setMarks(row.timeline, marks);
  lines.draw(row.timeline, colour);
}

/** Removes a registration. */
export function remove(key) {
  const row = all.get(key);
  if (!row) return;
  all.delete(key);
  sizes.unobserve(row.parts.buttons);
  sights.unobserve(row.element);
  const group = row.element.parentElement;
  row.element.remove();
  if (!group.querySelector(".row")) {
    group.remove();
    groups.delete(group.dataset.namespace);
  }
}

/** Inserts a row into its namespace, ordered by name. */
function insert(row, told) {
  let group = groups.get(told.namespace);
  if (!group) {
    group = make("section", "namespace", make("h2", "", told.namespace));
    group.dataset.namespace = told.namespace;
    const next = [...groups.keys()].sort().find((name) => name > told.namespace);
    byId("wall").insertBefore(group, next ? groups.get(next) : null);
    groups.set(told.namespace, group);
  }
  const next = [...group.querySelectorAll(".row")].find((it) => it.dataset.key > row.key);
  group.insertBefore(row.element, next ?? null);
}

/** Starts the loop. Cells are painted only where they look different, and only in rows that can be seen. */
export function start() {
  let before = performance.now();
  const frame = (at) => {
    const begun = performance.now();
    let painted = 0;
    for (const row of all.values()) {
      if (row.seen) painted += rows.paintCells(row, colour, at - before, still.matches);
    }
    before = at;
    stats.frames += 1;
    stats.cells += painted;
    stats.millis += performance.now() - begun;
    if (painted && stats.drawnAt === null) stats.drawnAt = performance.now();
    setTimeout(() => requestAnimationFrame(frame), still.matches ? STILL_PAUSE : PAUSE);
  };
  requestAnimationFrame(frame);
  setInterval(() => all.forEach((row) => lines.draw(row.timeline, colour)), TIMELINES);
}
