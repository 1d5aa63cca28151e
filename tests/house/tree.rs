//! The files of this package as rustc finds them: from a crate's root along its `mod` lines.

use std::path::{Path, PathBuf};

/// A module and its file.
#[derive(Debug, Clone)]
pub struct Module {
    /// Its names from the crate's root on, which itself has none.
    pub path: Vec<String>,
    pub file: PathBuf,
}

/// The package's folder.
pub fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The crate whose root is `file`, with all that it names.
pub fn modules(file: PathBuf) -> Vec<Module> {
    let root = Module {
        path: Vec::new(),
        file,
    };
    let mut all = vec![root];
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
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let folder = module.file.parent().unwrap();
    let own = match module.file.file_stem().unwrap().to_str().unwrap() {
        "main" | "lib" | "mod" => folder.to_owned(),
        _ => module.file.with_extension(""),
    };
    let mut found = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let Some(name) = declared(line) else { continue };
        let attribute = lines[..number].last().copied().unwrap_or_default();
        let elsewhere = attribute.strip_prefix("#[path = \"");
        let file = match elsewhere.and_then(|rest| rest.strip_suffix("\"]")) {
            Some(path) => folder.join(path).canonicalize().unwrap(),
            None => {
                let flat = own.join(format!("{name}.rs"));
                let nested = own.join(name).join("mod.rs");
                if flat.exists() { flat } else { nested }
            }
        };
        let path = [module.path.as_slice(), &[name.to_owned()]].concat();
        found.push(Module { path, file });
    }
    found
}

/// The name in `mod name;`.
fn declared(line: &str) -> Option<&str> {
    let rest = line.strip_suffix(';')?;
    let (before, name) = rest.rsplit_once("mod ")?;
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
