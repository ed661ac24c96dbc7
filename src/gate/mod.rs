//! The gate: who may come in.

mod buckets;
mod held;
pub mod limits;
pub mod origin;
pub mod peer;
pub mod shares;
