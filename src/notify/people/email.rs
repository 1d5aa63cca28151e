//! E-mail, over SMTP.

use std::time::{Duration, UNIX_EPOCH};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use percent_encoding::percent_decode_str;
use url::Url;

use super::message::Message;
use super::send::Problem;
use crate::printable::cut;

/// For each answer of the server.
const PATIENCE: Duration = Duration::from_secs(20);
/// For all of it.
const DEADLINE: Duration = Duration::from_secs(60);
/// The longest subject, in characters.
const SUBJECT: usize = 200;

/// Sends over the server at `url`: `smtps://USER:PASSWORD@HOST`, or `smtp://` for STARTTLS, without which
/// nothing is sent unless the server is this machine or the URL ends in `?tls=none`.
pub async fn send(
    message: &Message,
    url: &str,
    from: &Mailbox,
    to: &[Mailbox],
) -> Result<(), Problem> {
    let transport = transport(url).map_err(Problem::Refused)?;
    let email = email(message, from, to).map_err(|error| Problem::Refused(error.to_string()))?;
    let later = |why: String| Problem::Later { wait: None, why };
    match tokio::time::timeout(DEADLINE, transport.send(email)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.is_permanent() => Err(Problem::Refused(said(&error))),
        Ok(Err(error)) => Err(later(said(&error))),
        Err(_) => Err(later(format!(
            "the mail server did not take it in {} s",
            DEADLINE.as_secs()
        ))),
    }
}

fn said(error: &lettre::transport::smtp::Error) -> String {
    format!("the mail server: {}", error.to_string().escape_debug())
}

/// An error is one sentence without the URL.
fn transport(url: &str) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    const EXPECTED: &str = "the address of the mail server is not of the form \
                            `smtps://USER:PASSWORD@HOST` or `smtp://USER:PASSWORD@HOST:587`";
    let url = Url::parse(url).map_err(|_| EXPECTED.to_owned())?;
    let host = url
        .host_str()
        .filter(|host| !host.is_empty())
        .ok_or(EXPECTED)?;
    let is_here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    let bare = url
        .query_pairs()
        .any(|(key, value)| key == "tls" && value == "none");
    let parameters = || {
        let parameters = TlsParameters::new(host.to_owned());
        parameters.map_err(|error| format!("failed to set up TLS: {error}"))
    };
    let (port, tls) = match url.scheme() {
        "smtps" => (465, Tls::Wrapper(parameters()?)),
        "smtp" if bare => (25, Tls::None),
        "smtp" if is_here => (25, Tls::Opportunistic(parameters()?)),
        "smtp" => (587, Tls::Required(parameters()?)),
        _ => return Err(EXPECTED.to_owned()),
    };
    let builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(url.port().unwrap_or(port))
        .timeout(Some(PATIENCE))
        .tls(tls);
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    Ok(match (url.username(), url.password()) {
        ("", _) | (_, None) => builder,
        (user, Some(password)) => {
            builder.credentials(Credentials::new(decoded(user), decoded(password)))
        }
    }
    .build())
}

fn email(
    message: &Message,
    from: &Mailbox,
    to: &[Mailbox],
) -> Result<lettre::Message, lettre::error::Error> {
    let at = UNIX_EPOCH + Duration::from_millis(message.at.max(0) as u64);
    let id = format!("<{}@{}>", message.id, from.email.domain());
    let mut builder: MessageBuilder = lettre::Message::builder()
        .from(from.clone())
        .subject(cut(&message.title, SUBJECT))
        .date(at)
        .message_id(Some(id))
        .header(ContentType::TEXT_PLAIN);
    for one in to {
        builder = builder.to(one.clone());
    }
    let mut text = message.text.replace('\n', "\r\n");
    if let Some(link) = &message.link {
        text += &format!("\r\n\r\n{link}");
    }
    let mut email = builder.body(text + "\r\n")?;
    // Nobody's holiday notice answers it.
    let name = HeaderName::new_from_ascii_str("Auto-Submitted");
    let header = HeaderValue::new(name, "auto-generated".to_owned());
    email.headers_mut().insert_raw(header);
    Ok(email)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_write_stays_in_the_body() {
        let message = Message {
            text: "Fix\r\n.\r\nRCPT TO:<x@y>\nBcc: x@y".into(),
            ..super::super::kind::example()
        };
        let from = "Cutover <cutover@x.test>".parse().unwrap();
        let to = ["ops@x.test".parse().unwrap()];
        let email = email(&message, &from, &to).unwrap();
        let text = String::from_utf8(email.formatted()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.contains("Message-ID: <msg_test_1000@x.test>"),
            "{head}"
        );
        assert!(head.contains("Auto-Submitted: auto-generated"), "{head}");
        assert!(!head.contains("Bcc"), "{head}");
        assert!(body.contains("https://deploy.example/deployments/d1"));
        let envelope: Vec<_> = email
            .envelope()
            .to()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(envelope, ["ops@x.test"]);
    }

    #[tokio::test]
    async fn no_error_names_the_address() {
        for url in [
            "smtps://ops:hunter2@127.0.0.1:1",
            "hunter2",
            "imap://ops:hunter2@x",
            "smtp://",
        ] {
            let from: Mailbox = "cutover@x.test".parse().unwrap();
            let message = super::super::kind::example();
            let error = send(&message, url, &from, std::slice::from_ref(&from)).await;
            let error = error.unwrap_err();
            assert!(!error.why().contains("hunter2"), "{error:?}");
        }
    }
}
