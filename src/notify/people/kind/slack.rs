//! <https://docs.slack.dev/messaging/formatting-message-text>

use serde_json::json;

use super::{Message, Sent};

pub fn request(message: &Message, url: &str) -> Sent {
    // What others write must neither format nor mention anybody.
    let escaped = |text: &str| {
        let text = text.replace('&', "&amp;");
        text.replace('<', "&lt;").replace('>', "&gt;")
    };
    let mut text = format!("*{}*\n{}", escaped(&message.title), escaped(&message.text));
    if let Some(link) = &message.link {
        text += &format!("\n<{link}|Look>");
    }
    Sent::json(url, &json!({ "text": text }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_write_formats_nothing() {
        let body = request(&super::super::example(), "u").body;
        assert!(body.contains("&lt;!channel&gt; &amp; &lt;b&gt;"), "{body}");
        assert!(body.contains("<https://deploy.example/deployments/d1|Look>"));
    }
}
