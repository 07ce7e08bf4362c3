// The head of the page: who leads, whether beats can arrive, how long prunes take, and whether the page is up to date.

import * as clock from "./clock.js";
import { byId, say } from "./dom.js";
import * as words from "./words.js";

/** After this time without a message the page is out of date, in milliseconds. */
const SILENT = 4000;
/** Over how long beats are counted, in milliseconds. */
const COUNTED = 10_000;

let operator = null;
let heard = null;
let connected = false;
let tokenWanted = false;
let began = null;
const counts = [];

/** Takes where the page looks. */
export function setPlace({ context, scope, version }) {
  say(byId("where"), [context, scope, version].filter(Boolean).join(" · "));
}

/** Takes what is known of the operator. */
export function setOperator(report) {
  operator = report;
  const { leader } = report;
  if (leader.is) {
    const { name, namespace, renews } = leader.is;
    show("leader", renews ? name : `${name} does not renew its Lease`, `in namespace ${namespace}`, !renews);
  } else {
    show("leader", "unknown", leader.unknown);
  }
  const { lag } = report;
  if (lag.is) {
    const { p50, p99, count } = lag.is;
    const prunes = count === 1 ? "1 prune" : `${count} prunes`;
    show("lag", `${words.lag(p50)} / ${words.lag(p99)}`, `${prunes} since the leader was started`);
  } else if (lag.is === null) {
    show("lag", "no prune yet", "since the leader was started");
  } else {
    show("lag", "not readable", lag.unknown);
  }
  tick();
}

/** Notes that a message has come. */
export function hear() {
  heard = performance.now();
  connected = true;
  tokenWanted = false;
}

/** Notes that nothing is read until the reader gives a token. */
export function wantToken() {
  tokenWanted = true;
  operator = heard = began = null;
  counts.length = 0;
  for (const fact of ["leader", "proof", "lag", "beats"]) show(fact, "not read");
  tick();
}

/** Notes that the connection is broken. */
export function lose() {
  connected = false;
  tick();
}

/** Counts beats. */
export function count(beats) {
  const now = performance.now();
  began ??= now;
  counts.push([now, beats]);
}

/** Shows what changes by time alone. */
export function tick() {
  const now = performance.now();
  const silence = heard === null ? 0 : now - heard;
  if (tokenWanted) show("connection", "needs a token");
  else if (heard === null) show("connection", "connecting");
  else if (connected && silence < SILENT) show("connection", "live");
  else show("connection", `out of date for ${words.span(silence)}`, "the console does not answer", true);
  document.body.classList.toggle("stale", heard !== null && !(connected && silence < SILENT));
  const proof = operator?.proof;
  if (proof?.is) {
    const age = clock.now() - proof.is;
    show("proof", `${words.span(age)} ago`, "", age > 15_000);
  } else if (proof) {
    show("proof", "unknown", proof.unknown);
  }
  while (counts.length && counts[0][0] < now - COUNTED) counts.shift();
  if (began !== null && now - began > 1500) {
    const seconds = Math.min(COUNTED, now - began) / 1000;
    const rate = counts.reduce((sum, [, beats]) => sum + beats, 0) / seconds;
    show("beats", `${rate < 10 ? rate.toFixed(1) : Math.round(rate)} /s`);
  }
}

/** Shows a fact, with more about it in small letters. */
function show(id, text, more = "", bad = false) {
  const element = byId(id);
  element.classList.toggle("bad", bad);
  let [main, small] = element.children;
  if (!main) {
    main = document.createElement("span");
    small = document.createElement("small");
    element.replaceChildren(main, small);
  }
  say(main, text);
  say(small, more);
}
