//! `cutover run` and `cutover exec`: through a pipe, and through a real terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bollard::query_parameters::ListContainersOptionsBuilder;
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Child;

use crate::server::{APP, SETTINGS, Server};
use crate::support::docker::docker;
use crate::support::wait::soon;

/// The names of the containers of runs.
async fn runs(server: &Server) -> Vec<String> {
    let docker = docker().await;
    let all = ListContainersOptionsBuilder::new().all(true).build();
    let all = docker.list_containers(Some(all)).await.unwrap();
    let data_dir = server.stage.data_dir.display().to_string();
    let ours = all.into_iter().filter_map(|it| {
        let labels = it.labels.as_ref().unwrap();
        let name = it.names.as_ref().unwrap()[0]
            .trim_start_matches('/')
            .to_owned();
        let is_ours = labels.get("cutover.data-dir") == Some(&data_dir);
        (is_ours && name.contains("-run-")).then_some(name)
    });
    ours.collect()
}

async fn until_runs(server: &Server, count: usize) {
    let so = soon(async || runs(server).await.len() == count).await;
    assert!(so, "{}", server.log());
}

struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

fn piped(server: &Server, arguments: &[&str], input: &str) -> Ended {
    let mut command = server.cutover(arguments);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // The program may end before it has read everything.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let done = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ended {
        code: done.status.code(),
        out: text(done.stdout),
        err: text(done.stderr),
    }
}

/// A person at a terminal.
struct Person {
    terminal: File,
    said: mpsc::Receiver<Vec<u8>>,
    seen: String,
    child: std::process::Child,
}

/// A program at a terminal of its own, of which the other side is returned.
fn at_terminal(mut command: Command) -> (File, std::process::Child) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let path = ptsname(&terminal, Vec::new()).unwrap();
    let other = || {
        let mut options = File::options();
        let options = options.read(true).write(true);
        options.open(path.to_str().unwrap()).unwrap()
    };
    resize(&terminal, 91, 33);
    let command = command.stdin(other()).stdout(other()).stderr(other());
    (File::from(terminal), command.spawn().unwrap())
}

impl Person {
    fn sits_at(command: Command) -> Self {
        let (terminal, child) = at_terminal(command);
        let mut reader = terminal.try_clone().unwrap();
        let (sender, said) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            terminal,
            said,
            seen: String::new(),
            child,
        }
    }

    fn types(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).unwrap();
    }

    fn reads(&mut self, text: &str) {
        let begun = Instant::now();
        while !self.seen.contains(text) {
            let left = Duration::from_secs(90).saturating_sub(begun.elapsed());
            match self.said.recv_timeout(left) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(_) => panic!("no `{text}` in:\n{}", self.seen),
            }
        }
        self.seen.clear();
    }
}

fn resize(terminal: &impl std::os::fd::AsFd, columns: u16, rows: u16) {
    let size = Winsize {
        ws_col: columns,
        ws_row: rows,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(terminal, size).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_runs_as_if_it_ran_here_and_nothing_is_left_of_it() {
    let mut server = Server::start().await;
    let early = piped(&server, &["run", APP, "--", "/hello", "talk"], "");
    assert_eq!(early.code, Some(1), "{}", early.err);
    assert!(early.err.contains("live"), "{}", early.err);
    server.go_live("v1").await;

    // Through a pipe: both streams, the end of the input, and the exit code.
    for verb in ["run", "exec"] {
        let talk = [verb, APP, "--", "/hello", "talk"];
        let said = piped(&server, &talk, "hi\nexit 7\n");
        assert_eq!(said.code, Some(7), "{verb}: {} {}", said.out, said.err);
        assert_eq!(said.out, "terminal: false\nsaid: hi\n", "{verb}");
        assert_eq!(said.err, "bye\n", "{verb}");
        let ended = piped(&server, &talk, "hi\n");
        assert_eq!(ended.code, Some(9), "{verb}: its input ended");
        let no_shell = piped(&server, &[verb, APP], "");
        assert!(
            no_shell.err.contains("no shell"),
            "{verb}: {}",
            no_shell.err
        );
        assert_ne!(no_shell.code, Some(0), "{verb}");
    }
    let wrong = piped(
        &server,
        &["exec", APP, "--instance", "x", "--", "/hello"],
        "",
    );
    assert!(wrong.err.contains("no such instance"), "{}", wrong.err);
    until_runs(&server, 0).await;

    // At a terminal: its size, when that changes, and Ctrl-C.
    for verb in ["run", "exec"] {
        let command = server.cutover(&[verb, APP, "-it", "--", "/hello", "talk"]);
        let mut person = Person::sits_at(command);
        person.reads("terminal: true");
        person.types("size\r");
        person.reads("91x33");
        resize(&person.terminal, 120, 40);
        let pid = Pid::from_raw(person.child.id() as i32).unwrap();
        kill_process(pid, Signal::WINCH).unwrap();
        let begun = Instant::now();
        while !person.seen.contains("120x40") {
            assert!(begun.elapsed() < Duration::from_secs(60), "{}", person.seen);
            person.types("size\r");
            std::thread::sleep(Duration::from_millis(200));
            while let Ok(bytes) = person.said.try_recv() {
                person.seen += &String::from_utf8_lossy(&bytes);
            }
        }
        person.types("\u{3}");
        let code = person.child.wait().unwrap().code();
        assert_eq!(code, Some(130), "{verb}: {}", person.seen);
    }

    // The person goes away, or the agent.
    let hold = server.cutover(&["run", APP, "--", "/hello", "sleep", "600000"]);
    let mut gone = { hold }.stdin(Stdio::piped()).spawn().unwrap();
    until_runs(&server, 1).await;
    gone.kill().unwrap();
    gone.wait().unwrap();
    until_runs(&server, 0).await;
    let hold = server.cutover(&["run", APP, "--", "/hello", "sleep", "600000"]);
    let mut left = { hold }.stdin(Stdio::piped()).spawn().unwrap();
    until_runs(&server, 1).await;
    server.agent().kill().await.unwrap();
    assert_eq!(left.wait().unwrap().code(), Some(3), "the agent is gone");
    server.serve().await;
    until_runs(&server, 0).await;
    assert_eq!(server.version().await, "v1");

    let db = Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let count = |action: &str| -> i64 {
        let sql = "SELECT count(*) FROM actions WHERE action = ?1 AND detail LIKE '%/hello%'";
        db.query_row(sql, [action], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("run"), count("exec")), (5, 3));
    server.stop().await;
}

/// What people have lost with others: the end of a large output (docker/for-mac#7632), everything when input
/// and output are both large, and the shell when the terminal was gone.
#[tokio::test(flavor = "multi_thread")]
async fn large_input_and_output_pass_whole_and_nobody_is_waited_for_who_is_gone() {
    let settings = SETTINGS.replace("stop_grace", "memory = \"48m\"\nstop_grace");
    let mut server = Server::with(&settings).await;
    server.go_live("v1").await;
    let bytes: Vec<u8> = (0..6_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for verb in ["run", "exec"] {
        let mut echo = server.cutover(&[verb, APP, "--", "/hello", "echo"]);
        let echo = echo.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut echo = echo.spawn().unwrap();
        let mut stdin = echo.stdin.take().unwrap();
        let sent = bytes.clone();
        let writer = std::thread::spawn(move || stdin.write_all(&sent));
        let mut stdout = echo.stdout.take().unwrap();
        let reader = tokio::task::spawn_blocking(move || {
            let mut back = Vec::new();
            let mut piece = vec![0; 256 << 10];
            // Slower than it comes.
            while let count @ 1.. = stdout.read(&mut piece).unwrap() {
                back.extend_from_slice(&piece[..count]);
                std::thread::sleep(Duration::from_millis(5));
            }
            back
        });
        let back = tokio::time::timeout(Duration::from_secs(120), reader).await;
        if back.is_err() {
            echo.kill().unwrap();
        }
        let back = back.expect("both go on").unwrap();
        writer.join().unwrap().unwrap();
        assert_eq!(echo.wait().unwrap().code(), Some(0), "{verb}");
        assert_eq!(back.len(), bytes.len(), "{verb}");
        assert!(back == bytes, "{verb}");
    }

    // Input that the program does not want, and the program's own end is told.
    let code = piped(
        &server,
        &["run", APP, "--", "/hello", "exit", "5"],
        &"x".repeat(3 << 20),
    )
    .code;
    assert_eq!(code, Some(5));

    // `| head`
    let print = ["run", APP, "--", "/hello", "print", "100000000", "100"];
    let mut print = server.cutover(&print);
    let mut print = print
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 100];
    print.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"0000000 xxx"));
    assert_eq!(print.wait().unwrap().code(), Some(141));
    until_runs(&server, 0).await;

    let (terminal, mut left) =
        at_terminal(server.cutover(&["run", APP, "-it", "--", "/hello", "sleep", "600000"]));
    until_runs(&server, 1).await;
    drop(terminal);
    let mut ended = None;
    let gone = soon(async || {
        ended = left.try_wait().unwrap();
        ended.is_some()
    });
    assert!(gone.await, "{}", server.log());
    assert_eq!(ended.unwrap().code(), Some(129));
    until_runs(&server, 0).await;

    // Killed for its memory: so it is said, not only the number.
    let eats = piped(&server, &["run", APP, "--", "/hello", "eat"], "");
    assert_eq!(eats.code, Some(137), "{}", eats.err);
    assert!(eats.err.contains("memory limit"), "{}", eats.err);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_a_program_that_does_not_read_what_is_piped_to_it() {
    let mut server = Server::with(SETTINGS).await;
    server.go_live("v1").await;
    let mut command = server.cutover(&["run", APP, "--", "/hello", "sleep", "600000"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    until_runs(&server, 1).await;
    let mut stdin = child.stdin.take().unwrap();
    let written = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = written.clone();
    let writer = std::thread::spawn(move || {
        while let Ok(more) = stdin.write(&[0; 64 << 10]) {
            count.fetch_add(more, std::sync::atomic::Ordering::Relaxed);
        }
    });
    // Everything on the way is full.
    let mut before = 0;
    let full = soon(async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = written.load(std::sync::atomic::Ordering::Relaxed);
        now > 0 && std::mem::replace(&mut before, now) == now
    });
    assert!(full.await, "{before}");
    let pid = rustix::process::Pid::from_child(&child);
    for _ in 0..2 {
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ended = tokio::task::spawn_blocking(move || child.wait());
    let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
    let code = ended.expect("it ends").unwrap().unwrap().code();
    assert_eq!(code, Some(130));
    writer.join().unwrap();
    until_runs(&server, 0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_was_away_at_the_end_of_a_program_still_gets_its_exit_code() {
    let mut server = Server::start().await;
    server.go_live("v1").await;
    // Which of both comes first, what is typed or what was said, is left to chance.
    let mut people = Vec::new();
    for _ in 0..8 {
        let talk = server.cutover(&["run", APP, "--", "/hello", "talk"]);
        let mut talk = tokio::process::Command::from(talk);
        talk.stdin(Stdio::piped()).stdout(Stdio::piped());
        people.push(talk.kill_on_drop(true).spawn().unwrap());
    }
    for person in &mut people {
        let mut said = BufReader::new(person.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).await.unwrap();
        assert_eq!(line, "terminal: false\n");
    }
    let tell = |person: &Child, signal| {
        let pid = Pid::from_raw(person.id().unwrap() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    };
    people.iter().for_each(|it| tell(it, Signal::STOP));
    let docker = docker().await;
    for name in runs(&server).await {
        let killed = docker.kill_container(&name, None).await;
        assert!(killed.is_ok(), "{killed:?} {}", server.log());
    }
    until_runs(&server, 0).await;
    for person in &mut people {
        let mut stdin = person.stdin.take().unwrap();
        stdin.write_all(b"typed\n").await.unwrap();
    }
    people.iter().for_each(|it| tell(it, Signal::CONT));
    for mut person in people {
        assert_eq!(person.wait().await.unwrap().code(), Some(137));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_stays_stopped_until_it_is_started() {
    let mut server = Server::start().await;
    server.go_live("v1").await;
    let load = server.load();
    let done = |arguments: &[&str]| {
        let done = server.cutover(arguments).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    done(&["restart", APP, "--follow"]);
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{report}");

    done(&["stop", APP]);
    let answer = server.get("/").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("stopped"), "{}", answer.text());
    let instances = format!("/api/v1/apps/{APP}/instances");
    let none = soon(async || server.api(&instances).await["items"] == serde_json::json!([]));
    assert!(none.await, "{}", server.log());
    assert!(done(&["status"]).contains("was stopped"));

    // Through a restart of the agent; and what is pushed waits.
    let id = server.push("v2", "").await;
    server.agent().kill().await.unwrap();
    server.serve().await;
    assert_eq!(server.get("/").await.status, 503);
    let waits = server.api(&format!("/api/v1/deployments/{id}")).await;
    assert_eq!(waits["state"], "queued");

    let done = |arguments: &[&str]| {
        let done = server.cutover(arguments).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    done(&["start", APP, "--follow"]);
    let (live, log) = server.ended(&id).await;
    assert_eq!(live.state, "live", "{log:#?}");
    assert_eq!(server.version().await, "v2");

    // What is under way then goes on afterwards.
    let id = server.push("v3", "slow-start 1500").await;
    server.until_log(&id, "[start]").await;
    done(&["stop", APP]);
    let put_off = soon(async || {
        let waits = server.api(&format!("/api/v1/deployments/{id}")).await;
        waits["state"] == "queued"
    });
    assert!(put_off.await, "{}", server.log());
    done(&["start", APP, "--follow"]);
    let (live, log) = server.ended(&id).await;
    assert_eq!(live.state, "live", "{log:#?}");
    assert_eq!(server.version().await, "v3");

    // Until it runs again, visitors are not told that nothing was ever deployed; and who stops and starts
    // without waiting loses nothing.
    done(&["stop", APP]);
    done(&["start", APP]);
    let answer = server.get("/").await;
    assert_eq!(answer.status, 503);
    let text = answer.text();
    assert!(!text.contains("has been deployed"), "{text}");
    let id = server.push("v4", "slow-start 1500").await;
    server.until_log(&id, "[start]").await;
    done(&["stop", APP]);
    done(&["start", APP]);
    let (live, log) = server.ended(&id).await;
    assert_eq!(live.state, "live", "{log:#?}");
    assert_eq!(server.version().await, "v4");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_is_kept_over_the_file_s_and_goes_back_with_a_rollback() {
    let mut server = Server::with(&format!(
        "{SETTINGS}env = {{ A = \"file\", B = \"file\" }}\n"
    ))
    .await;
    let done = |arguments: &[&str]| {
        let done = server.cutover(arguments).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        match done.status.success() {
            true => Ok(text(&done.stdout)),
            false => Err(text(&done.stderr)),
        }
    };
    let env = async || {
        let text = server.get("/env").await.text();
        let lines = text.lines().filter(|line| "ABC".contains(&line[..1]));
        let lines = lines.filter(|line| line[1..].starts_with('='));
        lines.collect::<Vec<_>>().join(" ")
    };
    server.go_live("v1").await;
    done(&["env", "set", APP, "A=kept", "C=with = and space", "-f"]).unwrap();
    assert_eq!(env().await, "A=kept B=file C=with = and space");
    let again = done(&["env", "set", APP, "A=kept"]).unwrap();
    assert!(again.contains("No value"), "{again}");
    let listed = done(&["env", "list", APP]).unwrap();
    assert!(listed.contains("with = and space"), "{listed}");
    for wrong in [["set", "1A=x"], ["unset", "NONE"], ["set", "A"]] {
        let [verb, argument] = wrong;
        done(&["env", verb, APP, argument]).unwrap_err();
    }
    let path = format!("/api/v1/apps/{APP}/env?limit=1");
    let page = server.api(&path).await;
    assert_eq!(
        (&page["items"][0]["name"], &page["next"]),
        (&"A".into(), &"A".into())
    );
    let page = server.api(&format!("{path}&cursor=A")).await;
    assert_eq!(
        (&page["items"][0]["name"], page["next"].is_null()),
        (&"C".into(), true)
    );
    done(&["env", "unset", APP, "A", "-f"]).unwrap();
    let audit = server.api("/api/v1/actions?action=variables&limit=1").await;
    let values = &audit["items"][0]["detail"]["values"]["A"];
    assert_eq!(
        *values,
        serde_json::json!({ "before": "kept", "after": null }),
        "{audit}"
    );
    assert_eq!(env().await, "A=file B=file C=with = and space");
    done(&["rollback", APP, "-f"]).unwrap();
    assert_eq!(env().await, "A=kept B=file C=with = and space");
    server.go_live("v2").await;
    assert_eq!(env().await, "A=file B=file C=with = and space");
    server.stop().await;
}
