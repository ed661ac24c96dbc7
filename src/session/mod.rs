//! A session: one subscriber from accept to close. What its endpoint promises, what it asked for, what it may say.

pub mod endpoint;
