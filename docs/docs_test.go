// Package docs holds the documentation. Its test runs every command the pages show.
//
// A block marked "console" is run by sh, line by line, on a private engine of the page, in one directory:
//
//	$ COMMAND     is run; without output below it, it has to succeed and may print anything
//	text          is what it prints, stdout and stderr together; ... stands for any text, alone on a line for any lines
//	[3]           is its exit status, 0 when not shown
//
// A block marked "console root" is run by root only. Beware: a page removes the containers it makes, or the census
// of the engine fails it.
package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hull/registry/registrytest"
	"hull/test/rig"

	"golang.org/x/sys/unix"
)

func TestPages(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	dev, err := filepath.Glob("dev/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range slices.Concat([]string{"../README.md"}, pages, dev) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		checkLinks(t, page, string(text))
		if commands := commandsOf(string(text), os.Geteuid() == 0); len(commands) > 0 {
			t.Run(strings.TrimPrefix(page, "../"), func(t *testing.T) { runPage(t, commands) })
		}
	}
}

// A command of a page, and what it says about it.
type command struct {
	line string // number in the page
	text string
	want []string // lines of output; nil for anything
	code int
}

// commandsOf takes the commands out of a page.
func commandsOf(page string, root bool) []command {
	var out []command
	inside := false
	for i, line := range strings.Split(page, "\n") {
		switch {
		case strings.HasPrefix(line, "```"):
			inside = line == "```console" || line == "```console root" && root
		case !inside:
		case strings.HasPrefix(line, "$ "):
			out = append(out, command{line: strconv.Itoa(i + 1), text: line[2:]})
		case len(out) > 0:
			c := &out[len(out)-1]
			if code, ok := exitStatus(line); ok {
				c.code = code
			} else {
				c.want = append(c.want, line)
			}
		}
	}
	return out
}

func exitStatus(line string) (int, bool) {
	inner, ok := strings.CutPrefix(line, "[")
	inner, ok2 := strings.CutSuffix(inner, "]")
	code, err := strconv.Atoi(inner)
	return code, ok && ok2 && err == nil
}

// runPage has a registry for the page, which lets in ann with $TOKEN, and no configuration of Docker's client.
func runPage(t *testing.T, commands []command) {
	s := registrytest.New(t, registrytest.Options{User: "ann", Password: "secret", Bearer: true})
	walk(t, engine(t), commands, "REGISTRY="+s.Addr, "TOKEN=secret", "DOCKER_CONFIG="+t.TempDir())
}

// walk runs commands, with further variables in their environment.
func walk(t *testing.T, h *rig.Hull, commands []command, env ...string) {
	// Whatever a page does, its image is there before and after.
	h.Must(t, "run", "--rm", "--network", "none", "box", "true")
	h.Mark(t)
	dir := t.TempDir()
	for _, c := range commands {
		try := func() rig.Result {
			cmd := exec.CommandContext(t.Context(), "sh", "-c", "exec 2>&1; "+c.text)
			cmd.Dir = dir
			cmd.Env = append(slices.Clone(h.Env), "PATH="+filepath.Dir(h.Program)+":/usr/sbin:/usr/bin:/sbin:/bin", "PWD="+dir)
			cmd.Env = append(cmd.Env, env...)
			return rig.Do(t, cmd)
		}
		got := try()
		// A server started by the line before may not listen yet: fingers are slower than that, this test is not.
		for end := time.Now().Add(rig.Patience(5 * time.Second)); got.Code != c.code && strings.Contains(got.Stdout, "Connection refused") && time.Now().Before(end); {
			time.Sleep(20 * time.Millisecond)
			got = try()
		}
		if got.Code != c.code {
			t.Fatalf("line %s: %s: want exit status %d, got %d\n%s", c.line, c.text, c.code, got.Code, got.Stdout)
		}
		if c.want != nil && !matches(c.want, got.Stdout) {
			t.Errorf("line %s: %s\nwant:\n%s\ngot:\n%s", c.line, c.text, strings.Join(c.want, "\n"), got.Stdout)
		}
	}
	// Images of the page are its own business; containers are not.
	if left := h.Must(t, "ps", "-aq"); left != "" {
		t.Errorf("containers are left: %s", left)
	}
	for image := range strings.FieldsSeq(h.Must(t, "images", "-q")) {
		h.Run(t, "rmi", "-f", image)
	}
	h.Mark(t)
}

// TestTourWithDocker takes the walk of tour.md with Docker's own client, on hull serve.
func TestTourWithDocker(t *testing.T) {
	rig.Root(t)
	docker, err := filepath.Abs("../.cache/docker/docker")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(docker); err != nil {
		t.Skip("no docker client: .ci/docker-client fetches it")
	}
	text, err := os.ReadFile("tour.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := commandsOf(string(text), true)
	verb := regexp.MustCompile(`\bhull `)
	for i := range commands {
		commands[i].text = verb.ReplaceAllString(commands[i].text, docker+" ")
	}
	h := engine(t)
	sock := filepath.Join(t.TempDir(), "sock")
	serve := exec.Command(h.Program, "serve", "--host", "unix://"+sock) // longer than t.Context, to end by itself
	serve.Env, serve.Stderr = h.Env, os.Stderr
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		serve.Process.Signal(unix.SIGTERM)
		if err := serve.Wait(); err != nil {
			t.Errorf("hull serve: %v", err)
		}
	})
	rig.Eventually(t, "hull serve answers", func() bool {
		_, err := os.Stat(sock)
		return err == nil
	})
	walk(t, h, commands, "DOCKER_HOST=unix://"+sock)
}

// engine is a private engine of root or of this user.
func engine(t *testing.T) *rig.Hull {
	if os.Geteuid() == 0 {
		return rig.Engine(t)
	}
	return rig.EngineIn(t, "/var/tmp")
}

// matches compares output with what a page shows.
func matches(want []string, got string) bool {
	var re strings.Builder
	re.WriteString(`^`)
	for _, line := range want {
		if line == "..." {
			re.WriteString(`(?:.*\n)*`)
			continue
		}
		parts := strings.Split(strings.TrimRight(line, " "), "...")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		re.WriteString(strings.Join(parts, `.*`) + ` *\n`)
	}
	re.WriteString(`$`)
	if got != "" && !strings.HasSuffix(got, "\n") {
		got += "\n"
	}
	return regexp.MustCompile(re.String()).MatchString(strings.ReplaceAll(got, "\r", ""))
}

// checkLinks follows the relative links of a page.
func checkLinks(t *testing.T, page, text string) {
	for _, m := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
			t.Errorf("%s leads nowhere: %v", page, err)
		}
	}
}

func TestMatches(t *testing.T) {
	for _, row := range []struct {
		want string
		got  string
		ok   bool
	}{
		{"a\nb", "a\nb\n", true},
		{"a", "a\nb\n", false},
		{"a\n...", "a\n", true},
		{"...\nz", "a\nb\nz\n", true},
		{"Up ...", "Up 3 seconds  \n", true},
		{"a.c", "abc\n", false},
		{"...x...", "axb", true},
		{"a", "", false},
	} {
		if matches(strings.Split(row.want, "\n"), row.got) != row.ok {
			t.Errorf("%q against %q: want %v", row.want, row.got, row.ok)
		}
	}
}

func TestCommandsOf(t *testing.T) {
	page := "```console\n$ one\nout\n[3]\n$ two\n```\n$ not\n```console root\n$ three\n```\n"
	got := commandsOf(page, false)
	if len(got) != 2 || got[0].text != "one" || got[0].code != 3 || !slices.Equal(got[0].want, []string{"out"}) || got[1].want != nil {
		t.Errorf("%+v", got)
	}
	if n := len(commandsOf(page, true)); n != 3 {
		t.Errorf("as root: want 3, got %d", n)
	}
}

// A design note has a number of its own, which its title repeats.
func TestDesignNumbers(t *testing.T) {
	notes, err := filepath.Glob("design/*.md")
	if err != nil || len(notes) == 0 {
		t.Fatalf("no notes: %v", err)
	}
	seen := map[string]string{}
	for _, note := range notes {
		number, _, _ := strings.Cut(filepath.Base(note), "-")
		if other, taken := seen[number]; taken {
			t.Errorf("%s and %s have one number", other, note)
		}
		seen[number] = note
		text, err := os.ReadFile(note)
		if err != nil {
			t.Fatal(err)
		}
		if want := "# " + strings.TrimLeft(number, "0") + ". "; !strings.HasPrefix(string(text), want) {
			t.Errorf("%s does not begin with %q", note, want)
		}
	}
}
