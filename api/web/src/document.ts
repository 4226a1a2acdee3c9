// Reading the page's own document: elements that must be there, and text that changes rarely.

type Constructor<E extends Element> = new () => E;

/** The element with this id, of this class; a missing one is a mistake in the page. */
export function byId<E extends Element = HTMLElement>(
  id: string,
  kind: Constructor<E> = HTMLElement as unknown as Constructor<E>,
): E {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`the page has no ${kind.name} #${id}`);
  return element;
}

/** Sets an element's text, touching the document only if it differs. */
export function say(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** A new element with a class and, perhaps, a role. */
export function make(tag: string, className: string, role?: string): HTMLElement {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (role) element.setAttribute("role", role);
  return element;
}
