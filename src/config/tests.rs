//! What deploy.toml may contain, and the messages about mistakes in it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

fn parse(text: &str) -> Result<Config, Problems> {
    validate::parse(Path::new("deploy.toml"), Path::new("/etc/cutover"), text)
}

/// The problems, one per line, without the file's name.
fn problems(text: &str) -> Vec<String> {
    let shown = parse(text).expect_err(text).to_string();
    let line = |line: &str| line.strip_prefix("deploy.toml:").unwrap().to_owned();
    shown.lines().map(line).collect()
}

const LEAST: &str = "[apps.a]\nrepo = '/srv/a.git'\nport = 80\n";

#[test]
fn the_example_is_complete_and_good() {
    let text = include_str!("../../deploy.toml.example");
    let config = parse(text).unwrap_or_else(|problems| panic!("{problems}"));
    let app = &config.apps[&"hello".parse().unwrap()];
    assert_eq!(app.webhook.secrets.len(), 2);
    assert_eq!(app.run.memory, Some(512 << 20));
    let release = app.hooks.release.as_ref().map(Command::to_string);
    assert_eq!(release.as_deref(), Some("./migrate up"));
    assert_eq!(config.agent.domain.as_deref(), Some("deploy.example.com"));
    let report = app.report.as_ref().unwrap();
    assert_eq!(report.address.api, "https://api.github.com");
}

#[test]
fn a_former_name_has_one_successor_and_is_no_app_of_the_file() {
    let app = |name: &str, was: &str| {
        format!("[apps.{name}]\nrepo = 'r'\nport = 1\ndomains = ['{name}.test']\nwas = {was}\n")
    };
    let config = parse(&app("new", "'old'")).unwrap();
    let new = &config.apps[&"new".parse().unwrap()];
    assert_eq!(new.was.as_ref().map(|name| name.as_str()), Some("old"));
    assert_eq!(
        problems(&(app("a", "'b'") + &app("b", "'a'") + &app("c", "'x'") + &app("d", "'x'"))),
        [
            "5:1: `apps.a.was` is `b`, which is an app of this file: expected a name that no app has any \
             more (of two renames that meet, reload the first before the second)",
            "10:1: `apps.b.was` is `a`, which is an app of this file: expected a name that no app has \
             any more (of two renames that meet, reload the first before the second)",
            "20:1: `apps.d.was` is `x`, as `apps.c.was` is: expected one successor",
        ]
    );
    let own = problems(&app("a", "'a'"));
    assert_eq!(
        own,
        ["5:1: `apps.a.was` is the app's own name: expected its former one"]
    );
    assert!(problems(&app("a", "'A b'"))[0].contains("expected the name that the app had before"));
}

#[test]
fn a_token_is_all_that_a_report_needs_where_the_repository_says_the_rest() {
    let parse = |lines: &str| {
        let text = format!("[apps.a]\nport = 80\n{lines}\nreport.token = {{ env = 'T' }}\n");
        let config = parse(&text).unwrap_or_else(|problems| panic!("{problems}"));
        config.apps[&"a".parse().unwrap()].report.clone().unwrap()
    };
    let report = parse("repo = 'git@github.com:acme/hello.git'");
    assert_eq!(report.address.api, "https://api.github.com");
    assert_eq!(report.address.repository(), "acme/hello");
    assert_eq!(report.environment, "a");
    assert!(report.deployments);
    // If the host does not identify the forge, the webhook's forge does.
    let report = parse("repo = 'https://git.lan/acme/hello.git'\nwebhook.forge = 'forgejo'");
    assert_eq!(report.address.api, "https://git.lan/api/v1");
}

#[test]
fn a_process_needs_a_command_and_one_way_to_be_checked() {
    let with = |text: &str| format!("{LEAST}[apps.a.processes.{text}\n");
    for (text, said) in [
        ("w]", "`apps.a.processes.w.command` is missing"),
        ("w]\ncommand = []", "`apps.a.processes.w.command` is empty"),
        ("w]\ncommand = ['']", "begins with an empty text"),
        ("w]\ncommand = 'x'\nport = 1", "unknown key `port`"),
        ("'W x']\ncommand = 'x'", "is not a service name"),
        ("release]\ncommand = 'x'", "hooks.release"),
        (
            "web]\ncommand = 'x'\nreplicas = 2",
            "expected `run.replicas` of the app",
        ),
        ("w]\ncommand = 'x'\nreplicas = 101", "from 0 to 100"),
        (
            "w]\ncommand = 'x'\nhealth = { tcp = 1, running = '1s' }",
            "expected one of them",
        ),
        ("w]\ncommand = 'x'\nhealth.http = '/'", "belong together"),
        (
            "w]\ncommand = 'x'\nhealth = { tcp = 1, successes = 3, deadline = '1s' }",
            "too short",
        ),
        ("w]\ncommand = 'x'\nhealth.path = '/'", "unknown key `path`"),
    ] {
        let found = problems(&with(text)).join("\n");
        assert!(found.contains(said), "{text}: {found}");
    }
    let config = parse(&with("w]\ncommand = ['x', '--y z']\nhealth.tcp = 9")).unwrap();
    let app = &config.apps[&"a".parse().unwrap()];
    let process = &app.processes.as_ref().unwrap().others[&"w".parse().unwrap()];
    assert_eq!(process.command.to_string(), "x '--y z'");
    assert_eq!((process.replicas, process.overlap), (1, true));
    assert_eq!(process.health.check, Check::Tcp { port: 9 });
}

#[test]
fn the_proxy_s_limit_of_headers_and_field_of_clients_are_checked() {
    let with = |text: &str| format!("[proxy]\n{text}\n{LEAST}");
    for (text, said) in [
        ("header_limit = '1k'", "from \"4k\" to \"128k\""),
        ("header_limit = 65536", "from \"4k\" to \"128k\""),
        ("client_ip_header = 'a b'", "the name of a header field"),
        ("client_ip_header = 'X-Client'", "needs `trusted_proxies`"),
    ] {
        let found = problems(&with(text)).join("\n");
        assert!(found.contains(said), "{text}: {found}");
    }
    let good =
        "header_limit = '128k'\nclient_ip_header = 'X-Client'\ntrusted_proxies = ['10.0.0.0/8']";
    let config = parse(&with(good)).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.proxy.header_limit, 128 << 10);
}

#[test]
fn an_app_of_processes_alone_takes_no_host() {
    let worker = "[apps.a.processes.w]\ncommand = 'x'\n";
    let both = format!("[apps.a]\nrepo = 'r'\n{worker}[apps.b]\nrepo = 'r'\nport = 1\n");
    let config = parse(&both).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.apps[&"a".parse().unwrap()].port, None);
    let named = format!("[apps.a]\nrepo = 'r'\ndomains = ['a.test']\n{worker}");
    assert!(problems(&named)[0].contains("`apps.a.domains` needs `port`"));
    let web = "[apps.a]\nrepo = 'r'\n[apps.a.processes.web]\ncommand = 'x'\n";
    assert!(problems(web)[0].contains("`apps.a.port` is missing"));
}

#[test]
fn what_the_example_calls_a_default_is_one() {
    let example = parse(include_str!("../../deploy.toml.example")).unwrap();
    let example = &example.apps[&"hello".parse().unwrap()];
    let config = parse(LEAST).unwrap();
    let app = &config.apps[&"a".parse().unwrap()];
    assert_eq!(config.agent.listen, "127.0.0.1:9000".parse().unwrap());
    assert_eq!(config.agent.data_dir, Path::new("/var/lib/cutover"));
    assert_eq!(config.agent.domain, None);
    assert_eq!(config.proxy.http, "[::]:80".parse::<SocketAddr>().unwrap());
    assert_eq!(config.proxy.https, None);
    assert_eq!(config.docker.host, "unix:///var/run/docker.sock");
    assert_eq!(app.branch, "main");
    assert!(app.domains.is_empty() && app.webhook.secrets.is_empty());
    assert_eq!(app.build.context, example.build.context);
    assert_eq!(app.build.dockerfile, None);
    assert_eq!(example.build.dockerfile.as_deref(), Some("Dockerfile"));
    assert_eq!(app.build.timeout, example.build.timeout);
    let mut health = example.health.clone();
    health.host = None;
    health.headers.clear();
    assert_eq!(format!("{:?}", app.health), format!("{health:?}"));
    let deploy = |app: &App| format!("{:?}", app.deploy);
    assert_eq!(deploy(app), deploy(example));
    assert_eq!(app.run.replicas, 1);
    assert_eq!((app.run.memory, app.run.cpus), (None, None));
    assert_eq!(app.run.stop_grace, Duration::from_secs(10));
    assert!(app.test.is_none() && app.hooks.release.is_none());
    assert_eq!(app.protocol, Protocol::Http1);
    let mut proxy = example.proxy.clone();
    (proxy.max_body, proxy.maintenance) = (None, None);
    proxy.error_pages.clear();
    (proxy.front, proxy.basic_auth) = (None, None);
    assert_eq!(format!("{:?}", app.proxy), format!("{proxy:?}"));
}

#[test]
fn the_data_folder_is_found_in_a_file_with_mistakes() {
    let found = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        std::fs::write(&path, text).unwrap();
        let found = super::data_dir(&path);
        found.map(|found| match found.strip_prefix(folder.path()) {
            Ok(within) => within.to_owned(),
            Err(_) => found,
        })
    };
    let named = |text: &str| found(&format!("[agent]\ndata_dir = \"data\"\n{text}"));
    for mistakes in [
        "",
        "x = 1\n[apps.A_B]\n",
        "[apps.hello]\nport = [\n",
        "x = \"\n",
    ] {
        assert_eq!(named(mistakes), Some("data".into()), "{mistakes}");
    }
    let default = Some("/var/lib/cutover".into());
    assert_eq!(found("[apps.hello]\nport = 0\n"), default);
    // The data folder may be missing only because of the error.
    for text in ["[agent\n", "[agent]\ndata_dir = 1\n", "agent = 1\n"] {
        assert_eq!(found(text), None, "{text}");
    }
}

#[test]
fn the_contracts_own_example_is_good() {
    let config = parse(
        r#"
        [agent]
        listen = "127.0.0.1:0"
        data_dir = "data"
        [apps.hello]
        repo = "hello.git"
        branch = "main"
        domains = ["Hello.Example.com.", "bücher.example", "127.0.0.1"]
        port = 8_080
        webhook.secrets = [{ file = "hello.secret" }]
        [apps.hello.run]
        cpus = 2
        "#,
    )
    .unwrap_or_else(|problems| panic!("{problems}"));
    let app = &config.apps[&"hello".parse().unwrap()];
    assert_eq!(config.agent.data_dir, Path::new("/etc/cutover/data"));
    assert_eq!(app.repo, Repo::Local("/etc/cutover/hello.git".into()));
    assert_eq!(
        app.domains,
        ["hello.example.com", "xn--bcher-kva.example", "127.0.0.1"]
    );
    let secret = Secret::File("/etc/cutover/hello.secret".into());
    assert_eq!(app.webhook.secrets, [secret]);
    assert_eq!((app.port, app.run.cpus), (Some(8080), Some(2.0)));
}

#[test]
fn every_mistake_is_reported_at_once_in_order_of_place() {
    let text = r#"[agent]
listen = 9000
data_dr = "/x"

[apps.hello]
repo = "ext::sh -c id"
bracnh = "main"
domains = ["a.example", 7, "A.example"]
port = 70000

[apps.hello.build]
timeout = "soon"
dockerfile = "../../Dockerfile"

[apps.Bad_Name]
repo = "x"

[apps.other]
domains = ["a.example"]
[apps.other.deploy]
strategy = "canary"
[apps.other.run]
env = { PORT = 8080 }

[bananas]
"#;
    assert_eq!(
        problems(text),
        [
            "2:10: `agent.listen` is `9000`: expected an IP address and a port such as \"127.0.0.1:9000\"",
            "3:1: unknown key `data_dr` in `[agent]`: did you mean `data_dir`?",
            "6:8: `apps.hello.repo` is `\"ext::sh -c id\"`: expected an `https://` or `ssh://` address, \
             `user@host:path`, or the path of a bare repository on this machine; git's remote helpers \
             (such as `ext::`) are not supported",
            "7:1: unknown key `bracnh` in `[apps.hello]`: did you mean `branch`?",
            "8:25: `apps.hello.domains[1]` is `7`: expected a host name such as \"hello.example.com\"",
            "8:28: the host `a.example` is named twice by the app `hello`, first on line 8: expected a single owner",
            "9:8: `apps.hello.port` is `70000`: expected a whole number from 1 to 65535",
            "12:11: `apps.hello.build.timeout` is `\"soon\"`: expected a duration such as \"500ms\", \"5s\", \
             \"30m\" or \"1h\", greater than zero",
            "13:14: `apps.hello.build.dockerfile` is `\"../../Dockerfile\"`: expected a path that stays inside the \
             repository",
            "15:7: `Bad_Name` is not an app name: expected 1 to 40 of a-z, 0-9 and single dashes in between",
            "15:7: `apps.Bad_Name.port` is missing: expected the port that the app listens on",
            "18:7: `apps.other.repo` is missing: expected an `https://` or `ssh://` address, `user@host:path`, \
             or the path of a bare repository on this machine",
            "18:7: `apps.other.port` is missing: expected the port that the app listens on",
            "19:12: the app `other` claims the host `a.example`, which the app `hello` claims on line 8: \
             expected a single owner",
            "21:12: `apps.other.deploy.strategy` is `\"canary\"`: expected \"blue-green\" or \"recreate\"; this \
             strategy is not supported yet",
            "23:16: `apps.other.run.env.PORT` is a whole number: expected a string: PORT = \"…\", with quotes",
            "25:2: unknown key `bananas` at the top of the file: expected one of `agent`, `proxy`, `docker`, `apps`, `notify`",
        ]
    );
}

#[test]
fn one_mistake_each() {
    for (addition, expected) in [
        ("domains = 'a.example'", "expected an array of host names"),
        ("domains = ['https://a.example']", "without `https://`"),
        ("domains_ask = 'ftp://a.example'", "an address such as"),
        ("domains_ask = 'http://a.example/#b'", "an address such as"),
        ("domains = ['a.example:80']", "without a port"),
        ("domains = ['*.example']", "a wildcard such as"),
        ("domains = ['*.1.2.3.4']", "a wildcard such as"),
        ("domains = ['a.*.example']", "expected a host name"),
        ("protocol = 'h2'", "expected \"http1\" or \"h2c\""),
        ("proxy.path = 'api'", "expected a path such as"),
        ("proxy.path = '/a//b'", "expected a path such as"),
        ("proxy.path = '/a/../b'", "expected a path such as"),
        ("proxy.path = '/a?b'", "expected a path such as"),
        ("proxy.strip_path = 1", "`true` or `false`"),
        ("proxy.max_body = 10", "an amount such as"),
        ("proxy.max_body = '-1m'", "an amount such as"),
        ("proxy.idle_timeout = '0s'", "greater than zero"),
        ("proxy.hold = 5", "expected a duration"),
        ("proxy.maintenance = ''", "one line of text"),
        ("proxy.maintenance = true", "a message for visitors"),
        (
            "proxy.maintenance = { text = 'x' }",
            "a message for visitors",
        ),
        (
            "proxy.error_pages = { 404 = 'x' }",
            "expected one of 413, 502, 503, 504",
        ),
        ("proxy.error_pages = { 502 = 7 }", "expected a path"),
        ("proxy.max_bdy = '1m'", "did you mean `max_body`?"),
        ("domains = ['a..b']", "expected a host name"),
        ("domains = ['-a.example']", "expected a host name"),
        ("domains = ['1.2']", "expected a host name"),
        ("domains = ['']", "expected a host name"),
        ("tags = 7", "a pattern such as"),
        ("tags = ['v*', '[']", "`apps.a.tags[1]`"),
        ("branches = ''", "a pattern such as"),
        ("paths = []", "at least one path"),
        ("paths = ''", "a path pattern"),
        ("paths = ['api/**', '[']", "`apps.a.paths[1]`"),
        ("branch = 'release/*'", "patterns belong in `branches`"),
        ("branch = '--all'", "a branch name that git accepts"),
        ("branch = 'a..b'", "a branch name that git accepts"),
        ("branch = 'refs/heads/main'", "short name, `main`"),
        ("branch = 7", "expected a branch name"),
        ("webhook = 7", "expected a section `[apps.a.webhook]`"),
        ("webhook.forge = 'gitbub'", "expected one of \"forgejo\""),
        ("webhook.secret = []", "did you mean `secrets`?"),
        ("webhook.networks = []", "at least one network"),
        (
            "webhook.networks = ['10.0.0.0/33']",
            "`apps.a.webhook.networks[0]`",
        ),
        (
            "webhook.secrets = [{ env = '' }]",
            "letters, digits and `_`",
        ),
        (
            "webhook.secrets = [{ env = 'A', file = 'b' }]",
            "is a table: expected where to read",
        ),
        (
            "webhook.secrets = [{}]",
            "is a table: expected where to read",
        ),
        ("webhook.secrets = [{ env = 7 }]", "expected a string"),
        (
            "report = 7",
            "`apps.a.report` is `7`: expected a section `[apps.a.report]`",
        ),
        (
            "report = { url = 'https://github.com', repository = 'a/b' }",
            "`apps.a.report.token` is missing: expected where to read the forge's token from, such \
             as { env = \"A_TOKEN\" }",
        ),
        (
            "report = { token = { env = 'T' } }",
            "`apps.a.report.url` is missing",
        ),
        (
            "report = { token = { env = 'T' }, url = 'https://github.com' }",
            "`apps.a.report.repository` is missing",
        ),
        (
            "report = { token = { env = 'T' }, url = 'https://git.lan', repository = 'a/b' }",
            "`apps.a.report.forge` is missing: expected one of \"forgejo\", \"gitea\", \"github\", \
             \"gitlab\", \"bitbucket\", \"bitbucket-data-center\", since `git.lan` could be any",
        ),
        (
            "report = { @, forge = 'gogs' }",
            "expected one of \"forgejo\"",
        ),
        ("report = { @, forge = 7 }", "expected one of \"forgejo\""),
        ("report = { @, tokn = 7 }", "did you mean `token`?"),
        ("report = { @, deployments = 'yes' }", "`true` or `false`"),
        (
            "report = { @, environment = 'a b' }",
            "an environment's name",
        ),
        ("report = { @, environment = '/' }", "an environment's name"),
        (
            "report = { token = { env = 'T' }, url = 'git.lan', repository = 'a/b', forge = 'gitea' }",
            "the forge's address such as",
        ),
        (
            "report = { token = { env = 'T' }, url = 'https://github.com', repository = 'hello' }",
            "the repository's path at the forge",
        ),
        ("source.host_key = 'SHA256:x'", "ssh-keygen -l"),
        ("source.username = ''", "one line of text"),
        ("build.context = '/etc'", "without the leading `/`"),
        ("build.context = 'a/../..'", "stays inside"),
        ("build.dockerfile = '.'", "the path of the Dockerfile"),
        ("build.args = ['a']", "a table of names and values"),
        ("build.args = { 'a=b' = 'c' }", "is not a variable name"),
        ("build.timeout = '0s'", "greater than zero"),
        ("build.timeout = 30", "expected a duration"),
        ("health.path = 'healthz'", "a path such as"),
        ("health.path = '/a b'", "a path such as"),
        ("health.path = '/#a'", "a path such as"),
        ("health.host = '*.a.org'", "not a wildcard"),
        ("health.host = 'a.org:80'", "without a port"),
        ("health.headers = ['a']", "a table of names and values"),
        (
            "health.headers = { 'a b' = 'c' }",
            "not the name of a header field",
        ),
        ("health.headers = { host = 'a.org' }", "`health.host`"),
        (
            "health.headers = { TE = 'trailers' }",
            "belongs to the connection",
        ),
        ("health.headers = { a = 1 }", "a string without control"),
        (
            "health.headers = { a = '1', A = '2' }",
            "each header field once",
        ),
        ("health.successes = 0", "from 1 to 100"),
        ("health.successes = 2.0", "from 1 to 100"),
        (
            "health.deadline = '400ms'",
            "is too short for 2 successes 500 ms apart",
        ),
        (
            "health.interval = '60s'",
            "is too short for 2 successes 60000 ms apart",
        ),
        ("deploy.strategy = 'canary'", "not supported yet"),
        (
            "deploy.strategy = 'green-blue'",
            "expected \"blue-green\" or \"recreate\"",
        ),
        ("deploy.drain = '-1s'", "expected a duration"),
        ("deploy.keep_releases = 0", "from 1 to 1000"),
        (
            "run.env = { A = ['x'] }",
            "`apps.a.run.env.A` is an array: expected a string",
        ),
        ("run.env = { A = \"\\u0000\" }", "without NUL"),
        (
            "run.env = { A = { env = '1' } }",
            "the name of an environment variable",
        ),
        (
            "run.env = { A = { vault = 'x' } }",
            "where to read the secret from",
        ),
        ("run.secrets = 'A'", "an array of names"),
        ("run.secrets = ['A B']", "is not a secret's name"),
        ("run.secrets = { A = { fil = true } }", "`{ file = true }`"),
        (
            "run.secrets = { A = { file = true, env = 'B C' } }",
            "the name of an environment variable",
        ),
        (
            "run = { secrets = { A = { file = true } }, tmpfs = ['/run/secrets'] }",
            "`/run/secrets` is taken",
        ),
        (
            "run.secrets = { A = 'hunter2' }",
            "does not belong in this file",
        ),
        (
            "run = { env = { A = '1' }, secrets = ['A'] }",
            "which `env` has too",
        ),
        ("run.devices = ['/etc/passwd']", "an array of devices"),
        ("run.gpus = 'some'", "\"all\", a number"),
        ("run.networks = ['host']", "are none of these"),
        ("run.log = 'syslog'", "expected a section"),
        (
            "run.log = { options = { a = 'b' } }",
            "`apps.a.run.log.driver` is missing",
        ),
        ("run.links = 'api'", "an array of apps"),
        ("run.links = ['A']", "the name of an app"),
        ("run.links = ['nobody']", "not an app in this file"),
        ("run.volumes = 'data:/data'", "an array of volumes"),
        ("run.volumes = ['data']", "a volume such as"),
        (
            "run.volumes = ['data:data']",
            "an absolute path in the container",
        ),
        (
            "run.volumes = ['data:/']",
            "an absolute path in the container",
        ),
        ("run.volumes = ['data:/proc/1']", "outside of /proc"),
        ("run.volumes = ['Data:/data']", "the name of a volume"),
        (
            "run.volumes = ['/srv/x:/x']",
            "{ host = \"/srv/x\", target = \"/x\" }",
        ),
        ("run.volumes = ['a:/x', 'b:/x/']", "`/x` is taken"),
        (
            "run.volumes = [{ host = '/srv', target = '/x' }]",
            "`docker.allow_binds`, which names none",
        ),
        ("run.volumes = [{ target = '/x' }]", "expected one of them"),
        (
            "run.volumes = [{ name = 'a' }]",
            "`apps.a.run.volumes[0].target` is missing",
        ),
        (
            "run.volumes = [{ name = 'a', target = '/x', ro = true }]",
            "unknown key `ro`",
        ),
        (
            "run = { volumes = ['a:/x'], tmpfs = ['/x'] }",
            "`/x` is taken",
        ),
        (
            "run.tmpfs = [{ target = '/x', size = 'big' }]",
            "an amount such as",
        ),
        ("run.user = '--root'", "a user such as"),
        ("run.init = 'yes'", "`true` or `false`"),
        ("run.stop_signal = 'SIGFOO'", "a signal, one of"),
        ("run.ulimits = { files = 1 }", "is not a limit"),
        (
            "run.ulimits = { nofile = { soft = 2, hard = 1 } }",
            "is above `hard`",
        ),
        ("run.shm_size = 64", "an amount such as"),
        ("run.extra_hosts = { db = 'db.lan' }", "an IP address"),
        ("run.dns = ['resolver']", "IP addresses"),
        (
            "run.labels = { 'cutover.app' = 'x' }",
            "Cutover's own labels",
        ),
        ("run.replicas = -1", "from 1 to 100"),
        ("run.memory = '1m'", "at least \"6m\""),
        ("run.memory = 512", "an amount of memory"),
        ("run.cpus = 0", "a number of processors"),
        ("run.cpus = nan", "a number of processors"),
        ("run.cpus = 'one'", "a number of processors"),
        ("hooks.release = \"a\\nb\"", "one line of text"),
        ("source.require_signature = []", "at least one key"),
        (
            "source.require_signature = ['ssh-rsa x']",
            "an array of SSH public keys",
        ),
        (
            "test = { target = 'x', junit = '/j.xml' }",
            "`apps.a.test.junit` needs a `command`",
        ),
        (
            "test = { command = 'x', junit = 'j.xml' }",
            "the absolute path of a file or folder",
        ),
        (
            "test = { command = 'x', needs = { db = {} } }",
            "`apps.a.test.needs.db.image` is missing",
        ),
        (
            "test = { command = 'x', needs = { d_b = { image = 'x' } } }",
            "`d_b` is not a service name",
        ),
        (
            "test = { command = 'x', needs = { db = { image = 'X' } } }",
            "the name of an image",
        ),
        (
            "test = { command = 'x', needs = { db = { image = 'x', port = 0 } } }",
            "from 1 to 65535",
        ),
        ("test.timeout = '1m'", "`apps.a.test.command` is missing"),
        (
            "test.command = 'x'\nhooks.test = 'y'",
            "two commands for one thing",
        ),
        (
            "test.target = 'x'\nbuild.command = ['x']",
            "`apps.a.test.target` cannot be used",
        ),
        ("build.push = 'a:1'", "without a tag"),
        ("build.command = 'make'", "a program and its arguments"),
        (
            "build.command = ['x']\nbuild.target = 'x'",
            "cannot be combined with `command`",
        ),
        ("hooks.relase = 'x'", "did you mean `release`?"),
        ("bake = '1s'", "it belongs in `[apps.a.deploy]`"),
        ("deploy.successes = 3", "it belongs in `[apps.a.health]`"),
        ("run.domains = ['a.example']", "it belongs in `[apps.a]`"),
        ("build.context = \"a\u{7f}\"", "invalid TOML"),
        ("source.submodules = 1", "`true` or `false`"),
        ("source.hosts.'a:1' = {}", "without a port"),
        ("source.hosts.a.tokn = 1", "did you mean `token`?"),
        ("build.target = 'a b'", "the name of a stage"),
        ("build.args.X = 1", "a string: X"),
        ("build.secrets.npmrc = 'x'", "where to read the secret from"),
        ("build.secrets.'a b' = { env = 'X' }", "is not an id"),
        ("build.ssh = 'agent'", "a table of ids and keys"),
        ("build.ssh.default = true", "where to read the secret from"),
        ("build.ssh.'a b' = { env = 'X' }", "type=ssh,id=default"),
        ("build.contexts = 'lib'", "a table of names and folders"),
        ("build.contexts.x = '/lib'", "the repository"),
        ("build.contexts.'a b' = 'lib'", "not the name of a context"),
        (
            "build.contexts.scratch = 'lib'",
            "not the name of a context",
        ),
        ("build.contexts.x = 'https://a.b/c'", "docker-image://"),
        ("build.contexts.x = 'docker-image://A'", "docker-image://"),
        ("build.cache_from = 'a:1'", "an array of images"),
        ("build.cache_from = ['A:1']", "an image with its tag"),
        (
            "build.cache_from = ['a:1','a:2','a:3','a:4','a:5','a:6','a:7','a:8','a:9']",
            "at most 8 images",
        ),
        ("build.cache_to = 'a.example/b'", "an image with its tag"),
        (
            "build.frontends = 'docker/dockerfile'",
            "an array of images",
        ),
        ("build.frontends = ['a b']", "stands for anything but `/`"),
        ("build.pull = true", "\"missing\""),
        ("build.pull = 'if-not-present'", "\"missing\""),
        ("build.git_dir = 'yes'", "`true` or `false`"),
        (
            "build = { git_dir = true, context = 'a' }",
            "in the repository's root",
        ),
        ("build.platform = 'linux'", "a platform such as"),
        ("build.network = 'bridge'", "\"host\" or \"none\""),
        ("build.extra_hosts.x = 'y'", "\"host-gateway\""),
        ("build.shm_size = 1", "an amount such as"),
        ("port = 81", "duplicate key"),
    ] {
        // `@` stands for a report that is otherwise valid.
        let right = "token = { env = 'T' }, url = 'https://github.com', repository = 'a/b'";
        let addition = &addition.replace('@', right);
        let lines = problems(&format!("{LEAST}{addition}\n"));
        let [line] = lines.as_slice() else {
            panic!("{addition}: {lines:#?}");
        };
        assert!(line.contains(expected), "{addition}: {line}");
        let place = line.split(':').take(2).collect::<Vec<_>>();
        let column: usize = place[1].parse().unwrap();
        assert!(place[0] == "4" && column >= 1, "{addition}: {line}");
    }
    for (text, expected) in [
        ("agent.listen = ':80'", "an IP address and a port"),
        ("agent.data_dir = '~/x'", "not expanded"),
        ("docker.allow_binds = ['srv']", "absolute paths"),
        (
            "docker.allow_binds = ['/srv']\n[apps.a]\nrepo = 'a.git'\nport = 1\n\
             run.volumes = [{ host = '/srv2', target = '/x' }]",
            "below one of `docker.allow_binds` (`/srv`)",
        ),
        ("docker.allow = ['A b']", "the name of an app"),
        (
            "[apps.a]\nrepo = 'a.git'\nport = 1\nrun.privileged = true",
            "`apps.a.run.privileged` gives the app this machine: remove it, or name the app in `docker.allow`",
        ),
        (
            "[apps.a]\nrepo = 'a.git'\nport = 1\nrun.pid = 'host'",
            "in `docker.allow`",
        ),
        (
            "docker.allow = ['b']\n[apps.a]\nrepo = 'a.git'\nport = 1\nrun.network = 'host'",
            "in `docker.allow`",
        ),
        (
            "docker.allow = ['a']\n[apps.a]\nrepo = 'a.git'\nport = 1\nrun.network = 'host'",
            "`deploy.strategy = \"recreate\"`",
        ),
        (
            "docker.allow = ['a']\n[apps.a]\nrepo = 'a.git'\nport = 1\ndeploy.strategy = 'recreate'\nrun = { network = 'host', networks = ['b'] }",
            "and `networks`",
        ),
        (
            "docker.allow_binds = ['/var/run']\n[apps.a]\nrepo = 'a.git'\nport = 1\n\
             run.volumes = [{ host = '/var/run/docker.sock', target = '/x' }]",
            "in `docker.allow`",
        ),
        ("docker.min_free = 1", "an amount such as"),
        ("docker.build_memory = 1", "an amount of memory such as"),
        ("docker.build_cpus = 0", "a number of processors"),
        ("docker.build_cache = 'all'", "an amount such as"),
        (
            "docker.build_cache = {}",
            "`docker.build_cache.size` is missing",
        ),
        ("docker.build_cache = { age = '0s' }", "greater than zero"),
        ("docker.host = '/var/run/docker.sock'", "`unix:///path`"),
        ("docker.host = 'unix://docker.sock'", "`unix:///path`"),
        ("docker.host = 'tcp://'", "`unix:///path`"),
        ("docker.host = 'https://host:1'", "`unix:///path`"),
        ("proxy.proxy_protocol = 1", "`true`, `false`, or an array"),
        ("proxy.proxy_protocol = ['tls']", "\"http\" or \"https\""),
        ("apps = []", "a section for each app"),
        ("apps.a = []", "expected a section `[apps.a]`"),
    ] {
        let lines = problems(text);
        assert!(lines[0].contains(expected), "{text}: {lines:?}");
    }
}

#[test]
fn a_secret_in_the_text_is_refused_and_not_repeated() {
    for bad in [
        "webhook.secrets = ['hunter2']",
        "webhook.secrets = 'hunter2'",
        "webhook.secrets = [{ value = 'hunter2' }]",
        "webhook.secrets = [{ env = 'hunter2!' }]",
        "source.token = 'hunter2'",
        "source.token = { env = ['hunter2'] }",
        "report.token = 'hunter2'",
        "report.private_key = 'hunter2'",
        "report = { token = { env = 'T' }, url = 'https://me:hunter2@git.lan' }",
        "run.env = { A = ['hunter2'] }",
    ] {
        let line = problems(&format!("{LEAST}{bad}\n")).join("\n");
        assert!(!line.contains("hunter2"), "{line}");
    }
    let text = "[apps.a]\nport = 1\nrepo = 'https://me:hunter2@forge/x.git'\n";
    let line = problems(text).join("\n");
    assert!(!line.contains("hunter2"), "{line}");
    assert!(
        line.contains("`token` of the app's section `source`"),
        "{line}"
    );
    let line = problems(&format!("{LEAST}webhook.secrets = ['x']")).join("\n");
    assert!(line.contains("{ env = \"NAME\" }") && line.contains("{ file = \"PATH\" }"));
}

#[test]
fn only_one_app_answers_for_every_other_host() {
    let two = format!("{LEAST}[apps.b]\nrepo = 'b.git'\nport = 1\ndomains = []\n");
    let lines = problems(&two);
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0].starts_with("4:1: the app `b` claims every host"),
        "{lines:?}"
    );
    let agent = format!("{LEAST}domains = ['a.example']\n[agent]\ndomain = 'a.example'\n");
    assert!(problems(&agent)[0].contains("the agent claims on line 6"));
}

#[test]
fn two_apps_share_a_host_under_different_paths() {
    let two = |path: &str| {
        format!(
            "{LEAST}domains = ['*.A.example']\nproxy.path = '/'\n[apps.b]\nrepo = 'b.git'\n\
             port = 1\ndomains = ['*.a.example']\nproxy.path = '{path}'\n"
        )
    };
    let config = parse(&two("/api/")).unwrap_or_else(|problems| panic!("{problems}"));
    let [a, b] = ["a", "b"].map(|name| &config.apps[&name.parse().unwrap()]);
    assert_eq!(a.domains, b.domains);
    assert_eq!([&a.proxy.path, &b.proxy.path], ["/", "/api"]);
    assert!(problems(&two("/"))[0].contains("`*.a.example`, which the app `a` claims"));
    let same = two("/x").replace("proxy.path = '/'", "proxy.path = '/x'");
    assert!(problems(&same)[0].contains("the host `*.a.example` under `/x`"));
}

#[test]
fn a_syntax_error_stands_alone_with_its_place() {
    for (text, place) in [
        ("[agent\n", "1:"),
        ("a = \n[apps.x]\n", "1:"),
        ("[agent]\nlisten = 'x\n", "2:"),
        (&format!("x = {}", "[".repeat(100_000)), "1:"),
        (&format!("{}x = 1", "a.".repeat(100_000)), "1:"),
    ] {
        let lines = problems(text);
        assert!(lines[0].starts_with(place), "{lines:?}");
        assert!(
            lines.iter().all(|line| line.contains("invalid TOML")),
            "{lines:?}"
        );
    }
}

#[test]
fn a_column_counts_characters() {
    let lines = problems("agent = { domain = 'ü', listen = 1 }");
    assert_eq!(lines[0].split(':').take(2).collect::<Vec<_>>(), ["1", "34"]);
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    for (path, expected) in [
        (
            folder.path().join("missing.toml"),
            ": this file does not exist",
        ),
        (folder.path().to_owned(), ": this is a folder"),
        (
            file("latin1.toml", b"# \n# caf\xe9\n"),
            ":2:6: invalid UTF-8",
        ),
        (
            PathBuf::from("/dev/zero"),
            ": this file is longer than 1 MiB",
        ),
    ] {
        let shown = load(&path).unwrap_err().to_string();
        assert!(
            shown.contains(&format!("{}{expected}", path.display())),
            "{shown}"
        );
    }
    let good = load(&file("good.toml", LEAST.as_bytes())).unwrap();
    assert_eq!(good.apps.len(), 1);
}

#[test]
fn an_app_without_a_secret_is_warned_about() {
    let said = |text: &str| warnings(&parse(text).unwrap()).join("\n");
    let missing = "`apps.a.webhook.secrets` is missing";
    let far = LEAST.replace("'/srv/a.git'", "'https://example.com/a.git'");
    assert_ne!(far, LEAST);
    assert!(said(&far).contains(missing), "{}", said(&far));
    // A repository on this machine is pushed to directly.
    assert!(!said(LEAST).contains(missing), "{}", said(LEAST));
}

#[test]
fn what_two_releases_would_write_to_is_warned_about() {
    let said = |more: &str| warnings(&parse(&format!("{LEAST}{more}\n")).unwrap()).join("\n");
    let database = "run.volumes = ['pg:/var/lib/postgresql/data']";
    let both = said(database);
    assert!(both.contains("`deploy.strategy = \"recreate\"`"), "{both}");
    assert!(both.contains("`/var/lib/postgresql/data`"), "{both}");
    let recreate = "deploy.strategy = 'recreate'";
    assert_eq!(said(&format!("{database}\n{recreate}")), "");
    assert_eq!(said("run.volumes = ['uploads:/app/uploads']"), "");
    let short = said(&format!("{recreate}\nproxy.hold = '5s'"));
    assert!(short.contains("`apps.a.proxy.hold`"), "{short}");
    let two = said(&format!(
        "run = {{ volumes = ['data:/data'], replicas = 2 }}\n{recreate}"
    ));
    assert!(two.contains("`apps.a.run.replicas`"), "{two}");
}

#[test]
fn a_reports_missing_token_is_warned_about() {
    let report = "report = { token = { env = 'CUTOVER_TEST_NO_TOKEN' }, forge = 'gitea', \
                  url = 'http://git.lan', repository = 'a/b' }";
    let config = parse(&format!("{LEAST}{report}\n")).unwrap();
    let warnings = warnings(&config).join("\n");
    for expected in [
        "`apps.a.report.token`: the environment variable `CUTOVER_TEST_NO_TOKEN`",
        "`apps.a.report.token`: it is sent unencrypted to `http://git.lan/api/v1`",
    ] {
        assert!(warnings.contains(expected), "{warnings}");
    }
}

#[test]
fn random_damage_never_panics() {
    let example = include_str!("../../deploy.toml.example");
    let mut state = 0x9e3779b97f4a7c15u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let noise = [
        "\0", "[", "]", "=", "\"", "'", "{", "}", ".", "é", "9", "-", "\n", "#", ",",
    ];
    for _ in 0..300 {
        let mut text: Vec<char> = example.chars().collect();
        for _ in 0..=random(8) {
            let at = random(text.len());
            let end = (at + random(20)).min(text.len());
            text.splice(at..end, noise[random(noise.len())].chars());
        }
        if let Err(problems) = parse(&text.into_iter().collect::<String>()) {
            assert!(!problems.list.is_empty() && !problems.to_string().is_empty());
        }
    }
}

#[test]
fn a_folder_of_files_needs_little_and_takes_no_dockerfiles_keys() {
    let least = "[apps.a]\nrepo = 'r'\nkind = 'static'\ndir = './public/'\n";
    let config = parse(least).unwrap();
    let app = &config.apps[&"a".parse().unwrap()];
    let site = app.build.site.as_ref().unwrap();
    assert_eq!((site.dir.as_str(), app.port), ("public", Some(8080)));
    assert_eq!(app.health.path, "/.cutover/health");
    assert!(!app.procfile && site.fallback.is_none() && site.immutable.is_empty());
    for (text, expected) in [
        ("kind = 'static'\n", "`apps.a.dir` is missing"),
        ("kind = 'x'\ndir = '.'\n", "expected \"static\""),
        ("dir = 'x'\nport = 1\n", "`apps.a.dir` needs `kind"),
        ("kind = 'static'\ndir = '../x'\n", "`apps.a.dir`"),
        (
            "kind = 'static'\ndir = '.'\nbuild.target = 'x'\n",
            "`apps.a.build.target` cannot be combined",
        ),
        (
            "kind = 'static'\ndir = '.'\nhooks.test = 'x'\n",
            "`apps.a.hooks` cannot be combined",
        ),
    ] {
        let found = problems(&format!("[apps.a]\nrepo = 'r'\n{text}"));
        assert!(found.iter().any(|it| it.contains(expected)), "{found:?}");
    }
}

#[test]
fn an_image_takes_the_place_of_a_repository() {
    let config = parse("[apps.a]\nimage = 'reg.test:5000/a/b'\nport = 1\npoll = '5m'\n").unwrap();
    let app = &config.apps[&"a".parse().unwrap()];
    let image = app.image().map(ToString::to_string);
    assert_eq!(image.as_deref(), Some("reg.test:5000/a/b:latest"));
    assert_eq!(app.poll, Some(Duration::from_secs(300)));
    let pinned = format!("image = 'a@sha256:{}'\npoll = '5m'\n", "0".repeat(64));
    for (text, expected) in [
        ("image = 'A'\n", "expected the name of an image"),
        (
            "image = 'a'\nrepo = 'r'\n",
            "`apps.a.repo` cannot be combined",
        ),
        (
            "image = 'a'\nbuild.target = 'x'\n",
            "`apps.a.build` cannot be combined",
        ),
        ("image = 'a'\npoll = '1s'\n", "expected 5s or more"),
        ("repo = 'r'\npoll = '5m'\n", "`apps.a.poll` needs `image`"),
        (
            pinned.as_str(),
            "`apps.a.poll` cannot be combined with a digest",
        ),
    ] {
        let found = problems(&format!("[apps.a]\nport = 1\n{text}"));
        assert!(found.iter().any(|it| it.contains(expected)), "{found:?}");
    }
}
