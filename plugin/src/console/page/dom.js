// Makes elements. Text is set as text alone, so that no name or note from the cluster becomes markup.

/** Makes an element with a class, a text or children. */
export function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/** Sets the text of an element, if it differs. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** A text that only screen readers read. */
export function unseen(text) {
  return make("span", "unseen", text);
}

/** An element of the page by its id. */
export function byId(id) {
  return document.getElementById(id);
}
