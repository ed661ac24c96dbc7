//! Sources: where events enter. A source verifies, maps, finds the dedupe key; it never sees a session.

pub mod alertmanager;
pub mod command;
mod body;
pub mod verify;
pub mod webhook;
