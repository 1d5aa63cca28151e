//! <https://pushover.net/api>

use url::form_urlencoded::Serializer;

use super::{Message, Sent};
use crate::printable::cut;

const SERVER: &str = "https://api.pushover.net";

/// `server` is another one than Pushover's own.
pub fn request(message: &Message, server: Option<&str>, token: &str, user: &str) -> Sent {
    let server = server.unwrap_or(SERVER).trim_end_matches('/');
    let mut form = Serializer::new(String::new());
    form.append_pair("token", token)
        .append_pair("user", user)
        .append_pair("title", &cut(&message.title, 250))
        .append_pair("message", &cut(&message.text, 1024))
        .append_pair("timestamp", &(message.at / 1000).to_string())
        // A high one passes the quiet hours of the phone.
        .append_pair("priority", if message.is_urgent { "1" } else { "0" });
    if let Some(link) = message.link.as_ref().filter(|link| link.len() <= 512) {
        form.append_pair("url", link)
            .append_pair("url_title", "Details");
    }
    Sent {
        url: format!("{server}/1/messages.json"),
        headers: vec![("content-type", "application/x-www-form-urlencoded".into())],
        body: form.finish(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_form() {
        let sent = request(&super::super::example(), None, "T&", "U");
        assert_eq!(sent.url, "https://api.pushover.net/1/messages.json");
        assert!(
            sent.body.starts_with("token=T%26&user=U&title="),
            "{}",
            sent.body
        );
    }
}
