//! Which node of a Cluster owns which slot, as the nodes themselves say it.

use std::collections::BTreeMap;

use redis::{FromRedisValue, Value};
use tokio::time::Instant;

use super::connect::{connect_to_any, down};
use super::server::{Address, Server};
use super::{Down, PAUSE, Wire};

/// As many as there are.
const SLOTS: u16 = 16_384;

/// A map of the Cluster.
pub(super) struct Slots {
    /// By the first slot of a range: the last one, and who owns it.
    ranges: BTreeMap<u16, (u16, Address)>,
    /// Whom to ask, first of all who answered last: the owners, and those of the URL.
    known: Vec<Address>,
    doubted: bool,
    /// When they were asked last.
    asked: Option<Instant>,
}

impl Slots {
    pub fn new(server: &Server) -> Slots {
        Slots { ranges: BTreeMap::new(), known: server.addresses.clone(), doubted: true, asked: None }
    }

    /// Something moved or is gone: the nodes are asked again.
    pub fn doubt(&mut self) {
        self.doubted = true;
    }

    /// A node said where a slot went: it knows best.
    pub fn moved(&mut self, to: Option<Address>) {
        if let Some(address) = to {
            self.known.retain(|known| *known != address);
            self.known.insert(0, address);
        }
        (self.doubted, self.asked) = (true, None);
    }

    /// Who owns the slot of a key.
    pub async fn owner(&mut self, server: &Server, key: &[u8]) -> Result<Address, Down> {
        // While a node is gone every command for it raises doubts; those for the others must not wait for each of them.
        if self.doubted && self.asked.is_none_or(|asked| asked.elapsed() > PAUSE.0) {
            let asked = self.ask(server).await;
            self.asked = Some(Instant::now());
            asked?;
        }
        let slot = slot(key);
        let range = self.ranges.range(..=slot).next_back();
        let owner = range.filter(|(_, (last, _))| slot <= *last).map(|(_, (_, owner))| owner.clone());
        owner.ok_or_else(|| {
            self.doubted = true;
            Down(format!("{server}: no node of the Cluster owns slot {slot}"))
        })
    }

    /// Asks one after the other until one knows.
    async fn ask(&mut self, server: &Server) -> Result<(), Down> {
        let mut last = Down(format!("{server}: no node of the Cluster answers"));
        for address in self.known.clone() {
            // A replica knows the map as well as a master.
            let answer = match connect_to_any(server, &address, server.timeout / 2).await {
                Ok(wire) => ranges(server, wire, &address).await,
                Err(down) => Err(down),
            };
            match answer {
                Ok(ranges) => {
                    self.known = vec![address];
                    for other in ranges.values().map(|(_, owner)| owner).chain(&server.addresses) {
                        if !self.known.contains(other) {
                            self.known.push(other.clone());
                        }
                    }
                    self.ranges = ranges;
                    self.doubted = false;
                    return Ok(());
                }
                Err(down) => last = down,
            }
        }
        Err(last)
    }
}

async fn ranges(server: &Server, mut wire: Wire, asked: &Address) -> Result<BTreeMap<u16, (u16, Address)>, Down> {
    let answer: Result<Value, _> = redis::cmd("CLUSTER").arg("SLOTS").query_async(&mut wire.connection).await;
    let rows = answer.and_then(|value| Ok(Vec::<Vec<Value>>::from_redis_value(value)?));
    let rows = rows.map_err(|error| down(server, &error))?;
    Ok(rows.into_iter().filter_map(|row| range(row, asked)).collect())
}

/// One row: first slot, last slot, the owner (host, port, …), its replicas.
fn range(row: Vec<Value>, asked: &Address) -> Option<(u16, (u16, Address))> {
    let mut row = row.into_iter();
    let first = u16::from_redis_value(row.next()?).ok()?;
    let last = u16::from_redis_value(row.next()?).ok()?;
    let mut owner = Vec::<Value>::from_redis_value(row.next()?).ok()?.into_iter();
    let host = Option::<String>::from_redis_value(owner.next()?).ok()?.filter(|host| !host.is_empty() && host != "?");
    let port = u16::from_redis_value(owner.next()?).ok()?;
    let own = || match asked {
        Address::Tcp { host, .. } => Some(host.clone()),
        Address::Unix(_) => None,
    };
    // A node that does not know its own name is where it was asked.
    Some((first, (last, Address::Tcp { host: host.or_else(own)?, port })))
}

/// The slot of a key, or of what stands between its first braces.
pub(super) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let length = key[open + 1..].iter().position(|byte| *byte == b'}').filter(|length| *length > 0)?;
        Some(&key[open + 1..open + 1 + length])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM, as a Cluster hashes.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hash_as_the_specification_says() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, same) in [
            ("{user1000}.following", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
        ] {
            assert_eq!(slot(key.as_bytes()), crc16(same.as_bytes()) % SLOTS, "{key}");
        }
    }
}
