import assert from "node:assert/strict";
import { test } from "node:test";

import { COLUMN_SETS, type Column, digitsOf, fitting } from "../../../api/web/src/columns.ts";
import { leg } from "./legs.ts";

const names = (columns: readonly Column[]): string[] => columns.map(({ id }) => id);
const each_px = (): number => 50;

test("with room enough every column is there, in order", () => {
  const all = COLUMN_SETS.quotes;
  assert.deepEqual(fitting(all, 60 + 2 * 50 * all.length, 60, each_px), all);
});

test("bid and ask come and go together", () => {
  for (let width = 160; width <= 800; width += 10) {
    const kept = names(fitting(COLUMN_SETS.quotes, width, 60, each_px));
    assert.equal(kept.includes("bid"), kept.includes("ask"), `at ${width} px: ${kept}`);
  }
});

test("what is kept fits, and the last price always is", () => {
  for (const set of Object.values(COLUMN_SETS)) {
    for (let width = 200; width <= 800; width += 10) {
      const kept = fitting(set, width, 60, each_px);
      assert.ok(60 + kept.length * 100 <= width);
      assert.ok(names(kept).includes("last"));
    }
  }
});

test("points and commas are half a digit wide", () => {
  assert.equal(digitsOf("1,234.50"), 7);
  assert.equal(digitsOf("–"), 1);
});

test("columns read their own field, and absent stays absent", () => {
  const absent = leg(25_000, "call", { open_interest: null, iv: null, last: null });
  for (const column of COLUMN_SETS.quotes) {
    const value = column.value(absent);
    const expected = ["open_interest", "iv", "last"].includes(column.id);
    assert.equal(value === null, expected, column.id);
  }
});

test("the change of open interest needs both days", () => {
  const change = COLUMN_SETS.compare.find(({ id }) => id === "open_interest_change");
  assert.equal(change?.value(leg(1, "put")), 15_000);
  assert.equal(change?.value(leg(1, "put", { previous_open_interest: null })), null);
});
