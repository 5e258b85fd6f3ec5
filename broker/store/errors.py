"""What the store raises."""


class StoreError(Exception):
    """Root of everything the store raises."""


class StoreDown(StoreError):
    """The database cannot be used now; the text says why and what to do, and trying again may help."""


class Unusable(StoreError):
    """The database URL itself is wrong, so no retry can help."""


class Rejected(StoreError):
    """The database works but refuses these values, and always will."""
