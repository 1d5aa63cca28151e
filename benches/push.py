#!/usr/bin/env python3
"""From `git push` to the first answer of the new version: Cutover beside a shell script that does the same, run by
git's own hook and, if it is installed, by Debian's `webhook`.

    cargo build --profile dist && python3 benches/push.py [--rounds 10] [--program target/dist/cutover]

The script is a post-receive hook: check out, `docker build`, `docker run`, wait until it answers, write nginx's
upstream, `nginx -s reload`. Cutover has its own hook, its own proxy, and what it needs besides: a record on disk
of every step. Both push the same small change of the same app to a bare repository on this machine, in turn,
round after round; the table shows medians in milliseconds, in Markdown, and Cutover's own step times.
`--successes 1` (the default here) goes live with the first good probe, as the script does.

Scenes: `small`, an app of two files; `files`, the same with 2,000 files of 1 KiB; `unchanged`, a commit that changes
nothing; `history`, a repository with 500 MB of it (`--history 50` for less). In each but `unchanged` one line changes.

Needs git, nginx, curl, docker, python3 and, for the Node app, node. The base images are made of this machine's
own interpreters; nothing is pulled. Everything is removed at the end."""

import argparse, atexit, glob, http.client, json, os, shutil, socket, statistics, subprocess, sys, tarfile, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORK = tempfile.mkdtemp(prefix="cutover-bench-")
PREFIX = f"cutover-bench-{os.getpid()}"

PYTHON_APP = """\
import http.server, os, socket
VERSION = open("/app/version").read().strip() + " " + socket.gethostname()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = VERSION.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""

NODE_APP = """\
const version = require("fs").readFileSync("/app/version", "utf8").trim() + " " + require("os").hostname();
for (const name of ["crypto", "zlib", "tls", "http2", "worker_threads", "stream"]) require(name);
require("http").createServer((_, answer) => answer.end(version)).listen(8080, "0.0.0.0");
process.on("SIGTERM", () => process.exit(0));
"""

HOOK = """\
#!/bin/sh
set -e
read -r old new ref
tree=$(mktemp -d)
git --work-tree="$tree" checkout -q -f "$new"
docker build -q -t {prefix}-{name}:"$new" "$tree" >/dev/null
rm -rf "$tree"
last=$(cat {work}/{name}.last 2>/dev/null || true)
port=$(cat {work}/{name}.port)
docker run -d --name {prefix}-{name}-"$new" -p 127.0.0.1:"$port":8080 {prefix}-{name}:"$new" >/dev/null
until curl -sf -o /dev/null http://127.0.0.1:"$port"/; do sleep 0.02; done
echo "upstream {name} {{ server 127.0.0.1:$port; }}" >{work}/{name}.conf
nginx -c {work}/nginx.conf -s reload
echo {prefix}-{name}-"$new" >{work}/{name}.last
[ -z "$last" ] || docker rm -f "$last" >/dev/null
"""

# What tells `webhook` of a push, as a forge does, and what it runs.
TELLS = """\
#!/bin/sh
set -e
read -r old new ref
body="{{\\"after\\": \\"$new\\"}}"
signature=$(printf %s "$body" | openssl dgst -sha256 -hmac secret | sed 's/^.* //')
curl -sf -o /dev/null -H 'Content-Type: application/json' -H "X-Hub-Signature-256: sha256=$signature" \\
    -d "$body" http://127.0.0.1:{port}/hooks/push
"""
RUNS = """\
#!/bin/sh
export GIT_DIR={work}/webhook.git
echo "old $1 refs/heads/main" | sh {work}/webhook.sh
"""
HOOKS = [
    {
        "id": "push",
        "pass-arguments-to-command": [{"source": "payload", "name": "after"}],
        "trigger-rule": {
            "match": {
                "type": "payload-hmac-sha256",
                "secret": "secret",
                "parameter": {"source": "header", "name": "X-Hub-Signature-256"},
            }
        },
    }
]

NGINX = """\
pid {work}/nginx.pid;
error_log {work}/nginx.log;
events {{}}
http {{
    access_log off;
    include {work}/script.conf;
    include {work}/webhook.conf;
    server {{ listen 127.0.0.1:{script}; location / {{ proxy_pass http://script; }} }}
    server {{ listen 127.0.0.1:{webhook}; location / {{ proxy_pass http://webhook; }} }}
}}
"""

DEPLOY = """\
[agent]
listen = "127.0.0.1:{agent}"
data_dir = "{work}/data"
[proxy]
http = "127.0.0.1:{http}"
[apps.bench]
repo = "{work}/cutover.git"
port = 8080
[apps.bench.health]
successes = {successes}
[apps.bench.deploy]
bake = "0s"
[apps.bench.run]
stop_grace = "1s"
"""


def run(*argv, **options):
    done = subprocess.run(argv, capture_output=True, text=True, **options)
    if done.returncode:
        sys.exit(f"{argv}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def write(name, text, mode=0o644):
    path = os.path.join(WORK, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def base_image(name, program, folders):
    """An image with this machine's own interpreter and the libraries that it is linked with."""
    program = os.path.realpath(program)
    modules = [module for folder in folders for module in glob.glob(f"{folder}/lib-dynload/*.so")]
    files = {program}
    for line in run("ldd", program, *modules).splitlines():
        files |= {word.rstrip(":") for word in line.split() if word.startswith("/")}
    files -= set(modules)
    path = os.path.join(WORK, f"{name}.tar")
    skipped = ("/site-packages", "/test", "/__pycache__", "/idlelib", "/ensurepip", "/config-")
    keep = lambda member: None if any(part in f"/{member.name}" for part in skipped) else member
    with tarfile.open(path, "w") as tar:
        for file in files:
            tar.add(os.path.realpath(file), file)
        for folder in folders:
            tar.add(folder, filter=keep)
    run("docker", "import", path, f"{PREFIX}-{name}")
    os.unlink(path)
    return program


class Repository:
    def __init__(self, name, hook, files, history):
        self.name = name
        self.bare, self.tree = os.path.join(WORK, f"{name}.git"), os.path.join(WORK, f"{name}-tree")
        run("git", "init", "-q", "--bare", "-b", "main", self.bare)
        run("git", "init", "-q", "-b", "main", self.tree)
        for folder in (self.bare, self.tree):
            # Else git looks for likenesses in what is random, and takes minutes.
            run("git", "-C", folder, "config", "core.bigFileThreshold", "1m")
            run("git", "-C", folder, "config", "core.compression", "0")
        for file, text in files.items():
            write(f"{name}-tree/{file}", text)
        # Each commit replaces ten megabytes that nothing compresses.
        for _ in range(history // 10):
            with open(os.path.join(self.tree, "large"), "wb") as file:
                file.write(os.urandom(10 << 20))
            self.commit("more")
        if history:
            os.unlink(os.path.join(self.tree, "large"))
            self.commit("no more")
            run("git", "-C", self.tree, "push", "-q", self.bare, "main")
        write(f"{name}.git/hooks/post-receive", hook, 0o755)

    def commit(self, message):
        who = ("-c", "user.name=bench", "-c", "user.email=bench@example.com")
        run("git", "-C", self.tree, "add", "-A")
        run("git", *who, "-C", self.tree, "commit", "-q", "--allow-empty", "-m", message)

    def push(self, version, port):
        """The milliseconds from the push to the first answer of a new container with this version."""
        write(os.path.basename(self.tree) + "/version", version)
        self.commit(version)
        write(f"{self.name}.port", str(free_port()))
        before = answer(port)
        began = time.monotonic()
        push = ("git", "-C", self.tree, "push", "-q", self.bare, "main")
        pushing = subprocess.Popen(push, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while (now := answer(port)) == before or now is None or now.split(" ")[0] != version:
            if time.monotonic() - began > 120:
                pushing.kill()
                sys.exit(f"{self.bare}: {version} does not serve within two minutes: {pushing.stdout.read()}")
            time.sleep(0.002)
        took = time.monotonic() - began
        pushing.communicate()
        time.sleep(1)
        return 1000 * took


def answer(port):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.read().decode() if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None


def clear(*names):
    for name in names:
        found = run("docker", "ps", "-aq", "--filter", f"name={PREFIX}-{name}").split()
        if found:
            run("docker", "rm", "-f", *found)
        images = run("docker", "images", "-q", "--filter", f"reference={PREFIX}-{name.rstrip('-')}*").split()
        if images:
            subprocess.run(["docker", "rmi", "-f", *set(images)], capture_output=True)


def measure(program, language, scene, arguments):
    image, interpreter, app = language
    dockerfile = f'FROM {PREFIX}-{image}\nWORKDIR /app\nCOPY . .\nEXPOSE 8080\nCMD ["{interpreter}", "/app/app"]\n'
    files = {"Dockerfile": dockerfile, "app": app}
    if scene == "files":
        files |= {f"many/{n % 40}/{n}": f"{n}\n" * 200 for n in range(2000)}
    history = arguments.history if scene == "history" else 0
    ports = {name: free_port() for name in ("script", "webhook", "cutover", "agent", "hooks")}
    for name in ("script", "webhook"):
        write(f"{name}.last", "")
        write(f"{name}.conf", f"upstream {name} {{ server 127.0.0.1:1; }}")
        write(f"{name}.sh", HOOK.format(prefix=PREFIX, work=WORK, name=name), 0o755)
    conf = write("nginx.conf", NGINX.format(work=WORK, **ports))
    run("nginx", "-c", conf)
    config = DEPLOY.format(work=WORK, agent=ports["agent"], http=ports["cutover"], successes=arguments.successes)
    config = write("deploy.toml", config)
    output = open(f"{WORK}/programs.log", "a")
    start = lambda *argv: subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT)
    serving = [start(program, "serve", "--config", config)]
    hooks = {"script": open(f"{WORK}/script.sh").read(), "cutover": open(os.path.join(ROOT, "hooks/post-receive")).read()}
    if webhook := shutil.which("webhook"):
        hooks["webhook"] = TELLS.format(port=ports["hooks"])
        command = write("webhook-runs.sh", RUNS.format(work=WORK), 0o755)
        told = write("hooks.json", json.dumps([HOOKS[0] | {"execute-command": command}]))
        serving.append(start(webhook, "-hooks", told, "-ip", "127.0.0.1", "-port", str(ports["hooks"])))
    all = {name: Repository(name, hook, files, history) for name, hook in hooks.items()}
    for key, value in (("program", program), ("config", config)):
        run("git", "-C", all["cutover"].bare, "config", f"cutover.{key}", value)
    try:
        while not os.path.exists(f"{WORK}/data/agent.sock"):
            time.sleep(0.05)
        took = {name: [] for name in all}
        for round in range(arguments.rounds + 1):
            for name, repository in all.items():
                version = image if scene == "unchanged" else f"{image}-{round}"
                ms = repository.push(version, ports[name])
                # The first one is not counted: nothing is cached yet, and no old release stands.
                if round:
                    took[name].append(ms)
        steps = {}
        listed = run(program, "--config", config, "deployments", "bench", "--json")
        for deployment in json.loads(listed)["items"][: arguments.rounds]:
            for step, ms in deployment["timings_ms"].items():
                steps.setdefault(step, []).append(ms)
        return took, steps
    finally:
        run(program, "--config", config, "remove", "bench", "--yes")
        for process in serving:
            process.terminate()
            process.wait()
        run("nginx", "-c", conf, "-s", "stop")
        clear("script-", "webhook-")
        for name in ("data", *(f"{name}{end}" for name in all for end in (".git", "-tree"))):
            shutil.rmtree(os.path.join(WORK, name), ignore_errors=True)


SCENES = ("small", "files", "unchanged", "history")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--successes", type=int, default=1)
    parser.add_argument("--program", default=os.path.join(ROOT, "target/dist/cutover"))
    parser.add_argument("--only", choices=["python", "node"])
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=SCENES)
    parser.add_argument("--history", type=int, default=500, help="MB")
    arguments = parser.parse_args()
    program = os.path.abspath(arguments.program)
    atexit.register(shutil.rmtree, WORK, ignore_errors=True)
    atexit.register(clear, "")
    library = os.path.dirname(os.path.realpath(os.__file__))
    own = shutil.which("python3") if not sys.executable else sys.executable
    languages = [("python", base_image("python", own, [library]), PYTHON_APP)]
    if shutil.which("node"):
        languages.append(("node", base_image("node", shutil.which("node"), []), NODE_APP))
    print("| app | shell script | webhook | Cutover | of the script's | spread of each | Cutover's steps |")
    print("|---|---|---|---|---|---|---|")
    for language in languages:
        if arguments.only not in (None, language[0]):
            continue
        for scene in arguments.scenes:
            took, steps = measure(program, language, scene, arguments)
            median = {name: statistics.median(all) for name, all in took.items()}
            ratio = median["cutover"] / median["script"]
            webhook = f"{median['webhook']:.0f}" if "webhook" in median else "-"
            spread = ", ".join(f"{name} {min(all):.0f}-{max(all):.0f}" for name, all in took.items())
            shown = ", ".join(f"{name} {statistics.median(all):.0f}" for name, all in steps.items())
            figures = f"{median['script']:.0f} | {webhook} | {median['cutover']:.0f} | {ratio:.2f}"
            print(f"| {language[0]}, {scene} | {figures} | {spread} | {shown} |", flush=True)


main()
