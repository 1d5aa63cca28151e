//! What the engine is, only its own folder knows.

use crate::tree::{modules, package, read};

/// The demo sets up and clears away a Docker Engine of its own, and the tests are built with it.
const DEMO: &str = "cli/demo/";

#[test]
fn only_the_engine_s_folder_speaks_to_docker() {
    let src = package().join("src");
    let mut speakers = Vec::new();
    for module in modules(src.join("lib.rs")) {
        let file = module.file.strip_prefix(&src).unwrap();
        if !module.is_test && read(&module.file).contains("bollard::") {
            speakers.push(file.display().to_string());
        }
    }
    let (inside, outside): (Vec<_>, Vec<_>) = speakers
        .into_iter()
        .partition(|file| file.starts_with("engine/docker/"));
    assert!(!inside.is_empty());
    let others: Vec<_> = outside
        .iter()
        .filter(|file| !file.starts_with(DEMO))
        .collect();
    assert!(others.is_empty(), "bollard is named in {others:?}");
}
