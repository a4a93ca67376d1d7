"""A bucket, seen from the server's side."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from obstore.store import S3Store

SECRET = "s3cr3t-access-key"
KEY_ID = "AKIATHEKEY"
REGION = "us-east-1"


class Bucket:
    """A bucket of its own.

    Args:
        url: Where S3 is asked.

    Attributes:
        name: Its name.
    """

    def __init__(self, url: str) -> None:
        self.name = f"images-{secrets.token_hex(8)}"
        self._url = url
        self._backend: Any = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        self._backend.create_bucket(self.name, REGION)

    def store(self, *, prefix: str | None = None, **changes: Any) -> S3Store:
        """Give a store of obstore that gives up soon."""
        options: dict[str, Any] = {
            "endpoint": self._url,
            "access_key_id": KEY_ID,
            "secret_access_key": SECRET,
            "region": REGION,
            "client_options": {"allow_http": True},
            "retry_config": {
                "max_retries": 1,
                "retry_timeout": timedelta(seconds=2),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=1),
                    "max_backoff": timedelta(milliseconds=2),
                    "base": 2,
                },
            },
        }
        return S3Store(self.name, prefix=prefix, **(options | changes))

    @property
    def environment(self) -> dict[str, str]:
        """What the environment tells of it."""
        return {
            "AWS_ENDPOINT_URL": self._url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
        }

    @property
    def keys(self) -> set[str]:
        """The keys of all objects."""
        return set(self._backend.get_bucket(self.name).keys)

    @property
    def pending(self) -> list[str]:
        """The keys of uploads that were begun and neither completed nor aborted."""
        uploads = self._backend.get_bucket(self.name).multiparts.values()
        return [upload.key_name for upload in uploads]

    def read(self, key: str) -> tuple[bytes, str, str]:
        """Give the bytes, the type and the digest that are stored under a key."""
        found = self._backend.get_object(self.name, key)
        told = {name.lower(): text for name, text in found.metadata.items()}
        digest = next(text for name, text in told.items() if name.endswith("sha256"))
        return found.value, told["content-type"], digest
