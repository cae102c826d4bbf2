package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"hull/test/rig"
)

// call makes one request and returns status and body.
func call(c *http.Client, method, path, body string) (int, string, error) {
	req, err := http.NewRequest(method, "http://hull"+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

func must(t testing.TB, c *http.Client, method, path, body string) string {
	t.Helper()
	code, out, err := call(c, method, path, body)
	if err != nil || code >= 300 {
		t.Fatalf("%s %s: %d %v\n%s", method, path, code, err, out)
	}
	return out
}

// create makes a container and returns its id.
func create(t testing.TB, c *http.Client, name string, argv ...string) string {
	t.Helper()
	cmd, err := json.Marshal(argv)
	if err != nil {
		t.Fatal(err)
	}
	out := must(t, c, "POST", "/containers/create?name="+name, `{"Image":"busybox","Cmd":`+string(cmd)+`,"HostConfig":{"NetworkMode":"none"}}`)
	var created struct{ Id string }
	if err := json.Unmarshal([]byte(out), &created); err != nil || created.Id == "" {
		t.Fatalf("%s: %v", out, err)
	}
	return created.Id
}

// TestKilledServer kills the server under every kind of stream. Containers go on, and the next server knows everything.
func TestKilledServer(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	s := h.Serve(t)
	c := s.Client()
	id := create(t, c, "flood", "sh", "-c", "i=0; while :; do echo line $((i+=1)); sleep 0.01; done")
	must(t, c, "POST", "/containers/"+id+"/start", "")
	var streams sync.WaitGroup
	for _, path := range []string{"/events", "/containers/flood/logs?follow=1&stdout=1", "/containers/flood/stats"} {
		streams.Go(func() {
			if _, _, err := call(s.Client(), "GET", path, ""); err == nil {
				t.Errorf("%s ended as if it were complete", path)
			}
		})
	}
	streams.Go(func() {
		if _, _, err := call(s.Client(), "POST", "/containers/flood/wait", ""); err == nil {
			t.Error("wait ended as if the container had")
		}
	})
	rig.Eventually(t, "the streams have begun", func() bool { return s.Files() > 12 })
	s.Kill()
	streams.Wait()

	if got := h.Must(t, "ps", "--format", "{{.Names}} {{.State}}"); got != "flood running" {
		t.Errorf("after the kill, in process: %q", got)
	}
	s.Start()
	out := must(t, c, "GET", "/containers/flood/json", "")
	if !strings.Contains(out, `"Status":"running"`) {
		t.Errorf("after the kill, served: %s", out)
	}
	must(t, c, "POST", "/containers/flood/kill", "")
	must(t, c, "DELETE", "/containers/flood", "")
}

// TestStalled has clients that begin and never go on, and clients that vanish. Others do not notice, and nothing is left
// of them.
func TestStalled(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	s := h.Serve(t)
	c := s.Client()
	id := create(t, c, "yes", "yes")
	must(t, c, "POST", "/containers/"+id+"/start", "")
	before := s.Files()

	const each = 20
	var conns []net.Conn
	for range each {
		for _, text := range []string{
			"", "GET /_pi", "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{",
			"GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET /containers/yes/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n",
			"POST /containers/yes/attach?stream=1&stdout=1&stdin=1 HTTP/1.1\r\nHost: x\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n",
		} {
			conn, err := net.Dial("unix", s.Socket)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
		}
	}
	rig.Eventually(t, "they are all there", func() bool { return s.Files() >= before+len(conns) })
	begin := time.Now()
	must(t, c, "GET", "/containers/json?all=1", "")
	create(t, c, "other", "true")
	must(t, c, "POST", "/containers/other/start", "")
	must(t, c, "POST", "/containers/other/wait", "")
	must(t, c, "DELETE", "/containers/other", "")
	if d := time.Since(begin); d > rig.Patience(5*time.Second) {
		t.Errorf("others took %v beside %d stalled clients", d, len(conns))
	}
	if mem := resident(t, s.Cmd.Process.Pid); mem > 200<<20 {
		t.Errorf("%d MiB resident with %d stalled clients", mem>>20, len(conns))
	}
	for _, conn := range conns {
		conn.Close()
	}
	must(t, c, "POST", "/containers/yes/kill", "")
	must(t, c, "DELETE", "/containers/yes", "")
	rig.Eventually(t, "the server has given everything back", func() bool { return s.Files() <= before })
}

// resident is the memory of a process, in bytes.
func resident(t testing.TB, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	var size, rss int
	if _, err := fmt.Sscan(string(b), &size, &rss); err != nil {
		t.Fatal(err)
	}
	return rss * os.Getpagesize()
}

// TestCrowd has a hundred clients at once, each with a container, and commands in other processes beside them: all work
// on the same state. Afterwards the server is as it was before.
func TestCrowd(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	s := h.Serve(t)
	crowd := func() {
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				if i%25 == 0 {
					if r := h.Run(t, "run", "--rm", "--network", "none", "busybox", "echo", "hi"); r.Code != 0 || r.Stdout != "hi\n" {
						t.Errorf("in process: %+v", r)
					}
					return
				}
				c := s.Client()
				name := fmt.Sprintf("c%d", i)
				create(t, c, name, "sh", "-c", "exit 3")
				must(t, c, "POST", "/containers/"+name+"/start", "")
				if out := must(t, c, "POST", "/containers/"+name+"/wait", ""); !strings.Contains(out, `"StatusCode":3`) {
					t.Errorf("wait: %s", out)
				}
				must(t, c, "DELETE", "/containers/"+name, "")
			})
		}
		all.Wait()
	}
	crowd() // what is made once is made now
	files, routines := s.Files(), goroutines(t, s)
	crowd()
	rig.Eventually(t, "no descriptor is left", func() bool { return s.Files() <= files })
	rig.Eventually(t, "no goroutine is left", func() bool { return goroutines(t, s) <= routines+5 })
	if out := must(t, s.Client(), "GET", "/containers/json?all=1", ""); strings.TrimSpace(out) != "[]" {
		t.Errorf("left: %s", out)
	}
}

func goroutines(t testing.TB, s *rig.Server) int {
	t.Helper()
	var info struct{ NGoroutines int }
	if err := json.Unmarshal([]byte(must(t, s.Client(), "GET", "/info", "")), &info); err != nil {
		t.Fatal(err)
	}
	return info.NGoroutines
}

// TestVersions asks for versions there are and are not.
func TestVersions(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	s := h.Serve(t)
	c := s.Client()
	for path, want := range map[string]struct {
		code int
		text string
	}{
		"/_ping":        {200, "OK"},
		"/v1.24/_ping":  {200, "OK"},
		"/v1.24/info":   {200, `"Driver"`},
		"/v1.23/info":   {400, "client version 1.23 is too old. Minimum supported API version is 1.24"},
		"/v1.99/info":   {400, "client version 1.99 is too new. Maximum supported API version is"},
		"/v1.24/nosuch": {404, `{"message":"page not found"}`},
		"/v2/info":      {404, `{"message":"page not found"}`},
	} {
		code, out, err := call(c, "GET", path, "")
		if err != nil || code != want.code || !strings.Contains(out, want.text) {
			t.Errorf("%s: %d %v %s, want %d and %s", path, code, err, out, want.code, want.text)
		}
	}
	resp, err := c.Head("http://hull/_ping")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for _, key := range []string{"Api-Version", "Docker-Experimental", "Ostype", "Server", "Swarm"} {
		if resp.Header.Get(key) == "" {
			t.Errorf("HEAD /_ping has no %s", key)
		}
	}
	// Before 1.52 an event had its object a second time.
	create(t, c, "evented", "true")
	must(t, c, "DELETE", "/containers/evented", "")
	since := fmt.Sprintf("?since=1&until=%d", time.Now().Unix()+1)
	if out := must(t, c, "GET", "/v1.44/events"+since, ""); !strings.Contains(out, `"status":"create"`) {
		t.Errorf("events of 1.44: %s", out)
	}
	if out := must(t, c, "GET", "/events"+since, ""); strings.Contains(out, `"status":"create"`) || !strings.Contains(out, `"Action":"create"`) {
		t.Errorf("events now: %s", out)
	}
}

// TestPython drives the served engine by Docker's Python package, as Debian has it.
func TestPython(t *testing.T) {
	python := "/usr/bin/python3"
	if exec.Command(python, "-c", "import docker").Run() != nil {
		t.Skip("needs Docker's Python package: apt-get install python3-docker")
	}
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	s := h.Serve(t)
	ctx, cancel := context.WithTimeout(t.Context(), rig.Patience(time.Minute))
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "walk.py")
	cmd.Dir = "testdata"
	cmd.Env = []string{"DOCKER_HOST=" + s.Host, "PATH=/usr/bin:/bin", "HOME=" + t.TempDir()}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
}

// TestHeal removes the bridge and a container's link under a server: within a second of telling they are back.
func TestHeal(t *testing.T) {
	h := rig.Engine(t)
	h.Load(t, rig.Busybox(t))
	s := h.Serve(t)
	c := s.Client()
	out := must(t, c, "POST", "/containers/create?name=linked", `{"Image":"busybox","Cmd":["sleep","1000"]}`)
	var created struct{ Id string }
	if err := json.Unmarshal([]byte(out), &created); err != nil {
		t.Fatal(err)
	}
	must(t, c, "POST", "/containers/linked/start", "")
	defer must(t, c, "DELETE", "/containers/linked?force=1", "")
	enter := []string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", s.Cmd.Process.Pid)}
	ip := func(line string) string {
		cmd := exec.Command(enter[0], enter[1], rig.Tool(t, "busybox"), "sh", "-c", line)
		out, _ := cmd.CombinedOutput()
		return string(out)
	}
	var network struct {
		Options map[string]string
	}
	if err := json.Unmarshal([]byte(must(t, c, "GET", "/networks/bridge", "")), &network); err != nil {
		t.Fatal(err)
	}
	var inspect struct {
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress, Gateway string }
		}
	}
	if err := json.Unmarshal([]byte(must(t, c, "GET", "/containers/linked/json", "")), &inspect); err != nil {
		t.Fatal(err)
	}
	containerIP, gateway := inspect.NetworkSettings.Networks["bridge"].IPAddress, inspect.NetworkSettings.Networks["bridge"].Gateway
	bridge := network.Options["com.docker.network.bridge.name"]
	if bridge == "" {
		t.Fatalf("no bridge: %v", network)
	}
	whole := func() bool {
		gw := ip("ip -o -4 addr show dev " + bridge)
		fields := strings.Fields(gw)
		if len(fields) < 4 {
			return false
		}
		address, _, _ := strings.Cut(fields[3], "/")
		ping := exec.Command(enter[0], enter[1], rig.Tool(t, "busybox"), "ping", "-c", "1", "-W", "1", containerIP)
		return address == gateway && ping.Run() == nil
	}
	rig.Eventually(t, "the container reaches its gateway", whole)
	nft := rig.Tool(t, "nft")
	tables := ip(nft + " list tables")
	if !strings.Contains(tables, "hull") {
		t.Errorf("no table of ours: %s", tables)
	}
	ip(nft + " flush ruleset")
	begin := time.Now()
	rig.Eventually(t, "the firewall table is back", func() bool { return ip(nft+" list tables") == tables })
	if d := time.Since(begin); d > rig.Patience(2*time.Second) {
		t.Errorf("nft flush ruleset: healed after %v", d)
	}
	for _, line := range []string{"ip link del " + bridge, "ip link set " + bridge + " down"} {
		ip(line)
		begin := time.Now()
		rig.Eventually(t, "bridge and links are back after "+line, func() bool {
			return strings.Contains(ip("ip -o link show dev "+bridge), "UP") && strings.Contains(ip("ip -o link"), "master "+bridge)
		})
		if d := time.Since(begin); d > rig.Patience(2*time.Second) {
			t.Errorf("%s: healed after %v", line, d)
		}
		rig.Eventually(t, "the container reaches its gateway after "+line, whole)
	}
}
