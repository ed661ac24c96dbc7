//! What goes over the line, as bytes: frames in, frames out. Pure; it knows no socket and no session.

pub mod form;
pub mod websocket;
