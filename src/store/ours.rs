//! Which containers are ours: those that the database names.

/// A container as the database names it. A container with only the same labels, or only the same
/// name, is somebody else's: containers inherit the labels of their image, and anybody can take a
/// free name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours {
    pub name: String,
    /// The value of the label `cutover.mark`, which no other container has. `None` if the container
    /// was made by an earlier version, which set no mark.
    pub mark: Option<String>,
}

impl Ours {
    /// Whether a container of this name that carries `mark` is this one.
    pub fn has(&self, mark: Option<&str>) -> bool {
        self.mark.is_none() || self.mark.as_deref() == mark
    }
}

/// A new mark for a container that is about to be made: 128 random bits in hex.
pub fn mark() -> String {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).expect("the operating system provides random bytes");
    hex::encode(random)
}
