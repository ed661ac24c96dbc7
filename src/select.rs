//! Conditions on a payload: `clear`, `when` and `where`. Pure.

use std::fmt;
use std::hash::{Hash, Hasher};

use serde_json::{Number, Value};

/// A place within a JSON value: `.labels.severity`, `.items.0.id`; `.` is the whole.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Field(Vec<String>);

/// Fields that must all have these values: `clear = { ".status" = "resolved" }`, `when = { type = "ping" }`. In `when`
/// the leading dot may be left out. An array as the wanted value means "one of these".
#[derive(Debug, Clone, PartialEq)]
pub struct Fields(Vec<(Field, Value)>);

/// `where = { any = [".severity"], in = ["high"], absent = "drop" }`: passes an event if one of `any` has one of `in`.
/// A field that is a list has a value if one of its elements is it; one that is null counts as absent.
///
/// Two are equal when they say the same in any order: sessions with equal ones share an audience.
#[derive(Debug, Clone)]
pub struct Where {
    any: Vec<Field>,
    values: Vec<Value>,
    absent_passes: bool,
    /// All of the above as one text, so that comparing and hashing need not walk JSON.
    key: String,
}

impl Field {
    /// Reads `.a.b`; with `dotless`, also `a.b`.
    pub fn parse(text: &str, dotless: bool) -> Result<Field, String> {
        if text == "." {
            return Ok(Field(Vec::new()));
        }
        let path = match text.strip_prefix('.') {
            Some(path) => path,
            None if dotless => text,
            None => return Err(format!("a field begins with a dot: `.{text}`")),
        };
        if path.split('.').any(str::is_empty) {
            return Err(format!("`{text}` has an empty segment; a field is written like `.labels.severity`"));
        }
        Ok(Field(path.split('.').map(str::to_owned).collect()))
    }

    /// Whether it is `.`.
    pub fn is_whole(&self) -> bool {
        self.0.is_empty()
    }

    /// The value there. A number segment indexes an array.
    pub fn get<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(value, |value, segment| match value {
            Value::Object(object) => object.get(segment),
            Value::Array(array) => array.get(segment.parse::<usize>().ok()?),
            _ => None,
        })
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ".{}", self.0.join("."))
    }
}

impl Fields {
    /// Of pairs.
    pub fn new(pairs: Vec<(Field, Value)>) -> Fields {
        Fields(pairs)
    }

    /// Whether all hold.
    pub fn hold(&self, value: &Value) -> bool {
        self.0.iter().all(|(field, wanted)| field.get(value).is_some_and(|found| is_wanted(wanted, found)))
    }
}

impl Where {
    /// `absent_passes`: whether an event passes that has none of the fields (also one that is no JSON).
    pub fn new(mut any: Vec<Field>, values: Vec<Value>, absent_passes: bool) -> Where {
        any.sort_unstable();
        any.dedup();
        let mut keyed: Vec<(String, Value)> = values.into_iter().map(|value| (value.to_string(), value)).collect();
        keyed.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        keyed.dedup_by(|a, b| a.0 == b.0);
        let (texts, values): (Vec<String>, Vec<Value>) = keyed.into_iter().unzip();
        // As a JSON value of its own, no field or value can look like two.
        let fields: Vec<String> = any.iter().map(Field::to_string).collect();
        let key = serde_json::json!([fields, texts, absent_passes]).to_string();
        Where { any, values, absent_passes, key }
    }

    /// Whether an event with this payload (None: not JSON) passes.
    pub fn passes(&self, value: Option<&Value>) -> bool {
        let Some(value) = value else { return self.absent_passes };
        let mut absent = true;
        for found in self.any.iter().filter_map(|field| field.get(value)) {
            if self.has(found) {
                return true;
            }
            absent &= found.is_null();
        }
        absent && self.absent_passes
    }

    fn has(&self, found: &Value) -> bool {
        let elements = found.as_array().map_or(&[][..], Vec::as_slice);
        self.values.iter().any(|wanted| same(wanted, found) || elements.iter().any(|element| same(wanted, element)))
    }
}

impl PartialEq for Where {
    fn eq(&self, other: &Where) -> bool {
        self.key == other.key
    }
}

impl Eq for Where {}

impl Hash for Where {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

fn is_wanted(wanted: &Value, found: &Value) -> bool {
    match wanted {
        Value::Array(choices) => choices.iter().any(|choice| same(choice, found)),
        one => same(one, found),
    }
}

/// Equality of JSON values, numbers by value: their texts are kept as written, so `1.0` and `1` would differ otherwise.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// Integers are compared by their digits, of which there may be more than an `f64` holds.
fn same_number(a: &Number, b: &Number) -> bool {
    let [a_text, b_text] = [a, b].map(|number| if number.as_str() == "-0" { "0" } else { number.as_str() });
    let is_integer = |text: &str| text.bytes().all(|byte| byte == b'-' || byte.is_ascii_digit());
    if a_text == b_text || is_integer(a_text) && is_integer(b_text) {
        return a_text == b_text;
    }
    a.as_f64().is_some_and(|a| b.as_f64() == Some(a))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::HashSet;

    fn field(text: &str) -> Field {
        Field::parse(text, false).unwrap()
    }

    #[test]
    fn fields_lead_into_a_value() {
        let value = json!({"labels": {"severity": "high"}, "items": [{"id": 7}, [1]], "0": "zero", "n": null});
        for (text, expected) in [
            (".labels.severity", Some(json!("high"))),
            (".items.0.id", Some(json!(7))),
            (".items.1.0", Some(json!(1))),
            (".0", Some(json!("zero"))),
            (".n", Some(json!(null))),
            (".", Some(value.clone())),
            (".items.2", None),
            (".items.-1", None),
            (".items.x", None),
            (".labels.severity.deeper", None),
            (".missing", None),
        ] {
            assert_eq!(field(text).get(&value), expected.as_ref(), "{text}");
            assert_eq!(field(text).to_string(), text);
        }
    }

    #[test]
    fn fields_are_written_with_a_dot() {
        assert_eq!(Field::parse("a.b", true), Field::parse(".a.b", false));
        for (text, dotless, why) in [
            ("type", false, "`.type`"),
            ("", true, "empty segment"),
            ("..", false, "empty segment"),
            (".a.", false, "empty segment"),
            (".a..b", true, "empty segment"),
        ] {
            let error = Field::parse(text, dotless).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    fn check_hold(wanted: &Value, value: &Value, expected: bool) {
        let pairs = wanted.as_object().unwrap().iter();
        let fields = Fields::new(pairs.map(|(f, v)| (Field::parse(f, true).unwrap(), v.clone())).collect());
        assert_eq!(fields.hold(value), expected, "{wanted} in {value}");
    }

    #[test]
    fn all_fields_must_have_what_is_wanted() {
        check_hold(&json!({"type": "ping"}), &json!({"type": "ping", "more": 1}), true);
        check_hold(&json!({"type": "ping"}), &json!({"type": "pong"}), false);
        check_hold(&json!({"type": "ping"}), &json!("ping"), false);
        check_hold(&json!({"type": ["ping", "pong"]}), &json!({"type": "pong"}), true);
        check_hold(&json!({"type": ["ping", "pong"]}), &json!({"type": ["ping", "pong"]}), false);
        check_hold(&json!({".a.b": 1, ".c": true}), &json!({"a": {"b": 1}, "c": true}), true);
        check_hold(&json!({".a.b": 1, ".c": true}), &json!({"a": {"b": 1}, "c": false}), false);
        check_hold(&json!({".a": null}), &json!({"a": null}), true);
        check_hold(&json!({".a": null}), &json!({}), false);
        check_hold(&json!({".a": {"x": 1, "y": [2]}}), &json!({"a": {"y": [2.0], "x": 1.0}}), true);
        check_hold(&json!({".a": {"x": 1}}), &json!({"a": {"x": 1, "y": 2}}), false);
        check_hold(&json!({".a": {"x": [1]}}), &json!({"a": {"x": [1, 2]}}), false);
        check_hold(&json!({}), &json!(1), true);
    }

    #[test]
    fn numbers_are_compared_by_value() {
        for (a, b, expected) in [
            ("1", "1", true),
            ("1", "1.0", true),
            ("1e2", "100", true),
            ("0", "-0", true),
            ("0.1", "0.10", true),
            ("1", "2", false),
            ("1", "-1", false),
            ("9007199254740992", "9007199254740993", false),
            ("184467440737095516150", "184467440737095516151", false),
            ("1e999", "1e998", false),
            ("1e999", "1e999", true),
        ] {
            let number = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            assert_eq!(same(&number(a), &number(b)), expected, "{a} {b}");
        }
        assert!(!same(&json!(1), &json!("1")), "a text is no number");
    }

    fn wanting(any: &[&str], values: &[Value], absent_passes: bool) -> Where {
        Where::new(any.iter().map(|text| field(text)).collect(), values.to_vec(), absent_passes)
    }

    #[test]
    fn one_field_with_one_value_is_enough() {
        let high = [json!("high"), json!("critical"), json!(3)];
        for (payload, with_absent, without) in [
            (json!({"severity": "high"}), true, true),
            (json!({"severity": "low"}), false, false),
            (json!({"severity": "low", "level": 3.0}), true, true),
            (json!({"severity": "low", "level": null}), false, false),
            (json!({"severity": null}), true, false),
            (json!({"severity": ["low", "high"]}), true, true),
            (json!({"severity": ["low"]}), false, false),
            (json!({"other": "high"}), true, false),
            (json!("high"), true, false),
        ] {
            let fields = &[".severity", ".level"];
            assert_eq!(wanting(fields, &high, true).passes(Some(&payload)), with_absent, "{payload}");
            assert_eq!(wanting(fields, &high, false).passes(Some(&payload)), without, "{payload}");
        }
        assert!(wanting(&[".a"], &high, true).passes(None));
        assert!(!wanting(&[".a"], &high, false).passes(None));
    }

    #[test]
    fn equal_conditions_share_a_key_and_others_do_not() {
        let same_thing = [
            wanting(&[".a", ".b"], &[json!("x"), json!(1)], true),
            wanting(&[".b", ".a", ".b"], &[json!(1), json!("x"), json!(1)], true),
        ];
        let others = [
            wanting(&[".a", ".b"], &[json!("x"), json!(1)], false),
            wanting(&[".a", ".b"], &[json!("x"), json!("1")], true),
            wanting(&[".a"], &[json!("x"), json!(1)], true),
            wanting(&[".a.b"], &[json!("x"), json!(1)], true),
            wanting(&[".a\",\".b"], &[json!("x"), json!(1)], true),
        ];
        let kinds: HashSet<&Where> = same_thing.iter().chain(&others).collect();
        assert_eq!(kinds.len(), 1 + others.len());
    }
}
