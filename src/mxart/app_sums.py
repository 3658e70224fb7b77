"""Our own checksum database: what one process makes ready for all workers."""

from __future__ import annotations

from contextlib import closing

from mxart.config import Config
from mxart.repos.own_keys import OwnKey, open_log
from mxart.store.paths import DataPaths


def prepare_sums(config: Config) -> OwnKey | None:
    """Its key, made at the first start, and a log that is the one that was signed; None where nobody has Go modules.

    Raises ConfigError.
    """
    if not any(item.format == "go" for item in config.repositories.values()):
        return None
    paths = DataPaths(config.data)
    key = OwnKey.open(paths.sumdb, config.go.sumdb_name)
    with closing(open_log(paths.sumdb_log)) as records:
        key.check(records)
    return key
