import assert from "node:assert/strict";
import { test } from "node:test";

import { Candles } from "../../../api/web/src/candles.ts";

const MINUTE = 60_000;

function shape(candles: Candles): (readonly number[])[] {
  return candles.all.map(({ time, open, high, low, close }) => [time, open, high, low, close]);
}

test("prices of a minute become one candle", () => {
  const candles = new Candles();
  const prices = [10, 12, 9, 11];
  prices.forEach((price, second) => candles.add({ at: MINUTE + second * 1_000, price }));
  candles.add({ at: 2 * MINUTE, price: 13 });
  assert.deepEqual(shape(candles), [
    [60, 10, 12, 9, 11],
    [120, 13, 13, 13, 13],
  ]);
});

test("a past loaded after the first live price changes neither its close nor the order", () => {
  const candles = new Candles();
  candles.add({ at: 3 * MINUTE + 30_000, price: 20 });
  candles.load([
    { at: 3 * MINUTE + 5_000, price: 18 },
    { at: MINUTE, price: 15 },
    { at: 3 * MINUTE + 10_000, price: 25 },
  ]);
  assert.deepEqual(shape(candles), [
    [60, 15, 15, 15, 15],
    [180, 18, 25, 18, 20],
  ]);
});

test("only a price of the newest minute, or after it, can be drawn alone", () => {
  const candles = new Candles();
  assert.equal(candles.add({ at: 2 * MINUTE, price: 1 }).isNewest, true);
  assert.equal(candles.add({ at: 2 * MINUTE + 1, price: 1 }).isNewest, true);
  assert.equal(candles.add({ at: MINUTE, price: 1 }).isNewest, false);
});

test("the oldest candles go when there are too many", () => {
  const candles = new Candles(60, 2);
  for (const minute of [1, 2, 3]) candles.add({ at: minute * MINUTE, price: minute });
  assert.deepEqual(candles.all.map(({ time }) => time), [120, 180]);
});
