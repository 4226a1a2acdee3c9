"""The servers an instance brings along: Valkey and Postgres, each as a `Launch` and an address."""
