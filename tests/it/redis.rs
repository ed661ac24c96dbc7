//! Real Redis for tests, each of its own: a single server, a Cluster, Sentinels; and what stands between it and the relay
//! and fails on demand.
//!
//! Everything ends when it is dropped. All methods take `&self`, so that one thread can torture what others use.

pub mod cluster;
pub mod ports;
pub mod proxy;
pub mod sentinel;
pub mod server;
pub mod talk;
pub mod tls;

mod tests;

pub use cluster::Cluster;
pub use proxy::{Balancer, Proxy};
pub use sentinel::Sentinel;
pub use server::{Redis, Setup};
pub use talk::{Reply, Talk};
