// The box that asks for a token. It hands the token on and keeps nothing.

import { byId, say } from "./document.ts";

export class SignIn {
  readonly #dialog = byId("sign-in", HTMLDialogElement);
  readonly #input = byId("token", HTMLInputElement);
  readonly #reason = byId("sign-in-reason");

  constructor(onToken: (token: string) => void) {
    // Closing it would leave a page that can show nothing.
    this.#dialog.addEventListener("cancel", (event) => event.preventDefault());
    byId("sign-in-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const token = this.#input.value.trim();
      this.#input.value = "";
      if (token) onToken(token);
    });
  }

  /** Shows the box, with why it is there. */
  ask(reason: string): void {
    say(this.#reason, reason);
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#input.focus();
  }

  hide(): void {
    if (this.#dialog.open) this.#dialog.close();
  }
}
