import assert from "node:assert/strict";
import { test } from "node:test";

import * as format from "../../../api/web/src/format.ts";

test("prices are grouped the Indian way and keep their paise", () => {
  assert.equal(format.price(102_345.5), "1,02,345.50");
  assert.equal(format.price(0.05), "0.05");
  assert.equal(format.price(0), "0.00");
});

test("absent is a dash in every form, zero is a zero", () => {
  const forms = [format.price, format.strike, format.quantity, format.percent, format.age];
  for (const form of [...forms, format.delay, format.untilExpiry, format.signedPercent]) {
    assert.equal(form(null), "–");
  }
  assert.equal(format.fixed(null, 2), "–");
  assert.equal(format.quantity(0), "0");
  assert.equal(format.percent(0), "0.00");
});

test("quantities turn to lakhs and crores without a step like 100.00L", () => {
  const cases: [number, string][] = [
    [99_999, "99,999"],
    [100_000, "1.00L"],
    [137_250, "1.37L"],
    [9_999_000, "99.99L"],
    [9_999_600, "1.00Cr"],
    [21_000_000, "2.10Cr"],
    [-137_250, "-1.37L"],
  ];
  for (const [value, text] of cases) assert.equal(format.quantity(value), text);
});

test("strikes show paise only where they have some", () => {
  assert.equal(format.strike(24_500), "24,500");
  assert.equal(format.strike(117.5), "117.5");
});

test("a rounded zero has no sign", () => {
  assert.equal(format.fixed(-0.001, 2), "0.00");
  assert.equal(format.fixed(-0.006, 2), "-0.01");
  assert.equal(format.signedPercent(-0.00001), "0.00 %");
});

test("changes carry their sign", () => {
  assert.equal(format.signedPercent(0.0013), "+0.13 %");
  assert.equal(format.signedPercent(-0.0013), "-0.13 %");
});

test("ages grow from seconds to days", () => {
  const cases: [number, string][] = [
    [-1, "0.0 s"],
    [0.42, "0.4 s"],
    [12.4, "12 s"],
    [180, "3 min"],
    [7_300, "2 h"],
    [259_200, "3 d"],
  ];
  for (const [seconds, text] of cases) assert.equal(format.age(seconds), text);
});

test("time is told as a clock in India shows it", () => {
  assert.equal(format.time(Date.UTC(2025, 0, 28, 9, 33, 7)), "15:03:07");
});

test("the last day to expiry is told in hours and minutes", () => {
  const minute = 1 / (365 * 24 * 60);
  assert.equal(format.untilExpiry(4.2 / 365), "4.2 d");
  assert.equal(format.untilExpiry(310.5 * minute), "5 h 10 min");
  assert.equal(format.untilExpiry(9.5 * minute), "9 min");
  assert.equal(format.untilExpiry(-minute), "expired");
});

test("a day reads the same wherever the browser is", () => {
  assert.equal(format.date("2026-01-27"), "27 Jan 2026");
});
