//! Conditions on a payload: `clear`, `when` and `where`. Pure.

use serde_json::Value;

/// A place within a JSON value: `.labels.severity`, `.items.0.id`; `.` is the whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Field(Vec<String>);

/// Fields that must all have these values: `clear = { ".status" = "resolved" }`, `when = { type = "ping" }`. In `when`
/// the leading dot may be left out. An array as the wanted value means "one of these".
#[derive(Debug, Clone, PartialEq)]
pub struct Fields(Vec<(Field, Value)>);

/// `where = { any = [".severity"], in = ["high"], absent = "drop" }`: passes an event if one of `any` has one of `in`.
#[derive(Debug, Clone, PartialEq)]
pub struct Where {
    /// The fields looked at.
    pub any: Vec<Field>,
    /// The values wanted.
    pub values: Vec<Value>,
    /// Whether an event passes that has none of the fields (also one that is no JSON).
    pub absent_passes: bool,
}

impl Field {
    /// Reads `.a.b`; with `dotless`, also `a.b`.
    pub fn parse(text: &str, dotless: bool) -> Result<Field, String> {
        let _ = (text, dotless);
        todo!()
    }
    /// The value there. A number segment indexes an array.
    pub fn get<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        let _ = value;
        todo!()
    }
}
impl Fields {
    /// Of pairs.
    pub fn new(pairs: Vec<(Field, Value)>) -> Fields {
        Fields(pairs)
    }
    /// Whether all hold.
    pub fn hold(&self, value: &Value) -> bool {
        let _ = value;
        todo!()
    }
}
impl Where {
    /// Whether an event with this payload (None: not JSON) passes.
    pub fn passes(&self, value: Option<&Value>) -> bool {
        let _ = value;
        todo!()
    }
}
