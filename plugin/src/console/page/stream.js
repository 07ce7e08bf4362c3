// The stream of messages. EventSource cannot send a token, so the page reads the stream by itself.

import { ask, namespace } from "./access.js";

/** The pause before the console is asked again, in milliseconds. */
const AGAIN = 1000;
/** The same after it has said why it does not answer. */
const REFUSED_AGAIN = 5000;
/** A stream tells something each second. After this silence it is given up, in milliseconds. */
const SILENT = 15_000;

let current = null;

/**
 * Takes messages with `hear`, and asks again when the stream has ended, until `hear` returns false or the console wants
 * another token. A further call ends the one before.
 */
export async function follow({ hear, lose, refuse, wantToken }) {
  current?.abort();
  const own = new AbortController();
  current = own;
  while (!own.signal.aborted) {
    let pause = AGAIN;
    try {
      const chosen = namespace();
      const answer = await ask(chosen ? `events?namespace=${encodeURIComponent(chosen)}` : "events", own.signal);
      if (answer.status === 401) {
        lose();
        wantToken(await answer.text());
        return;
      }
      if (answer.ok) {
        for await (const message of messages(answer.body, own.signal)) {
          if (own.signal.aborted) return;
          if (hear(message) === false) return;
        }
      } else {
        pause = REFUSED_AGAIN;
        refuse(await answer.text());
      }
    } catch {
      // The console does not answer, or the stream broke. It is asked again.
    }
    if (own.signal.aborted) return;
    lose();
    await new Promise((done) => setTimeout(done, pause));
  }
}

/** The messages of server-sent events, until they end, are silent or are given up. */
async function* messages(body, signal) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  const end = () => reader.cancel().catch(() => {});
  signal.addEventListener("abort", end);
  let timer;
  let rest = "";
  try {
    for (;;) {
      clearTimeout(timer);
      timer = setTimeout(end, SILENT);
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data: ")) yield JSON.parse(line.slice(6));
      }
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
    end();
  }
}
