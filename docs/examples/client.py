"""A client of the gateway: the newest chain, a day of history, an export, then the live feed.

Needs httpx and websockets, nothing of Stockify. `stockify key create` gives the key:

    STOCKIFY_KEY=… python client.py NIFTY 2026-01-25
"""

import json
import os
import sys
import time
from pathlib import Path

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

URL = os.environ.get("STOCKIFY_URL", "http://127.0.0.1:8700")
UNDERLYING, DAY = sys.argv[1:3]


def token():
    """A token for the key, good for some minutes."""
    key = {"Authorization": f"Bearer {os.environ['STOCKIFY_KEY']}"}
    return httpx.post(f"{URL}/v1/token", headers=key).raise_for_status().json()["data"]["token"]


def pages(http, path, **query):
    """Every answer of a list: `next` is the cursor of the one that follows."""
    cursor = {}
    while cursor is not None:
        body = http.get(path, params=query | cursor).raise_for_status().json()
        yield body
        cursor = body["next"] and {"cursor": body["next"]}


def show(http):
    """The strikes at the money, a day of one contract, and that day of all in a file."""
    window = {"around": "atm±1", "fields": "symbol,last,iv,delta"}
    chain = http.get(f"/v1/chains/{UNDERLYING}/nearest", params=window).raise_for_status().json()
    for row in chain["data"]:
        print("chain", *row.values())

    contract, rows = chain["data"][0]["symbol"], 0
    for page in pages(http, f"/v1/contracts/{contract}/history", start=DAY, limit=2):
        rows += len(page["data"])
        coverage = page["meta"]["coverage"]
    print("history", rows, "rows;", coverage["present"], "of", coverage["expected"], "are there")

    query, file = {"start": DAY, "format": "arrow"}, Path("day.arrow")
    with http.stream("GET", "/v1/exports/option_contracts", params=query) as answer:
        answer.raise_for_status()
        with file.open("wb") as out:
            out.writelines(answer.iter_raw())
    print("export", file, file.stat().st_size, "bytes", flush=True)


def follow(channel):
    """Every update of a channel, for ever; after a break from where it was."""
    known = {}
    while True:
        try:
            with connect(URL.replace("http", "ws", 1) + "/v1/ws") as socket:
                socket.send(json.dumps({"op": "auth", "token": token()}))
                wanted = {"channels": [channel], "interval_ms": 0, "since": known}
                socket.send(json.dumps({"op": "subscribe", **wanted}))
                for frame in socket:
                    for message in json.loads(frame):
                        if message["type"] in ("snapshot", "update"):
                            known = {channel: {"epoch": message["epoch"], "seq": message["seq"]}}
                            print(message["type"], message["seq"], message["rows"], flush=True)
                        elif message["type"] in ("ack", "skipped", "error"):
                            print(json.dumps(message), flush=True)
        except (OSError, httpx.HTTPError, WebSocketException) as error:
            print("again:", error, flush=True)
        time.sleep(1)


with httpx.Client(base_url=URL, headers={"Authorization": f"Bearer {token()}"}) as gateway:
    show(gateway)
follow(f"underlying:{UNDERLYING}")
