//! Alertmanager's webhook, version 4: one notification, one event per alert.
