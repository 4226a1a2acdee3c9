// Reads chains from stream:enriched in a group of its own: plain Node, no packages.
import net from "node:net";

const STREAM = "stream:enriched", GROUP = "my-node", NAME = "worker-1";
const url = new URL(process.env.STOCKIFY_REDIS_URL);
const socket = net.connect(Number(url.port || 6379), url.hostname);
socket.on("close", () => process.exit(1)); // started again, it goes on where it was

// Redis: a command is an array of texts, an answer is read off the bytes as they come.
let received = Buffer.alloc(0), at = 0, wake = () => {};
socket.on("data", (chunk) => {
  [received, at] = [Buffer.concat([received.subarray(at), chunk]), 0];
  wake();
});
const more = () => new Promise((resolve) => { wake = resolve; });
async function take(length) {
  while (received.length - at < length) await more();
  at += length;
  return received.subarray(at - length, at);
}
async function line() {
  while (received.indexOf("\r\n", at) < 0) await more();
  return (await take(received.indexOf("\r\n", at) + 2 - at)).toString().slice(0, -2);
}
async function answer() {
  const head = await line(), rest = head.slice(1), size = Number(rest);
  if (head[0] === "-") throw new Error(rest);
  if (head[0] === "$") return size < 0 ? null : (await take(size + 2)).subarray(0, size);
  if (head[0] !== "*") return rest;
  const items = [];
  for (let n = 0; n < size; n += 1) items.push(await answer());
  return items;
}
function send(...parts) {
  const encoded = parts.map((part) => `$${Buffer.byteLength(part)}\r\n${part}\r\n`);
  socket.write(`*${parts.length}\r\n${encoded.join("")}`);
  return answer();
}

// A frame is msgpack: a map of a header `h` and columns `c`, which are raw bytes.
function unpack(bytes) {
  let i = 0;
  const skip = (length) => { i += length; return i - length; };
  const uint = (length) => bytes.readUIntBE(skip(length), length);
  const raw = (length) => bytes.subarray(skip(length), i);
  const array = (length) => Array.from({ length }, next);
  const map = (length) => Object.fromEntries(Array.from({ length }, () => [next(), next()]));
  function next() {
    const b = bytes[i]; i += 1;
    if (b < 0x80) return b;
    if (b < 0x90) return map(b & 15);
    if (b < 0xa0) return array(b & 15);
    if (b < 0xc0) return raw(b & 31).toString();
    if (b >= 0xe0) return b - 256;
    if (b <= 0xc3) return [null, undefined, false, true][b - 0xc0];
    if (b <= 0xc6) return raw(uint(1 << (b - 0xc4)));
    if (b === 0xca) return bytes.readFloatBE(skip(4));
    if (b === 0xcb) return bytes.readDoubleBE(skip(8));
    if (b === 0xcf) return bytes.readBigUInt64BE(skip(8)); // nanoseconds do not fit a number
    if (b <= 0xce) return uint(1 << (b - 0xcc));
    if (b === 0xd3) return bytes.readBigInt64BE(skip(8));
    if (b <= 0xd2) return bytes.readIntBE(skip(1 << (b - 0xd0)), 1 << (b - 0xd0));
    if (b <= 0xdb) return raw(uint(1 << (b - 0xd9))).toString();
    return b <= 0xdd ? array(uint(2 << (b - 0xdc))) : map(uint(2 << (b - 0xde)));
  }
  return next();
}
const float64 = (bytes) => new Float64Array(new Uint8Array(bytes).buffer); // copied: aligned

function handle(type, data) {
  if (type.toString() !== "chain.enriched.v1") return;
  const { h: header, c: columns } = unpack(data);
  const strike = float64(columns.strike), iv = float64(columns.iv); // NaN where there is none
  const away = (leg) => Math.abs(strike[leg] - header.forward);
  const calls = [...strike.keys()].filter((leg) => columns.kind[leg] === 1);
  const nearest = calls.reduce((best, leg) => (away(leg) < away(best) ? leg : best));
  console.log(header.chain, header.n, "legs", strike[nearest], iv[nearest].toFixed(4));
}

const [user, password] = [url.username || "default", url.password].map(decodeURIComponent);
if (password) await send("AUTH", user, password);
await send("XGROUP", "CREATE", STREAM, GROUP, "$", "MKSTREAM").catch((error) => {
  if (!error.message.startsWith("BUSYGROUP")) throw error; // it is there from the last time
});
for (let start = "0"; ;) { // first what was given before a crash, then what is new
  const read = ["XREADGROUP", "GROUP", GROUP, NAME, "COUNT", "16", "BLOCK", "5000", "STREAMS"];
  const found = await send(...read, STREAM, start);
  const entries = found ? found[0][1] : [];
  for (const [id, fields] of entries) {
    const value = (name) => fields[fields.findIndex((one, n) => n % 2 === 0 && one == name) + 1];
    if (fields) handle(value("type"), value("data"));
    await send("XACK", STREAM, GROUP, id.toString()); // after the work
  }
  if (!entries.length) start = ">";
}
