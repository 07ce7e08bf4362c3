// The drawer: why an instance is in its state, step by step, as `kubectl beatkeeper why` says it.

import { ask as get } from "./access.js";
import { byId, make, unseen } from "./dom.js";
import * as words from "./words.js";

/** How often an open drawer asks again, in milliseconds. */
const AGAIN = 2000;
const MARKS = { fine: ["✓", "speaks for it"], note: ["·", "note"], trouble: ["✗", "speaks against it"] };

let open = null;

/** Opens the drawer for an instance. `from` gets the focus back. */
export function show(namespace, name, instance, from) {
  hide();
  const body = make("div", "why", make("p", "", "Asking."));
  const title = make("h2", "", `Why is ${instance} in its state?`);
  title.id = "drawer-title";
  title.tabIndex = -1;
  const close = make("button", "close", "Close");
  close.type = "button";
  close.addEventListener("click", hide);
  const drawer = byId("drawer");
  drawer.replaceChildren(make("div", "drawer-head", title, close), body);
  drawer.hidden = false;
  document.body.classList.add("with-drawer");
  open = { path: ["why", namespace, name, instance].map(encodeURIComponent).join("/"), body, from, asked: 0 };
  title.focus();
  ask();
}

/** Closes the drawer. */
export function hide() {
  if (!open) return;
  const { from } = open;
  open = null;
  byId("drawer").hidden = true;
  document.body.classList.remove("with-drawer");
  if (from?.isConnected) from.focus();
}

/** Asks again, if it is time. */
export function tick() {
  if (open && !open.asking && performance.now() - open.asked > AGAIN) ask();
}

async function ask() {
  const of = open;
  of.asked = performance.now();
  of.asking = true;
  try {
    const answer = await get(of.path);
    if (open !== of) return;
    // The console is busy. What is shown is not yet old.
    if (of.told && (answer.status === 429 || answer.status === 503)) return;
    of.told = answer.ok;
    of.body.replaceChildren(...(answer.ok ? argument(await answer.json()) : [make("p", "", await answer.text())]));
  } catch {
    if (open === of) of.body.replaceChildren(make("p", "", "The console does not answer."));
  } finally {
    of.asking = false;
  }
}

function argument({ registration, instance, well, steps, history, remedy }) {
  const [namespace, name] = registration.split("/");
  const since = instance.since ? ` since ${words.ofDay(Date.parse(instance.since))}` : "";
  const parts = [
    make("p", "verdict", `${instance.name} of ${registration} is `, make("strong", "", instance.state), ` (${instance.reason})${since}.`),
    make("p", `remedy ${well ? "well" : "act"}`, well ? "✓ Nothing has to be done." : `→ ${remedy}`),
    make("h3", "", "The argument"),
    make("ol", "steps", ...steps.map(step)),
  ];
  if (history.length) {
    parts.push(make("h3", "", "Last transitions, from events"), make("ul", "history", ...history.map(transition)));
  }
  parts.push(
    make("h3", "", "In a terminal"),
    make("pre", "", `kubectl beatkeeper -n ${namespace} why ${name}/${instance.name}`),
  );
  parts.at(-1).tabIndex = 0;
  return parts;
}

function step({ topic, mark, text }) {
  const [sign, word] = MARKS[mark];
  return make("li", mark, make("span", "sign", sign), unseen(` ${word}: `), make("span", "topic", topic), make("span", "text", text));
}

function transition({ at, reason, note, count }) {
  const times = count > 1 ? ` (×${count})` : "";
  return make("li", "", make("time", "", words.ofDay(Date.parse(at))), make("strong", "", `${reason}${times}`), make("span", "", note));
}
