//! Why a session ended: a closed list.

/// Every way a session can end. Each has a WebSocket code, a reason, a log level, a metric label and a retry rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Close {
    /// The subscriber asked, or went: 1000 / no code.
    Asked,
    Gone,
    /// 1001: the endpoint was removed; do not return.
    Removed,
    /// 1002, 1007, 1009.
    Protocol,
    BadText,
    TooBig,
    /// 1008.
    Policy,
    TooManyCommands,
    /// 1012: come back.
    Drain,
    Age,
    Reload,
    /// 1013: come back later.
    Slow,
    Overloaded,
    /// No pong, or a dead socket: 1001-less end.
    Silent,
    /// Our own fault: 1011.
    Fault,
}
