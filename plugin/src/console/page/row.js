// A registration: its name, its counts, its cells, its timeline and what is wrong with it.

import * as clock from "./clock.js";
import { make, say, unseen } from "./dom.js";
import * as paint from "./paint.js";
import * as lines from "./timeline.js";
import * as words from "./words.js";

/** Cells of registrations with more instances than this are smaller. */
const MANY = 400;
/** How fast a cell fills up again after a beat: the part of the rest for each millisecond. */
const REFILLS = 0.012;

const WELL = ["✓", "well"];
const SIGNS = { bad: ["✗", "act"], warning: ["!", "look at it"], note: ["·", "note"] };

/** Makes the row of a registration. */
export function row(key) {
  const id = `row-${crypto.randomUUID()}`;
  const parts = {
    sign: make("span", "sign"),
    name: make("h3"),
    counts: make("span", "counts"),
    dry: make("span", "dry-mark", "DRY RUN"),
    pace: make("span", "pace"),
    published: make("span", "published"),
    canvas: make("canvas"),
    buttons: make("div", "cells"),
    findings: make("ul", "findings"),
  };
  parts.name.id = id;
  parts.dry.hidden = true;
  parts.canvas.setAttribute("aria-hidden", "true");
  parts.buttons.setAttribute("role", "group");
  const timeline = lines.timeline();
  const title = make("div", "title", parts.sign, parts.name, parts.dry, parts.counts, parts.pace, parts.published);
  const wall = make("div", "wall", parts.canvas, parts.buttons);
  const element = make("section", "row", make("div", "left", title, wall, parts.findings), timeline.element);
  element.setAttribute("aria-labelledby", id);
  return { key, element, parts, timeline, cells: [], ttl: 1, seen: true, painted: [], cols: 0, pitch: 24 };
}

/** Takes what was told of the registration itself. */
export function describe(row, told) {
  const { parts } = row;
  row.ttl = told.ttlMillis;
  row.told = told;
  const [sign, word] = told.severity === "note" ? WELL : (SIGNS[told.severity] ?? WELL);
  parts.sign.replaceChildren(make("span", "", sign), unseen(` ${word}: `));
  parts.sign.className = `sign ${sign === "✓" ? "well" : told.severity}`;
  say(parts.name, told.name);
  parts.dry.hidden = !told.dryRun;
  const counted = told.counts.filter(([state, count]) => count || state === "Ready");
  parts.counts.replaceChildren(
    ...counted.flatMap(([state, count], n) => {
      const text = make("span", `state ${state}`, `${count} ${words.state(state)}`);
      return n ? [" · ", text] : [text];
    }),
  );
  say(parts.pace, `ttl ${told.ttl} · beats every ${told.interval}`);
  const status = told.status === "Published" ? "" : ` (${told.status})`;
  say(parts.published, `${told.published}${status}`);
  parts.buttons.setAttribute("aria-label", `Instances of ${row.key}`);
  parts.findings.replaceChildren(...told.findings.map(finding));
}

function finding({ severity, what, remedy }) {
  const [sign, word] = SIGNS[severity];
  const item = make("li", severity, make("span", "sign", sign), unseen(` ${word}: `), make("span", "", what));
  if (remedy) item.append(make("span", "remedy", ` → ${remedy}`));
  return item;
}

/** Takes all cells. */
export function setCells(row, cells) {
  const { buttons } = row.parts;
  const before = new Map(row.cells.map((cell, place) => [cell.name, buttons.children[place]]));
  const focused = document.activeElement?.closest?.(".cells") === buttons ? document.activeElement.dataset.name : null;
  const levels = new Map(row.cells.map(({ name, level }) => [name, level]));
  row.cells = cells.map((cell) => ({ ...cell, level: levels.get(cell.name) }));
  buttons.replaceChildren(...row.cells.map((cell) => before.get(cell.name) ?? button(cell)));
  row.cells.forEach((cell, place) => label(buttons.children[place], cell));
  row.pitch = cells.length > MANY ? 16 : 24;
  row.parts.buttons.classList.toggle("small", row.pitch === 16);
  if (buttons.children.length && !buttons.querySelector('[tabindex="0"]')) buttons.children[0].tabIndex = 0;
  if (focused) [...buttons.children].find((it) => it.dataset.name === focused)?.focus();
  layOut(row);
}

function button(cell) {
  const element = make("button", "cell");
  element.type = "button";
  element.tabIndex = -1;
  element.dataset.name = cell.name;
  return element;
}

function label(element, cell) {
  const where = [...(cell.addresses ?? []), cell.zone ? `zone ${cell.zone}` : ""].filter(Boolean).join(", ");
  const why = cell.message ? `${cell.reason}: ${cell.message}` : cell.reason;
  element.setAttribute("aria-label", [cell.name, words.state(cell.state), why, where].filter(Boolean).join("; "));
  if (element.dataset.state !== cell.state) delete element.dataset.shown;
  element.dataset.state = cell.state;
}

/** Takes cells that have changed, by their places. */
export function changeCells(row, changed) {
  for (const [place, cell] of changed) {
    row.cells[place] = { ...cell, level: row.cells[place]?.level };
    label(row.parts.buttons.children[place], cell);
  }
}

/** Lays the cells out anew if the row has another width than before. */
export function fit(row) {
  if (row.parts.buttons.clientWidth !== row.width || devicePixelRatio !== row.scale) layOut(row);
}

/** Computes the place of each cell anew, as the grid of the buttons has it, and has all of them painted. */
function layOut(row) {
  const { canvas, buttons } = row.parts;
  const width = buttons.clientWidth;
  row.cols = Math.max(1, Math.floor(width / row.pitch));
  const height = Math.ceil(row.cells.length / row.cols) * row.pitch;
  const scale = devicePixelRatio;
  [row.width, row.scale] = [width, scale];
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  row.painted = [];
}

/** Paints the cells that look different from how they were painted. Returns how many. */
export function paintCells(row, colour, passed, still) {
  const ctx = (row.ctx ??= row.parts.canvas.getContext("2d"));
  const [now, scale, size] = [clock.now(), devicePixelRatio, row.pitch - (row.pitch === 16 ? 3 : 4)];
  ctx.setTransform(scale, 0, 0, scale, 0, 0);
  const steps = size * scale;
  let count = 0;
  row.cells.forEach((cell, place) => {
    const target = paint.left(cell, row, now);
    // A cell that was not painted before fills at once: thousands that fill up together would keep the page busy.
    const gap = target - (cell.level ?? target);
    cell.level = gap > 0.02 && !still ? cell.level + gap * Math.min(1, passed * REFILLS) : target;
    const late = cell.reason === "BeatOverdue";
    const step = Math.round(cell.level * steps);
    const looks = `${cell.state}${late}${step}`;
    const before = row.painted[place];
    if (before?.looks === looks) return;
    const [x, y] = [(place % row.cols) * row.pitch, Math.floor(place / row.cols) * row.pitch];
    if (before) ctx.clearRect(x, y, row.pitch, row.pitch);
    paint.stamp(ctx, x, y, size, scale, cell.state, late, step, colour);
    if (before?.state !== cell.state) note(row.parts.buttons.children[place], cell, now);
    row.painted[place] = { looks, state: cell.state };
    count += 1;
  });
  return count;
}

/** Notes on the element when its state was shown, and the last beat before. */
function note(element, cell, now) {
  element.dataset.shown = Math.round(now);
  if (cell.beat !== undefined) element.dataset.beat = cell.beat;
}
