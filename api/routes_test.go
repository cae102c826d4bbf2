package api

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDocumented compares the route table with docs/api.md, both ways.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("`((?:GET|HEAD|POST|PUT|DELETE) /[^` ]*)`").FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = true
	}
	for _, r := range table {
		call := r.method + " " + r.pattern
		if !documented[call] && !strings.HasPrefix(r.pattern, "/hull/") {
			t.Errorf("%s is not in docs/api.md", call)
		}
		delete(documented, call)
	}
	for call := range documented {
		t.Errorf("docs/api.md has %s, and there is no such route", call)
	}
}
