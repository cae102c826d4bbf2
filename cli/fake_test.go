package cli

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hull/client"
)

// fake is an engine that knows a fixed set of objects and records what it is asked.
type fake struct {
	t    *testing.T
	sock string

	// mu protects the following.
	mu       sync.Mutex
	requests []request
	answers  map[string]http.HandlerFunc // by "METHOD /path", before the fixed ones
}

// request is one call as it came, in a form in which two clients can be compared.
type request struct {
	Method, Path string
	Query        string
	Body         string // JSON with what is null, empty or zero left out
}

func (r request) String() string {
	return strings.TrimRight(r.Method+" "+r.Path+"?"+r.Query+" "+r.Body, "? ")
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{t: t, sock: filepath.Join(t.TempDir(), "s"), answers: map[string]http.HandlerFunc{}}
	l, err := net.Listen("unix", f.sock)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: f}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	t.Cleanup(func() {
		srv.Close()
		wg.Wait()
	})
	return f
}

func (f *fake) on(call string, h http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[call] = h
}

// took returns the requests so far and forgets them.
func (f *fake) took() []request {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.requests
	f.requests = nil
	return r
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	if rest, ok := strings.CutPrefix(path, "/v1."); ok {
		_, path, _ = strings.Cut(rest, "/")
		path = "/" + path
	}
	w.Header().Set("Api-Version", "1.50")
	w.Header().Set("Ostype", "linux")
	if path == "/_ping" {
		io.WriteString(w, "OK")
		return
	}
	var body []byte
	if r.Header.Get("Upgrade") == "" || r.ContentLength > 0 {
		body, _ = io.ReadAll(r.Body)
	}
	f.record(r, path, body)
	f.mu.Lock()
	h := f.answers[r.Method+" "+path]
	f.mu.Unlock()
	if h == nil {
		h = fixed(r.Method, path)
	}
	h(w, r)
}

func (f *fake) record(r *http.Request, path string, body []byte) {
	q := r.URL.Query()
	for k, vs := range q {
		// What is off may be said or not.
		if len(vs) == 1 && (vs[0] == "" || vs[0] == "0" || vs[0] == "false") && k != "t" {
			delete(q, k)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	query, err := url.QueryUnescape(q.Encode())
	if err != nil {
		f.t.Error(err)
	}
	f.requests = append(f.requests, request{r.Method, path, query, compact(body)})
}

// compact drops what is empty from JSON, and shows anything else as it is.
func compact(b []byte) string {
	var v any
	if len(b) == 0 || json.Unmarshal(b, &v) != nil {
		return string(b)
	}
	v = prune(v)
	if v == nil {
		return ""
	}
	out, _ := json.Marshal(v)
	return string(out)
}

func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if e = prune(e); e == nil {
				delete(v, k)
			} else {
				v[k] = e
			}
		}
		if len(v) == 0 {
			return nil
		}
		return v
	case []any:
		zero := true
		for _, e := range v {
			zero = zero && prune(e) == nil
		}
		if zero {
			return nil
		}
		return v
	case string:
		if v == "" {
			return nil
		}
	case bool:
		if !v {
			return nil
		}
	case float64:
		if v == 0 {
			return nil
		}
	case nil:
		return nil
	}
	return v
}

const fakeID = "4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01"

func answer(v any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(v)
	}
}

func refuse(code int, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		json.NewEncoder(w).Encode(map[string]string{"message": message})
	}
}

func empty(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// stream answers an upgrade with output and echoes stdin until its end, if it is asked for.
func stream(tty bool, stdout, stderr string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		kind := "application/vnd.docker.multiplexed-stream"
		if tty {
			kind = "application/vnd.docker.raw-stream"
		}
		fmt.Fprintf(c, "HTTP/1.1 101 UPGRADED\r\nContent-Type: %s\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", kind)
		if r.URL.Query().Get("stdin") == "1" {
			b, _ := io.ReadAll(rw)
			stdout += string(b)
		}
		if tty {
			io.WriteString(c, stdout)
			return
		}
		// What a client still sends is taken, or the kernel answers it with a reset that overtakes our output.
		defer func() {
			c.(interface{ CloseWrite() error }).CloseWrite()
			c.SetReadDeadline(time.Now().Add(2 * time.Second))
			io.Copy(io.Discard, rw)
		}()
		c.Write(frame(1, stdout))
		if r.URL.Query().Get("stderr") == "1" || strings.HasPrefix(r.URL.Path, "/exec/") {
			c.Write(frame(2, stderr))
		}
	}
}

func frame(kind byte, s string) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind, 0, 0, 0}, uint32(len(s)))
	return append(b, s...)
}

// wait answers its head at once and the status a little later.
func wait(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.(http.Flusher).Flush()
		time.Sleep(20 * time.Millisecond)
		json.NewEncoder(w).Encode(map[string]any{"StatusCode": code})
	}
}

// fixed is what the fake knows: the container web, which ended with 3 and wrote two lines, and the image app:1.
func fixed(method, path string) http.HandlerFunc {
	switch method + " " + path {
	case "GET /containers/json":
		return answer(fakeContainers())
	case "GET /images/json":
		return answer(fakeImages())
	case "GET /version":
		return answer(map[string]any{"Version": "9.9", "ApiVersion": "1.50", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64"})
	case "POST /containers/create":
		return func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusCreated)
			json.NewEncoder(w).Encode(map[string]any{"Id": fakeID, "Warnings": []string{}})
		}
	case "GET /containers/web/json", "GET /containers/" + fakeID + "/json":
		return answer(fakeInspect())
	case "GET /images/app:1/json":
		return answer(map[string]any{"Id": "sha256:" + fakeID, "RepoTags": []string{"app:1"}, "Size": 4711, "Os": "linux"})
	case "POST /images/load":
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"stream":"Loaded image: app:1\n"}`+"\n")
		}
	case "GET /images/get":
		return func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "an archive") }
	case "POST /images/create":
		return func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"status":"sha256:`+fakeID+`"}`+"\n") }
	case "DELETE /images/app:1":
		return answer([]map[string]string{{"Untagged": "app:1"}, {"Deleted": "sha256:" + fakeID}})
	case "POST /containers/web/exec":
		return answer(map[string]string{"Id": "e1"})
	case "POST /exec/e1/start":
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "" {
				stream(false, "out\n", "err\n")(w, r)
			}
		}
	case "GET /exec/e1/json":
		return answer(map[string]any{"ID": "e1", "ExitCode": 5})
	case "GET /containers/web/logs", "GET /containers/" + fakeID + "/logs":
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.docker.multiplexed-stream")
			w.Write(slices.Concat(frame(1, "one\n"), frame(2, "two\n")))
		}
	}
	if id, verb, ok := strings.Cut(strings.TrimPrefix(path, "/containers/"), "/"); ok && method == "POST" && (id == "web" || id == fakeID) {
		switch verb {
		case "start", "stop", "kill", "restart", "rename", "resize":
			return empty(http.StatusNoContent)
		case "wait":
			return wait(3)
		case "attach":
			return stream(false, "out\n", "err\n")
		}
	}
	if method == "DELETE" && path == "/containers/web" || method == "POST" && path == "/images/app:1/tag" {
		return empty(http.StatusNoContent)
	}
	if strings.HasPrefix(path, "/images/") {
		return refuse(404, "No such image: "+strings.TrimSuffix(strings.TrimPrefix(path, "/images/"), "/json"))
	}
	if strings.HasPrefix(path, "/containers/") {
		name, _, _ := strings.Cut(strings.TrimPrefix(path, "/containers/"), "/")
		return refuse(404, "No such container: "+name)
	}
	return refuse(404, "page not found")
}

// began is one moment for all tests: two clients see the same ages.
var began = sync.OnceValue(time.Now)

func fakeContainers() []map[string]any {
	hour := began().Add(-3 * time.Hour).Unix()
	return []map[string]any{{
		"Id": fakeID, "Names": []string{"/web"}, "Image": "app:1", "ImageID": "sha256:" + fakeID,
		"Command": "nginx -g daemon off; and some more", "Created": hour, "State": "exited",
		"Status": "Exited (3) 2 hours ago", "Ports": []any{}, "Labels": map[string]string{"a": "1", "com.example.some-name": "x"},
		"SizeRw": 12345678, "SizeRootFs": 223456789, "HostConfig": map[string]string{"NetworkMode": "none"},
		"NetworkSettings": map[string]any{"Networks": map[string]any{"none": map[string]any{}}},
		"Mounts":          []map[string]any{{"Type": "bind", "Source": "/srv/a-rather-long/path", "Destination": "/d"}},
	}, {
		"Id": strings.Repeat("ab", 32), "Names": []string{"/db", "/web/db"}, "Image": "sha256:" + strings.Repeat("cd", 32),
		"ImageID": "sha256:" + strings.Repeat("cd", 32), "Command": "sh", "Created": hour, "State": "running", "Status": "Up 3 hours",
		"Ports": fakePorts(),
	}}
}

// fakePorts are folded where they are the same inside and outside and follow each other.
func fakePorts() []any {
	port := func(ip string, inside, outside int, proto string) map[string]any {
		m := map[string]any{"PrivatePort": inside, "Type": proto}
		if ip != "" {
			m["IP"], m["PublicPort"] = ip, outside
		}
		return m
	}
	return []any{
		port("0.0.0.0", 80, 8080, "tcp"), port("", 443, 0, "tcp"), port("", 444, 0, "tcp"), port("", 446, 0, "tcp"), port("", 444, 0, "udp"),
		port("0.0.0.0", 9000, 9000, "tcp"), port("0.0.0.0", 9001, 9001, "tcp"), port("127.0.0.1", 9002, 9002, "tcp"), port("0.0.0.0", 53, 53, "udp"),
	}
}

func fakeImages() []map[string]any {
	day := began().Add(-50 * time.Hour).Unix()
	return []map[string]any{
		{"Id": "sha256:" + fakeID, "RepoTags": []string{"app:1", "app:latest", "registry.example:5000/x/y:z"},
			"RepoDigests": []string{"app@sha256:" + strings.Repeat("12", 32)}, "Created": day, "Size": 123456789, "SharedSize": -1, "Containers": -1},
		{"Id": "sha256:" + strings.Repeat("ef", 32), "RepoTags": []string{}, "RepoDigests": []string{}, "Created": day, "Size": 999, "SharedSize": -1, "Containers": -1},
	}
}

func fakeInspect() map[string]any {
	return map[string]any{
		"Id": fakeID, "Name": "/web", "Created": "2026-01-02T03:04:05.000000006Z", "Path": "nginx", "Args": []string{"-g"},
		"State":  map[string]any{"Status": "running", "Running": true, "ExitCode": 0, "Pid": 42},
		"Config": map[string]any{"Image": "app:1", "OpenStdin": true, "Labels": map[string]string{"a": "<1>"}}, "HostConfig": map[string]any{},
		"NewerField": map[string]any{"Deep": 7},
		"NetworkSettings": map[string]any{"Ports": map[string]any{
			"80/tcp":  []any{map[string]string{"HostIp": "0.0.0.0", "HostPort": "8080"}, map[string]string{"HostIp": "::", "HostPort": "8080"}},
			"443/tcp": nil,
			"53/udp":  []any{map[string]string{"HostIp": "127.0.0.1", "HostPort": "53"}},
		}},
	}
}

// result is what a command did.
type result struct {
	code           int
	stdout, stderr string
	requests       []request
}

// hull runs a command line in this process against the fake, with stdin as its input.
func (f *fake) hull(stdin string, args ...string) result {
	f.t.Helper()
	f.took()
	dir := f.t.TempDir()
	open := func(name, content string) *os.File {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			f.t.Fatal(err)
		}
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			f.t.Fatal(err)
		}
		f.t.Cleanup(func() { file.Close() })
		return file
	}
	p := f.program()
	p.Stdin, p.Stdout, p.Stderr = open("in", stdin), open("out", ""), open("err", "")
	code := Main(p, args)
	return result{code, readBack(f.t, p.Stdout), readBack(f.t, p.Stderr), f.took()}
}

func (f *fake) program() Program {
	return Program{
		Name: "hull", Version: "1.2", Commit: "abcdef0", LocalAPI: "1.50",
		Local: func(Store) (client.Dial, client.Call, error) {
			dial, err := client.DialHost("unix://"+f.sock, client.SSH{})
			return dial, nil, err
		},
	}
}

func readBack(t *testing.T, f *os.File) string {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// docker runs the same command line with Docker's own client, or skips the test where there is none.
func (f *fake) docker(stdin string, args ...string) result {
	f.t.Helper()
	path, err := exec.LookPath("docker")
	if err != nil {
		f.t.Skip("left out: no docker client here to compare with")
	}
	f.took()
	c := exec.Command(path, args...)
	c.Env = append(os.Environ(), "DOCKER_HOST=unix://"+f.sock, "DOCKER_CONFIG="+f.t.TempDir(), "DOCKER_CLI_HINTS=false", "HOME="+f.t.TempDir())
	var out, errs bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &errs
	err = c.Run()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		f.t.Fatal(err)
	}
	return result{c.ProcessState.ExitCode(), out.String(), errs.String(), f.took()}
}
