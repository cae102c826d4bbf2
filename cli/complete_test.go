package cli

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
)

// TestCompletion: what a shell is offered, by what the words before say.
func TestCompletion(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	f := newFake(t)
	f.on("GET /containers/json", func(w http.ResponseWriter, r *http.Request) {
		list := []container.Summary{
			{Names: []string{"/up", "/other/link"}, State: "running"},
			{Names: []string{"/still"}, State: "paused"},
			{Names: []string{"/bad\tname\x1b[2J"}, State: "running"},
		}
		if r.URL.Query().Get("all") != "" {
			list = append(list, container.Summary{Names: []string{"/down"}, State: "exited"})
		}
		answer(list)(w, r)
	})
	for _, tt := range []struct {
		line string // the last word is being typed; _ is an empty one
		want string
	}{
		{"stop _", "up"},
		{"start _", "down"},
		{"unpause _", "still"},
		{"rm _", "up still down"},
		{"rm up _", "still down"},
		{"container rm _", "up still down"},
		{"logs up _", ""},
		{"run _", "app app:1 app:latest registry.example:5000/x/y:z"},
		{"rmi app _", "app:1 app:latest registry.example:5000/x/y:z"},
		{"image rm app:1 app _", "app:latest registry.example:5000/x/y:z"},
		{"run --network _", "bridge host none container:up"},
		{"run --restart a", "no always unless-stopped on-failure"},
		{"push --compress a", "gzip zstd none"},
		{"--host unix://SOCK start _", "down"},
		{"-D stop _", "up"},
		{"version _", ""},
	} {
		words := strings.Fields(strings.ReplaceAll(strings.ReplaceAll(tt.line, "SOCK", f.sock), "_", "\x00"))
		for i := range words {
			words[i] = strings.Trim(words[i], "\x00")
		}
		r := f.hull("", append([]string{"__complete"}, words...)...)
		lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
		got := slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, ":") || l == "" })
		if r.code != 0 || strings.Join(got, " ") != tt.want {
			t.Errorf("%s: want %q, got %q; %d %s", tt.line, tt.want, got, r.code, r.stderr)
		}
	}
	if r := f.hull("", "__complete", "ru"); !strings.Contains(r.stdout, "run\tCreate and run") {
		t.Errorf("commands: %+v", r)
	}
	if r := f.hull("", "__complete", "--ro"); !strings.Contains(r.stdout, "--root\t") {
		t.Errorf("flags of hull: %+v", r)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := f.hull("", "completion", shell); r.code != 0 || !strings.Contains(r.stdout, "hull __complete") && !strings.Contains(r.stdout, "__complete") {
			t.Errorf("completion %s: %+v", shell, r)
		}
	}
}
