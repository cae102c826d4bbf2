package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestLikeDocker runs command lines with Docker's client and with ours against the same engine: output, exit status
// and requests are the same.
func TestLikeDocker(t *testing.T) {
	t.Setenv("PASSED", "through")
	dir := t.TempDir()
	env := filepath.Join(dir, "env")
	if err := os.WriteFile(env, []byte("\ufeff# comment\n\n  A=b c \nPASSED\nMISSING\nQ=\"x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	seccomp := filepath.Join(dir, "seccomp.json")
	if err := os.WriteFile(seccomp, []byte("{ \"defaultAction\": \"SCMP_ACT_ALLOW\" }"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Not two -e of create: Docker sends them in the order of a Go map.
	for _, line := range []string{
		"ps", "ps -a", "ps -q", "ps -aq --no-trunc", "ps --no-trunc", "ps -s", "ps -l", "ps -n 2", "ps -l -n 3",
		"ps -f status=exited -f status=created --filter label=a=1",
		"ps --format json", "ps --format {{.ID}}|{{.Names}}|{{.Image}}|{{.State}}|{{.Ports}}|{{.Mounts}}|{{.LocalVolumes}}|{{.Networks}}",
		"ps --format table_{{.ID}}\\t{{.Label_\"com.example.some-name\"}}\\t{{.Size}}",
		"ps --format table_{{.Names}}\\t{{upper_.State}}\\t{{truncate_.Command_5}}",
		"ps --format {{json_.Names}}{{title_.State}}{{pad_.State_1_2}}|{{join_(split_.Names_\"e\")_\"-\"}}{{println_.ID_.Names}}",
		"ps --format {{.Labels}}", "ps --format {{.Label_\"a\"}}", "ps -q --format {{.Names}}",
		"images", "images -a", "images -q", "images --digests", "images --no-trunc", "images app", "images -f dangling=true",
		"images --format json", "images --format {{.Repository}}:{{.Tag}}@{{.Digest}}={{.Size}}", "images --format table_{{.ID}}\\t{{.Tag}}\\t{{.CreatedSince}}",
		"inspect web", "inspect web app:1", "inspect app:1 -f {{.Id}}{{.Size}}", "inspect -f {{.Name}}{{.State.Pid}} web",
		"inspect -f {{json_.Config.Labels}} web", "inspect -f {{.NewerField.Deep}} web", "inspect --type container -s web",
		"inspect nothing", "inspect web nothing", "container inspect web", "image inspect app:1", "inspect --type image web",
		"inspect -f json web",
		"version --format {{.Server.Version}}",
		"start web", "start web nothing", "stop web", "stop -t 3 -s INT web", "stop -t -1 web", "stop nothing web", "kill web nothing", "restart -t 0 web",
		"kill web", "kill -s HUP web", "rm web", "rm -f -v web", "rm nothing", "rm -f nothing web", "rmi -f nothing", "rename web other", "wait web", "wait web nothing",
		"rmi app:1", "rmi -f --no-prune app:1", "rmi nothing", "tag app:1 b:2", "tag app:1 r.example:5000/b",
		"load", "load -q", "save app:1", "save app:1 b nothing@sha256:aa", "import - img:2", "import -c CMD_x -m hello -", "import http://192.0.2.1/x.tar img:2",
		"logs web", "logs -f -t --tail 5 --details web", "logs --since 2026-01-02T03:04:05Z --until 1767323046.5 web",
		"exec web true", "exec -d web true", "exec -i -u 1:2 -w /x -e A=b -e PASSED --privileged web sh -c x",
		"run app:1 true", "run --rm app:1", "run -d app:1 sleep 1", "run -i app:1 cat", "run -i --rm --name n app:1 cat -n",
		"run -a stdout app:1 x", "run -a stdin -i app:1 x", "run -t app:1 x", "start -a web", "start -ai web", "attach --no-stdin web",
		"create --name n -e PASSED --env-file " + env + " -w /w -u 1:2 -h host --domainname dom app:1 a -b c",
		"create --entrypoint sh --label a=b -l c --read-only --tmpfs /t:size=1m --tmpfs /u -v /a:/b:ro,z app:1",
		"create --network none -m 64m --memory-swap -1 --memory-reservation 32m --cpus 1.5 --cpu-shares 5 app:1",
		"create --net host --cpu-period 1 --cpu-quota 2 --cpuset-cpus 0-1 --cpuset-mems 0 --pids-limit 7 app:1",
		"create --cap-add SYS_ADMIN --cap-drop ALL --security-opt no-new-privileges --security-opt seccomp=" + seccomp + " app:1",
		"create --security-opt seccomp=unconfined --security-opt systempaths=unconfined --security-opt apparmor=x app:1",
		"create --privileged --device /dev/fuse --device /dev/a:/dev/b:rw --device /dev/a:r app:1",
		"create --ulimit nofile=10:20 --ulimit core=-1 --ulimit nproc=5 --stop-signal INT --stop-timeout 4 app:1",
		"create --userns host --pid host --ipc private --uts host --cgroupns private app:1",
		"create --sysctl net.ipv4.ip_forward=1 --shm-size 1g --group-add 5 --oom-score-adj 7 --annotation a=b app:1",
		"create --log-driver local --log-opt max-size=1m --platform linux/amd64 --no-healthcheck --rm -it app:1",
		"create --entrypoint= -e MISSING app:1 x",
		"create -p 8080:80 -p 127.0.0.1:53:53/udp -p 9000-9002:9000-9002 -p 7000-7010:70 -p [::1]:81:81 -p 443 -P --expose 5 --expose 6-8/udp app:1",
		"create -p published=8080,target=80,protocol=udp -p 80:80/TCP -p :82 -p 0:83 app:1",
		"port web", "port web 80", "port web 53/udp", "port web 81", "port web x", "port nothing",
		"create -p x app:1", "create -p 1-2:3-5 app:1", "create -p 80/foo app:1", "create -p 1.2.3:80:80 app:1", "create --expose 1:2 app:1",
		"create -p 70000 app:1", "create -p 2-1:5 app:1", "create -p :: app:1", "create --expose 70000 app:1",
		// What is wrong.
		"rm", "ps extra", "ps --nosuch", "run --nosuch x", "run -m abc x", "run -e", "inspect --type foo x", "nosuch", "container nosuch",
		"run -d -a stdout app:1", "run -a nowhere app:1", "run -it app:1", "exec -it web sh", "create --pid x app:1", "ps --format {{",
		"create -v :/x app:1", "create --ulimit nofile=9:1 app:1", "create --ulimit x=1 app:1", "create --device a:b:c:d app:1",
		"create --env-file /nonexistent app:1", "create --security-opt seccomp=/nonexistent app:1", "create --cpus 0.0000000001 app:1",
		"stop -t x web", "logs nothing", "attach nothing", "exec nothing x",
	} {
		args := strings.Fields(line)
		for i := range args {
			if strings.Contains(args[i], "{{") || strings.HasPrefix(args[i], "CMD_") {
				args[i] = strings.ReplaceAll(args[i], "_", " ")
			}
		}
		t.Run(line, func(t *testing.T) {
			f := newFake(t)
			if strings.Contains(line, "-t ") && strings.HasPrefix(line, "run") {
				f.on("POST /containers/"+fakeID+"/attach", stream(true, "tty\r\n", ""))
			}
			want := f.docker("input\n", args...)
			got := f.hull("input\n", args...)
			if want.code != got.code {
				t.Errorf("exit status: want %d, got %d\ndocker: %s\nhull:   %s", want.code, got.code, want.stderr, got.stderr)
			}
			if w, g := settle(line, want.stdout), settle(line, got.stdout); w != g {
				t.Errorf("stdout: want\n%s\ngot\n%s", w, g)
			}
			if w, g := calls(line, want.requests), calls(line, got.requests); w != g {
				t.Errorf("requests: want\n%s\ngot\n%s", w, g)
			}
		})
	}
}

// TestFailsLikeDocker is the same where the engine refuses. Not so on purpose: a failed attach is the engine's failure
// (125) as any other, and exec -d tells a missing command by 127.
func TestFailsLikeDocker(t *testing.T) {
	for _, tt := range []struct{ line, call, message string }{
		{"run -d app:1 nosuch", "POST /containers/" + fakeID + "/start", "exec: nosuch: executable file not found in $PATH"},
		{"run app:1 /etc", "POST /containers/" + fakeID + "/start", "exec /etc: permission denied"},
		{"run --rm app:1", "POST /containers/" + fakeID + "/start", "no space left"},
		{"run -d app:1", "POST /containers/create", "no space left"},
		{"run app:1", "POST /containers/" + fakeID + "/wait", "not now"},
		{"create app:1", "POST /containers/create", "no space left"},
		{"start web", "POST /containers/web/start", "exec: nosuch: executable file not found in $PATH"},
		{"start -a web", "POST /containers/" + fakeID + "/start", "exec: nosuch: executable file not found in $PATH"},
		{"exec web nosuch", "POST /containers/web/exec", "not running"},
		{"rm web", "DELETE /containers/web", "it is running"},
		{"kill web", "POST /containers/web/kill", "it is not running"},
		{"wait web", "POST /containers/web/wait", "not now"},
		{"logs web", "GET /containers/" + fakeID + "/logs", "no log"},
		{"rmi app:1", "DELETE /images/app:1", "in use"},
		{"load", "POST /images/load", "no archive"},
		{"save app:1", "GET /images/get", "no such image"},
		{"import -", "POST /images/create", "no archive"},
		{"ps", "GET /containers/json", "no"},
		{"images", "GET /images/json", "no"},
		{"inspect web", "GET /containers/web/json", "no"},
	} {
		t.Run(tt.line+" at "+tt.call, func(t *testing.T) {
			f := newFake(t)
			f.on("POST /containers/"+fakeID+"/attach", stream(false, "", "")) // a container that does not start writes nothing
			f.on(tt.call, refuse(500, tt.message))
			f.on(strings.ReplaceAll(tt.call, fakeID, "web"), refuse(500, tt.message))
			want, got := f.docker("", strings.Fields(tt.line)...), f.hull("", strings.Fields(tt.line)...)
			if want.code != got.code || want.stdout != got.stdout {
				t.Errorf("want status %d and %q, got %d and %q\ndocker: %s\nhull:   %s", want.code, want.stdout, got.code, got.stdout, want.stderr, got.stderr)
			}
			if !strings.Contains(got.stderr, tt.message) {
				t.Errorf("want %q, got %q", tt.message, got.stderr)
			}
		})
	}
}

// settle brings both outputs to one form where the difference is none: the order of JSON fields, and that of the
// repositories of an image, which with Docker's client is a matter of luck.
func settle(line, s string) string {
	if strings.HasPrefix(line, "images") {
		lines := strings.Split(s, "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	var v any
	if strings.Contains(line, "json") && json.Unmarshal([]byte(s), &v) == nil {
		b, _ := json.Marshal(v)
		return string(b)
	}
	return s
}

// calls is one line a request. What Docker's client does and needs not be done is left out of both: asking for a
// container before it is used (by the id it learned from then on), waiting for one it does not stay with, and saying
// what is the default.
func calls(line string, list []request) string {
	if strings.HasPrefix(line, "rm ") || strings.HasPrefix(line, "stop ") || strings.HasPrefix(line, "kill ") { // several at once
		slices.SortFunc(list, func(a, b request) int { return strings.Compare(a.String(), b.String()) })
	}
	var b strings.Builder
	detached := strings.HasPrefix(line, "run -d ")
	early := strings.HasPrefix(line, "exec") || strings.HasPrefix(line, "logs")
	for _, r := range list {
		missing := strings.Contains(r.Path, "nothing") // Docker asks four kinds of objects for it
		switch {
		case missing && !strings.HasPrefix(r.Path, "/containers/"), missing && (early || strings.HasPrefix(line, "attach")), r.Path == "/info":
			continue
		case strings.HasPrefix(line, "attach") && !strings.HasSuffix(r.Path, "/attach"): // inspect and wait in another order
			continue
		case early && strings.HasPrefix(r.Path, "/containers/") && strings.HasSuffix(r.Path, "/json"):
			continue
		case detached && strings.HasSuffix(r.Path, "/wait"):
			continue
		case strings.HasSuffix(r.Path, "/tag"): // Docker's client knows what names mean; ours lets the engine
			r.Query = ""
		}
		if early || strings.HasPrefix(line, "attach") {
			r.Path = strings.ReplaceAll(r.Path, fakeID, "web")
			r.Body = strings.ReplaceAll(r.Body, `,"Detach":true`, "")
		}
		r.Body = strings.ReplaceAll(r.Body, `"MemorySwappiness":-1,`, "")
		r.Body = strings.ReplaceAll(r.Body, `,"RestartPolicy":{"Name":"no"}`, "") // ours leaves it to the engine's configuration
		b.WriteString(r.String() + "\n")
	}
	return b.String()
}
