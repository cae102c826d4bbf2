package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/jsonstream"
)

// shown runs messages through a transfer, a second after each other, and returns what is in the file at the end.
func shown(t *testing.T, terminal bool, format string, messages ...jsonstream.Message) (string, *transfer) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a := &app{}
	tr, err := a.newTransfer(&output{f: f, terminal: terminal}, false, format)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 0)
	tr.now = func() time.Time { return now }
	for _, m := range messages {
		now = now.Add(time.Second)
		tr.message(m)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(b), tr
}

func at(id, status string, current, total int64) jsonstream.Message {
	return jsonstream.Message{ID: id, Status: status, Progress: &jsonstream.Progress{Current: current, Total: total}}
}

var pulling = []jsonstream.Message{
	at("1", "Pulling from app", 0, 0),
	at("aaaaaaaaaaaa", "Pulling fs layer", 0, 0),
	at("bbbbbbbbbbbb", "Pulling fs layer", 0, 0),
	at("aaaaaaaaaaaa", "Downloading", 10e6, 40e6), // of which 10 MB were here
	at("aaaaaaaaaaaa", "Downloading", 15e6, 40e6),
	at("aaaaaaaaaaaa", "Downloading", 20e6, 40e6),
}

// Elsewhere than on a terminal changes are lines and nothing is told twice.
func TestTransferLines(t *testing.T) {
	rest := []jsonstream.Message{
		at("aaaaaaaaaaaa", "Download complete", 0, 0), at("aaaaaaaaaaaa", "Extracting", 30e6, 40e6), at("aaaaaaaaaaaa", "Pull complete", 0, 0), {Status: "Digest: sha256:00"},
	}
	got, _ := shown(t, false, "", append(append([]jsonstream.Message{}, pulling...), rest...)...)
	want := "1: Pulling from app\naaaaaaaaaaaa: Pulling fs layer\nbbbbbbbbbbbb: Pulling fs layer\n" +
		"aaaaaaaaaaaa: Download complete\naaaaaaaaaaaa: Pull complete\nDigest: sha256:00\n"
	if got != want {
		t.Errorf("want %q, got %q", want, got)
	}
	got, _ = shown(t, false, "json", pulling[0], rest[1])
	want = `{"status":"Pulling from app","progressDetail":{},"id":"1"}` + "\n" +
		`{"status":"Extracting","progressDetail":{"current":30000000,"total":40000000},"id":"aaaaaaaaaaaa"}` + "\n"
	if got != want {
		t.Errorf("want %q, got %q", want, got)
	}
}

// On a terminal there are bars with what moves, how fast, and for how long.
func TestTransferBars(t *testing.T) {
	_, tr := shown(t, true, "", pulling...)
	lines := tr.bars(100, 10)
	want := []string{
		"aaaaaaaaaaaa: Downloading [====================>                   ]     20MB / 40MB",
		"20MB of 40MB, 5MB/s, 5s left, 1 waiting",
	}
	if strings.Join(lines, "\n") != strings.Join(want, "\n") {
		t.Errorf("want\n%s\ngot\n%s", strings.Join(want, "\n"), strings.Join(lines, "\n"))
	}
	for _, width := range []int{0, 10, 30, 40, 80} { // no terminal is too narrow
		tr.bars(width, 1)
		tr.bars(width, 0)
	}
	tr.message(at("aaaaaaaaaaaa", "Download complete", 0, 0))
	tr.message(at("aaaaaaaaaaaa", "Pull complete", 0, 0))
	if lines := tr.bars(100, 10); len(lines) != 1 || !strings.HasPrefix(lines[0], "40MB of 40MB") {
		t.Errorf("got %q", lines)
	}
}
