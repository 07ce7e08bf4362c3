// Paints cells. A state has a shape of its own, so that nothing is told by colour alone.

/** The states whose cells drain from one beat to the next. */
const DRAINS = new Set(["Ready", "NotReady", "Draining"]);

const NAMES = ["ready", "late", "held", "bad", "drain", "quiet", "track", "surface"];

/** The colours of the page, as its style sheet has them now. */
export function colours() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(NAMES.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

/** Whether its beats go through a gateway: then its Lease says nothing of them. */
export function isCarried(cell, told, now) {
  return told?.carriedAfterMillis !== undefined && cell.beat !== undefined && now - cell.beat >= told.carriedAfterMillis;
}

/** Which part of the ttl is left: 1 right after a beat, 0 at the deadline. */
export function left(cell, { ttl, told }, now) {
  if (!DRAINS.has(cell.state)) return 0;
  if (cell.beat === undefined || isCarried(cell, told, now)) return 1;
  return Math.min(1, Math.max(0, 1 - (now - cell.beat) / ttl));
}

/** Paints one cell with its upper left corner at x, y. `level` is the part that is filled. */
export function cell(ctx, x, y, size, state, late, level, colour) {
  ctx.save();
  ctx.translate(x, y);
  const paint = SHAPES[state] ?? SHAPES.Waiting;
  paint(ctx, size, level, colour, late);
  ctx.restore();
}

/** Pictures of cells, by colours and looks: what they look like is painted once, and then copied, which is much faster. */
const stamps = new WeakMap();

/** Paints one cell as `cell` does. It is filled up to one of the `steps` that its height has in pixels of the screen. */
export function stamp(ctx, x, y, size, scale, state, late, step, colour) {
  if (!stamps.has(colour)) stamps.set(colour, new Map());
  const looks = [size, scale, state, late, step].join(" ");
  const known = stamps.get(colour);
  let picture = known.get(looks);
  if (!picture) {
    picture = document.createElement("canvas");
    picture.width = picture.height = Math.ceil(size * scale);
    const own = picture.getContext("2d");
    own.scale(scale, scale);
    cell(own, 0, 0, size, state, late, step / (size * scale), colour);
    known.set(looks, picture);
  }
  ctx.drawImage(picture, x, y, picture.width / scale, picture.height / scale);
}

function box(ctx, inset, size) {
  ctx.beginPath();
  ctx.roundRect(inset, inset, size - 2 * inset, size - 2 * inset, Math.max(0, size / 6 - inset / 2));
}

function outline(ctx, size, colour, width = size / 11, inset = 0) {
  box(ctx, inset + width / 2, size);
  ctx.lineWidth = width;
  ctx.strokeStyle = colour;
  ctx.stroke();
}

function line(ctx, colour, width, ...points) {
  ctx.beginPath();
  points.forEach(([x, y], n) => (n % 2 ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
  ctx.lineWidth = width;
  ctx.lineCap = "round";
  ctx.strokeStyle = colour;
  ctx.stroke();
}

/** A box that is filled up to a level; above it the track is seen. */
function tank(ctx, size, level, colour, track) {
  box(ctx, 0, size);
  ctx.fillStyle = track;
  ctx.fill();
  ctx.clip();
  ctx.fillStyle = colour;
  ctx.fillRect(0, size * (1 - level), size, size * level);
}

const SHAPES = {
  Ready(ctx, size, level, colour, late) {
    tank(ctx, size, level, late ? colour.late : colour.ready, colour.track);
    if (late) line(ctx, colour.late, size / 8, [size / 2, size / 5], [size / 2, size / 2.4]);
  },
  NotReady(ctx, size, level, colour) {
    tank(ctx, size, level, colour.late, colour.track);
    ctx.fillStyle = colour.surface;
    ctx.fillRect(size / 2, 0, size / 2, size);
    outline(ctx, size, colour.late);
  },
  Draining(ctx, size, level, colour) {
    tank(ctx, size, 0, colour.drain, colour.track);
    ctx.beginPath();
    ctx.rect(0, size * (1 - level), size, size * level);
    ctx.clip();
    const step = size / 3;
    for (let at = -size; at < size; at += step) {
      line(ctx, colour.drain, size / 7, [at, size], [at + size, 0]);
    }
  },
  Held(ctx, size, level, colour) {
    outline(ctx, size, colour.held);
    outline(ctx, size, colour.held, size / 11, size / 4.4);
  },
  Expired(ctx, size, level, colour) {
    outline(ctx, size, colour.bad);
    const [from, to] = [size * 0.27, size * 0.73];
    line(ctx, colour.bad, size / 7, [from, from], [to, to], [from, to], [to, from]);
  },
  Cordoned(ctx, size, level, colour) {
    outline(ctx, size, colour.quiet);
    ctx.fillStyle = colour.quiet;
    ctx.fillRect(size * 0.2, size * 0.39, size * 0.6, size * 0.22);
  },
  Waiting(ctx, size, level, colour) {
    ctx.setLineDash([size / 8, size / 8]);
    outline(ctx, size, colour.quiet);
  },
  Rejected(ctx, size, level, colour) {
    const half = size / 2;
    ctx.beginPath();
    ctx.arc(half, half, half - size / 18, 0, 2 * Math.PI);
    ctx.lineWidth = size / 9;
    ctx.strokeStyle = colour.bad;
    ctx.stroke();
    const [from, to] = [size * 0.33, size * 0.67];
    line(ctx, colour.bad, size / 8, [from, from], [to, to], [from, to], [to, from]);
  },
};
