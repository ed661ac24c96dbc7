//! A session: one subscriber from accept to close. What its endpoint promises, what it asked for, what it may say.

pub mod backlog;
pub mod command;
pub mod endpoint;
pub mod pace;
pub mod past;
mod search;
pub mod terms;
