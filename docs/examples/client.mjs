// A client of the gateway in plain Node 22 or newer, no packages: the newest chain, a day of
// history, an export, then the live feed. `stockify key create` gives the key:
//   STOCKIFY_KEY=… node client.mjs NIFTY 2026-01-25
import { writeFile } from "node:fs/promises";

const url = process.env.STOCKIFY_URL ?? "http://127.0.0.1:8700";
const [underlying, day] = process.argv.slice(2);

async function call(path, bearer, method = "GET") {
  const answer = await fetch(url + path, { method, headers: { Authorization: `Bearer ${bearer}` } });
  if (answer.ok) return answer;
  const problem = await answer.json();
  throw new Error(`${problem.code}: ${problem.detail}`);
}
const ask = async (...request) => (await call(...request)).json();
const token = async () => (await ask("/v1/token", process.env.STOCKIFY_KEY, "POST")).data.token;

const bearer = await token();
const chain = await ask(`/v1/chains/${underlying}/nearest?around=atm%C2%B11`, bearer);
for (const row of chain.data) console.log("chain", row.symbol, row.last, row.iv, row.delta);

const history = `/v1/contracts/${chain.data[0].symbol}/history?start=${day}&limit=2`;
let count = 0;
let page = { next: "" }; // the cursor of the page that follows, null on the last
while (page.next !== null) {
  page = await ask(page.next ? `${history}&cursor=${page.next}` : history, bearer);
  count += page.data.length;
}
const { present, expected } = page.meta.coverage;
console.log("history", count, "rows;", present, "of", expected, "are there");

const file = await call(`/v1/exports/option_contracts?start=${day}&format=csv`, bearer);
await writeFile("day.csv", file.body); // as it comes, however large
console.log("export day.csv");

// A WebSocket here can send no header: a ticket, which holds once, stands in for the token.
const channel = `band:${underlying}-nearest:atm±1`;
const rows = new Map(); // what is on show, by symbol
async function open() {
  const { ticket } = (await ask("/v1/tickets", await token(), "POST")).data;
  const socket = new WebSocket(`${url.replace("http", "ws")}/v1/ws?ticket=${ticket}`, "stockify.v1");
  const say = (operation) => socket.send(JSON.stringify(operation));
  let last; // the position of the last message: the next one must follow it
  socket.onopen = () => say({ op: "subscribe", channels: [channel], interval_ms: 250 });
  socket.onmessage = ({ data }) => {
    for (const message of JSON.parse(data)) {
      if (message.type === "update" && message.prev !== last) say({ op: "resync" });
      if (message.type === "snapshot") rows.clear();
      for (const row of message.rows ?? []) rows.set(row.symbol, row);
      for (const symbol of message.removed ?? []) rows.delete(symbol);
      last = message.seq ?? last;
      if (message.rows) console.log(message.type, message.seq, [...rows.keys()].join(" "));
      if (message.refused?.length || message.type === "error") console.log(JSON.stringify(message));
    }
  };
  socket.onclose = ({ code }) => {
    console.log("closed", code);
    setTimeout(again, 1_000);
  };
}
const again = () => open().catch((error) => setTimeout(again, 1_000, console.log(error.message)));
again();
