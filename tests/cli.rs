//! The command line as scripts see it: what it prints, and how it exits. No Docker is needed here.

use std::path::Path;
use std::process::{Command, Output};

const CUTOVER: &str = env!("CARGO_BIN_EXE_cutover");

fn cutover(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(CUTOVER);
    for name in ["CUTOVER_TOKEN", "CUTOVER_URL", "CUTOVER_CONFIG", "RUST_LOG"] {
        command.env_remove(name);
    }
    let output = command.args(arguments).current_dir(folder).output();
    output.expect("cutover can be run")
}

/// Exit code, stdout and stderr in one text.
fn said(output: &Output) -> String {
    format!(
        "exit {}\n{}{}",
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn check_says_every_mistake_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let text = r#"[agent]
listen = "9000"
port = 1

[apps.hello]
repo = "https://github.com/acme/hello.git"
port = 0
domains = ["Hello.example.com", "b ad"]

[apps.hello.health]
interval = "soon"

[apps.two]
repo = "https://user:hunter2@example.com/two.git"
"#;
    std::fs::write(folder.path().join("deploy.toml"), text).unwrap();
    let output = cutover(folder.path(), &["check"]);
    let said = said(&output);
    assert!(
        said.starts_with("exit 2\nError: 7 mistakes in the configuration\n"),
        "{said}"
    );
    for (place, word) in [
        ("./deploy.toml:2:10:", "agent.listen"),
        ("./deploy.toml:3:1:", "port"),
        ("./deploy.toml:7:8:", "apps.hello.port"),
        ("./deploy.toml:8:33:", "b ad"),
        ("./deploy.toml:11:12:", "apps.hello.health.interval"),
        ("./deploy.toml:14:8:", "apps.two.repo"),
    ] {
        let line = said.lines().find(|line| line.starts_with(place));
        let line = line.unwrap_or_else(|| panic!("nothing at {place}\n{said}"));
        assert!(line.contains(word), "{word}: {line}");
    }
    assert!(!said.contains("hunter2"), "{said}");
}

#[test]
fn check_of_a_good_file_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let wrote = cutover(folder.path(), &["init", "hello"]);
    assert_eq!(
        said(&wrote),
        "exit 0\nWrote `deploy.toml`. Edit it, then run:\n  cutover check\n  cutover serve\n"
    );
    let output = cutover(folder.path(), &["check"]);
    assert_eq!(
        said(&output),
        "exit 0\n`./deploy.toml` is valid: 1 app\n\
         Warning: `apps.hello.repo` is the example's: put your repository there\n\
         Warning: `apps.hello.webhook.secrets`: the environment variable `HELLO_WEBHOOK_SECRET`, \
         which holds a secret, is not set\n\
         Warning: `hello.example.com`: no public authority certifies this name: put a certificate into \
         the folder `proxy.certificates`, or set `proxy.acme.directory` to an authority of your own\n"
    );
}

#[test]
fn init_leaves_an_existing_file_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deploy.toml");
    std::fs::write(&path, "# mine\n").unwrap();
    let output = cutover(folder.path(), &["init"]);
    assert_eq!(
        said(&output),
        "exit 2\nError: `deploy.toml` already exists and was not changed\n\
         Hint: to add an app, add a section `[apps.hello]` to it; to create another file, use \
         `--config PATH`\n"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "# mine\n");
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = cutover(folder.path(), &["--config", "none.toml", "check"]);
    assert_eq!(
        said(&output),
        "exit 2\nError: none.toml: this file does not exist; create one with `cutover init`\n"
    );
}

#[test]
fn an_agent_that_does_not_run_is_exit_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[agent]\ndata_dir = \"data\"\n";
    std::fs::write(folder.path().join("deploy.toml"), text).unwrap();
    for verb in [
        &["status"][..],
        &["deploy", "hello"],
        &["rollback", "hello"],
        &["deployments", "hello"],
        &["releases", "hello"],
        &["show", "d0"],
        &["logs", "hello"],
        &["cancel", "d0"],
    ] {
        let said = said(&cutover(folder.path(), verb));
        assert!(
            said.starts_with("exit 3\nError: the agent cannot be reached at `"),
            "{verb:?}: {said}"
        );
        assert!(
            said.contains("Hint: start it with `cutover serve`"),
            "{said}"
        );
    }
}

#[test]
fn a_remote_agent_wants_a_token_and_a_real_address() {
    let folder = tempfile::tempdir().unwrap();
    let output = cutover(folder.path(), &["--url", "http://127.0.0.1:1", "status"]);
    assert!(
        said(&output).starts_with("exit 2\nError: `CUTOVER_TOKEN` is not set\nHint: "),
        "{}",
        said(&output)
    );
    let mut command = Command::new(CUTOVER);
    command.args(["--url", "nonsense", "status"]);
    let output = command.env("CUTOVER_TOKEN", "x").output().unwrap();
    assert_eq!(
        said(&output),
        "exit 2\nError: invalid agent address `nonsense`\n\
         Hint: expected `https://deploy.example.com` or `http://127.0.0.1:9000`\n"
    );
}

#[test]
fn one_open_quote_is_one_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let example = include_str!("../deploy.toml.example");
    let text = example.replacen("\"127.0.0.1:9000\"", "\"127.0.0.1:9000", 1);
    std::fs::write(folder.path().join("deploy.toml"), text).unwrap();
    let said = said(&cutover(folder.path(), &["check"]));
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.starts_with("exit 2\nError: ./deploy.toml:"), "{said}");
}

#[test]
fn init_writes_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let repo = "https://ann:hunter2@127.0.0.1:1/hello.git";
    let said = said(&cutover(folder.path(), &["init", "hello", "--repo", repo]));
    assert!(said.starts_with("exit 0"), "{said}");
    assert!(
        said.contains("[apps.hello.source]") && !said.contains("hunter2"),
        "{said}"
    );
    let text = std::fs::read_to_string(folder.path().join("deploy.toml")).unwrap();
    assert!(text.contains("\"https://127.0.0.1:1/hello.git\""), "{text}");
    assert_eq!(cutover(folder.path(), &["check"]).status.code(), Some(0));
}

#[test]
fn a_repository_on_this_machine_needs_no_webhook() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("hello.git")).unwrap();
    git2::Repository::init_bare(folder.path().join("hello.git")).unwrap();
    let text = "[apps.hello]\nrepo = 'hello.git'\nport = 80\ndomains = ['hello.test']\n";
    std::fs::write(folder.path().join("deploy.toml"), text).unwrap();
    let output = cutover(folder.path(), &["check"]);
    assert_eq!(said(&output), "exit 0\n`./deploy.toml` is valid: 1 app\n");
}

#[test]
fn a_wrong_verb_is_exit_code_2_and_the_right_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = said(&cutover(folder.path(), &["depoly"]));
    assert!(
        wrong.starts_with("exit 2") && wrong.contains("'deploy'"),
        "{wrong}"
    );
    for wrong in [
        &["deployments", "hello", "--limit", "0"][..],
        &["releases", "hello", "--limit", "201"],
    ] {
        let said = said(&cutover(folder.path(), wrong));
        assert!(
            said.starts_with("exit 2") && said.contains("1..=200"),
            "{said}"
        );
    }

    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        cutover(folder.path(), &["--version"]).status.code(),
        Some(0)
    );
}

#[test]
fn secrets_are_long_and_never_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let secrets = [(); 2].map(|()| cutover(folder.path(), &["secret"]).stdout);
    assert_eq!(secrets[0].len(), 65);
    assert_ne!(secrets[0], secrets[1]);
}

#[test]
fn a_reader_that_leaves_is_no_panic() {
    use std::process::Stdio;
    let mut command = Command::new(CUTOVER);
    command.args(["completions", "bash"]).stderr(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(said(&output), "exit 0\n");
}

#[test]
fn before_the_first_start_the_doctor_names_one_cause() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[agent]\ndata_dir = 'data'\n[proxy]\nhttps = '127.0.0.1:0'\n\
                acme = { email = 'ops@example.org', directory = 'https://127.0.0.1:1/dir' }\n\
                [apps.hello]\nimage = 'hello:1'\nport = 80\ndomains = ['hello.test']\n";
    std::fs::write(folder.path().join("deploy.toml"), text).unwrap();
    let said = said(&cutover(folder.path(), &["doctor"]));
    // Docker, and this machine's disk, are as they are.
    let wrong = said.lines().filter(|line| line.starts_with('✘'));
    let wrong = wrong.filter(|line| !line.contains("Docker") && !line.contains("MiB"));
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.len() == 1 && wrong[0].contains("agent"), "{said}");
    let skipped = said.lines().filter(|line| line.starts_with("- skipped: "));
    assert_eq!(skipped.count(), 2, "{said}");
}
