// The timeline of a registration: a line for joins, prunes, holds and departures, with a bar for each minute of an hour.

import * as clock from "./clock.js";
import { make, say } from "./dom.js";

const MINUTES = 60;
const LANES = [
  ["joined", "ready"],
  ["pruned", "bad"],
  ["held", "held"],
  ["left", "quiet"],
];

/** Makes the timeline of a registration. */
export function timeline() {
  const element = make("div", "timeline");
  const lanes = LANES.map(([what, colour]) => {
    const canvas = make("canvas");
    canvas.setAttribute("aria-hidden", "true");
    const count = make("span", "count", "0");
    element.append(make("div", "lane", make("span", "what", what), count, canvas));
    return { what, colour, canvas, count };
  });
  element.append(make("div", "axis", make("span", "", "an hour ago"), make("span", "", "now")));
  return { element, lanes, marks: [] };
}

/** Takes the marks of the last hour. */
export function setMarks(line, marks) {
  line.marks = marks;
}

/** Draws the timeline as it is now. */
export function draw(line, colour) {
  const begin = clock.now() - MINUTES * 60_000;
  for (const { what, colour: name, canvas, count } of line.lanes) {
    const bins = new Array(MINUTES).fill(0);
    let sum = 0;
    for (const mark of line.marks) {
      const bin = Math.min(MINUTES - 1, Math.floor((mark.at - begin) / 60_000));
      if (mark.what !== what || bin < 0) continue;
      bins[bin] += mark.count;
      sum += mark.count;
    }
    say(count, String(sum));
    count.parentElement.classList.toggle("none", sum === 0);
    bars(canvas, bins, colour[name], colour.track);
  }
}

function bars(canvas, bins, colour, track) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const scale = devicePixelRatio;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const ctx = canvas.getContext("2d");
  ctx.scale(scale, scale);
  ctx.fillStyle = track;
  ctx.fillRect(0, height - 1, width, 1);
  const most = Math.max(4, ...bins);
  const step = width / bins.length;
  ctx.fillStyle = colour;
  bins.forEach((count, n) => {
    if (!count) return;
    const tall = Math.max(3, Math.sqrt(count / most) * height);
    ctx.fillRect(n * step, height - tall, Math.max(2, step - 1), tall);
  });
}
