// What the pointer and the keyboard do with cells: the tip beside a cell, arrow keys, and a press that opens the drawer.

import * as clock from "./clock.js";
import { byId, make } from "./dom.js";
import { isCarried } from "./paint.js";
import * as wall from "./wall.js";
import * as words from "./words.js";

let shown = null;

/** Takes events of the wall. `press` is called with the row, the cell and its element. */
export function start(press) {
  const area = byId("wall");
  const at = (event) => event.target.closest?.("button.cell");
  const show = (event) => {
    const element = at(event);
    if (element) set(element);
  };
  area.addEventListener("pointerover", show);
  area.addEventListener("focusin", show);
  area.addEventListener("pointerout", hide);
  area.addEventListener("focusout", hide);
  area.addEventListener("click", (event) => {
    const element = at(event);
    const found = element && of(element);
    if (!found?.cell) return;
    hide();
    move(element, false);
    press(found.row, found.cell, element);
  });
  area.addEventListener("keydown", (event) => {
    const element = at(event);
    const next = element && neighbour(element, event.key);
    if (!next) return;
    event.preventDefault();
    move(next, true);
  });
}

/** Writes the time since the last beat anew. */
export function tick() {
  if (!shown) return;
  if (shown.isConnected) fill(shown);
  else hide();
}

function of(element) {
  const row = wall.find(element.parentElement.dataset.key);
  const place = [...element.parentElement.children].indexOf(element);
  return row && { row, cell: row.cells[place] };
}

/** Which cell an arrow key leads to. */
function neighbour(element, key) {
  const { row } = of(element) ?? {};
  if (!row) return null;
  const buttons = element.parentElement.children;
  const place = [...buttons].indexOf(element);
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row.cols, ArrowDown: row.cols };
  if (key === "Home") return buttons[0];
  if (key === "End") return buttons[buttons.length - 1];
  return key in steps ? buttons[place + steps[key]] : null;
}

/** Makes a cell the one of its row that Tab reaches. */
function move(element, focus) {
  element.parentElement.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
  element.tabIndex = 0;
  if (focus) element.focus();
}

function set(element) {
  if (shown && shown !== element) hide();
  shown = element;
  element.setAttribute("aria-describedby", "tip");
  fill(element);
}

function hide() {
  shown?.removeAttribute("aria-describedby");
  shown = null;
  byId("tip").hidden = true;
}

/** What is known of its last beat. */
function told(row, cell) {
  const now = clock.now();
  if (cell.beat === undefined) return "no beat yet";
  if (isCarried(cell, row.told, now)) return "beats through a gateway, which only the leader sees";
  return `last beat ${words.span(now - cell.beat)} ago of ${row.told.ttl}`;
}

function fill(element) {
  const { row, cell } = of(element) ?? {};
  if (!cell) return hide();
  const tip = byId("tip");
  const beat = told(row, cell);
  const since = cell.since === undefined ? "" : ` since ${words.ofDay(cell.since)}`;
  const facts = [(cell.addresses ?? []).join(", "), cell.zone && `zone ${cell.zone}`, cell.version].filter(Boolean);
  tip.replaceChildren(
    make("strong", "", cell.name),
    make("span", `state ${cell.state}`, `${words.state(cell.state)}${since}`),
    make("span", "", cell.message ? `${cell.reason}: ${cell.message}` : cell.reason),
    make("span", "", beat),
    make("span", "", facts.join(" · ")),
  );
  tip.hidden = false;
  const [box, size] = [element.getBoundingClientRect(), tip.getBoundingClientRect()];
  const x = Math.min(Math.max(8, box.left), innerWidth - size.width - 8);
  const below = box.bottom + 6;
  const y = below + size.height > innerHeight ? box.top - size.height - 6 : below;
  tip.style.left = `${x}px`;
  tip.style.top = `${Math.max(4, y)}px`;
}
