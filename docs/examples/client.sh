#!/bin/sh
# A client of the gateway by curl alone: STOCKIFY_KEY=… sh client.sh NIFTY 2026-01-25
set -eu
url=${STOCKIFY_URL:-http://127.0.0.1:8700} underlying=$1 day=$2

# A token for the key; curl reads it from a file, so that it stands in no list of processes.
head=$(mktemp)
trap 'rm -f "$head"' EXIT
trap 'exit 1' INT TERM
printf 'Authorization: Bearer %s' "$STOCKIFY_KEY" > "$head"
token=$(curl -sSf -X POST -H @"$head" "$url/v1/token" | sed 's/.*"token":"\([^"]*\)".*/\1/')
printf 'Authorization: Bearer %s' "$token" > "$head"

ask() { curl -sSf -G -H @"$head" "$url/v1/$1" ${2:+--data-urlencode "$2"} ${3:+--data-urlencode "$3"}; }

ask "chains/$underlying/nearest" around=atm±1 format=csv            # a table
ask "underlyings/$underlying/history" "start=$day" format=ndjson    # one object a line
ask exports/option_contracts "start=$day" format=parquet > day.parquet
ls -l day.parquet
curl -sSN --max-time "${SECONDS_OF_FEED:-3600}" -H @"$head" \
  "$url/v1/stream?channels=underlying:$underlying" || test $? = 28  # the live feed; 28: time is over
