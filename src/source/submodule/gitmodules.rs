//! `.gitmodules`: where submodules come from, in the form of git's configuration. It is not read by
//! libgit2, which would follow an `include` to any file of this machine.

/// The address of the submodule at `path`, as it is written.
pub(super) fn url(text: &str, path: &str) -> Option<String> {
    let mut found = None;
    let mut section = Section::default();
    for line in lines(text) {
        let line = line.trim();
        if line.starts_with('[') {
            if found.is_none() {
                found = section.url_of(path);
            }
            section = Section {
                is_submodule: line
                    .trim_start_matches('[')
                    .trim_start()
                    .to_ascii_lowercase()
                    .starts_with("submodule"),
                ..Section::default()
            };
            continue;
        }
        if let Some((key, value)) = line.split_once('=') {
            section.set(key.trim(), value.trim());
        }
    }
    found.or_else(|| section.url_of(path))
}

#[derive(Default)]
struct Section {
    is_submodule: bool,
    path: Option<String>,
    url: Option<String>,
}

impl Section {
    fn set(&mut self, key: &str, text: &str) {
        let place = match key.to_ascii_lowercase().as_str() {
            "path" => &mut self.path,
            "url" => &mut self.url,
            _ => return,
        };
        *place = Some(value(text));
    }

    fn url_of(&mut self, path: &str) -> Option<String> {
        let own = self.path.as_deref()?.trim_end_matches('/');
        let is_it = self.is_submodule && own == path;
        is_it.then(|| self.url.take()).flatten()
    }
}

/// Without comments; a line that ends with a backslash goes on in the next one.
fn lines(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut whole = String::new();
    for line in text.trim_start_matches('\u{feff}').lines() {
        if whole.is_empty() && line.trim_start().starts_with(['#', ';']) {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(part) => whole.push_str(part),
            None => {
                whole.push_str(line);
                all.push(std::mem::take(&mut whole));
            }
        }
    }
    all.push(whole);
    all
}

/// A value without quotes, escapes and a comment behind it.
fn value(text: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    // How much of it is not white space at its end.
    let mut end = 0;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => quoted = !quoted,
            '#' | ';' if !quoted => break,
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('b') => {
                    out.pop();
                }
                Some(c) => out.push(c),
                None => {}
            },
            c => out.push(c),
        }
        if quoted || !c.is_whitespace() {
            end = out.len();
        }
    }
    out.truncate(end);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_path_is_found() {
        let text = "# x\n[core]\n\turl = no\n\tpath = a\n[submodule \"lib\"]\n\tpath = lib\n\
                    \turl = ../lib.git ; why\n\tbranch = main\n[ Submodule \"two words\"]\n\
                    URL=\"https://host/a#b.git\"\npath = \"deep/two words/\"\n\
                    [submodule \"long\"]\npath=long\nurl = https://host/\\\nlong.git\n\
                    [include]\npath = /etc/passwd\n";
        for (path, expected) in [
            ("lib", Some("../lib.git")),
            ("deep/two words", Some("https://host/a#b.git")),
            ("long", Some("https://host/long.git")),
            ("a", None),
            ("/etc/passwd", None),
            ("gone", None),
        ] {
            assert_eq!(url(text, path).as_deref(), expected, "{path}");
        }
    }
}
