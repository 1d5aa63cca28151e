//! Wrong input in every place: each value in each forge's good body is replaced with each kind of
//! wrong value, and each key is repeated. The delivery is refused or read, but never as a push that
//! nobody made.

use serde_json::{Value, json};

use crate::webhook::forge::tests::{SECRET, body, push_event, sent};
use crate::webhook::{Content, Forge, Push, Refusal, receive};

const OLD: &str = "1111111111111111111111111111111111111111";
const NEW: &str = "2222222222222222222222222222222222222222";

fn good(forge: Forge) -> Value {
    body(forge, "refs/heads/main", Some(OLD), Some(NEW))
}

/// The pushes in a signed body; an error is why it is malformed.
fn read(forge: Forge, body: &[u8]) -> Result<Vec<Push>, String> {
    let headers = sent(forge, push_event(forge), body);
    match receive(Some(forge), &[SECRET.as_bytes().to_vec()], &headers, body) {
        Ok(received) => match received.content {
            Content::Pushes(pushes) => Ok(pushes),
            _ => Ok(vec![]),
        },
        Err(Refusal::Malformed(why)) => Err(why),
        Err(Refusal::Unauthenticated) => panic!("{forge}: it was signed"),
    }
}

/// Asserts that every push is the one that was made, except for what was removed from it.
#[track_caller]
fn is_good(forge: Forge, case: &str, pushes: &[Push]) {
    for push in pushes {
        assert_eq!(push.git_ref.full(), "refs/heads/main", "{forge} {case}");
        let new = push.new.as_ref().map(|new| new.as_str());
        assert!(new.is_none_or(|new| new == NEW), "{forge} {case}: {new:?}");
    }
}

/// JSON pointers to every value in `value`.
fn places(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                places(value, format!("{at}/{key}"), all);
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                places(value, format!("{at}/{index}"), all);
            }
        }
        _ => {}
    }
    all.push(at);
}

#[test]
fn each_value_in_each_wrong_shape() {
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let wrong = [
        json!(null),
        json!(true),
        json!(7),
        json!(-1.5e300),
        json!(""),
        json!("\u{0}"),
        json!("a\u{0}b\u{1b}[2J"),
        json!("x".repeat(1 << 14)),
        json!([]),
        json!([1, "a", null]),
        json!({}),
        json!({ "ref": "refs/heads/main", "id": 7 }),
        deep,
    ];
    for forge in Forge::ALL {
        let good = good(forge);
        is_good(
            forge,
            "good",
            &read(forge, good.to_string().as_bytes()).unwrap(),
        );
        let mut all = Vec::new();
        places(&good, String::new(), &mut all);
        let (mut refused, mut taken) = (0, 0);
        for place in &all {
            for wrong in &wrong {
                let mut body = good.clone();
                *body.pointer_mut(place).unwrap() = wrong.clone();
                let body = body.to_string();
                match read(forge, body.as_bytes()) {
                    Ok(pushes) => {
                        taken += 1;
                        is_good(forge, place, &pushes);
                    }
                    Err(why) => {
                        refused += 1;
                        assert!(why.len() <= 800 && !why.contains('\n'), "{why}");
                    }
                }
            }
        }
        assert!(refused > 20 && taken > 5, "{forge}: {refused} {taken}");
    }
}

#[test]
fn what_is_no_object_is_said_to_be_none() {
    let fields = json!(["refs/heads/main", null, NEW, null, null, null]).to_string();
    for forge in Forge::ALL {
        for body in ["[]", " [1]", "7", "null", "\"x\"", &fields] {
            let why = read(forge, body.as_bytes()).unwrap_err();
            assert_eq!(why, "the payload is not a JSON object", "{forge} {body}");
        }
    }
}

#[test]
fn each_text_with_a_lone_surrogate_and_each_key_twice() {
    for forge in Forge::ALL {
        let good = good(forge);
        let mut all = Vec::new();
        places(&good, String::new(), &mut all);
        for place in all {
            let mut body = good.clone();
            let value = body.pointer_mut(&place).unwrap();
            if value.is_string() {
                *value = json!("SURROGATE");
                let body = body.to_string().replace("SURROGATE", "\\ud800");
                // Where the text is used it is refused; elsewhere it is not examined.
                if let Ok(pushes) = read(forge, body.as_bytes()) {
                    is_good(forge, &place, &pushes);
                }
            }
            let Some((_, key)) = place.rsplit_once('/') else {
                continue;
            };
            let named = format!("\"{key}\":");
            let doubled = good
                .to_string()
                .replacen(&named, &format!("{named}null,{named}"), 1);
            if let Ok(pushes) = read(forge, doubled.as_bytes()) {
                is_good(forge, &place, &pushes);
            }
        }
    }
}

#[test]
fn two_thousand_commits_are_read() {
    let commit = |number: usize| {
        let id = format!("{number:040x}");
        let text = "x".repeat(500);
        json!({
            "id": id, "commitId": id, "message": text, "comment": text,
            "author": { "name": "Ada" }, "added": [text], "modified": [], "removed": [],
        })
    };
    let mut commits: Vec<Value> = (0..2048).map(commit).collect();
    commits[2047]["id"] = json!(NEW);
    commits[2047]["commitId"] = json!(NEW);
    for forge in Forge::ALL {
        let mut body = good(forge);
        let list = match forge {
            Forge::Azure => body.pointer_mut("/resource/commits"),
            Forge::Bitbucket => body.pointer_mut("/push/changes/0"),
            _ => Some(&mut body),
        };
        match list.expect("it is there") {
            list @ Value::Array(_) => *list = json!(commits),
            object => object["commits"] = json!(commits),
        }
        let pushes = read(forge, body.to_string().as_bytes());
        let pushes = pushes.unwrap_or_else(|why| panic!("{forge}: {why}"));
        assert_eq!(pushes.len(), 1, "{forge}");
        is_good(forge, "2,048 commits", &pushes);
        assert_eq!(pushes[0].new.as_ref().map(|new| new.as_str()), Some(NEW));
    }
}
