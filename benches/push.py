#!/usr/bin/env python3
"""From `git push` to the first answer of the new version: Cutover beside a shell script that does the same.

    cargo build --profile dist && python3 benches/push.py [--rounds 10] [--program target/dist/cutover]

The script is a post-receive hook: check out, `docker build`, `docker run`, wait until it answers, write nginx's
upstream, `nginx -s reload`. Cutover has its own hook, its own proxy, and what it needs besides: a record on disk
of every step. Both push the same small change of the same app to a bare repository on this machine, in turn,
round after round; the table shows medians in milliseconds, in Markdown, and Cutover's own step times.
`--successes 1` (the default here) goes live with the first good probe, as the script does.

Needs git, nginx, curl, docker, python3 and, for the Node app, node. The base images are made of this machine's
own interpreters; nothing is pulled. Everything is removed at the end."""

import argparse, atexit, glob, http.client, json, os, shutil, socket, statistics, subprocess, sys, tarfile, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORK = tempfile.mkdtemp(prefix="cutover-bench-")
PREFIX = f"cutover-bench-{os.getpid()}"

PYTHON_APP = """\
import http.server, os
VERSION = open("/app/version").read().strip()
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
const version = require("fs").readFileSync("/app/version", "utf8").trim();
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
docker build -q -t {prefix}-script:"$new" "$tree" >/dev/null
rm -rf "$tree"
last=$(cat {work}/script.last 2>/dev/null || true)
port=$(cat {work}/script.port)
docker run -d --name {prefix}-script-"$new" -p 127.0.0.1:"$port":8080 {prefix}-script:"$new" >/dev/null
until curl -sf -o /dev/null http://127.0.0.1:"$port"/; do sleep 0.02; done
echo "upstream app {{ server 127.0.0.1:$port; }}" >{work}/upstream.conf
nginx -c {work}/nginx.conf -s reload
echo {prefix}-script-"$new" >{work}/script.last
[ -z "$last" ] || docker rm -f "$last" >/dev/null
"""

NGINX = """\
pid {work}/nginx.pid;
error_log {work}/nginx.log;
events {{}}
http {{
    access_log off;
    include {work}/upstream.conf;
    server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://app; }} }}
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
    def __init__(self, name, hook, files):
        self.bare, self.tree = os.path.join(WORK, f"{name}.git"), os.path.join(WORK, f"{name}-tree")
        run("git", "init", "-q", "--bare", "-b", "main", self.bare)
        write(f"{name}.git/hooks/post-receive", hook, 0o755)
        run("git", "init", "-q", "-b", "main", self.tree)
        for file, text in files.items():
            write(f"{name}-tree/{file}", text)

    def git(self, *argv):
        who = ("-c", "user.name=bench", "-c", "user.email=bench@example.com")
        run("git", *who, "-C", self.tree, *argv)

    def push(self, version, port):
        """The milliseconds from the push to the first answer of this version."""
        write(os.path.basename(self.tree) + "/version", version)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", version)
        write("script.port", str(free_port()))
        began = time.monotonic()
        push = ("git", "-C", self.tree, "push", "-q", self.bare, "main")
        pushing = subprocess.Popen(push, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while answer(port) != version:
            if time.monotonic() - began > 60:
                pushing.kill()
                sys.exit(f"{self.bare}: {version} does not serve within a minute: {pushing.stdout.read()}")
            time.sleep(0.002)
        took = time.monotonic() - began
        pushing.communicate()
        time.sleep(1)
        return 1000 * took


def answer(port):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except OSError:
        return None


def clear():
    names = run("docker", "ps", "-aq", "--filter", f"name={PREFIX}-").split()
    if names:
        run("docker", "rm", "-f", *names)
    images = run("docker", "images", "-q", "--filter", f"reference={PREFIX}-*").split()
    if images:
        subprocess.run(["docker", "rmi", "-f", *set(images)], capture_output=True)


def measure(program, language, arguments):
    image, interpreter, app = language
    dockerfile = f'FROM {PREFIX}-{image}\nWORKDIR /app\nCOPY . .\nEXPOSE 8080\nCMD ["{interpreter}", "/app/app"]\n'
    files = {"Dockerfile": dockerfile, "app": app}
    nginx, agent, proxy = free_port(), free_port(), free_port()
    write("script.last", "")
    write("upstream.conf", "upstream app { server 127.0.0.1:1; }")
    conf = write("nginx.conf", NGINX.format(work=WORK, port=nginx))
    run("nginx", "-c", conf)
    config = DEPLOY.format(work=WORK, agent=agent, http=proxy, successes=arguments.successes)
    config = write("deploy.toml", config)
    serving = subprocess.Popen(
        [program, "serve", "--config", config], stdout=open(f"{WORK}/agent.log", "a"), stderr=subprocess.STDOUT
    )
    script = Repository("script", HOOK.format(prefix=PREFIX, work=WORK), files)
    hook = open(os.path.join(ROOT, "hooks/post-receive")).read()
    cutover = Repository("cutover", hook, files)
    for key, value in (("program", program), ("config", config)):
        run("git", "-C", cutover.bare, "config", f"cutover.{key}", value)
    try:
        while not os.path.exists(f"{WORK}/data/agent.sock"):
            time.sleep(0.05)
        took = {"script": [], "cutover": []}
        for round in range(arguments.rounds + 1):
            for name, repository, port in (("script", script, nginx), ("cutover", cutover, proxy)):
                ms = repository.push(f"{image}-{round}", port)
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
        serving.terminate()
        serving.wait()
        run("nginx", "-c", conf, "-s", "stop")
        for name in ("data", "script.git", "script-tree", "cutover.git", "cutover-tree"):
            shutil.rmtree(os.path.join(WORK, name), ignore_errors=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--successes", type=int, default=1)
    parser.add_argument("--program", default=os.path.join(ROOT, "target/dist/cutover"))
    parser.add_argument("--only", choices=["python", "node"])
    arguments = parser.parse_args()
    program = os.path.abspath(arguments.program)
    atexit.register(shutil.rmtree, WORK, ignore_errors=True)
    atexit.register(clear)
    library = os.path.dirname(os.path.realpath(os.__file__))
    own = shutil.which("python3") if not sys.executable else sys.executable
    languages = [("python", base_image("python", own, [library]), PYTHON_APP)]
    if shutil.which("node"):
        languages.append(("node", base_image("node", shutil.which("node"), []), NODE_APP))
    print("| app | shell script | Cutover | ratio | spread of both | Cutover's steps |\n|---|---|---|---|---|---|")
    for language in languages:
        if arguments.only not in (None, language[0]):
            continue
        took, steps = measure(program, language, arguments)
        script, cutover = (statistics.median(took[name]) for name in ("script", "cutover"))
        spread = ", ".join(f"{min(all):.0f}-{max(all):.0f}" for all in took.values())
        shown = ", ".join(f"{name} {statistics.median(all):.0f}" for name, all in steps.items())
        ratio = cutover / script
        print(f"| {language[0]} | {script:.0f} | {cutover:.0f} | {ratio:.2f} | {spread} | {shown} |", flush=True)


main()
