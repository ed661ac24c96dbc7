//! The gate: who may come in.

pub mod limits;
pub mod origin;
pub mod peer;
