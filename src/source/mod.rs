//! Sources: where events enter. A source verifies, maps, finds the dedupe key; it never sees a session.

pub mod alertmanager;
mod body;
pub mod command;
pub mod redis;
pub mod verify;
pub mod webhook;
