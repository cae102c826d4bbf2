# What programs do with Docker's Python package, one thing after the other.
import io
import tarfile
import threading

import docker

client = docker.from_env()
assert client.ping()
assert client.version()["ApiVersion"]
none = dict(network_mode="none")

# run, with its output, its stderr and its exit status
assert client.containers.run("busybox", "echo hello", remove=True, **none) == b"hello\n"
try:
    client.containers.run("busybox", "sh -c 'echo why >&2; exit 4'", remove=True, **none)
    raise SystemExit("a failing command is no error")
except docker.errors.ContainerError as e:
    assert e.exit_status == 4 and b"why" in e.stderr, e
try:
    client.containers.get("nosuch")
    raise SystemExit("found what is not there")
except docker.errors.NotFound:
    pass

# events are followed while things happen
seen = []
events = client.events(decode=True, filters={"type": "container"})


def follow():
    for event in events:
        seen.append(event["Action"])
        if event["Action"] == "destroy":
            return


follower = threading.Thread(target=follow)
follower.start()

# a container that stays
script = "trap 'exit 0' TERM; echo out; echo err >&2; while :; do sleep 0.1; done"
c = client.containers.run("busybox", ["sh", "-c", script], name="web", detach=True, labels={"a": "b"}, **none)
c.reload()
assert c.status == "running" and c.name == "web" and c.labels == {"a": "b"}
assert [x.name for x in client.containers.list(filters={"label": "a=b"})] == ["web"]
for line in c.logs(stream=True, follow=True):
    if line == b"out\n":
        break
assert c.top()["Processes"]

# exec: the first byte and the last, with and without a terminal, streams taken apart
for tty, want in (False, b"hello\n"), (True, b"hello\r\n"):
    for _ in range(20):
        code, out = c.exec_run("echo hello", tty=tty)
        assert (code, out) == (0, want), (code, out)
assert c.exec_run("sh -c 'echo out; echo err >&2'", demux=True).output == (b"out\n", b"err\n")
assert c.exec_run("sh -c 'exit 9'").exit_code == 9
sock = c.exec_run("cat", stdin=True, socket=True).output
sock._sock.sendall(b"ping\n")
assert sock._sock.recv(8) == b"\x01\0\0\0\0\0\0\x05" and sock._sock.recv(5) == b"ping\n"
sock.close()

# files in and out
buf = io.BytesIO()
with tarfile.open(fileobj=buf, mode="w") as tar:
    info = tarfile.TarInfo("given")
    info.size = 5
    tar.addfile(info, io.BytesIO(b"bytes"))
assert c.put_archive("/tmp", buf.getvalue())
stream, stat = c.get_archive("/tmp/given")
with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
    assert tar.extractfile("given").read() == b"bytes" and stat["size"] == 5
assert any(d["Path"] == "/tmp/given" for d in c.diff())

c.pause()
c.reload()
assert c.status == "paused"
c.unpause()
c.rename("www")
assert c.stats(stream=False)["pids_stats"]
image = c.commit("made", "1")
assert image.tags == ["made:1"]
c.stop(timeout=5)
assert c.wait()["StatusCode"] == 0
c.start()
c.kill()
c.remove()
client.images.remove("made:1")

follower.join(10)
for action in "create", "start", "die", "pause", "unpause", "rename", "kill", "stop", "destroy":
    assert action in seen, (action, seen)

v = client.volumes.create("data")
client.containers.run("busybox", "sh -c 'echo kept > /d/f'", volumes={"data": {"bind": "/d", "mode": "rw"}}, remove=True, **none)
assert client.containers.run("busybox", "cat /d/f", volumes=["data:/d:ro"], remove=True, **none) == b"kept\n"
v.remove()
assert "bridge" in [n.name for n in client.networks.list()]
client.close()
