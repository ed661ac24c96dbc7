//! Everything that is tested from outside.

#![forbid(unsafe_code)]
// Tests are for those who read them; what they call is named so that it needs no page of its own.
#![allow(missing_docs)]

mod engine;
