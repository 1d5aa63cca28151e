//! Which containers are ours: those that our record names.

/// A container as the record names it. One that has only its labels, or only its name, is somebody
/// else's: containers inherit the labels of their image, and a name that is free can be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ours {
    pub name: String,
    /// The value of a label that no other container has. `None` where an earlier version, which gave
    /// none, made the container.
    pub mark: Option<String>,
}

impl Ours {
    /// Whether a container of this name with this mark is it.
    pub fn has(&self, mark: Option<&str>) -> bool {
        self.mark.is_none() || self.mark.as_deref() == mark
    }
}

/// A mark for a container that is about to be made.
pub fn mark() -> String {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).expect("the operating system provides random bytes");
    hex::encode(random)
}
