// Words for times and numbers, as the plugin writes them in a terminal.

/** A span of time in at most two units, such as 4m10s. Below ten seconds it has a tenth. */
export function span(millis) {
  const seconds = Math.max(0, millis) / 1000;
  if (seconds < 10) return `${(Math.floor(seconds * 10) / 10).toFixed(1)}s`;
  const whole = Math.floor(seconds);
  const two = (large, unit, small, of) => (small ? `${large}${unit}${small}${of}` : `${large}${unit}`);
  if (whole < 60) return `${whole}s`;
  if (whole < 3600) return two(Math.floor(whole / 60), "m", whole % 60, "s");
  if (whole < 86400) return two(Math.floor(whole / 3600), "h", Math.floor(whole / 60) % 60, "m");
  return two(Math.floor(whole / 86400), "d", Math.floor(whole / 3600) % 24, "h");
}

/** A moment as time of day on this computer. */
export function ofDay(millis) {
  return new Date(millis).toLocaleTimeString([], { hour12: false });
}

/** A duration in seconds, such as 8 ms or 1.2 s. */
export function lag(seconds) {
  if (seconds < 1) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  return `${seconds.toFixed(1)} s`;
}

/** The name of a state in a sentence. */
export function state(name) {
  return name === "NotReady" ? "not ready" : name.toLowerCase();
}

/** What each state means, for the legend. */
export const STATES = [
  ["Ready", "beats; drains until the next beat"],
  ["NotReady", "beats, and gets no new connections"],
  ["Draining", "leaves; gets no new connections"],
  ["Held", "silent for its ttl, stays published"],
  ["Expired", "silent for its ttl, pruned"],
  ["Cordoned", "removed by a person"],
  ["Waiting", "has not beaten yet"],
  ["Rejected", "never published"],
];
