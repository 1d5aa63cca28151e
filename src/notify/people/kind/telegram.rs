//! <https://core.telegram.org/bots/api#sendmessage>

use serde_json::json;

use super::{Message, Sent};
use crate::printable::cut;

const SERVER: &str = "https://api.telegram.org";
/// The longest text that fits with its title and link, in characters of up to two UTF-16 units.
const LONGEST: usize = 1800;

/// `server` is another one than Telegram's own.
pub fn request(message: &Message, server: Option<&str>, token: &str, chat: &str) -> Sent {
    let mark = if message.is_bad { "⚠️ " } else { "✅ " };
    let mut text = format!("{mark}{}\n{}", message.title, cut(&message.text, LONGEST));
    if let Some(link) = &message.link {
        text += &format!("\n{link}");
    }
    let server = server.unwrap_or(SERVER).trim_end_matches('/');
    // Without `parse_mode` nothing in the text is markup.
    let body = json!({
        "chat_id": chat, "text": text, "link_preview_options": { "is_disabled": true },
    });
    Sent::json(&format!("{server}/bot{token}/sendMessage"), &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_part_of_the_address() {
        let sent = request(&super::super::example(), None, "1:A", "-100");
        assert_eq!(sent.url, "https://api.telegram.org/bot1:A/sendMessage");
        let sent = request(&super::super::example(), Some("http://x/"), "1:A", "-100");
        assert_eq!(sent.url, "http://x/bot1:A/sendMessage");
        assert!(!sent.body.contains("parse_mode"));
    }
}
