//! HTTP: listeners, routes, and the hand-over of a socket to the hub.

pub mod path;
