//! <https://docs.discord.com/developers/resources/webhook#execute-webhook>

use serde_json::json;

use super::{Message, Sent, plain};
use crate::printable::cut;

/// The longest description of an embed, in characters, with room for what is escaped.
const LONGEST: usize = 2000;
const SPECIAL: &str = "\\*_~`|>#[]()<-:";

pub fn request(message: &Message, url: &str) -> Sent {
    let color = if message.is_bad {
        0x00c4_314b
    } else {
        0x002e_7d32
    };
    let mut embed = json!({
        "title": cut(&plain(&message.title, SPECIAL), 256),
        "description": plain(&cut(&message.text, LONGEST), SPECIAL),
        "color": color,
    });
    if let Some(link) = &message.link {
        embed["url"] = json!(link);
    }
    let nobody = json!({ "parse": [] });
    Sent::json(
        url,
        &json!({ "embeds": [embed], "allowed_mentions": nobody }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_write_formats_nothing() {
        let body: serde_json::Value =
            serde_json::from_str(&request(&super::super::example(), "u").body).unwrap();
        assert_eq!(body["allowed_mentions"]["parse"], json!([]));
        let text = body["embeds"][0]["description"].as_str().unwrap();
        assert!(text.contains("\\*x\\* \\(a\\_b\\)"), "{text}");
        assert_eq!(
            body["embeds"][0]["url"],
            "https://deploy.example/deployments/d1"
        );
    }
}
