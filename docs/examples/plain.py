"""Reads chains in a group of its own: needs redis, msgspec and numpy, and nothing of ours."""

import os

import msgspec
import numpy as np
import redis

STREAM, GROUP, NAME = "stream:enriched", "my-strategy", "worker-1"

bus = redis.Redis.from_url(os.environ["STOCKIFY_REDIS_URL"], socket_timeout=10)
try:
    bus.xgroup_create(STREAM, GROUP, id="$", mkstream=True)  # "0": also what is there already
except redis.ResponseError as error:
    if "BUSYGROUP" not in str(error):  # the group is there from the last time
        raise


def handle(fields: dict[bytes, bytes]) -> None:
    if fields[b"type"] != b"chain.enriched.v1":
        return
    frame = msgspec.msgpack.decode(fields[b"data"])
    header, columns = frame["h"], frame["c"]
    strike = np.frombuffer(columns["strike"], "<f8")
    iv = np.frombuffer(columns["iv"], "<f8")  # NaN where there is none
    is_call = np.frombuffer(columns["kind"], "u1") == 1
    nearest = np.argmin(np.where(is_call, abs(strike - header["forward"]), np.inf))
    print(header["chain"], header["n"], "legs", f"{strike[nearest]:g}", f"{iv[nearest]:.4f}")


def read(start: str) -> int:
    answer = bus.xreadgroup(GROUP, NAME, {STREAM: start}, count=16, block=5_000) or []
    entries = [entry for _stream, batch in answer for entry in batch]
    for stream_id, fields in entries:
        if fields:
            handle(fields)
        bus.xack(STREAM, GROUP, stream_id)  # after the work, so that a crash repeats it
    return len(entries)


while read("0"):  # first what this member was given before it crashed
    pass
while True:
    read(">")
