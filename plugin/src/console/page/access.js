// How the page asks the console: where that has no rights of its own, with the token of the reader.

import { byId, say } from "./dom.js";

/** The reader's token. It is kept here alone, so it is gone when the page is closed or loaded again. */
let token = null;
let shown = () => {};

/** The namespace that is looked at; empty for what the console was started for, or for all. */
export function namespace() {
  return new URLSearchParams(location.search).get("namespace") ?? "";
}

/** Asks the console for a path. */
export function ask(path, signal) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch(path, { headers, signal, cache: "no-store" });
}

/** Shows the field for the namespace, since the console lets its reader choose. */
export function letChoose() {
  byId("access").hidden = false;
}

/** Shows the field for a token, and why one is needed. */
export function askForToken(why) {
  token = null;
  letChoose();
  byId("token-field").hidden = false;
  say(byId("token-why"), why);
}

/** Hides the field for a token. */
export function accepted() {
  byId("token-field").hidden = true;
  say(byId("token-why"), "");
}

/** Calls `again` when the reader has given a token or chosen a namespace. */
export function start(again) {
  shown = again;
  byId("namespace").value = namespace();
  byId("access").addEventListener("submit", submit);
}

function submit(event) {
  event.preventDefault();
  const field = byId("token");
  token = field.value.trim() || token;
  field.value = "";
  const name = byId("namespace").value.trim();
  history.replaceState(null, "", name ? `?namespace=${encodeURIComponent(name)}` : location.pathname);
  shown();
}
