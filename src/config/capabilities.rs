//! `run.capabilities`: what an app's containers may do besides what every container may.

use super::file::Node;

/// Those of Docker's own default set that Cutover's containers do not have by themselves.
const KNOWN: [&str; 7] = [
    "AUDIT_WRITE",
    "FSETID",
    "MKNOD",
    "NET_RAW",
    "SETFCAP",
    "SETPCAP",
    "SYS_CHROOT",
];

/// An array of names, sorted and each once.
pub(super) fn capabilities(node: Node<'_>) -> Option<Vec<String>> {
    let expected = || {
        let known = KNOWN.map(|name| format!("\"{name}\"")).join(", ");
        format!("an array of {known}")
    };
    let mut all = Vec::new();
    for node in node.array(expected())? {
        let name = node.str(expected())?;
        match KNOWN.contains(&name) {
            true => all.push(name.to_owned()),
            false => return node.wrong(expected()),
        }
    }
    all.sort();
    all.dedup();
    Some(all)
}

#[cfg(test)]
mod tests {
    fn read(value: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        let text = format!(
            "[apps.a]\nrepo = '/srv/a.git'\nport = 1\n[apps.a.run]\ncapabilities = {value}\n"
        );
        std::fs::write(&path, text).unwrap();
        let config = crate::config::load(&path).map_err(|problems| problems.to_string())?;
        Ok(config
            .apps
            .into_values()
            .next()
            .unwrap()
            .run
            .capabilities
            .clone())
    }

    #[test]
    fn only_what_docker_itself_would_give_can_be_given_back() {
        assert_eq!(read("[]"), Ok(vec![]));
        let two = read("['SYS_CHROOT', 'NET_RAW', 'NET_RAW']").unwrap();
        assert_eq!(two, ["NET_RAW", "SYS_CHROOT"]);
        for wrong in ["['SYS_ADMIN']", "['net_raw']", "'NET_RAW'", "[1]"] {
            let error = read(wrong).unwrap_err();
            assert!(
                error.contains(":5:") && error.contains("\"NET_RAW\""),
                "{error}"
            );
        }
    }
}
