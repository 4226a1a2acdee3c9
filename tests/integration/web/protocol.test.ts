import assert from "node:assert/strict";
import { test } from "node:test";

import {
  Sequence,
  type Snapshot,
  type Update,
  backoff_ms,
  decodeFrame,
} from "../../../api/web/src/protocol.ts";

const common = { channel: "chain:NIFTY-20260127", as_of: "2026-01-25T10:00:00Z", rows: [] };

function snapshot(seq: number, epoch = "a"): Snapshot {
  return { type: "snapshot", epoch, seq, ...common };
}

function update(prev: number, seq: number, epoch = "a"): Update {
  return { type: "update", epoch, prev, seq, n: 1, ...common };
}

test("updates apply in a whole sequence after a snapshot", () => {
  const sequence = new Sequence();
  const verdicts = [snapshot(7), update(7, 9), update(9, 10)].map((each) => sequence.judge(each));
  assert.deepEqual(verdicts, ["apply", "apply", "apply"]);
});

test("an update before any snapshot is ignored", () => {
  const sequence = new Sequence();
  assert.equal(sequence.judge(update(1, 2)), "ignore");
  assert.equal(sequence.isWaiting, true);
});

test("an update that was seen is ignored", () => {
  const sequence = new Sequence();
  sequence.judge(snapshot(7));
  assert.equal(sequence.judge(update(5, 7)), "ignore");
  assert.equal(sequence.judge(update(7, 8)), "apply");
});

test("a gap is told once, and only a snapshot ends it", () => {
  const sequence = new Sequence();
  sequence.judge(snapshot(7));
  assert.equal(sequence.judge(update(8, 9)), "gap");
  assert.equal(sequence.judge(update(9, 10)), "ignore");
  assert.equal(sequence.judge(snapshot(10)), "apply");
  assert.equal(sequence.judge(update(10, 11)), "apply");
});

test("a new epoch is a gap even where the numbers fit", () => {
  const sequence = new Sequence();
  sequence.judge(snapshot(7));
  assert.equal(sequence.judge(update(7, 8, "b")), "gap");
});

test("a frame that is no array is refused", () => {
  assert.equal(decodeFrame('[{"type":"heartbeat","ts":"x"}]').length, 1);
  assert.throws(() => decodeFrame('{"type":"hello"}'), TypeError);
  assert.throws(() => decodeFrame("[{"), SyntaxError);
});

test("back-off doubles, is capped, and is spread over its upper half", () => {
  assert.deepEqual([backoff_ms(0, 0), backoff_ms(0, 0.999)].map((ms) => ms >= 250 && ms <= 500), [
    true,
    true,
  ]);
  assert.equal(backoff_ms(3, 0), 2_000);
  assert.equal(backoff_ms(3, 1), 4_000);
  assert.equal(backoff_ms(50, 1), 15_000);
});
