//! The gate: who may come in.

mod buckets;
pub mod limits;
pub mod origin;
pub mod peer;
