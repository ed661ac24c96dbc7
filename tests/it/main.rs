//! Everything that is tested from outside: one binary, the real relay, real sockets.

#![forbid(unsafe_code)]
// Tests are for those who read them; what they call is named so that it needs no page of its own.
#![allow(missing_docs)]
// All of this is test code, also what stands outside of a `#[test]`.
#![allow(clippy::unwrap_used)]

mod admin;
mod alertmanager;
mod bad_input;
mod checker;
mod cli;
mod client;
mod commands;
mod config;
mod drain;
mod endpoints;
mod engine;
mod feeds;
mod harness;
mod life;
mod limits;
mod live;
mod model;
mod outage;
mod pages;
mod proxies;
mod readme;
mod redis;
mod reload;
mod resume;
mod seam;
mod shares;
mod slow;
mod storm;
mod systemd;
mod tidy;
mod torture;
mod webhooks;
mod websocket_cases;
