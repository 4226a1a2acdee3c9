import assert from "node:assert/strict";
import { test } from "node:test";

import { callPutGap } from "../../../api/web/src/gap.ts";
import { leg } from "./legs.ts";

function pair(strike: number, call: number | null, put: number | null) {
  return {
    strike,
    call: leg(strike, "call", { iv: call, iv_provider: null }),
    put: leg(strike, "put", { iv: put }),
  };
}

function isNear(actual: number | null, expected: number): void {
  assert.ok(actual !== null && Math.abs(actual - expected) < 1e-9, `${actual} is not ${expected}`);
}

test("median and largest are in vol points, whichever side is higher", () => {
  const pairs = [pair(1, 0.12, 0.121), pair(2, 0.13, 0.12), pair(3, 0.1, 0.103)];
  const gap = callPutGap(pairs, "iv");
  assert.equal(gap.strikes, 3);
  isNear(gap.median, 0.3);
  isNear(gap.maximum, 1);
});

test("the median of an even number lies between the two in the middle", () => {
  isNear(callPutGap([pair(1, 0.12, 0.121), pair(2, 0.13, 0.12)], "iv").median, 0.55);
});

test("a strike with one side only does not count", () => {
  const missing = { strike: 4, call: leg(4, "call"), put: null };
  const gap = callPutGap([pair(1, 0.12, null), missing, pair(2, 0.12, 0.125)], "iv");
  assert.equal(gap.strikes, 1);
});

test("where nothing can be compared nothing is claimed", () => {
  const gap = callPutGap([pair(1, 0.12, 0.121)], "iv_provider");
  assert.deepEqual(gap, { strikes: 0, median: null, maximum: null });
});
