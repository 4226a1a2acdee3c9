// The two pickers: an underlying and one of its expiries, as the gateway lists them.

import { byId } from "./document.ts";
import { date } from "./format.ts";
import type { Rest } from "./rest.ts";
import type { Selection } from "./session.ts";

export class Picker {
  readonly #underlyings = byId("underlying", HTMLSelectElement);
  readonly #expiries = byId("expiry", HTMLSelectElement);
  readonly #onChoice: (underlying: string, expiry: string) => void;
  #rest: Rest | null = null;

  constructor(onChoice: (underlying: string, expiry: string) => void) {
    this.#onChoice = onChoice;
    this.#underlyings.addEventListener("change", () => void this.#changeUnderlying());
    this.#expiries.addEventListener("change", () => this.#tell());
  }

  /** Reads both lists, keeps what is chosen where it still is listed, else what is wanted. */
  async load(rest: Rest, wanted: Selection): Promise<void> {
    this.#rest = rest;
    const symbols = (await rest.underlyings()).map(({ symbol }) => symbol);
    fill(this.#underlyings, symbols, [this.#underlyings.value, wanted.underlying ?? ""]);
    await this.#loadExpiries(wanted.expiry);
    this.#tell();
  }

  async #changeUnderlying(): Promise<void> {
    await this.#loadExpiries(null);
    this.#tell();
  }

  async #loadExpiries(wanted: string | null): Promise<void> {
    const underlying = this.#underlyings.value;
    if (!this.#rest || !underlying) return;
    const listed = await this.#rest.expiries(underlying);
    if (underlying !== this.#underlyings.value) return;
    const days = listed.map(({ expiry }) => expiry);
    fill(this.#expiries, days, [this.#expiries.value, wanted ?? ""], date);
  }

  #tell(): void {
    const [underlying, expiry] = [this.#underlyings.value, this.#expiries.value];
    if (underlying && expiry) this.#onChoice(underlying, expiry);
  }
}

/** Gives a picker its options, and chooses the first preference that is among them. */
function fill(
  select: HTMLSelectElement,
  values: readonly string[],
  preferences: readonly string[],
  text: (value: string) => string = (value) => value,
): void {
  const chosen = preferences.find((each) => values.includes(each)) ?? values[0] ?? "";
  const before = [...select.options].map((option) => option.value);
  if (before.length !== values.length || values.some((value, at) => value !== before[at])) {
    select.replaceChildren(...values.map((value) => new Option(text(value), value)));
  }
  select.value = chosen;
  select.disabled = values.length === 0;
}
