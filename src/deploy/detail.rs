//! What an action in the audit log concerned, for people.

use serde_json::{Value, json};

/// Names with their values, such as `replicas` and `1 → 2`.
pub fn pairs(detail: &Value) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    match (detail.get("before"), detail.get("after")) {
        // Of what is on or off, and with which text.
        (Some(Value::Object(before)), Some(Value::Object(after))) => {
            for (name, after) in after {
                let before = before.get(name).unwrap_or(&Value::Null);
                add(
                    &mut pairs,
                    name.clone(),
                    &json!({ "before": before, "after": after }),
                );
            }
        }
        _ => {
            for (name, value) in detail.as_object().into_iter().flatten() {
                add(&mut pairs, name.clone(), value);
            }
        }
    }
    pairs
}

fn add(pairs: &mut Vec<(String, String)>, name: String, value: &Value) {
    match value {
        Value::Object(all) => match (all.get("before"), all.get("after")) {
            (Some(before), Some(after)) if all.len() == 2 => {
                let change = match (before, after) {
                    (Value::Null, Value::Null) => return,
                    (before, after) if before == after || before.is_null() => shown(after),
                    (before, Value::Null) => format!("{} → none", shown(before)),
                    (before, after) => format!("{} → {}", shown(before), shown(after)),
                };
                pairs.push((name, change));
            }
            _ => {
                for (inner, value) in all {
                    add(pairs, format!("{name}.{inner}"), value);
                }
            }
        },
        Value::Null => {}
        Value::Array(all) if all.is_empty() => {}
        other => pairs.push((name, shown(other))),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Object(all) => {
            let all = all.values().filter(|value| !value.is_null());
            all.map(shown).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_names_and_values() {
        let of = |detail: Value| {
            let pairs = pairs(&detail).into_iter();
            let pairs = pairs.map(|(name, value)| format!("{name}={value}"));
            pairs.collect::<Vec<_>>().join("; ")
        };
        for (detail, said) in [
            (json!({}), ""),
            (
                json!({ "deployment": "d1", "live": null, "trigger": "cli", "volumes": false }),
                "deployment=d1; trigger=cli; volumes=false",
            ),
            (
                json!({ "before": { "on": false }, "after": { "on": true, "text": "the fair" } }),
                "on=false → true; text=the fair",
            ),
            (
                json!({ "before": 1, "replicas": 2, "service": "web" }),
                "before=1; replicas=2; service=web",
            ),
            (
                json!({ "set": ["A", "B"], "unset": [],
                        "values": { "A": { "before": null, "after": "1" },
                                    "B": { "before": "1", "after": "2" },
                                    "C": { "before": "3", "after": null } } }),
                "set=A, B; values.A=1; values.B=1 → 2; values.C=3 → none",
            ),
            (
                json!({ "items": [{ "kind": "image", "name": "x" }, { "kind": "volume", "name": "y" }] }),
                "items=image x, volume y",
            ),
        ] {
            assert_eq!(of(detail.clone()), said, "{detail}");
        }
    }
}
