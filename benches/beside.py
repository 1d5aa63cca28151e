#!/usr/bin/env python3
"""What a build costs what is live: latencies through the proxy while nothing is built, and while one builds.

    cargo build --profile dist && python3 benches/beside.py [--rounds 5] [--seconds 20] [--program target/dist/cutover]

A dockerd of its own (as root) has a live app of one small file and another whose build takes every processor twice
over and, below `docker.build_memory` (`--memory`), more memory than there is, again and again, until it is cancelled.
h2load asks for the live app's file at a fixed rate (`--rate`), once while nothing is built and once meanwhile, round
after round. The table, in Markdown, has the medians of the rounds, whom the kernel killed for want of memory (`dmesg`),
and whether agent, proxy and app are the processes that they were.

Needs dockerd, git, h2load (Debian's nghttp2-client), ip and /bin/busybox. Everything is removed at the end."""

import argparse, atexit, json, os, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, time, urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORK = tempfile.mkdtemp(prefix="cutover-beside-")
NAME = f"cub{os.getpid()}"
CONNECTIONS = 8

BURN = """\
FROM scratch
COPY busybox /bin/sh
COPY busybox /bin/tail
COPY round /round
RUN i=0; while [ $i -lt {loops} ]; do (while :; do :; done) & i=$((i+1)); done; \\
    while :; do tail /dev/zero; done
"""

DEPLOY = """\
[agent]
listen = "127.0.0.1:{agent}"
data_dir = "{work}/data"
[proxy]
http = "127.0.0.1:{http}"
[docker]
host = "unix://{work}/docker.sock"
build_memory = "{memory}"
{cpus}min_free = "64m"
[apps.live]
repo = "{work}/live.git"
domains = ["live.test"]
kind = "static"
dir = "public"
[apps.live.deploy]
bake = "0s"
[apps.busy]
repo = "{work}/busy.git"
domains = ["busy.test"]
port = 8080
build.network = "none"
"""


def run(*argv, check=True):
    done = subprocess.run(argv, capture_output=True, text=True)
    if check and done.returncode:
        sys.exit(f"{argv}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def until(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"{what} did not happen within {seconds} s")
        time.sleep(0.1)


def commit(name, files, message):
    """Pushes a commit of these files, bytes by path."""
    tree = f"{WORK}/{name}-tree"
    if not os.path.exists(tree):
        run("git", "init", "-q", "--bare", "-b", "main", f"{WORK}/{name}.git")
        run("git", "init", "-q", "-b", "main", tree)
    for path, content in files.items():
        path = os.path.join(tree, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, 0o755)
    who = ("-c", "user.name=bench", "-c", "user.email=bench@example.com")
    run("git", "-C", tree, "add", "-A")
    run("git", *who, "-C", tree, "commit", "-q", "-m", message)
    run("git", "-C", tree, "push", "-q", f"{WORK}/{name}.git", "main")


def start_dockerd():
    run("ip", "link", "add", NAME, "type", "bridge")
    atexit.register(run, "ip", "link", "delete", NAME, check=False)
    run("ip", "address", "add", f"172.30.{os.getpid() % 250}.1/28", "dev", NAME)
    run("ip", "link", "set", NAME, "up")
    log = open(f"{WORK}/dockerd.log", "w")
    daemon = subprocess.Popen(
        ["dockerd", "--data-root", f"{WORK}/root", "--exec-root", f"{WORK}/exec", "--pidfile", f"{WORK}/pid",
         "--host", f"unix://{WORK}/docker.sock", "--bridge", NAME, "--iptables=false", "--ip-masq=false",
         "--cgroup-parent", f"/{NAME}", "--exec-opt", "native.cgroupdriver=cgroupfs"],
        stdout=log, stderr=log, start_new_session=True)
    return daemon


def end(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def percentiles(port, arguments):
    """Of the latencies of each request, in milliseconds: the median and the 99th percentile; and the failures."""
    log = f"{WORK}/h2load"
    run("h2load", "--h1", "-t1", f"-c{CONNECTIONS}", f"-D{arguments.seconds}", "--warm-up-time=1s",
        f"--rps={arguments.rate / CONNECTIONS}", f"--connect-to=127.0.0.1:{port}", f"--log-file={log}",
        "http://live.test/")
    lines = [line.split("\t") for line in open(log)]
    os.unlink(log)
    took = sorted(int(line[2]) / 1000 for line in lines if line[1] == "200")
    return took[len(took) // 2], took[len(took) * 99 // 100], len(lines) - len(took)


def killed():
    """The processes that the kernel killed, by name, from the beginning."""
    return re.findall(r"Killed process \d+ \((.+?)\)", run("dmesg"))


def processes(proxy):
    """Agent, proxy and app by number and start, which no other process shares."""
    docker = ("docker", "--host", f"unix://{WORK}/docker.sock")
    names = run(*docker, "ps", "-q").split()
    pids = run(*docker, "inspect", "-f", "{{.State.Pid}}", *names).split()
    all = [*proxy, *map(int, pids)]
    return [(pid, open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1].split()[19]) for pid in all]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--rate", type=int, default=400, help="requests a second")
    parser.add_argument("--memory", default="512m")
    parser.add_argument("--cpus", type=float, help="docker.build_cpus; default: all")
    parser.add_argument("--program", default=os.path.join(ROOT, "target/dist/cutover"))
    arguments = parser.parse_args()
    program = os.path.abspath(arguments.program)
    atexit.register(shutil.rmtree, WORK, ignore_errors=True)
    ports = {"agent": free_port(), "http": free_port()}
    config = f"{WORK}/deploy.toml"
    cpus = f"build_cpus = {arguments.cpus}\n" if arguments.cpus else ""
    with open(config, "w") as file:
        file.write(DEPLOY.format(work=WORK, memory=arguments.memory, cpus=cpus, **ports))
    commit("live", {"public/index.html": b"x" * 63 + b"\n"}, "live")
    cutover = lambda *argv: run(program, "--config", config, *argv)
    state = lambda id: json.loads(cutover("show", id, "--json"))["state"]

    daemon = start_dockerd()
    atexit.register(end, daemon)
    until("dockerd", lambda: subprocess.run(["docker", "--host", f"unix://{WORK}/docker.sock", "version"],
                                            capture_output=True).returncode == 0)
    log = open(f"{WORK}/serve.log", "w")
    agent = subprocess.Popen([program, "--config", config, "serve"], stdout=log, stderr=log, start_new_session=True)
    atexit.register(end, agent)
    atexit.register(run, program, "--config", config, "remove", "live", "--yes", check=False)
    until("the agent", lambda: os.path.exists(f"{WORK}/data/agent.sock"))
    cutover("deploy", "live", "--follow")
    proxy = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
             if run("ps", "-o", "ppid=", "-p", str(pid), check=False) == str(agent.pid)]
    before, victims = processes([agent.pid, *proxy]), len(killed())

    burn = BURN.format(loops=2 * os.cpu_count()).encode()
    busybox = open("/bin/busybox", "rb").read()
    rows = []
    print("| round | load | idle p50 | idle p99 | p50 beside a build | p99 beside a build | p99, of idle | failed |")
    print("|---|---|---|---|---|---|---|---|")
    for round in range(arguments.rounds):
        load = os.getloadavg()[0]
        idle = percentiles(ports["http"], arguments)
        commit("busy", {"Dockerfile": burn, "busybox": busybox, "round": str(round).encode()}, f"{round}")
        known = len(killed())
        id = json.loads(cutover("deploy", "busy", "--json"))["id"]
        # Its memory is used up once the kernel has killed somebody.
        until("the build's first death", lambda: len(killed()) > known or state(id) == "failed", 180)
        if state(id) == "failed":
            sys.exit(cutover("logs", id))
        busy = percentiles(ports["http"], arguments)
        cutover("cancel", id)
        until("the cancellation", lambda: state(id) == "cancelled")
        time.sleep(2)
        row = [*idle[:2], *busy[:2], busy[1] / idle[1]]
        rows.append(row)
        figures = " | ".join(f"{figure:.2f}" for figure in row)
        print(f"| {round + 1} | {load:.1f} | {figures} | {idle[2] + busy[2]} |", flush=True)
    medians = [statistics.median(column) for column in zip(*rows)]
    print("| median | | " + " | ".join(f"{figure:.2f}" for figure in medians) + " | |")
    names = killed()[victims:]
    print(f"\nkilled by the kernel: {', '.join(f'{names.count(name)} {name}' for name in sorted(set(names))) or 'nobody'}")
    same = processes([agent.pid, *proxy]) == before
    print("agent, proxy and app: " + ("the same processes" if same else "NOT the same processes"))


main()
