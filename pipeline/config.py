"""Settings: one frozen struct, read from the environment and an optional TOML file.

The only room that looks at the environment. A setting `x` is `STOCKIFY_X` there, and `x` in the
file that `STOCKIFY_CONFIG` names; the environment wins.
"""

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pipeline.errors import ConfigError

PREFIX = "STOCKIFY_"
_SECRET_WORDS = ("token", "secret", "password")


def _says(description: str) -> Meta:
    return Meta(description=description)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting, with its default. Units are in the names."""

    state_dir: Annotated[str, _says("where an instance keeps its data, logs and passwords")] = ""
    clock: Annotated[str, _says("real, x60, an ISO start, or <start>@x60")] = "real"
    log_level: Annotated[str, _says("debug, info, warning or error")] = "info"

    redis_url: Annotated[
        str, _says("an existing Redis, or nodes of a cluster, comma-separated; empty: embedded")
    ] = ""
    redis_cluster: Annotated[bool, _says("whether that Redis is a cluster")] = False
    database_url: Annotated[str, _says("an existing Postgres; empty: the embedded one")] = ""
    database_read_url: Annotated[
        str, _says("a replica of it that the gateway reads history from; empty: there is none")
    ] = ""
    shards: Annotated[int, _says("streams the bus is cut into, by underlying")] = 1

    provider: Annotated[str, _says("name kept with every snapshot: dhan or simulator")] = "dhan"
    dhan_base_url: Annotated[str, _says("REST base of the provider")] = "https://api.dhan.co/v2"
    dhan_client_id: Annotated[str, _says("client id of the data account")] = ""
    dhan_access_token: Annotated[str, _says("access token of the data account")] = ""
    dhan_token_file: Annotated[str, _says("file with the token, read again at every failure")] = ""
    underlyings: Annotated[tuple[str, ...], _says("which underlyings to poll, comma-separated")] = (
        "NIFTY",
        "BANKNIFTY",
        "FINNIFTY",
        "SENSEX",
    )
    expiries_per_underlying: Annotated[int, _says("how many of the nearest expiries to poll")] = 2
    chain_spacing_s: Annotated[float, _says("seconds between chain requests of one budget")] = 3.1
    chain_budget: Annotated[str, _says("account: one budget for all; chain: one for each")] = (
        "account"
    )
    poll_closed_market: Annotated[bool, _says("poll outside the exchange's session too")] = False
    spool_bytes: Annotated[int, _says("bound of the on-disk spool while Redis is away")] = (
        512 * 1024 * 1024
    )

    rate: Annotated[float, _says("continuous interest rate per year for discounting")] = 0.065
    greeks: Annotated[str, _says("all: compute every leg; missing: only where none given")] = "all"

    storage_max_age_ms: Annotated[int, _says("longest a frame waits before its commit")] = 500
    storage_batch_rows: Annotated[int, _says("contract rows that make a full batch")] = 20_000
    storage_max_bytes: Annotated[
        int, _says("frames a shard of storage holds before it reads no more")
    ] = 64 * 1024 * 1024
    retention_days: Annotated[
        int, _says("UTC days of snapshots and contracts kept in Postgres; 0: all of them")
    ] = 0
    splitter_underlyings: Annotated[
        tuple[str, ...], _says("whose contracts the splitter writes; empty: everybody's")
    ] = ()
    keep_s: Annotated[int, _says("seconds of stream kept behind the slowest critical group")] = 900
    keep_bytes: Annotated[int, _says("bytes of a stream at which the kept time is cut short")] = (
        256 * 1024 * 1024
    )
    audit_keep_s: Annotated[
        int, _says("seconds for which is known what was appended by minute")
    ] = 172_800
    max_attempts: Annotated[int, _says("deliveries after which an entry is a dead letter")] = 5
    lease_ms: Annotated[int, _says("silence after which a shard goes to another")] = 3_000
    claim_idle_ms: Annotated[int, _says("idle time after which a pending entry is reclaimed")] = (
        15_000
    )

    gateway_host: Annotated[str, _says("address the gateway binds")] = "127.0.0.1"
    gateway_port: Annotated[int, _says("port of the gateway")] = 8700
    gateway_origins: Annotated[
        tuple[str, ...], _says("further origins whose pages may connect")
    ] = ()
    gateway_hosts: Annotated[
        tuple[str, ...], _says("further host names under which the gateway is reached")
    ] = ()
    gateway_rate: Annotated[
        float, _says("units a second that the tokens of one subject may use; 0: no limit")
    ] = 500.0
    gateway_burst: Annotated[int, _says("units that they may use at once")] = 2_000
    gateway_address_rate: Annotated[
        float, _says("units a second that one address may use, an IPv6 /64; 0: no limit")
    ] = 1_000.0
    gateway_address_burst: Annotated[int, _says("units that it may use at once")] = 4_000
    gateway_sessions: Annotated[
        int, _says("socket sessions that one subject may have open; 0: no limit")
    ] = 1_000
    gateway_proxies: Annotated[
        tuple[str, ...],
        _says("addresses or networks of proxies whose X-Forwarded-For is believed"),
    ] = ()
    jwt_secret: Annotated[str, _says("HS256 key of the tokens, 32 bytes or more")] = ""
    jwt_secrets: Annotated[
        tuple[str, ...],
        _says("several such keys, before that one: the first signs, all verify; for rotation"),
    ] = ()
    jwt_jwks: Annotated[
        str, _says("file or https address of another issuer's public keys (JWKS); empty: none")
    ] = ""
    jwt_issuer: Annotated[str, _says("`iss` of the tokens that those keys sign")] = ""
    jwt_audience: Annotated[str, _says("`aud` of every token")] = "stockify"
    revocation_grace_s: Annotated[
        float,
        _says("seconds for which known revocations do while Redis is away; then nobody gets in"),
    ] = 300.0
    simulator_host: Annotated[str, _says("address the simulator binds")] = "127.0.0.1"
    simulator_port: Annotated[int, _says("port of the simulator")] = 8701
    simulator_seed: Annotated[int, _says("seed of the simulated market")] = 1
    simulator_chain_limit: Annotated[str, _says("chain: limit each chain; account: all")] = "chain"
    metrics_host: Annotated[str, _says("address of the metrics endpoints")] = "127.0.0.1"
    metrics_port: Annotated[int, _says("metrics port of this process; 0: a free one")] = 0
    trace_ratio: Annotated[float, _says("share of batches whose spans are recorded")] = 0.01
    otlp_endpoint: Annotated[str, _says("OTLP/HTTP endpoint for spans; empty: none sent")] = ""

    def redacted(self) -> dict[str, Any]:
        """The settings as a dict in which no password or token can be read."""
        return {name: _redact(name, getattr(self, name)) for name in self.__struct_fields__}

    def redis_urls(self) -> tuple[str, ...]:
        """Each URL of `redis_url`; none where it is empty."""
        return _several(self.redis_url)

    def state_path(self) -> Path:
        """The state directory, absolute."""
        if self.state_dir:
            return Path(self.state_dir).expanduser().absolute()
        base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(base).expanduser().absolute() / "stockify"


def cache_path() -> Path:
    """Where compiled kernels are kept, absolute; instances share it."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "stockify"


def load(instance: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process. Raises ConfigError naming what is wrong.

    `instance` is the environment of a running instance: it stands above the file and below this
    process's own.
    """
    values: dict[str, Any] = {}
    path = os.environ.get(f"{PREFIX}CONFIG")
    if path:
        values.update(_read_file(Path(path)))
    given = {**(instance or {}), **os.environ}
    for name in Settings.__struct_fields__:
        text = given.get(PREFIX + name.upper())
        if text is not None:
            values[name] = _parse(name, text)
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"settings: {error}") from error
    _check(settings)
    return settings


def is_given(name: str) -> bool:
    """Whether this process's environment says anything of a setting."""
    return PREFIX + name.upper() in os.environ


def environment(settings: Settings) -> dict[str, str]:
    """The environment that gives another process these settings."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}
    for name in Settings.__struct_fields__:
        value = getattr(settings, name)
        kept[PREFIX + name.upper()] = ",".join(value) if isinstance(value, tuple) else str(value)
    return kept


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{PREFIX}CONFIG {path}: {error}") from error


def _parse(name: str, text: str) -> Any:
    if isinstance(_defaults()[name], tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text.strip()


def _defaults() -> dict[str, Any]:
    return {field.encode_name: field.default for field in msgspec.structs.fields(Settings)}


LEAST_RETENTION_DAYS = 5
FASTEST_RATE = 1_000_000  # a unit a µs: instants are kept in whole µs
LEAST_SECRET_BYTES = 32  # what RFC 7518 asks of HS256
_CHOICES = {
    "chain_budget": ("account", "chain"),
    "greeks": ("all", "missing"),
    "simulator_chain_limit": ("account", "chain"),
    "log_level": ("debug", "info", "warning", "error"),
}
_POSITIVE = (
    *("shards", "chain_spacing_s", "expiries_per_underlying"),
    *("storage_batch_rows", "storage_max_bytes"),
)


def _check(settings: Settings) -> None:
    for name, choices in _CHOICES.items():
        if getattr(settings, name) not in choices:
            raise ConfigError(f"{PREFIX}{name.upper()}: want one of {', '.join(choices)}")
    for name in _POSITIVE:
        if getattr(settings, name) <= 0:
            raise ConfigError(f"{PREFIX}{name.upper()}: must be above zero")
    if settings.retention_days and settings.retention_days < LEAST_RETENTION_DAYS:
        raise ConfigError(
            f"{PREFIX}RETENTION_DAYS: must be 0, or {LEAST_RETENTION_DAYS} and more: candles of"
            " the last days are still made from rows"
        )
    if len(settings.redis_urls()) > 1 and not settings.redis_cluster:
        raise ConfigError(f"{PREFIX}REDIS_URL: several nodes need {PREFIX}REDIS_CLUSTER=true")
    if settings.redis_cluster and not settings.redis_url:
        raise ConfigError(f"{PREFIX}REDIS_CLUSTER: needs {PREFIX}REDIS_URL, a node of the cluster")
    _check_tokens(settings)
    _check_gateway(settings)


def _check_tokens(settings: Settings) -> None:
    for name in ("jwt_secret", "jwt_secrets"):
        value = getattr(settings, name)
        for secret in filter(None, (value,) if isinstance(value, str) else value):
            if len(secret.encode()) < LEAST_SECRET_BYTES:
                raise ConfigError(
                    f"{PREFIX}{name.upper()}: a secret is shorter than {LEAST_SECRET_BYTES} bytes"
                )
            if secret.startswith(("-----BEGIN", "ssh-", "ecdsa-", "{")):
                raise ConfigError(f"{PREFIX}{name.upper()}: that is a key in a file's form")
    if settings.jwt_jwks and not settings.jwt_issuer:
        raise ConfigError(f"{PREFIX}JWT_JWKS: needs {PREFIX}JWT_ISSUER, whose keys those are")
    if "://" in settings.jwt_jwks and not settings.jwt_jwks.startswith("https://"):
        raise ConfigError(f"{PREFIX}JWT_JWKS: want a file or an https address")
    if not settings.jwt_audience:
        raise ConfigError(f"{PREFIX}JWT_AUDIENCE: must not be empty")
    if not 0 <= settings.revocation_grace_s < float("inf"):
        raise ConfigError(f"{PREFIX}REVOCATION_GRACE_S: must be zero or above")


def _check_gateway(settings: Settings) -> None:
    for name in ("gateway_rate", "gateway_address_rate"):
        if not 0 <= getattr(settings, name) <= FASTEST_RATE:
            raise ConfigError(f"{PREFIX}{name.upper()}: want 0 to {FASTEST_RATE:,} units a second")
    for name in ("gateway_burst", "gateway_address_burst"):
        if getattr(settings, name) < 1:
            raise ConfigError(f"{PREFIX}{name.upper()}: must be above zero")
    if settings.gateway_sessions < 0:
        raise ConfigError(f"{PREFIX}GATEWAY_SESSIONS: must be zero or above")
    for proxy in settings.gateway_proxies:
        try:
            ipaddress.ip_network(proxy)
        except ValueError:
            raise ConfigError(
                f"{PREFIX}GATEWAY_PROXIES: {proxy!r} is no address or network"
            ) from None


def _redact(name: str, value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_redact(name, part) for part in value)
    if not isinstance(value, str) or not value:
        return value
    if any(word in name for word in _SECRET_WORDS) and not name.endswith("_file"):
        return "***"
    return redact_url(value) if name.endswith(("_url", "_jwks")) else value


def _several(urls: str) -> tuple[str, ...]:
    """URLs with commas between; a comma within a password stays."""
    parts = re.split(r",(?=\s*\w+://)", urls)
    return tuple(part.strip() for part in parts if part.strip())


def redact_url(url: str) -> str:
    """A URL, or several with commas between, without their passwords."""
    several = _several(url)
    if len(several) > 1:
        return ",".join(map(redact_url, several))
    scheme, separator, rest = url.partition("://")
    user_info, at, host = rest.rpartition("@")
    if not at or ":" not in user_info:
        return url
    return f"{scheme}{separator}{user_info.split(':', 1)[0]}:***@{host}"
