// Publishes one event with a traceparent, by docs/PROTOCOL.md and ZMTP 3.0 alone: no ZeroMQ, no plugmesh, no OpenTelemetry.
//
// node stranger.mjs HOME SUBJECT JSON TRACEPARENT

import { connect } from "node:net";
import { readFileSync } from "node:fs";
import { randomBytes } from "node:crypto";

const [home, subject, data, traceparent] = process.argv.slice(2);
const REGISTER = 1, REGISTERED = 2, PUBLISH = 12;

// MessagePack, as far as it is needed here; a Buffer is a bin, a Raw is encoded already.
class Raw { constructor(bytes) { this.bytes = bytes; } }

function pack(value) {
  if (value instanceof Raw) return value.bytes;
  if (value === null) return Buffer.from([0xc0]);
  if (Buffer.isBuffer(value)) return Buffer.concat([Buffer.from([0xc5, value.length >> 8, value.length & 255]), value]);
  if (Number.isInteger(value) && value >= 0 && value < 128) return Buffer.from([value]);
  if (typeof value === "string") {
    const text = Buffer.from(value);
    return Buffer.concat([Buffer.from([0xda, text.length >> 8, text.length & 255]), text]);
  }
  if (Array.isArray(value)) return Buffer.concat([Buffer.from([0x90 | value.length]), ...value.map(pack)]);
  if (typeof value === "object") {
    const pairs = Object.entries(value);
    return Buffer.concat([Buffer.from([0x80 | pairs.length]), ...pairs.flat().map(pack)]);
  }
  throw new Error(`${JSON.stringify(value)} is more than this client can encode`);
}

function numberAt(frame, at) {
  const size = { 0xcc: 2, 0xcd: 3, 0xce: 5, 0xcf: 9 }[frame[at]] ?? 1;
  return frame.subarray(at, at + size);
}

const LONG = 2, COMMAND = 4;

function zmtp(body, flags = 0) {
  const size = Buffer.alloc(9);
  size[0] = flags | LONG;
  size.writeBigUInt64BE(BigInt(body.length), 1);
  return Buffer.concat([size, body]);
}

function property(name, value) {
  const size = Buffer.alloc(4);
  size.writeUInt32BE(value.length);
  return Buffer.concat([Buffer.from([name.length]), Buffer.from(name), size, Buffer.from(value)]);
}

const greeting = Buffer.alloc(64);
greeting.set([0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 0, ...Buffer.from("NULL")]);
const ready = Buffer.concat([Buffer.from("\x05READY"), property("Socket-Type", "DEALER"), property("Identity", "")]);

const link = connect(`${home}/run/broker.sock`);
let received = Buffer.alloc(0), greeted = false;

function onFrame(flags, body) {
  if (flags & COMMAND) {
    if (body.subarray(1, 6).toString() !== "READY") return;
    const key = readFileSync(`${home}/keys/client.key`, "utf8").trim();
    const nonce = randomBytes(8).toString("hex");
    link.write(zmtp(pack([0, [REGISTER, [1], "client", "stranger", "1.0", "", nonce, key]])));
    return;
  }
  const session = numberAt(body, 1);
  const kind = body[1 + session.length + 1];
  if (kind !== REGISTERED) {
    console.error(`the broker answered with a packet of kind ${kind} instead of REGISTERED`);
    process.exit(1);
  }
  const payload = [{ traceparent }, pack(JSON.parse(data))];
  link.end(zmtp(pack([new Raw(session), [PUBLISH, 0, subject, payload]])));
}

link.on("connect", () => link.write(greeting));
link.on("error", (error) => { console.error(error.message); process.exit(1); });
link.on("data", (chunk) => {
  received = Buffer.concat([received, chunk]);
  if (!greeted) {
    if (received.length < 64) return;
    greeted = true;
    received = received.subarray(64);
    link.write(zmtp(ready, COMMAND));
  }
  while (received.length >= 2) {
    const long = received[0] & LONG, head = long ? 9 : 2;
    if (received.length < head) return;
    const size = long ? Number(received.readBigUInt64BE(1)) : received[1];
    if (received.length < head + size) return;
    const flags = received[0], body = received.subarray(head, head + size);
    received = received.subarray(head + size);
    onFrame(flags, body);
  }
});
