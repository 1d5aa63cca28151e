#!/usr/bin/env python3
"""Cutover's proxy beside nginx, HAProxy and Caddy: same backend, same load, one run.

    cargo build --release && python3 benches/proxy.py [--rounds 5] [--seconds 3] [--only CASE,...]

Needs Debian's nginx-light, wrk, nghttp2-client (TLS, HTTP/2) and openssl; haproxy and caddy are measured where they are installed. What
counts is the processor time a request costs the proxy (from /proc), since on few cores the
requests a second measure the load generator too. Rounds go round-robin over the proxies; the
table shows medians. Everything stays on the loopback and ends by itself."""

import argparse, json, os, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TICK = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count()
WORK = tempfile.mkdtemp(prefix="cutover-bench-")
CONNECTIONS = 64


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def write(name, text):
    path = os.path.join(WORK, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def wait_for(port):
    for _ in range(500):
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.02)
    sys.exit(f"nothing listens on port {port}")


def spawn(*argv):
    log = open(os.path.join(WORK, "log"), "a")
    return subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)


def tree(pid):
    """The process and its children, as nginx's workers are."""
    pids, n = [pid], 0
    while n < len(pids):
        for task in os.listdir(f"/proc/{pids[n]}/task"):
            with open(f"/proc/{pids[n]}/task/{task}/children") as f:
                pids += [int(p) for p in f.read().split()]
        n += 1
    return pids


def cpu_seconds(pid):
    """To the nanosecond where the kernel keeps it, else by clock ticks."""
    total = 0
    for p in tree(pid):
        try:
            for task in os.listdir(f"/proc/{p}/task"):
                with open(f"/proc/{p}/task/{task}/schedstat") as f:
                    total += int(f.read().split()[0])
        except OSError:
            total = 0
            break
    if total:
        return total / 1e9
    for p in tree(pid):
        with open(f"/proc/{p}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        total += (int(fields[11]) + int(fields[12])) / TICK
    return total


def resident_kib(pid):
    total = 0
    for p in tree(pid):
        with open(f"/proc/{p}/status") as f:
            total += int(re.search(r"VmRSS:\s+(\d+)", f.read())[1])
    return total


NGINX_COMMON = """
daemon off; pid {pid}; error_log /dev/null; worker_processes {workers};
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 75s; server_tokens off;
  client_body_temp_path {work}/nb; proxy_temp_path {work}/np; fastcgi_temp_path {work}/nf;
  uwsgi_temp_path {work}/nu; scgi_temp_path {work}/ns; server_names_hash_max_size 8192;
  server_names_hash_bucket_size 128;
  {http}
}}
"""


def nginx(name, workers, http):
    pid = os.path.join(WORK, name + ".pid")
    conf = write(name + ".conf", NGINX_COMMON.format(pid=pid, workers=workers, work=WORK, http=http))
    return spawn("nginx", "-e", "/dev/null", "-c", conf)


def backend():
    port = free_port()
    os.makedirs(os.path.join(WORK, "www"), exist_ok=True)
    os.chmod(WORK, 0o755)
    for name, size in (("64", 64), ("64k", 65536)):
        write("www/" + name, "x" * size)
    process = nginx(
        "backend", 1, f"sendfile on; server {{ listen 127.0.0.1:{port} backlog=4096; root {WORK}/www;"
        " default_type text/plain; open_file_cache max=100; }")
    wait_for(port)
    return process, port


def certify():
    """One certificate for all the proxies."""
    os.makedirs(os.path.join(WORK, "certs"), exist_ok=True)
    pem, key = (os.path.join(WORK, "certs", "bench." + end) for end in ("pem", "key"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-nodes", "-subj", "/CN=app0.test", "-addext", "subjectAltName=DNS:app0.test",
                    "-days", "2", "-keyout", key, "-out", pem], check=True, capture_output=True)
    with open(pem) as a, open(key) as b:
        write("both.pem", a.read() + b.read())
    return pem, key


def hosts(routes):
    return [f"app{n}.test" for n in range(routes)]


def start_nginx(app, routes):
    port, tls = free_port(), free_port()
    pem, key = certify()
    servers = "".join(
        f"server {{ listen 127.0.0.1:{port}; listen 127.0.0.1:{tls} ssl http2;"
        f" ssl_certificate {pem}; ssl_certificate_key {key}; server_name {h}; location / {{"
        " proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection '';"
        " proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;"
        " proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;"
        " } }" for h in hosts(routes))
    http = (f"upstream app {{ server 127.0.0.1:{app}; keepalive 256; keepalive_requests 1000000000; }}"
            + servers)
    return nginx("nginx", CORES, http), port, tls


def start_haproxy(app, routes):
    port, tls = free_port(), free_port()
    certify()
    backends = "".join(f"backend b{n}\n  server s 127.0.0.1:{app}\n" for n in range(routes))
    table = write("hosts.map", "".join(f"{h} b{n}\n" for n, h in enumerate(hosts(routes))))
    conf = write("haproxy.cfg", f"""
global
  maxconn 8192
  nbthread {CORES}
defaults
  mode http
  timeout connect 2s
  timeout client 75s
  timeout server 60s
  option forwardfor
  http-reuse always
frontend f
  bind 127.0.0.1:{port} backlog 4096
  bind 127.0.0.1:{tls} ssl crt {WORK}/both.pem alpn h2,http/1.1
  http-request set-header X-Forwarded-Proto http
  use_backend %[req.hdr(host),lower,map({table})]
{backends}""")
    return spawn("haproxy", "-db", "-f", conf), port, tls


def start_relay(app, routes):
    port = free_port()
    conf = write("relay.cfg", f"""
global
  maxconn 8192
  nbthread {CORES}
defaults
  mode tcp
  timeout connect 2s
  timeout client 75s
  timeout server 75s
listen f
  bind 127.0.0.1:{port} backlog 4096
  server s 127.0.0.1:{app}
""")
    return spawn("haproxy", "-db", "-f", conf), port, None


def start_caddy(app, routes):
    port = free_port()
    sites = "".join(f"http://{h}:{port} {{\n reverse_proxy 127.0.0.1:{app}\n}}\n" for h in hosts(routes))
    conf = write("Caddyfile", "{\n admin off\n auto_https off\n}\n" + sites)
    return spawn("caddy", "run", "--config", conf, "--adapter", "caddyfile"), port, None


def start_cutover(app, routes):
    folder = tempfile.mkdtemp(dir=WORK)
    certify()
    os.symlink(os.path.join(WORK, "certs"), os.path.join(folder, "certs"))
    binary = os.environ.get("CUTOVER", os.path.join(
        os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release", "cutover"))
    conf = write("deploy.toml", f"""
[agent]
data_dir = "{folder}"
[proxy]
http = "127.0.0.1:0"
https = "127.0.0.1:0"
""")
    process = spawn(binary, "proxy", "--config", conf)
    for _ in range(500):
        if os.path.exists(os.path.join(folder, "proxy.addr")):
            break
        time.sleep(0.02)
    with open(os.path.join(folder, "proxy.addr")) as f:
        addresses = json.load(f)
        port, tls = (int(addresses[a].rsplit(":", 1)[1]) for a in ("http", "https"))
    table = {"generation": 1, "routes": [
        {"app": h, "release": "r1", "generation": 1, "hosts": [h],
         "targets": [f"127.0.0.1:{app}"]} for h in hosts(routes)]}
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(os.path.join(folder, "proxy.sock"))
        s.sendall(json.dumps({"publish": table}).encode() + b"\n")
        answer = s.makefile().readline()
        if '"done"' not in answer:
            sys.exit(f"cutover refused the table: {answer}")
    return process, port, tls


PROXIES = {
    "cutover": (start_cutover, None),
    "nginx": (start_nginx, "nginx"),
    "haproxy": (start_haproxy, "haproxy"),
    "caddy": (start_caddy, "caddy"),
    "tcp relay": (start_relay, "haproxy"),
}
# name: path, routes, how
CASES = {
    "keep-alive 64 B": ("64", 1, "keep"),
    "keep-alive 64 B, 1000 routes": ("64", 1000, "keep"),
    "keep-alive 64 KiB": ("64k", 1, "keep"),
    "new connections 64 B": ("64", 1, "new"),
    "TLS keep-alive 64 B": ("64", 1, "tls"),
    "HTTP/2 64 B": ("64", 1, "h2"),
}


def h2load(tls, path, how, seconds):
    """TLS, over HTTP/1.1 or with 8 requests at a time over HTTP/2; it knows no percentiles."""
    argv = ["h2load", "-t1", f"-c{CONNECTIONS}", f"-D{seconds}", f"--connect-to=127.0.0.1:{tls}"]
    argv += ["--h1"] if how == "tls" else ["-m8"]
    out = subprocess.run(argv + [f"https://app0.test/{path}"], capture_output=True, text=True).stdout
    done, failed = re.search(r"(\d+) succeeded, (\d+) failed", out).groups()
    mean = re.search(r"time for request:\s+\S+\s+\S+\s+([\d.]+)(us|ms|s)", out)
    mean = float(mean[1]) * {"us": 1e-3, "ms": 1, "s": 1e3}[mean[2]]
    return int(done), mean, float("nan"), failed != "0" and f"{failed} failed", None


def load(port, tls, path, routes, how, seconds):
    if how in ("tls", "h2"):
        return h2load(tls, path, how, seconds)
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency",
            "-H", f"Host: app{routes // 2}.test"]
    if how == "new":
        argv += ["-H", "Connection: close"]
    out = subprocess.run(argv + [f"http://127.0.0.1:{port}/{path}"], capture_output=True, text=True).stdout
    count = int(re.search(r"(\d+) requests in", out)[1])
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    errors = re.search(r"Socket errors: (.*)", out)
    units = {"us": 1e-3, "ms": 1, "s": 1e3}
    at = lambda p: (lambda m: float(m[1]) * units[m[2]])(re.search(rf"{p}%\s+([\d.]+)(us|ms|s)", out))
    return count, at(50), at(99), bad and bad[0], errors and errors[0]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--proxies", default="")
    options = parser.parse_args()
    names = [n for n, (_, needs) in PROXIES.items()
             if not options.proxies or n in options.proxies.split(",")]
    for name in list(names):
        needs = PROXIES[name][1]
        if needs and not shutil.which(needs):
            print(f"{name}: skipped, `{needs}` is not installed")
            names.remove(name)
    app, app_port = backend()
    running = [app]
    try:
        for case, (path, routes, how) in CASES.items():
            if options.only and not any(o in case for o in options.only.split(",")):
                continue
            started = {}
            for name in names:
                process, port, tls = PROXIES[name][0](app_port, routes)
                running.append(process)
                wait_for(port)
                if tls is None and how in ("tls", "h2"):
                    continue
                started[name] = (process, port, tls)
                load(port, tls, path, routes, how, 1)
            rows = {name: [] for name in started}
            for _ in range(options.rounds):
                for name, (process, port, tls) in started.items():
                    before = cpu_seconds(process.pid)
                    count, p50, p99, bad, errors = load(port, tls, path, routes, how, options.seconds)
                    cpu = (cpu_seconds(process.pid) - before) / max(count, 1) * 1e6
                    rows[name].append((cpu, count / options.seconds, p50, p99, resident_kib(process.pid)))
                    if bad or errors:
                        print(f"  {name}: {bad or ''} {errors or ''}")
            print(f"\n{case}, {CONNECTIONS} connections, {options.rounds} x {options.seconds} s")
            print(f"{'':12}{'CPU us/req':>11}{'req/s':>9}{'p50 ms':>8}{'p99 ms':>8}{'MiB':>7}")
            for name in started:
                cpu, rate, p50, p99, kib = (statistics.median(c) for c in zip(*rows[name]))
                print(f"{name:12}{cpu:11.1f}{rate:9.0f}{p50:8.2f}{p99:8.2f}{kib / 1024:7.1f}")
            for process in running[1:]:
                end(process)
            del running[1:]
    finally:
        for process in running:
            end(process)
        shutil.rmtree(WORK, ignore_errors=True)


def end(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


if __name__ == "__main__":
    main()
