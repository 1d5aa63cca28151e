//! Imports run down through the folders, never up, and never round.

use std::collections::{BTreeMap, BTreeSet};

use crate::arrows::{Arrow, arrows};

/// From the bottom to the top: what stands in a line is used by the lines below it, and by its own.
const FOLDERS: &[&[&str]] = &[
    &[
        "ids",
        "join",
        "log_limit",
        "mask",
        "outbound",
        "printable",
        "tls",
        "vital",
    ],
    &["principal", "state"],
    &["proxy"],
    &["webhook"],
    &["config"],
    &["store"],
    &["source"],
    &["build", "certificates", "engine"],
    &["deploy"],
    &["notify"],
    &["api"],
    &["jobs"],
    &["cli"],
];

/// The rooms of the proxy, likewise.
const PROXY: &[&[&str]] = &[
    &["wire"],
    &["upstream"],
    &["downstream"],
    &["route"],
    &["exchange"],
    &["control"],
];

#[test]
fn every_folder_has_its_floor() {
    let known: BTreeSet<&str> = FOLDERS.concat().into_iter().collect();
    let files: BTreeSet<String> = arrows().into_iter().map(|arrow| arrow.from).collect();
    let folders: BTreeSet<&str> = files.iter().map(|file| folder(file)).collect();
    let new: Vec<_> = folders.difference(&known).collect();
    assert!(new.is_empty(), "where do these stand? {new:?}");
}

#[test]
fn no_import_runs_up() {
    let up: Vec<String> = arrows().iter().filter(|a| is_up(a)).map(line).collect();
    assert!(up.is_empty(), "imports run up:\n{}", up.join("\n"));
}

#[test]
fn no_import_runs_round() {
    // A folder's own module file brings its files together, and they build on what it defines.
    let arrows = arrows().into_iter().filter(|arrow| !is_down(arrow));
    let arrows: BTreeSet<Arrow> = arrows.collect();
    let ties = circles(&arrows).into_iter().map(|circle| {
        let inside = |file: &String| circle.contains(file.as_str());
        let ties = arrows.iter().filter(|a| inside(&a.from) && inside(&a.to));
        ties.map(line).collect::<Vec<_>>().join("\n")
    });
    let ties: Vec<String> = ties.collect();
    assert!(ties.is_empty(), "imports run round:\n{}", ties.join("\n\n"));
}

fn line(arrow: &Arrow) -> String {
    format!("{} -> {}: {}", arrow.from, arrow.to, arrow.name)
}

/// The folder of `src/` that a file is in, or the file itself.
fn folder(file: &str) -> &str {
    let first = file.split('/').next().unwrap();
    first.trim_end_matches(".rs")
}

fn is_up(arrow: &Arrow) -> bool {
    let floor = |order: &[&[&str]], name: &str| order.iter().position(|line| line.contains(&name));
    let (from, to) = (folder(&arrow.from), folder(&arrow.to));
    let rooms = |file: &str| floor(PROXY, folder(file.strip_prefix("proxy/")?));
    let within = (rooms(&arrow.from), rooms(&arrow.to));
    floor(FOLDERS, from) < floor(FOLDERS, to)
        || matches!(within, (Some(from), Some(to)) if from < to)
}

/// Whether a folder's module file names what is in its folder.
fn is_down(arrow: &Arrow) -> bool {
    let folder = arrow.from.strip_suffix("mod.rs");
    folder.is_some_and(|folder| arrow.to.starts_with(folder))
}

/// The groups of files that reach each other.
fn circles(arrows: &BTreeSet<Arrow>) -> BTreeSet<BTreeSet<&str>> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for arrow in arrows {
        next.entry(&arrow.from).or_default().insert(&arrow.to);
    }
    let reached = next.keys().map(|&file| (file, reach(&next, file)));
    let reached: BTreeMap<&str, BTreeSet<&str>> = reached.collect();
    let circles = reached.iter().map(|(file, all)| {
        let back = |other: &&&str| reached.get(**other).is_some_and(|all| all.contains(file));
        all.iter().filter(back).copied().collect()
    });
    circles
        .filter(|circle: &BTreeSet<_>| !circle.is_empty())
        .collect()
}

fn reach<'a>(next: &BTreeMap<&str, BTreeSet<&'a str>>, from: &'a str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        let new = next.get(file).into_iter().flatten();
        open.extend(new.filter(|to| reached.insert(**to)));
    }
    reached
}
