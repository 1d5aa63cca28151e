//! Which file takes what from which: every path that begins in this crate, in `use` lines and in the
//! midst of the code, followed to the file that defines what it names.

use std::collections::{BTreeMap, BTreeSet};

use crate::tokens::tokens;
use crate::tree::{modules, package, read};

/// A file takes `name` from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arrow {
    /// Below `src/`.
    pub from: String,
    pub to: String,
    pub name: String,
}

type Path = Vec<String>;

struct Module {
    file: String,
    is_test: bool,
    /// What it defines itself.
    own: BTreeSet<String>,
    /// The names that `use` brings in, and what they stand for.
    used: BTreeMap<String, Path>,
    /// `use …::*`.
    globs: Vec<Path>,
    /// What the code names, imports that are only handed on left out.
    named: BTreeSet<Path>,
}

/// All of the library's, tests left out.
pub fn arrows() -> BTreeSet<Arrow> {
    let src = package().join("src");
    let crate_ = modules(src.join("lib.rs"));
    let paths: BTreeSet<Path> = crate_.iter().map(|module| module.path.clone()).collect();
    let house: BTreeMap<Path, Module> = crate_
        .into_iter()
        .map(|module| {
            let file = module.file.strip_prefix(&src).unwrap();
            let file = file.to_str().unwrap().to_owned();
            let read = Module::read(&read(&module.file), &module.path, &paths);
            let is_test = module.is_test;
            (
                module.path,
                Module {
                    file,
                    is_test,
                    ..read
                },
            )
        })
        .collect();
    let mut arrows = BTreeSet::new();
    for module in house.values().filter(|module| !module.is_test) {
        for path in &module.named {
            let Some((to, name)) = follow(&house, path, 0) else {
                continue;
            };
            if to.file != module.file && !to.is_test {
                arrows.insert(Arrow {
                    from: module.file.clone(),
                    to: to.file.clone(),
                    name,
                });
            }
        }
    }
    arrows
}

/// The module that defines what `path` names, and the name; none for a module by itself, and for
/// what is another crate's.
fn follow<'a>(
    house: &'a BTreeMap<Path, Module>,
    path: &[String],
    depth: usize,
) -> Option<(&'a Module, String)> {
    let known = (0..=path.len())
        .rev()
        .find(|&n| house.contains_key(&path[..n]))?;
    let module = &house[&path[..known]];
    let [name, rest @ ..] = &path[known..] else {
        return None;
    };
    if depth > 8 || module.own.contains(name) {
        return Some((module, name.clone()));
    }
    if let Some(stands_for) = module.used.get(name) {
        let path = [stands_for.as_slice(), rest].concat();
        return follow(house, &path, depth + 1);
    }
    let through = module.globs.iter().find_map(|glob| {
        let target = house.get(glob.as_slice())?;
        let has = target.own.contains(name) || target.used.contains_key(name);
        has.then(|| {
            follow(
                house,
                &[glob.as_slice(), &path[known..]].concat(),
                depth + 1,
            )
        })
    });
    through.unwrap_or(Some((module, name.clone())))
}

impl Module {
    fn read(text: &str, own: &[String], modules: &BTreeSet<Path>) -> Self {
        let tokens = tokens(text);
        let mut module = Self {
            file: String::new(),
            is_test: false,
            own: defined(&tokens),
            used: BTreeMap::new(),
            globs: Vec::new(),
            named: BTreeSet::new(),
        };
        let mut at = 0;
        let mut code = Vec::new();
        while at < tokens.len() {
            if tokens[at] != "use" {
                code.push(tokens[at].as_str());
                at += 1;
                continue;
            }
            let end = at + tokens[at..].iter().position(|token| token == ";").unwrap();
            let is_public = at > 0 && matches!(tokens[at - 1].as_str(), "pub" | ")");
            let words: Vec<&str> = tokens[at + 1..end].iter().map(String::as_str).collect();
            for (path, name) in leaves(&words, &[]) {
                let Some(path) = absolute(&path, own, modules) else {
                    continue;
                };
                // What is only handed on is taken by whoever names it.
                if !is_public {
                    module.named.insert(path.clone());
                }
                match name {
                    Some(name) => drop(module.used.insert(name, path)),
                    None => module.globs.push(path),
                }
            }
            at = end + 1;
        }
        module.name_all(&code, own, modules);
        module
    }

    /// The paths in the midst of the code.
    fn name_all(&mut self, code: &[&str], own: &[String], modules: &BTreeSet<Path>) {
        for (at, token) in code.iter().enumerate() {
            let begins = at == 0 || !matches!(code[at - 1], "::" | ".");
            if !begins || code.get(at + 1) != Some(&"::") {
                continue;
            }
            let mut path: Vec<&str> = vec![token];
            let mut next = at + 1;
            while code.get(next) == Some(&"::") && code.get(next + 1).is_some_and(|w| is_word(w)) {
                path.push(code[next + 1]);
                next += 2;
            }
            let path: Path = path.into_iter().map(str::to_owned).collect();
            match self.used.get(&path[0]) {
                // A module that was imported by its name.
                Some(used) if modules.contains(used) => {
                    self.named.insert([used.as_slice(), &path[1..]].concat());
                }
                Some(_) => {}
                None => self.named.extend(absolute(&path, own, modules)),
            }
        }
    }
}

/// The paths of one `use`, each with the name that it gives; none for `*`.
fn leaves(words: &[&str], before: &[String]) -> Vec<(Path, Option<String>)> {
    let mut path = before.to_vec();
    let mut at = 0;
    while at < words.len() {
        match words[at] {
            "::" => {}
            "*" => return vec![(path, None)],
            "as" => return vec![(path, Some(words[at + 1].to_owned()))],
            "{" => {
                let inner = &words[at + 1..words.len() - 1];
                let parts = split(inner);
                return parts.iter().flat_map(|part| leaves(part, &path)).collect();
            }
            "self" if !path.is_empty() => {}
            word => path.push(word.to_owned()),
        }
        at += 1;
    }
    let name = path.last().cloned();
    vec![(path, name)]
}

/// At the commas that are in no inner braces.
fn split<'a>(words: &'a [&'a str]) -> Vec<&'a [&'a str]> {
    let mut depth = 0;
    let parts = words.split(|word| {
        match *word {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        depth == 0 && *word == ","
    });
    parts.filter(|part| !part.is_empty()).collect()
}

/// From the crate's root on; none for what is another crate's.
fn absolute(path: &[String], own: &[String], modules: &BTreeSet<Path>) -> Option<Path> {
    let ups = path.iter().take_while(|word| *word == "super").count();
    let (base, rest) = match path.first()?.as_str() {
        "crate" => (&own[..0], &path[1..]),
        "self" => (own, &path[1..]),
        "super" => (&own[..own.len() - ups], &path[ups..]),
        first => {
            let child = [own, &[first.to_owned()]].concat();
            modules.contains(&child).then_some((own, path))?
        }
    };
    Some([base, rest].concat())
}

fn defined(tokens: &[String]) -> BTreeSet<String> {
    let kinds = [
        "fn",
        "struct",
        "enum",
        "trait",
        "type",
        "const",
        "static",
        "union",
        "macro_rules",
    ];
    let pairs = tokens
        .windows(3)
        .filter(|pair| kinds.contains(&pair[0].as_str()));
    pairs
        .map(|pair| if pair[1] == "!" { &pair[2] } else { &pair[1] })
        .cloned()
        .collect()
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}
