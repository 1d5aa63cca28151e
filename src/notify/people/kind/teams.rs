//! <https://learn.microsoft.com/en-us/connectors/teams/#microsoft-teams-webhook>: a workflow that posts
//! Adaptive Cards.

use serde_json::json;

use super::{Message, Sent};
use crate::printable::cut;

/// The longest text, in characters: a card may have 28 KB.
const LONGEST: usize = 4000;

pub fn request(message: &Message, url: &str) -> Sent {
    let color = if message.is_bad { "attention" } else { "good" };
    // Runs of text, unlike text blocks, know no Markdown.
    let run = |text: &str| json!({ "type": "TextRun", "text": text });
    let rich = |runs: Vec<serde_json::Value>| json!({ "type": "RichTextBlock", "inlines": runs });
    let mut title = run(&message.title);
    title["weight"] = json!("bolder");
    title["color"] = json!(color);
    let mut body = vec![rich(vec![title])];
    let text = cut(&message.text, LONGEST);
    body.extend(text.lines().map(|line| rich(vec![run(line)])));
    let mut card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
    });
    if let Some(link) = &message.link {
        card["actions"] = json!([{ "type": "Action.OpenUrl", "title": "Details", "url": link }]);
    }
    let attachment = json!({
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": null,
        "content": card,
    });
    Sent::json(
        url,
        &json!({ "type": "message", "attachments": [attachment] }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_one_card_whose_text_formats_nothing() {
        let body: serde_json::Value =
            serde_json::from_str(&request(&super::super::example(), "u").body).unwrap();
        let card = &body["attachments"][0]["content"];
        assert_eq!(card["body"][1]["inlines"][0]["type"], "TextRun");
        assert_eq!(
            card["actions"][0]["url"],
            "https://deploy.example/deployments/d1"
        );
    }
}
