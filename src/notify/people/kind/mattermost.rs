//! <https://developers.mattermost.com/integrate/webhooks/incoming/>

use serde_json::json;

use super::{Message, Sent, plain};
use crate::printable::cut;

/// The longest post, in characters, with room for what is escaped.
const LONGEST: usize = 6000;
const SPECIAL: &str = "\\*_~`|>#[]()<!:";

pub fn request(message: &Message, url: &str) -> Sent {
    let color = if message.is_bad { "#c4314b" } else { "#2e7d32" };
    let text = plain(&cut(&message.text, LONGEST), SPECIAL);
    let attachment = json!({
        "fallback": message.title, "color": color, "title": message.title,
        "title_link": message.link, "text": text,
    });
    Sent::json(url, &json!({ "attachments": [attachment] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_write_formats_nothing() {
        let body: serde_json::Value =
            serde_json::from_str(&request(&super::super::example(), "u").body).unwrap();
        let text = body["attachments"][0]["text"].as_str().unwrap();
        assert!(text.contains("@\u{200b}everyone \\*x\\*"), "{text}");
    }
}
