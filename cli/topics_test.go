package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"hull/trace"
)

// TestTopicOfVariables: the topic has every variable the programs read by name.
func TestTopicOfVariables(t *testing.T) {
	var text string
	for _, topic := range topics {
		if topic.Name == "environment" {
			text = topic.Text
		}
	}
	read := regexp.MustCompile(`os\.(?:Getenv|LookupEnv)\("([A-Z_]+)"\)`)
	variables := map[string]bool{trace.Env: true}
	for _, dir := range []string{".", "../client", "../cmd/internal", "../engine"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := os.ReadFile(path)
			for _, m := range read.FindAllSubmatch(b, -1) {
				variables[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name := range variables {
		switch name {
		case "PATH", "HOME", "TERM": // everybody's
			continue
		}
		if !strings.Contains(text, name) {
			t.Errorf("%s is read, but the topic environment does not have it", name)
		}
	}
}

// TestHelpTopics: help finds commands first, then topics.
func TestHelpTopics(t *testing.T) {
	f := newFake(t)
	for _, tt := range []struct{ line, stdout, stderr string }{
		{"help format", "What --format takes\n\njson ", ""},
		{"help run", "Usage:  hull run ", ""},
		{"help container ls", "Usage:  hull container ls ", ""},
		{"help nosuch", "", `no help on "nosuch"`},
		{"help swarm", "", "Kubernetes"},
	} {
		r := f.hull("", strings.Fields(tt.line)...)
		if !strings.HasPrefix(r.stdout, tt.stdout) || !strings.Contains(r.stderr, tt.stderr) || (r.code != 0) != (tt.stderr != "") {
			t.Errorf("%s: %+v", tt.line, r)
		}
	}
	for _, topic := range topics {
		if _, ok := find(commands[:], topic.Name); ok {
			t.Errorf("%s is a command too", topic.Name)
		}
	}
}
