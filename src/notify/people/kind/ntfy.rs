//! <https://docs.ntfy.sh/publish/>

use super::{Message, Sent};
use crate::printable::cut;

/// Longer messages become attachments; in characters of up to four bytes.
const LONGEST: usize = 1000;

pub fn request(message: &Message, url: &str, token: Option<&str>) -> Sent {
    let priority = match (message.is_urgent, message.is_bad) {
        (true, _) => "urgent",
        (_, true) => "high",
        _ => "default",
    };
    let tags = if message.is_bad {
        "warning"
    } else {
        "white_check_mark"
    };
    let mut headers = vec![
        ("title", message.title.clone()),
        ("priority", priority.into()),
        ("tags", tags.into()),
    ];
    headers.extend(message.link.clone().map(|link| ("click", link)));
    headers.extend(token.map(|token| ("authorization", format!("Bearer {token}"))));
    Sent {
        url: url.to_owned(),
        headers,
        body: cut(&message.text, LONGEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_the_body() {
        let sent = request(&super::super::example(), "u", Some("tk_1"));
        assert_eq!(sent.body, super::super::example().text);
        let authorized = ("authorization", "Bearer tk_1".into());
        assert!(sent.headers.contains(&authorized));
        assert!(sent.headers.contains(&("priority", "high".into())));
    }
}
