//! The options that `git push -o` can pass to Cutover.

use crate::deploy::follow::Until;

/// All of them. Options that do not begin with `cutover.` are meant for other programs.
const KNOWN: [&str; 5] = [
    "cutover.skip",
    "cutover.no-cache",
    "cutover.pull",
    "cutover.wait=end",
    "cutover.wait=false",
];

/// Those by which a push is not deployed; the second is GitLab's.
pub const SKIP: [&str; 2] = ["cutover.skip", "ci.skip"];

/// Why a push with these options is not deployed, if one of them is unknown: a misspelt `cutover.skip`
/// must not deploy.
pub fn unknown(options: &[String]) -> Option<String> {
    let ours = |option: &&String| option.starts_with("cutover.");
    let mut ours = options.iter().filter(ours);
    let unknown = ours.find(|option| !KNOWN.contains(&option.as_str()))?;
    let shown: String = unknown.escape_debug().take(60).collect();
    let known = KNOWN.map(|option| format!("`{option}`")).join(", ");
    Some(format!("unknown option `{shown}`; known are {known}"))
}

/// What a pusher waits for: by default, until requests go to what was pushed.
pub fn wait(has: impl Fn(&str) -> bool) -> Until {
    match (has("cutover.wait=false"), has("cutover.wait=end")) {
        (true, _) => Until::Now,
        (false, true) => Until::End,
        (false, false) => Until::Switch,
    }
}

/// What a pusher sees instead of the log after `cutover.wait=false`.
pub fn not_waited_for(deployment: &str) -> String {
    format!("see `cutover show {deployment}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> Option<String> {
        let options: Vec<String> = options.iter().map(|&option| option.into()).collect();
        unknown(&options)
    }

    #[test]
    fn only_a_misspelt_option_of_ours_is_unknown() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&KNOWN), None);
        assert_eq!(of(&["ci.skip", "cutover"]), None);
        let why = of(&["ci.skip", "cutover.skp"]).unwrap();
        assert!(why.starts_with("unknown option `cutover.skp`;"), "{why}");
        let why = of(&[&format!("cutover.\n{}", "x".repeat(1 << 16))]).unwrap();
        assert!(why.len() < 200 && !why.contains('\n'), "{why}");
    }
}
