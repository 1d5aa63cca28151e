//! Gitea and Forgejo.

use super::{Request, github};
use crate::config::ForgeAddress;
use crate::notify::forge::fact::Fact;

pub(super) fn headers(token: &str) -> Vec<(&'static str, String)> {
    vec![
        ("accept", "application/json".into()),
        ("authorization", format!("token {token}")),
    ]
}

pub(super) fn status(address: &ForgeAddress, fact: &Fact) -> Request {
    github::status_with(address, fact, "warning")
}
