import assert from "node:assert/strict";
import { test } from "node:test";

import { MarketClock } from "../../../api/web/src/clock.ts";

test("a market of another day is told by its offset", () => {
  const clock = new MarketClock();
  clock.note(1_000_000, 5_000);
  assert.equal(clock.at(5_250), 1_000_250);
});

test("a fast market is told by two readings", () => {
  const clock = new MarketClock();
  clock.note(0, 0);
  clock.note(600_000, 10_000);
  assert.equal(clock.rate, 60);
  assert.equal(clock.at(10_500), 630_000);
});

test("a wobble of the wire is not taken for speed", () => {
  const clock = new MarketClock();
  clock.note(0, 0);
  clock.note(10_030, 10_000);
  assert.equal(clock.rate, 1);
});

test("a new connection says nothing of the speed of the one before", () => {
  const clock = new MarketClock();
  clock.note(0, 0);
  clock.note(600_000, 10_000);
  clock.begin(700_000, 11_000);
  assert.equal(clock.rate, 1);
  assert.equal(clock.at(11_500), 700_500);
});

test("it is known from the first reading on", async () => {
  const clock = new MarketClock();
  let isKnown = false;
  const waiting = clock.known.then(() => (isKnown = true));
  await Promise.resolve();
  assert.equal(isKnown, false);
  clock.note(0, 0);
  await waiting;
  assert.equal(isKnown, true);
});

test("before any reading the local clock is believed", () => {
  assert.equal(new MarketClock().at(42), 42);
});
