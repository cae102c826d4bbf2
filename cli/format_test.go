package cli

import (
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"hull/client"
	"hull/test/rig"

	"github.com/moby/moby/api/types/container"
	wire "github.com/moby/moby/api/types/image"
)

// TestNarrow: on a narrow terminal names, states and ports stay whole; ids and commands are left out before they are cut.
func TestNarrow(t *testing.T) {
	f := newFake(t)
	id := strings.Repeat("0123456789abcdef", 4)
	f.on("GET /containers/json", answer([]container.Summary{{
		ID: id, Names: []string{"/shop-frontend"}, Image: "registry.example.com/team/frontend:2026.11", Command: "nginx -g 'daemon off;' and more",
		Status: "Up 2 minutes (healthy)", State: "running", Created: 1,
		Ports: []container.PortSummary{{IP: netip.MustParseAddr("127.0.0.1"), PrivatePort: 80, PublicPort: 8080, Type: "tcp"}},
	}}))
	f.on("GET /images/json", answer([]wire.Summary{{ID: "sha256:" + id, RepoTags: []string{"registry.example.com/team/frontend:2026.11"}, Size: 123456789, Created: 1}}))
	for _, tt := range []struct {
		args    string
		columns int
		want    []string
		none    []string
	}{
		{"ps", 200, []string{"0123456789ab ", "nginx -g", "shop-frontend", "registry.example.com/team/frontend:2026.11"}, nil},
		{"ps", 100, []string{"shop-frontend", "Up 2 minutes (healthy)", "127.0.0.1:8080->80/tcp", "registry.example.com/team/fronten…"}, []string{"COMMAND", "CONTAINER ID"}},
		{"ps", 80, []string{"shop-frontend", "Up 2 minutes (healthy)", "127.0.0.1:8080->80/tcp"}, []string{"COMMAND", "CONTAINER ID", "…"}},
		{"ps", 60, []string{"127.0.0.1:8080", "Up 2 minutes", "shop-frontend"}, []string{"COMMAND", "CONTAINER ID", "IMAGE"}},
		{"ps --no-trunc", 60, []string{id, "nginx -g 'daemon off;' and more", "shop-frontend"}, []string{"…"}},
		{"images", 80, []string{"registry.example.com/team/frontend", "2026.11", "123MB"}, []string{"IMAGE ID"}},
		{"images", 60, []string{"registry.example.com/team/frontend", "2026.11", "123MB"}, []string{"IMAGE ID", "CREATED"}},
		{"images --no-trunc", 60, []string{id, "registry.example.com/team/frontend"}, []string{"…"}},
	} {
		// The size is that of the terminal before the program on it begins.
		cmd := f.command()
		cmd.Path, cmd.Args = rig.Tool(t, "sh"), []string{"sh", "-c", "stty cols " + strconv.Itoa(tt.columns) + `; "$0" ` + tt.args + `; echo "[$?]"`, f.command().Path}
		p := rig.Pty(t, cmd)
		p.Expect("[0]") // and all before it has been seen
		got := p.Seen()
		for _, w := range tt.want {
			if !strings.Contains(got, w) {
				t.Errorf("%s at %d: want %q in\n%s", tt.args, tt.columns, w, got)
			}
		}
		for _, n := range tt.none {
			if strings.Contains(got, n) {
				t.Errorf("%s at %d: want no %q in\n%s", tt.args, tt.columns, n, got)
			}
		}
		for line := range strings.Lines(got) {
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\r\n")); n > tt.columns && !strings.Contains(tt.args, "no-trunc") {
				t.Errorf("%s at %d: a line of %d characters: %s", tt.args, tt.columns, n, line)
			}
		}
	}
}

// TestKnown: what a row says of itself is what its methods say, for each column of the default table.
func TestKnown(t *testing.T) {
	for _, tt := range []struct {
		row     knowing
		columns []column
	}{
		{&imageRow{s: &client.ImageSummary{ID: "sha256:0123456789abcdef", Created: 1, Size: 2}, repo: "a", tag: "b", short: true, now: time.Unix(99, 0)}, imageColumns[:]},
		{&containerRow{&client.ContainerSummary{ID: "0123456789abcdef", Image: "a", Command: "b", Status: "c", Names: []string{"/d"},
			Ports: []container.PortSummary{{PrivatePort: 80, Type: "tcp"}}}, true, time.Unix(99, 0)}, psColumns[:]},
	} {
		for _, c := range tt.columns {
			want := reflect.ValueOf(tt.row).MethodByName(c.method).Call(nil)[0].String()
			if got, ok := tt.row.known(c.method); !ok || got != want {
				t.Errorf("%T: %s: want %q, got %q, %t", tt.row, c.method, want, got, ok)
			}
		}
	}
}
