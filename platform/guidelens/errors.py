"""Every exception GuideLens raises on purpose.

A message says: subject, rule, value got, remedy. `CallerError` and its children mean that the caller can mend it (exit
code 2, HTTP 4xx); everything else is ours (exit code 1, HTTP 5xx).
"""


class GuideLensError(Exception):
    """Root of the tree; `except GuideLensError` catches whatever the platform raises knowingly."""


class CallerError(GuideLensError):
    """Something the caller gave is wrong; the message names the remedy."""


class ConfigError(CallerError):
    """A setting is unknown, out of range or contradicts another one."""


class InputError(CallerError):
    """A file, folder or URI that was named cannot be used as what it was named for."""


class ContractError(CallerError):
    """A record or frame does not follow its contract."""


class NotFoundError(CallerError):
    """A run, release, product or table that was asked for does not exist."""


class DivergedError(CallerError):
    """A model's losses are no numbers any more: nothing that training does from here on could mend it."""


class UnreadableImageError(ContractError):
    """Bytes that are no JPEG, PNG or WebP image within the limits.

    Attributes:
        code: the API's error code (`frame_unreadable`, `frame_too_large` or `frame_type`).
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ShapeError(GuideLensError):
    """Arrays handed to a function do not have the shapes its docstring states."""


class StorageError(GuideLensError):
    """A store did not do what was asked of it."""


class AlreadyExistsError(StorageError):
    """A conditional write found the key taken: another writer was first."""


class CommitConflictError(StorageError):
    """The lake moved on while a commit was prepared, more often than the commit may retry."""


class BundleError(GuideLensError):
    """A release's files are missing, altered, of the wrong schema or not finite."""


class GateError(GuideLensError):
    """A release failed a check of the promotion gate."""


class FeatureStoreError(GuideLensError):
    """The feature store could not answer, or answered with another schema than asked for."""
