//! The files of this package as rustc finds them: from a crate's root along its `mod` lines.

use std::path::{Path, PathBuf};

/// A module and its file.
#[derive(Debug, Clone)]
pub struct Module {
    /// Its names from the crate's root on, which itself has none.
    pub path: Vec<String>,
    pub file: PathBuf,
    /// Whether only tests are built with it.
    pub is_test: bool,
}

/// The package's folder.
pub fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The crate whose root is `file`, with all that it names.
pub fn modules(file: PathBuf) -> Vec<Module> {
    let mut all = vec![Module {
        path: Vec::new(),
        file,
        is_test: false,
    }];
    let mut next = 0;
    while let Some(module) = all.get(next) {
        let children = children(module);
        all.extend(children);
        next += 1;
    }
    all
}

fn children(module: &Module) -> Vec<Module> {
    let text = read(&module.file);
    let folder = module.file.parent().unwrap();
    let own = match module.file.file_stem().unwrap().to_str().unwrap() {
        "main" | "lib" | "mod" => folder.to_owned(),
        _ => module.file.with_extension(""),
    };
    let mut attributes = String::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") {
            attributes.push_str(line);
            continue;
        }
        if let Some(name) = declared(line) {
            let elsewhere = attributes.split("path = \"").nth(1);
            let file = match elsewhere.and_then(|rest| rest.split('"').next()) {
                Some(path) => folder.join(path).canonicalize().unwrap(),
                None => {
                    let flat = own.join(format!("{name}.rs"));
                    let nested = own.join(name).join("mod.rs");
                    if flat.exists() { flat } else { nested }
                }
            };
            found.push(Module {
                path: [module.path.as_slice(), &[name.to_owned()]].concat(),
                file,
                is_test: module.is_test || attributes.contains("test"),
            });
        }
        attributes.clear();
    }
    found
}

/// The name in `mod name;`.
fn declared(line: &str) -> Option<&str> {
    let (before, name) = line.strip_suffix(';')?.rsplit_once("mod ")?;
    let visible = before.trim();
    (visible.is_empty() || visible.starts_with("pub")).then_some(name)
}

/// Every `.rs` file below `folder`.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

pub fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
