//! Leases: who appends what a source says.

use std::time::Duration;

use redis::{Cmd, FromRedisValue};

use super::{FORMAT, Store};
use crate::link::{Down, Script, Wire};
use crate::stream::{Ask, Lease, Name, Refused};

static LEASE: Script = Script::new(include_str!("lease.lua"));

impl Store {
    /// Takes, keeps or gives back a source's lease, or only looks.
    pub async fn lease(&self, source: &str, ask: &Ask<'_>) -> Result<Lease, Refused> {
        let keys = [format!("{}:{FORMAT}:{{source:{source}}}", self.prefix).into_bytes()];
        let flag = |set: bool| if set { "1" } else { "0" };
        let says = ask.done.map(|(fence, name)| [fence, name.0, name.1].map(|number| number.to_string()));
        let fill = |_: &Wire, command: &mut Cmd| {
            command.arg(ask.me).arg(ask.ttl.as_millis() as u64).arg(flag(ask.may_take)).arg(flag(ask.resign));
            command.arg(says.as_ref().map_or(&[const { String::new() }; 3], |says| says));
        };
        let answer = self.link.run(&LEASE, &keys, &fill).await?;
        type Answer = (u8, u64, u64, String, String, i64, u8);
        let (mine, fence, before, marker, count, free, known) =
            Answer::from_redis_value(answer).map_err(|error| Down(error.to_string()))?;
        let done = marker.parse().ok().zip(count.parse().ok()).map(|(marker, count)| Name(marker, count));
        let free_for = u64::try_from(free).ok().map(Duration::from_millis);
        Ok(Lease { mine: mine == 1, fence, before, done, free_for, known: known == 1 })
    }
}
