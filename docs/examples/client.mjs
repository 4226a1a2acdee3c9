// A client of the gateway in plain Node 22 or newer, no packages; in a browser it is the same.
//   STOCKIFY_KEY=… node client.mjs NIFTY
const url = process.env.STOCKIFY_URL ?? "http://127.0.0.1:8700";
const underlying = process.argv[2];

async function ask(path, bearer, method = "GET") {
  const answer = await fetch(url + path, { method, headers: { Authorization: `Bearer ${bearer}` } });
  const body = await answer.json();
  if (!answer.ok) throw new Error(`${body.code}: ${body.detail}`);
  return body;
}
const token = async () => (await ask("/v1/token", process.env.STOCKIFY_KEY, "POST")).data.token;

const chain = await ask(`/v1/chains/${underlying}/nearest?around=atm%C2%B11`, await token());
for (const row of chain.data) console.log("chain", row.symbol, row.last, row.iv, row.delta);

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
