#!/bin/sh
# Writes .env for compose.yaml, readable by its owner only, with passwords made here and now.
# An .env that exists is left as it is.
set -eu

cd "$(dirname "$0")/.."
if [ -e .env ]; then
  echo ".env is there already; remove it first to get new passwords (the volumes keep the old ones)"
  exit 0
fi

secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

umask 077
cat >.env.new <<END
# Passwords of this deployment. Keep this file to yourself; git ignores it.
STOCKIFY_REDIS_PASSWORD=$(secret)
STOCKIFY_POSTGRES_PASSWORD=$(secret)
STOCKIFY_JWT_SECRET=$(secret)
STOCKIFY_GRAFANA_PASSWORD=$(secret)

# Where the gateway is published.
STOCKIFY_PUBLISH=127.0.0.1:8700

# The simulated market. For the real provider, empty COMPOSE_PROFILES, set STOCKIFY_PROVIDER=dhan,
# the provider's own address and your account, STOCKIFY_CHAIN_BUDGET=account, and
# STOCKIFY_POLL_CLOSED_MARKET=false.
COMPOSE_PROFILES=simulated
STOCKIFY_PROVIDER=simulator
STOCKIFY_DHAN_BASE_URL=http://simulator:8701/v2
STOCKIFY_DHAN_CLIENT_ID=1000000001
STOCKIFY_DHAN_ACCESS_TOKEN=simulated
STOCKIFY_CHAIN_BUDGET=chain
STOCKIFY_POLL_CLOSED_MARKET=true
END
mv .env.new .env
echo "wrote .env"
