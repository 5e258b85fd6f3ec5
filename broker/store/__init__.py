"""What the broker remembers in SQL: its plugins and the audit log (PLG-4, SEC-5, OPS-3).

Importing this package is cheap; SQLAlchemy is imported by the writer thread, Alembic by a child process only.
"""

from broker.store.audit import AuditRepository
from broker.store.errors import Rejected, StoreDown, StoreError, Unusable
from broker.store.plugins import PluginRepository
from broker.store.records import AuditRecord, Loss, PluginRecord, RegisterStatus, StoreState
from broker.store.store import Store
from broker.store.url import masked

__all__ = [
    "AuditRecord",
    "AuditRepository",
    "Loss",
    "PluginRecord",
    "PluginRepository",
    "RegisterStatus",
    "Rejected",
    "Store",
    "StoreDown",
    "StoreError",
    "StoreState",
    "Unusable",
    "masked",
]
