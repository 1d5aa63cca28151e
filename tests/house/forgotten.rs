//! A file that no `mod` names is never compiled, and rustc does not say so.

use std::collections::BTreeSet;

use crate::tree::{files, modules, package};

#[test]
fn no_file_is_forgotten() {
    let (src, tests) = (package().join("src"), package().join("tests"));
    let mut all = files(&src);
    all.extend(files(&tests));
    // As cargo finds them, and the program that build.rs compiles.
    let roots = all.iter().filter(|file| {
        let folder = file.parent().unwrap();
        match file.file_name().unwrap().to_str().unwrap() {
            "lib.rs" => folder == src,
            "main.rs" => {
                folder == src || folder == src.join("site") || folder.parent() == Some(&tests)
            }
            _ => folder == tests,
        }
    });
    let named: BTreeSet<_> = roots
        .flat_map(|root| modules(root.clone()))
        .map(|module| module.file)
        .collect();
    let forgotten: Vec<_> = all.iter().filter(|file| !named.contains(*file)).collect();
    assert!(forgotten.is_empty(), "no `mod` names {forgotten:#?}");
    assert!(named.iter().all(|file| file.exists()), "{named:#?}");
}
