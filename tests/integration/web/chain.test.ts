import assert from "node:assert/strict";
import { test } from "node:test";

import { Chain, LEG_FIELDS } from "../../../api/web/src/chain.ts";
import { header, leg } from "./legs.ts";

function chainOf(...strikes: number[]): Chain {
  const chain = new Chain();
  chain.replace(header(), strikes.flatMap((each) => [leg(each, "call"), leg(each, "put")]));
  return chain;
}

test("legs are paired by strike, in order", () => {
  const chain = chainOf(25_050, 24_950, 25_000);
  assert.deepEqual(chain.pairs.map(({ strike }) => strike), [24_950, 25_000, 25_050]);
  assert.equal(chain.pairs[0]?.put?.symbol, "NIFTY-20260127-24950-PE");
  assert.equal(chain.size, 6);
});

test("a changed leg replaces its own and names its strike", () => {
  const chain = chainOf(24_950, 25_000);
  const touched = chain.merge(header(), [leg(25_000, "put", { last: 101 })]);
  assert.deepEqual([...touched], [25_000]);
  assert.equal(chain.pairs[1]?.put?.last, 101);
  assert.equal(chain.pairs[1]?.call?.last, 100);
});

test("a snapshot leaves nothing of the chain before it", () => {
  const chain = chainOf(24_950, 25_000);
  chain.replace(header(), [leg(25_100, "call")]);
  assert.deepEqual(chain.pairs.map(({ strike }) => strike), [25_100]);
  assert.equal(chain.pairs[0]?.put, null);
});

test("a removed contract goes, and its strike with the last of them", () => {
  const chain = chainOf(24_950, 25_000);
  chain.remove(["NIFTY-20260127-24950-CE"]);
  assert.equal(chain.pairs[0]?.call, null);
  chain.remove(["NIFTY-20260127-24950-PE", "NIFTY-20260127-1-PE"]);
  assert.deepEqual(chain.pairs.map(({ strike }) => strike), [25_000]);
});

test("the money is where the chain says, else nearest to the forward", () => {
  const chain = chainOf(24_950, 25_000, 25_050);
  assert.equal(chain.atTheMoney(), 25_000);
  chain.merge(header({ forward: 25_040 }, { atm_strike: null }), []);
  assert.equal(chain.atTheMoney(), 25_050);
  chain.merge(header({ forward: null, spot: null }, { atm_strike: null }), []);
  assert.equal(chain.atTheMoney(), null);
});

test("strikes round the money are cut at the ends of the chain", () => {
  const chain = chainOf(24_950, 25_000, 25_050, 25_100);
  assert.deepEqual(chain.around(1).map(({ strike }) => strike), [24_950, 25_000, 25_050]);
  assert.equal(chain.around(10).length, 4);
  assert.deepEqual(new Chain().around(10), []);
});

test("every field of a leg is asked for once", () => {
  assert.deepEqual([...LEG_FIELDS].sort(), Object.keys(leg(1, "call")).sort());
});
