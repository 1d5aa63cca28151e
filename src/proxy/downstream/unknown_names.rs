//! The names that clients asked for in their handshakes and that no certificate is for. The proxy asks
//! nobody about them: the agent fetches them, and has certificates ordered where it may.

use std::collections::HashSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The most names that wait to be fetched; further ones are asked for again by their clients.
const MOST: usize = 256;

#[derive(Debug, Default)]
pub struct UnknownNames {
    names: Mutex<HashSet<String>>,
    some: Notify,
}

impl UnknownNames {
    pub fn add(&self, name: &str) {
        let mut names = self.names.lock();
        if names.len() < MOST && !names.contains(name) {
            names.insert(name.to_ascii_lowercase());
            self.some.notify_one();
        }
    }

    /// All of them, once there are any; none if there are none in time.
    pub async fn take(&self, wait: Duration) -> Vec<String> {
        let some = async {
            loop {
                let names = std::mem::take(&mut *self.names.lock());
                if !names.is_empty() {
                    return names.into_iter().collect();
                }
                self.some.notified().await;
            }
        };
        tokio::time::timeout(wait, some).await.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_is_told_once_and_a_flood_takes_no_more_memory() {
        let unknown = UnknownNames::default();
        assert!(unknown.take(Duration::from_millis(1)).await.is_empty());
        unknown.add("A.test");
        unknown.add("a.test");
        assert_eq!(unknown.take(Duration::from_secs(9)).await, ["a.test"]);
        for number in 0..10_000 {
            unknown.add(&format!("{number}.test"));
        }
        assert_eq!(unknown.take(Duration::from_secs(9)).await.len(), MOST);
        assert!(unknown.take(Duration::from_millis(1)).await.is_empty());
    }
}
