package clients

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"hull/test/rig"
)

// dockers are the docker commands in PATH, one of each version.
func dockers(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	dirs := filepath.SplitList(os.Getenv("PATH"))
	for _, dir := range append(dirs, filepath.Join(rig.Source(t), ".cache/docker")) { // made by .ci/docker-client
		path := filepath.Join(dir, "docker")
		out, err := exec.Command(path, "--version").Output()
		if err != nil || found[string(out)] != "" {
			continue
		}
		found[string(out)] = path
	}
	if len(found) == 0 {
		t.Skip("needs docker's client: run .ci/docker-client")
	}
	return found
}

// docker runs one command line of sh, in which docker is the client, and returns what it prints.
func docker(t *testing.T, s *rig.Server, path, line string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), rig.Patience(30*time.Second))
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	cmd.Env = []string{"DOCKER_HOST=" + s.Host, "PATH=" + filepath.Dir(path) + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + t.TempDir(), "TERM=xterm"}
	cmd.WaitDelay = time.Second
	cmd.Dir = t.TempDir()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// walk is a day of a person at Docker's client: each line, and a pattern for what it prints. "!" begins a line that fails.
var walk = [...]struct{ line, want string }{
	{`docker version --format '{{.Server.Version}} {{.Server.APIVersion}}'`, `\S+ 1\.\d+`},
	{`docker info --format '{{.Driver}} {{.OSType}}'`, `overlayfs linux`},
	{`docker images --format '{{.Repository}}'`, `busybox`},
	{`docker run --rm --network none busybox echo hello`, `^hello\n$`},
	{`echo piped | docker run --rm -i --network none busybox cat`, `^piped\n$`},
	{`docker run --rm --network none busybox sh -c 'exit 3' || echo status $?`, `status 3`},
	{`docker run --rm --network none busybox nosuch || echo status $?`, `executable file not found|not found(?s:.*)status 127`},
	{`docker run -d --name web --label a=b --network none busybox sh -c 'echo out; echo err >&2; trap "exit 0" TERM; while :; do sleep 0.1; done'`, `^[0-9a-f]{64}\n$`},
	{`docker ps --format '{{.Names}} {{.State}}'`, `^web running\n$`},
	{`docker ps -q --no-trunc --filter label=a=b | wc -c`, `^65\n$`},
	{`docker inspect web --format '{{.State.Running}} {{.Config.Image}} {{.HostConfig.NetworkMode}}'`, `^true busybox none\n$`},
	{`docker exec web echo inside`, `^inside\n$`},
	{`echo x | docker exec -i web wc -c`, `^2\n$`},
	{`docker exec web sh -c 'exit 7' || echo status $?`, `status 7`},
	{`docker exec web nosuch || echo status $?`, `status 127`},
	{`docker exec -d web touch /made; for i in 1 2 3 4 5 6 7 8 9; do docker exec web test -e /made && break; sleep 0.2; done && echo ok`, `ok`},
	{`docker logs web 2>/dev/null`, `^out\n$`},
	{`docker logs -t --tail 1 web 2>&1`, `^\d{4}-\d\d-\d\dT\S+Z (out|err)\n$`},
	{`docker top web`, `PID(?s:.*)sleep`},
	{`docker rename web www && docker rename www web && docker port web`, `^$`},
	{`docker pause web && docker inspect -f '{{.State.Status}}' web && docker unpause web`, `^web\npaused\nweb\n$`},
	{`docker update --memory 64m --memory-swap 64m web && docker inspect -f '{{.HostConfig.Memory}}' web`, `67108864`},
	{`docker cp web:/etc/passwd - | tar t`, `^passwd\n$`},
	{`echo text > f && docker cp f web:/tmp/g && docker exec web cat /tmp/g`, `text\n$`},
	{`docker diff web`, `A /made`},
	{`docker export web | tar t | grep -c '^made$'`, `^1\n$`},
	{`docker commit -m note web img:1 && docker run --rm --network none img:1 ls /made`, `/made\n$`},
	{`docker stats --no-stream --format '{{.Name}} {{.PIDs}}' web`, `^web \d`},
	{`docker kill -s USR2 web >/dev/null; docker restart -t 1 web`, `^web\n$`},
	{`docker stop -t 1 web && docker wait web`, `^web\n0\n$`},
	{`docker start web`, `^web\n$`},
	{`docker rm -f web`, `^web\n$`},
	{`docker events --since 10m --until $(date +%s.%N) --filter container=web --format '{{.Status}}' | tr '\n' ' '`, `(?s)create start .*kill .*die .*stop .*destroy `},
	{`docker create --name cc --network none busybox true && docker start -a cc && docker rm cc`, `^[0-9a-f]{64}\ncc\n$`},
	{`docker tag busybox other:2 && docker rmi other:2`, `Untagged: other:2`},
	{`docker volume create vol && docker volume ls -q && docker volume inspect -f '{{.Driver}}' vol`, `^vol\nvol\nlocal\n$`},
	{`docker run --rm -v vol:/data --network none busybox sh -c 'echo kept > /data/f' && docker run --rm --network none --mount type=volume,source=vol,target=/d busybox cat /d/f`, `^kept\n$`},
	{`docker volume rm vol`, `^vol\n$`},
	{`docker run -d --name pp -p 127.0.0.1:8088:80 busybox sleep 100 && docker port pp`, `80/tcp -> 127.0.0.1:8088`},
	{`docker inspect pp --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}'`, `^\d+\.\d+\.\d+\.\d+\n$`},
	{`docker exec pp ip -o -4 addr show eth0`, `inet \d+\.\d+\.\d+\.\d+/16`},
	{`docker rm -f pp`, `^pp\n$`},
	{`docker network ls --format '{{.Name}}'`, `bridge\n(?s:.*)host\nnone`},
	{`docker network inspect bridge --format '{{.Driver}}'`, `^bridge\n$`},
	{`docker run -d --name hh --network none --health-cmd true --health-interval 1s busybox sleep 100 >/dev/null; for i in 1 2 3 4 5 6 7 8 9; do docker ps | grep -q '(healthy)' && break; sleep 0.5; done; docker inspect -f '{{.State.Health.Status}}' hh; docker rm -f hh`, `^healthy\nhh\n$`},
	{`docker run --restart on-failure:2 --name rr --network none busybox false; for i in 1 2 3 4 5 6 7 8 9; do test "$(docker inspect -f '{{.RestartCount}} {{.State.Status}}' rr)" = '2 exited' && break; sleep 0.3; done; docker inspect -f '{{.RestartCount}}' rr; docker rm rr`, `2\nrr\n$`},
	{`docker run --rm --init --network none busybox sh -c 'cat /proc/1/comm'`, `init`},
	{`docker run --rm -d --network none busybox true >/dev/null; docker create --network none busybox true >/dev/null; docker container prune -f`, `Deleted Containers:`},
	{`docker system df --format '{{.Type}}'`, `Images\nContainers\nLocal Volumes`},
	{`docker rmi img:1`, `Untagged: img:1`},
	{`docker ps -a -q`, `^$`},
	{`! docker inspect nosuch`, `No such object: nosuch`},
	{`! docker rm nosuch`, `No such container: nosuch`},
	{`! docker run --rm --network nosuch busybox true`, `network nosuch not found`},
	{`! docker node ls`, `not a swarm manager`},
}

// TestDocker drives the served engine by every docker there is.
func TestDocker(t *testing.T) {
	for version, path := range dockers(t) {
		t.Run(strings.Fields(version)[2], func(t *testing.T) {
			h := rig.Engine(t)
			h.Load(t, rig.Busybox(t))
			s := h.Serve(t)
			for _, step := range walk {
				line, fails := strings.CutPrefix(step.line, "! ")
				out, err := docker(t, s, path, line)
				if (err != nil) != fails {
					t.Errorf("%s\n%v, want failure %v\n%s", step.line, err, fails, out)
				} else if !regexp.MustCompile(step.want).MatchString(out) {
					t.Errorf("%s\nprints\n%swant %s", step.line, out, step.want)
				}
			}
			terminal(t, s, path)
		})
	}
}

// terminal is what a person does at a terminal: run -it, detach, attach, exec -it.
func terminal(t *testing.T, s *rig.Server, path string) {
	cmd := func(args ...string) *exec.Cmd {
		c := exec.CommandContext(t.Context(), path, args...)
		c.Env = []string{"DOCKER_HOST=" + s.Host, "PATH=/usr/bin:/bin", "HOME=" + t.TempDir(), "TERM=xterm"}
		return c
	}
	p := rig.Pty(t, cmd("run", "-it", "--name", "tty", "--network", "none", "busybox", "sh"))
	p.Expect("/ # ")
	p.Send("echo $((6*7))\n")
	p.Expect("42")
	p.Send("stty size\n")
	p.Expect("24 80")
	p.Send("\x10\x11") // ctrl-p ctrl-q
	if code := p.Wait(); code != 0 {
		t.Errorf("detach: exit status %d", code)
	}
	p = rig.Pty(t, cmd("attach", "--detach-keys", "ctrl-a", "tty"))
	p.Send("echo again\n")
	p.Expect("again")
	p.Send("\x01")
	p.Wait()
	p = rig.Pty(t, cmd("exec", "-it", "tty", "sh"))
	p.Expect("/ # ")
	p.Send("exit 5\n")
	if code := p.Wait(); code != 5 {
		t.Errorf("exec -it: exit status %d, want 5", code)
	}
	if out, err := docker(t, s, path, "docker rm -f tty"); err != nil {
		t.Errorf("rm: %v\n%s", err, out)
	}
}
