package config

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of docs/config.md")

// TestDocumentation: the page has every key, as the code describes it.
func TestDocumentation(t *testing.T) {
	const page, begin, end = "../docs/config.md", "<!-- keys: go test ./config -update -->\n", "<!-- end -->"
	var table strings.Builder
	table.WriteString("| key | Docker's | value | default | |\n| --- | --- | --- | --- | --- |\n")
	for _, k := range Keys {
		docker := ""
		if k.Docker != "" {
			docker = "`" + k.Docker + "`"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s | %s |\n", k.Name, docker, k.Kind, cmp.Or(k.Default, "none"), k.About)
	}
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, _ := strings.Cut(string(b), begin)
	have, after, ok := strings.Cut(rest, end)
	if !ok {
		t.Fatalf("%s has no %s", page, begin)
	}
	if *update {
		if err := os.WriteFile(page, []byte(before+begin+table.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if have != table.String() {
		t.Errorf("%s is not what the code says: go test ./config -run Documentation -update\nwant\n%s\ngot\n%s", page, table.String(), have)
	}
}
