"""The one error tree. Every error says whether the same call is worth repeating.

StockifyError
├── ConfigError                 a setting is missing or malformed
├── ProviderError               the provider did not give what was asked
│   ├── ProviderUnavailable     network, 5xx, HTML from a proxy          retry
│   ├── RateLimited             805, DH-904, 429                          retry, slower
│   ├── AuthenticationFailed    807-810, DH-901, DH-906 "Invalid Token"   after a new token
│   ├── AccessDenied            806, DH-902: no data plan                 never
│   └── RequestRejected         811-814, DH-905: the request is wrong     never
├── DecodeError                 bytes that do not say what they claim     never
├── BusError                    Redis did not do what was asked
│   ├── BusUnavailable          no connection, loading, out of memory     retry
│   ├── OutcomeUnknown          sent, no answer: it may have happened     settle first
│   ├── EpochChanged            the stream was lost; nothing was written  settle first
│   ├── StreamRetired           another one stands in its place           never
│   └── SchemaConflict          an incompatible schema was refused        never
├── ColdStoreError              files of a closed day are damaged or foreign  never
└── StoreError                  Postgres did not do what was asked
    ├── StoreUnavailable        no connection, read-only, shutting down   retry
    ├── RowsRejected            a value out of range, a key that exists   never
    └── MigrationError          checksum changed, order broken            never
"""


class StockifyError(Exception):
    """Root of the tree; `retryable` says whether the same call may succeed later."""

    retryable = False


class ConfigError(StockifyError):
    """A setting is missing or malformed; the message names it."""


class ProviderError(StockifyError):
    """The provider answered something other than data; `code` is its own, where it gave one."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class ProviderUnavailable(ProviderError):
    """Network trouble, a 5xx, or a body that is no JSON."""

    retryable = True


class ProviderUnreachable(ProviderUnavailable):
    """No connection came about, so the provider was asked nothing and no budget was used."""


class RateLimited(ProviderError):
    """Too many requests; wait longer before the next."""

    retryable = True


class AuthenticationFailed(ProviderError):
    """The token is expired, replaced or wrong."""


class AccessDenied(ProviderError):
    """The account has no data plan."""


class RequestRejected(ProviderError):
    """The request itself is wrong; repeating it changes nothing."""


class DecodeError(StockifyError):
    """Bytes that do not have the shape they claim; the entry belongs among the dead letters."""


class BusError(StockifyError):
    """Redis refused or failed."""


class BusUnavailable(BusError):
    """Redis cannot take the call now: away, loading or out of memory."""

    retryable = True


class OutcomeUnknown(BusError):
    """The call was sent and no answer came: it may have been carried out."""


class EpochChanged(BusError):
    """The stream was lost and a new epoch began; the call wrote nothing."""


class StreamRetired(BusError):
    """The stream was worked off and takes nothing more; the call wrote nothing."""


class SchemaConflict(BusError):
    """A producer's schema is incompatible with the one registered."""


class ColdStoreError(StockifyError):
    """Files of the cold store are damaged, foreign or not what the database has; none was used."""


class StoreError(StockifyError):
    """Postgres refused or failed."""


class StoreUnavailable(StoreError):
    """Postgres cannot take the call now: away, read-only, full or shutting down."""

    retryable = True


class RowsRejected(StoreError):
    """The rows themselves break a range, a key or a check; other rows may pass."""


class MigrationError(StoreError):
    """The migrations on disk and those applied do not agree."""
