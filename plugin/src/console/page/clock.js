// The clock of the API server, as the messages tell it. The clock of this computer may be wrong.

/** How much the estimate may sink with each message, in milliseconds, so that it follows a clock that is slower. */
const SINKS = 0.5;

let ahead = null;

/** Takes a time in, which a message has brought. A message that was under way for long tells too early a time. */
export function tell(now) {
  const told = now - Date.now();
  ahead = ahead === null ? told : Math.max(told, ahead - SINKS);
}

/** The present time of the API server, in milliseconds. */
export function now() {
  return Date.now() + (ahead ?? 0);
}
