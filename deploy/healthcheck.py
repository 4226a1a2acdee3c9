"""Asks the process of this container how it is: exit 0 when it is ready, 1 otherwise."""

import json
import os
import sys
import urllib.request

port = os.environ.get("STOCKIFY_METRICS_PORT", "9100")
try:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
        report = json.load(answer)
except OSError as error:
    sys.exit(f"no answer: {error}")
if report["state"] != "ready":
    sys.exit(f"{report['state']}: {report['reason']}")
