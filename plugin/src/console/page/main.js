// The console: takes the messages of the server and shows them.

import * as access from "./access.js";
import * as clock from "./clock.js";
import { byId, make, say } from "./dom.js";
import * as drawer from "./drawer.js";
import * as head from "./head.js";
import * as paint from "./paint.js";
import { follow } from "./stream.js";
import * as tip from "./tip.js";
import * as wall from "./wall.js";
import { STATES } from "./words.js";

/** How often words that tell of time are written, in milliseconds. */
const TICK = 250;

/** The registrations that were told since the connection was made; `null` once those that are gone were removed. */
let told = null;

const take = {
  hello(message) {
    head.setPlace(message);
    access.accepted();
    if (message.shared) access.letChoose();
    clock.tell(message.now);
    told = new Set();
  },
  registration({ key, row, cells }) {
    told?.add(key);
    wall.put(key, row, cells);
    summarize();
  },
  changed({ key, row, cells }) {
    wall.change(key, row, cells);
    summarize();
  },
  gone({ key }) {
    wall.remove(key);
    summarize();
  },
  beats({ now, beats }) {
    clock.tell(now);
    // The first beats come after everything was told.
    if (told) {
      wall.keepOnly(told);
      told = null;
      summarize();
    }
    let count = 0;
    for (const [key, of] of beats) {
      wall.beat(key, of);
      count += of.length;
    }
    head.count(count);
  },
  marks({ key, marks }) {
    wall.mark(key, marks);
  },
  operator(report) {
    head.setOperator(report);
  },
  health({ complete, unread, failing }) {
    const problems = [...unread, ...failing].map(({ what, why }) => `${what} could not be read: ${why}`);
    trouble([...new Set(problems)].join("  "));
    say(byId("empty"), complete ? "There is no registration here." : "Reading the cluster.");
  },
  end({ why }) {
    head.lose();
    trouble(why);
    return false;
  },
};

/** Shows what is wrong; nothing if the text is empty. */
function trouble(text) {
  byId("trouble").hidden = !text;
  say(byId("trouble"), text);
}

/** Shows what is true of all registrations together. */
function summarize() {
  const rows = [...wall.each()];
  const dry = rows.filter((row) => row.told?.dryRun).length;
  const all = dry === rows.length;
  byId("dry-run").hidden = !dry;
  say(
    byId("dry-run"),
    all
      ? "DRY RUN: the operator decides and publishes nothing."
      : `DRY RUN: ${dry} of ${rows.length} registrations publish nothing; the operator only decides.`,
  );
  byId("empty").hidden = rows.length > 0;
  const bad = rows.filter((row) => row.told?.severity === "bad").length;
  document.title = bad ? `✗ ${bad} · Beatkeeper` : "Beatkeeper";
}

function connect() {
  follow({
    hear(message) {
      head.hear();
      return take[message.kind]?.(message);
    },
    lose: head.lose,
    refuse: trouble,
    wantToken(why) {
      wall.keepOnly(new Set());
      drawer.hide();
      say(byId("empty"), "");
      trouble("");
      head.wantToken();
      access.askForToken(why);
    },
  });
}

function legend() {
  const entries = STATES.map(([state, meaning]) => {
    const canvas = make("canvas");
    canvas.setAttribute("aria-hidden", "true");
    const item = make("li", "", canvas, make("strong", "", state), ` ${meaning}`);
    return { state, canvas, item };
  });
  byId("legend").append(...entries.map(({ item }) => item));
  wall.onColours((colour) => {
    for (const { state, canvas } of entries) {
      const [size, scale] = [16, devicePixelRatio];
      canvas.width = canvas.height = size * scale;
      const ctx = canvas.getContext("2d");
      ctx.scale(scale, scale);
      paint.cell(ctx, 0, 0, size, state, false, 0.7, colour);
    }
  });
}

legend();
tip.start((row, cell, from) => drawer.show(row.told.namespace, row.told.name, cell.name, from));
addEventListener("keydown", (event) => {
  if (event.key === "Escape") drawer.hide();
});
wall.start();
access.start(connect);
connect();
setInterval(() => {
  head.tick();
  tip.tick();
  drawer.tick();
}, TICK);
